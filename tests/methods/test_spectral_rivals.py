"""Recursive normalised cuts, deep spectral and TokenCut; and what all four spectral methods promise on degenerate images and any threads."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import check_tree

from uss_dagster import registry
from uss_dagster.backbones.base import Features
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.partition import normalised_cuts
from uss_dagster.methods import deep_spectral, ncut_recursive, tokencut
from uss_dagster.regions import Regions

NAMES = ("deep_spectral", "hierarchy_agnostic", "ncut_recursive", "tokencut")


def run(name: str, sample: Sample, **values: object) -> Regions:
    module = registry.load("method", name)
    return module.segment(sample, registry.build_params(module.SPEC.params, values, name))


def of_tokens(tokens: np.ndarray, cell: int = 4, comparable: bool = True) -> Sample:
    """A sample of these tokens over an image that shows their first three channels."""
    shown = np.zeros((*tokens.shape[:2], 3))
    shown[:, :, : min(3, tokens.shape[2])] = tokens[:, :, :3]
    image = np.kron(np.clip(60 + 80 * shown, 0, 255).astype(np.uint8), np.ones((cell, cell, 1), np.uint8))
    return Sample("image", image, Features({"tokens": tokens, "keys": tokens}, comparable=comparable))


def blocks(rows: int, columns: int, side: int = 6, noise: float = 0.05) -> tuple[Sample, np.ndarray]:
    """(sample, block of each pixel): rows × columns blocks of tokens in directions of their own."""
    y, x = np.indices((rows * side, columns * side)) // side
    block = y * columns + x
    tokens = np.eye(rows * columns)[block]
    tokens = tokens + noise * np.random.default_rng(0).normal(size=tokens.shape)
    return of_tokens(tokens), np.kron(block, np.ones((4, 4), int))


def masks(regions: Regions) -> set[bytes]:
    return {regions.mask(i).tobytes() for i in range(len(regions))}


def everything(regions: Regions) -> bytes:
    fields = ("atoms", "members", "parent", "level", "score", "label")
    return b"".join(getattr(regions, field).tobytes() for field in fields) + "".join(regions.source).encode()


# -- all four ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("graph", ["dense", "local"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 3), (2, 2), (1, 40), (40, 1), (7, 5)])
def test_degenerate_images(name: str, graph: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    halves = np.zeros((*shape, 4))
    halves[: (shape[0] + 1) // 2, : (shape[1] + 1) // 2, 0] = 1
    halves[:, :, 1] = 1 - halves[:, :, 0]
    kinds = {
        "zero": np.zeros((*shape, 4)),
        "one colour": np.full((*shape, 4), 0.7),
        "noise": rng.normal(size=(*shape, 4)),
        "halves": halves,
    }
    for kind, tokens in kinds.items():
        sample = of_tokens(tokens, cell=3)
        regions = run(name, sample, graph=graph)
        check_tree(regions, sample.image.shape[:2])
        if kind in ("zero", "one colour") or shape == (1, 1):
            assert len(regions) == 1, kind
        if kind == "halves" and graph == "dense" and 40 in shape and name != "deep_spectral":  # its colour graph sees more in a strip
            assert np.kron(halves[:, :, 0], np.ones((3, 3))).astype(bool).tobytes() in masks(regions)
        if kind == "halves" and shape == (1, 2) and name in ("hierarchy_agnostic", "tokencut") and graph == "dense":
            assert len(regions) == 3
        if shape == (1, 3) and name == "hierarchy_agnostic" and graph == "dense":
            assert len(regions) == 1, kind  # three cells have no gap that counts


@pytest.mark.parametrize("name", NAMES)
def test_one_pixel_for_many_tokens_and_one_token_for_many_pixels(name: str) -> None:
    for graph in ("dense", "local"):
        tokens, image = (
            np.random.default_rng(0).normal(size=(4, 4, 3)),
            np.random.default_rng(0).integers(0, 256, (2, 3, 3)).astype(np.uint8),
        )
        regions = run(name, Sample("small", image, Features({"tokens": tokens, "keys": tokens})), graph=graph).pruned()
        assert regions.shape == (2, 3)
        assert regions.is_root[0]
        wide = np.kron(image, np.ones((20, 20, 1), np.uint8))
        regions = run(name, Sample("wide", wide, Features({"tokens": tokens[:1, :1], "keys": tokens[:1, :1]})), graph=graph)
        check_tree(regions, (40, 60))
        assert graph == "local" or len(regions) == 1


@pytest.mark.parametrize("name", NAMES)
def test_disconnected_graph(name: str) -> None:
    """Two groups of opposite tokens: no weight at all across on a dense graph."""
    tokens = np.zeros((6, 8, 2))
    tokens[:, :3], tokens[:, 3:] = [1, 0], [-1, 0]
    regions = run(name, of_tokens(tokens), graph="dense", **({"colour_weight": 0.0} if name == "deep_spectral" else {}))
    check_tree(regions, (24, 32))
    left = np.zeros((24, 32), bool)
    left[:, :12] = True
    assert left.tobytes() in masks(regions) or name == "hierarchy_agnostic"
    if name == "hierarchy_agnostic":
        assert left.tobytes() in masks(run(name, of_tokens(tokens), graph="dense", overclustering="none"))


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused(name: str) -> None:
    tokens = np.ones((4, 4, 3))
    tokens[1, 1, 1] = np.inf
    with pytest.raises(BadData, match="extract it again"):
        run(name, of_tokens(tokens))
    with pytest.raises(UsageError, match="no facet"):
        run(name, Sample("image", np.zeros((4, 4, 3), np.uint8), Features({"cls": np.zeros(3)})))
    for bad in ({"graph": "sparse"}, {"refine": "sharpen"}, {"temperature": 0.0}):
        with pytest.raises(UsageError):
            run(name, of_tokens(np.ones((4, 4, 3))), **bad)


@pytest.mark.parametrize("name", NAMES)
def test_graph_follows_the_backbone(name: str) -> None:
    sample, _ = blocks(2, 2)
    handmade = Sample(sample.image_id, sample.image, Features({facet: sample.features[facet] for facet in ("tokens", "keys")}))
    deep, graph = ("graph of leaves", "leaves") if name == "hierarchy_agnostic" else ("dense graph", "dense")
    assert set(run(name, sample).source) == {deep}
    assert set(run(name, handmade).source) == {"local graph"}
    assert everything(run(name, handmade, graph=graph)) == everything(run(name, sample))


_PROGRAM = """
import hashlib, sys
sys.path[:0] = {folders!r}
from test_spectral_rivals import NAMES, blocks, everything, run
sample, _ = blocks(3, 3, side=9, noise=0.4)
for name in NAMES:
    for graph in ("dense", "local"):
        print(name, graph, hashlib.sha256(everything(run(name, sample, graph=graph))).hexdigest())
"""


def test_same_bytes_on_one_thread_and_two() -> None:
    printed = []
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        program = _PROGRAM.format(folders=[str(folder) for folder in Path(__file__).parents[:2]])
        printed.append(subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout)
    assert printed[0] == printed[1]
    assert len(set(printed[0].split()[2::3])) == 8


# -- recursive normalised cuts ----------------------------------------------------------------------


@given(st.integers(0, 100_000), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_best_cut_is_the_best_of_all_thresholds(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    affinity = np.triu(rng.random((n, n)) ** 3, 1)
    affinity += affinity.T
    degree = affinity.sum(axis=1)
    # second generalised eigenvector, by another road
    values, vectors = np.linalg.eig(np.eye(n) - affinity / degree[:, None])
    vector = vectors[:, np.argsort(values.real)[1]].real
    sides = [vector > t for t in vector]
    expected = min(normalised_cuts(affinity, side.astype(int)).sum() for side in sides if side.any())
    found = ncut_recursive.best_cut(affinity, np.full(n, 1 / n), 0.0)
    assert found is not None
    side, cuts = found
    assert not side[0]
    assert cuts.sum() == pytest.approx(expected)
    np.testing.assert_allclose(cuts, normalised_cuts(affinity, side.astype(int)))


def test_each_side_has_the_least_area() -> None:
    affinity = np.ones((6, 6)) - np.eye(6)
    affinity[0, 1:] = affinity[1:, 0] = 0.001
    loose, tight = (ncut_recursive.best_cut(affinity, np.full(6, 1 / 6), least) for least in (0.1, 0.3))
    assert loose is not None
    assert loose[0].tolist() == [False] + [True] * 5
    assert tight is None or 2 <= tight[0].sum() <= 4
    assert ncut_recursive.best_cut(affinity, np.full(6, 1 / 6), 0.6) is None


def test_ncut_recursive_finds_blocks_and_stops_there() -> None:
    sample, block = blocks(2, 3)
    regions = run("ncut_recursive", sample)
    check_tree(regions, block.shape)
    assert {(block == i).tobytes() for i in range(6)} <= masks(regions)
    assert len(regions) == 11
    assert len(run("ncut_recursive", sample, ncut_th=0.0)) == 1
    assert len(run("ncut_recursive", sample, levels=1)) == 3
    children = np.flatnonzero(regions.parent == 0)
    assert (regions.score[children] < 1).all()


# -- deep spectral ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (2, 2), (2, 4)])
def test_deep_spectral_counts_the_blocks_by_the_eigengap(rows: int, columns: int) -> None:
    sample, block = blocks(rows, columns)
    count = rows * columns
    regions = run("deep_spectral", sample, colour_weight=0.0)
    check_tree(regions, block.shape)
    assert len(regions) == 2 * count - 1
    assert {(block == i).tobytes() for i in range(count)} <= masks(regions)
    assert (np.diff(np.sort(regions.level)[count:]) >= 0).all()
    assert len(run("deep_spectral", sample, segments=1)) == 1
    assert len(run("deep_spectral", sample, segments=3)) == 5


def test_the_first_gap_does_not_count() -> None:
    assert deep_spectral.segments_of(np.array([0, 0.5, 0.6, 0.9, 1.0])) == 3
    assert deep_spectral.segments_of(np.array([0, 0.1, 0.8, 0.9])) == 2
    assert deep_spectral.segments_of(np.array([0, 0.9])) == 2


def test_colour_graph_is_the_formula() -> None:
    from skimage.color import rgb2hsv

    image = np.random.default_rng(0).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    place = np.arange(30).reshape(5, 6)
    hue, saturation, value = rgb2hsv(image).reshape(-1, 3).T
    y, x = np.indices((5, 6)).reshape(2, -1)
    points = np.stack([np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue), saturation, value, y / 4, x / 5], axis=1)
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    expected = np.zeros((30, 30))
    for i, j in itertools.permutations(range(30), 2):
        if apart[i, j] < 1 and (j in np.argsort(apart[i])[1:5] or i in np.argsort(apart[j])[1:5]):
            expected[i, j] = 1 - apart[i, j]
    first, second, weight = deep_spectral.colour_graph(image, place, 4)
    found = np.zeros((30, 30))
    found[first, second] = weight
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert expected.any()


# -- TokenCut ---------------------------------------------------------------------------------------


def test_tokencut_keeps_the_part_that_holds_the_seed() -> None:
    """Two things with like keys on a varied ground: one of them is the object, and the sign of no eigenvector matters."""
    rng = np.random.default_rng(0)
    keys = np.zeros((16, 20, 5))
    keys[:, :, 0] = 1
    keys[3:9, 3:9] = keys[12:15, 14:18] = [0, 1, 0, 0, 0]
    keys += 0.1 * rng.normal(size=keys.shape)
    regions = run("tokencut", of_tokens(keys))
    check_tree(regions, (64, 80))
    things = []
    for rows, columns in ((slice(3, 9), slice(3, 9)), (slice(12, 15), slice(14, 18))):
        thing = np.zeros((16, 20), bool)
        thing[rows, columns] = True
        things.append(np.kron(thing, np.ones((4, 4), bool)).tobytes())
    assert regions.parent.tolist() == [-1, 0, 0]
    assert regions.score.tolist() == [1, 1, 0]
    assert regions.mask(1).tobytes() in things
    mirrored = run("tokencut", of_tokens(keys[:, ::-1]))
    assert mirrored.mask(1)[:, ::-1].tobytes() in things


def test_keys_that_are_all_alike_are_joined_by_their_own_distribution() -> None:
    keys = 1 + 0.1 * np.random.default_rng(0).normal(size=(6, 6, 4))
    assert len(run("tokencut", of_tokens(keys), tau_mode="absolute")) == 1
    assert len(run("tokencut", of_tokens(keys), tau_mode="absolute", tau=0.999)) == 3
    assert len(run("tokencut", of_tokens(keys))) == 3


def test_a_common_part_of_all_keys_hides_no_object() -> None:
    """As in DINOv2's keys, the cosines of all pairs lie between 0.6 and 1."""
    keys = np.random.default_rng(0).normal(0, 0.1, size=(12, 16, 6))
    keys[3:9, 4:10, 0] += 1
    keys[:, :, 1] += np.linspace(-0.6, 0.6, 16)
    keys[:, :, 5] += 2
    regions = run("tokencut", of_tokens(keys))
    thing = np.zeros((12, 16), bool)
    thing[3:9, 4:10] = True
    mask = regions.mask(1)
    thing = np.kron(thing, np.ones((4, 4), bool))
    assert (mask & thing).sum() / (mask | thing).sum() > 0.8


def test_binarised_affinity() -> None:
    keys = np.array([[1.0, 0], [0.6, 0.8], [-1, 0], [0, 0]])
    expected = [[1, 1, 0.01, 0.01], [1, 1, 0.01, 0.01], [0.01, 0.01, 1, 0.01], [0.01] * 4]
    for mode in ("absolute", "auto"):
        assert tokencut.binarised(keys, tokencut.Params(tau=0.2, tau_mode=mode, eps=0.01)).tolist() == expected


def test_a_facet_may_be_named() -> None:
    sample, _ = blocks(2, 2)
    other = Sample(
        sample.image_id, sample.image, Features({"tokens": sample.features["keys"], "keys": 0 * sample.features["keys"]}, "b", True)
    )
    assert everything(run("tokencut", other, facet="tokens")) == everything(run("tokencut", sample))
    assert tokencut.SPEC.facets_read(tokencut.Params(facet="tokens")) == ("tokens",)


@pytest.mark.parametrize("linkage", ["ward", "average", "complete", "single"])
def test_agglomerative_clustering_makes_the_blocks(linkage: str) -> None:
    sample, block = blocks(2, 3)
    regions = run("agglomerative", sample, linkage=linkage, most=12)
    check_tree(regions, sample.image.shape[:2])
    assert len(regions) == 23
    assert {(block == b).tobytes() for b in range(6)} <= masks(regions)
    assert (regions.level[regions.parent[1:]] >= regions.level[1:]).all()
    of_keys = run("agglomerative", sample, linkage=linkage, most=12, facet="keys")
    assert everything(of_keys) == everything(regions)
    assert registry.load("method", "agglomerative").SPEC.facets_read(registry.load("method", "agglomerative").Params(facet="keys")) == (
        "keys",
    )
    plain = of_tokens(np.full((3, 4, 5), 0.7))
    assert len(run("agglomerative", plain, linkage=linkage)) == 1


def test_agglomerative_clustering_of_leaves_follows_the_image() -> None:
    sample, block = blocks(2, 2, side=12)
    regions = run("agglomerative", sample, graph="leaves")
    check_tree(regions, sample.image.shape[:2])
    best = [max(np.mean((block == b) == regions.mask(i)) for i in range(len(regions))) for b in range(4)]
    assert min(best) > 0.97
