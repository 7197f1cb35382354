"""The step that methods call: leaf map in, leaf map at image size out."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from uss_dagster.errors import BadData, UsageError
from uss_dagster.pixels import nearest
from uss_dagster.refine.crf import Crf, dense_crf
from uss_dagster.refine.leaves import Refine, _interpolated_norms, prototypes, refine_leaves
from uss_dagster.refine.pamr import Pamr
from uss_dagster.refine.upsampling import bicubic
from uss_dagster.regions import Regions
from uss_dagster.registry import build_params, params_to_dict

METHODS = ("none", "crf", "pamr", "guided")


def disc(height: int = 96, width: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """An image of a disc on two-coloured ground with noise, and its true labels 0..2."""
    y, x = np.indices((height, width))
    truth = np.where((y - 45) ** 2 + (x - 58) ** 2 < 28**2, 2, (x > 84).astype(int))
    colours = np.array([(60, 90, 50), (150, 150, 190), (190, 60, 40)])
    noise = np.random.default_rng(0).normal(0, 3, (height, width, 3))
    return np.clip(colours[truth] + noise, 0, 255).astype(np.uint8), truth


def on_grid(truth: np.ndarray, patch: int) -> np.ndarray:
    return nearest(truth, truth.shape[0] // patch, truth.shape[1] // patch)


@pytest.mark.parametrize(("method", "wrong"), [("crf", 0.005), ("pamr", 0.02), ("guided", 0.005)])
@pytest.mark.parametrize("with_tokens", [False, True])
def test_borders_move_to_the_image(method: str, wrong: float, with_tokens: bool) -> None:
    image, truth = disc()
    leaf = on_grid(truth, 8)
    tokens = np.eye(3)[leaf] + np.random.default_rng(1).normal(0.7, 0.05, (*leaf.shape, 3)) if with_tokens else None
    plain = refine_leaves(leaf, image, Refine("none"))
    refined = refine_leaves(leaf, image, Refine(method), tokens)  # type: ignore[arg-type]
    assert (plain != truth).mean() > 0.04
    assert (refined != truth).mean() < wrong


@pytest.mark.parametrize("method", METHODS)
def test_leaf_numbers_and_type_are_kept_and_the_tree_stands(method: str) -> None:
    image, truth = disc()
    numbers = np.array([3, 1, 4], np.int32)  # node 2 holds leaves 3 and 4
    refined = refine_leaves(numbers[on_grid(truth, 8)], image, Refine(method))  # type: ignore[arg-type]
    assert refined.shape == image.shape[:2]
    assert refined.dtype == np.int32
    assert set(np.unique(refined)) == {1, 3, 4}
    regions = Regions.from_tree(refined, [-1, 0, 0, 2, 2])
    np.testing.assert_array_equal(regions.masks()[2], (refined == 3) | (refined == 4))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (15, 16)])
@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (20, 20)])
def test_degenerate_images_and_grids(method: str, size: tuple[int, int], grid: tuple[int, int]) -> None:
    """More leaves than pixels, one leaf, one colour, strips, grids finer than the image."""
    rng = np.random.default_rng(0)
    how = Refine(method, pamr=Pamr(dilations=(1, 2)))  # type: ignore[arg-type]
    for image in (np.full((*size, 3), 7, np.uint8), rng.integers(0, 256, (*size, 3), dtype=np.uint8)):
        for leaf in (np.zeros(grid, int), np.arange(grid[0] * grid[1]).reshape(grid) % 60):
            for tokens in (None, rng.normal(size=(*grid, 4)), np.zeros((2, 3, 4))):
                refined = refine_leaves(leaf, image, how, tokens)
                assert refined.shape == size
                assert set(np.unique(refined)) <= set(np.unique(leaf))


def test_a_leaf_may_become_empty() -> None:
    image, truth = disc()
    leaf = on_grid(truth, 8)
    leaf[1, 1] = 9  # one cell that nothing in the image speaks for
    refined = refine_leaves(leaf, image, Refine("crf"))
    assert 9 not in refined
    assert (refined != truth).mean() < 0.01


def test_soft_leaves_from_tokens_are_those_of_the_upsampled_tokens() -> None:
    """The definition, step by step: bicubic tokens, length 1, softmax of cosine / 0.1, CRF, argmax."""
    image, _ = disc(40, 48)
    rng = np.random.default_rng(0)
    leaf, tokens = np.arange(30).reshape(5, 6) // 10, rng.normal(size=(5, 6, 7))
    wide = bicubic(tokens.transpose(2, 0, 1), 40, 48)
    np.testing.assert_allclose(_interpolated_norms(tokens, 40, 48), np.linalg.norm(wide, axis=0), rtol=1e-4)
    means = np.stack([tokens[leaf == i].mean(axis=0) for i in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose(prototypes(leaf, tokens, 3), means, atol=1e-12)
    p = np.exp(np.einsum("lc,chw->lhw", means, wide / np.linalg.norm(wide, axis=0)) / 0.1)
    expected = dense_crf(p / p.sum(axis=0), image)
    clear = np.sort(expected, axis=0)[-1] - np.sort(expected, axis=0)[-2] > 1e-3
    refined = refine_leaves(leaf, image, Refine("crf"), tokens)
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(refined[clear], expected.argmax(axis=0)[clear])


def test_prototypes_on_a_finer_leaf_map_weigh_cells_by_pixels() -> None:
    tokens = np.array([[[1.0, 0], [0, 1]]])
    leaf = np.array([[0, 0, 0, 1]])
    np.testing.assert_allclose(prototypes(leaf, tokens, 3), np.array([[2 / 5**0.5, 1 / 5**0.5], [0, 1], [0, 0]]))


def test_a_large_image_is_refined_at_a_bounded_size() -> None:
    image, truth = disc()
    leaf = on_grid(truth, 8)
    large = image.repeat(4, axis=0).repeat(4, axis=1)
    refined = refine_leaves(leaf, large, Refine("crf", max_pixels=96 * 120))
    np.testing.assert_array_equal(refined, refine_leaves(leaf, image, Refine("crf")).repeat(4, axis=0).repeat(4, axis=1))


def test_parameters_go_through_yaml() -> None:
    how = Refine("crf", crf=Crf(gauss_std=2.0), pamr=Pamr(dilations=(1, 3)))
    text = yaml.safe_dump(params_to_dict(how))
    assert build_params(Refine, yaml.safe_load(text), "refine") == how
    assert Refine.supervised is False
    assert "supervised" not in dataclasses.asdict(how)


def test_broken_requests_are_refused() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    leaf = np.arange(4).reshape(2, 2)
    with pytest.raises(UsageError, match="Did you mean 'crf'"):
        Refine("crff")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="certainty"):
        Refine("crf", certainty=0.2)
    with pytest.raises(UsageError, match="temperature"):
        Refine("crf", temperature=0)
    with pytest.raises(UsageError, match="leaf map of shape"):
        refine_leaves(leaf[0], image, Refine("crf"))
    with pytest.raises(BadData, match="not a grid"):
        refine_leaves(leaf, image, Refine("crf"), np.full((2, 2, 3), np.nan))


PROGRAM = """
import hashlib, numpy as np
from uss_dagster.refine.leaves import Refine, refine_leaves
rng = np.random.default_rng(0)
image = (np.indices((96, 80)).sum(axis=0)[..., None] + rng.integers(0, 60, (96, 80, 3))).astype(np.uint8)
leaf, tokens = rng.integers(0, 25, (12, 10)), rng.normal(size=(12, 10, 64)).astype(np.float32)
for method in ("crf", "pamr", "guided"):
    for given in (None, tokens):
        print(hashlib.sha256(refine_leaves(leaf, image, Refine(method), given).tobytes()).hexdigest())
"""


def test_same_bytes_on_one_thread_and_on_four() -> None:
    prints = []
    for threads in ("1", "4"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        environment = os.environ | dict.fromkeys(names, threads) | {"OMP_WAIT_POLICY": "PASSIVE"}
        prints.append(subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(prints[0].split()) == 6
    assert prints[0] == prints[1]


def test_importing_the_step_imports_nothing_heavy() -> None:
    code = "import uss_dagster.refine.leaves, sys; print([m for m in ('numba', 'torch', 'scipy', 'PIL', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
