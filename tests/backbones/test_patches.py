"""The embedded backbone: shapes, whitening, edges, and images without anything in them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.backbones import patches
from uss_dagster.backbones.base import Features
from uss_dagster.errors import BadData, UsageError
from uss_dagster.pixels import to_lab

ALL = patches.Params(facets=patches.SPEC.facets)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def half_and_half(height: int = 96, width: int = 128) -> np.ndarray:
    """Black on the left, coloured noise of 4-pixel squares on the right."""
    image = np.repeat(np.repeat(noise(height // 4, width // 4), 4, 0), 4, 1)
    image[:, : width // 2] = 0
    return image


def test_shapes_and_types() -> None:
    image = noise(61, 90)
    facets = patches.load(ALL)([image])[0]
    assert {name: a.shape for name, a in facets.items()} == {
        "tokens": (16, 23, 50),
        "keys": (16, 23, 18),
        "cls": (100,),
        "cls_attention": (16, 23),
        "attention.index": (16 * 23, 25),
        "attention.weight": (16 * 23, 25),
    }
    assert facets.pop("attention.index").dtype == np.int32
    assert all(a.dtype == np.float32 and a.flags.c_contiguous for a in facets.values())
    assert np.allclose(np.linalg.norm(facets["keys"], axis=2), 3, atol=1e-5)
    assert np.isclose(np.linalg.norm(facets["cls"]), 1, atol=1e-6)
    assert np.isclose(facets["cls_attention"].sum(), 1, atol=1e-5)
    assert facets["cls_attention"].min() >= 0
    without = patches.load(patches.Params(facets=("tokens",), dictionary=False, stride=8))([image])[0]
    assert {name: a.shape for name, a in without.items()} == {"tokens": (8, 12, 18)}


def test_same_bytes_in_any_batch() -> None:
    images = [noise(40, 56, seed) for seed in range(3)]
    extract = patches.load(ALL)
    together = extract(images)
    np.random.seed(1)  # noqa: NPY002  # the global generator must not matter
    apart = [extract([image])[0] for image in reversed(images)][::-1]
    for a, b in zip(together, apart, strict=True):
        assert a.keys() == b.keys()
        assert all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_dictionary_depends_on_its_seed_alone() -> None:
    image = half_and_half()
    first, again, other = (patches.load(patches.Params(facets=("tokens", "keys"), seed=seed))([image])[0] for seed in (0, 0, 1))
    assert first["tokens"].tobytes() == again["tokens"].tobytes()
    assert not np.array_equal(first["tokens"], other["tokens"])
    assert np.array_equal(first["keys"], other["keys"])


def test_whitening_leaves_each_direction_its_known_share() -> None:
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(50, 60, 5)) @ rng.normal(size=(5, 5)) + 3
    z = patches.whiten(mixed.astype(np.float32)).reshape(-1, 5).astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(mixed.reshape(-1, 5).T, bias=True))
    along = vectors.T @ np.cov(z.T, bias=True) @ vectors
    assert np.allclose(along, np.diag(values / (values + 0.05 * values[-1])), atol=1e-4)
    assert np.allclose(z.mean(0), 0, atol=1e-4)


def test_bank_measures_a_ramp() -> None:
    """L rising by 1/100 of its range a pixel: the derivative across is sigma/100, along the ramp's lines nothing."""
    lab = np.zeros((64, 80, 3), np.float32)
    lab[:, :, 0] = np.arange(80)
    bank = patches.bank_features(lab)[32, 40]
    assert np.isclose(bank[0], 2.0)
    for scale, sigma in enumerate((1.0, 2.0, 4.0)):
        slope = np.array([1, np.sqrt(0.5), 0, np.sqrt(0.5), 0]) * sigma / 100
        assert np.allclose(bank[3 + 5 * scale : 8 + 5 * scale], np.sqrt(slope + 1e-6) / 0.12, atol=2e-3)


def test_dictionary_energy_and_decorrelation() -> None:
    lab = to_lab(noise(120, 160))
    features = patches.dictionary_features(lab)
    assert features.shape == (30, 40, 32)
    flat = features.reshape(-1, 32).astype(np.float64)
    assert np.isclose((flat**2).sum(1).mean(), 15, rtol=1e-4)
    covariance = np.cov(flat.T, bias=True)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-4


def test_black_and_textured_halves_separate() -> None:
    tokens = patches.load(patches.Params())([half_and_half()])[0]["tokens"]
    w = tokens.shape[1]
    left, right = tokens[:, : w // 2 - 5].reshape(-1, 50), tokens[:, w // 2 + 5 :].reshape(-1, 50)
    centres = np.stack([left.mean(0), right.mean(0)])
    for side, points in enumerate((left, right)):
        nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)
        assert (nearest == side).mean() > 0.99


def test_object_in_the_middle_stands_out_from_the_border() -> None:
    image = np.full((96, 96, 3), 120, np.uint8)
    image[32:64, 32:64] = (200, 30, 30)
    weight = patches.load(patches.Params(facets=("cls_attention",)))([image])[0]["cls_attention"]
    assert weight[10:14, 10:14].mean() > 5 * weight[:4].mean()


def test_attention_is_a_local_walk_that_edges_block() -> None:
    image = np.full((64, 64, 3), 60, np.uint8)
    image[:, 32:] = 190
    facets = patches.load(ALL)([image])[0]
    index, weight = facets["attention.index"], facets["attention.weight"]
    h, w = facets["tokens"].shape[:2]
    assert np.allclose(weight.sum(1), 1, atol=1e-5)
    assert weight.min() >= 0
    assert np.allclose(weight.astype(np.float16).astype(np.float32).sum(1), 1, atol=2e-3)
    rows, columns = np.divmod(index, w)
    own_row, own_column = np.divmod(np.arange(h * w)[:, None], w)
    assert np.abs(rows - own_row).max() == np.abs(columns - own_column).max() == 2

    matrix = Features(facets).sparse_attention().toarray()
    assert np.allclose(matrix.sum(1), 1, atol=1e-5)
    cell = 8 * w + 7  # the last cell left of the edge, which lies between columns 7 and 8
    assert matrix[cell, cell - 1] > 10 * matrix[cell, cell + 1] > 0
    corner = index[0] != 0
    assert corner.sum() == 8, "a corner cell has 8 neighbours within two cells"
    assert (weight[0][~corner] > 0).sum() == 1, "of those that point to itself only the one that is itself has weight"


def test_walk_weights_are_the_formula() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5, 4, 3)).astype(np.float32)
    edge = np.full((20, 16), 0.25, np.float32)
    index, weight = patches.local_walk(z, edge, radius=1, temperature=0.5)
    flat = z.reshape(20, 3)
    for i in range(20):
        neighbours = [j for j in range(20) if max(abs(i // 4 - j // 4), abs(i % 4 - j % 4)) <= 1]
        raw = {j: np.exp(-(0.3 * np.linalg.norm(flat[i] - flat[j]) + (0.25 if i != j else 0)) / 0.5) for j in neighbours}
        got = {j: weight[i][(index[i] == j) & (weight[i] > 0)].sum() for j in neighbours}
        assert got == pytest.approx({j: value / sum(raw.values()) for j, value in raw.items()}, rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (3, 5), (8, 8), (40, 33)])
@pytest.mark.parametrize("kind", ["black", "one colour", "noise"])
def test_images_with_little_in_them(shape: tuple[int, int], kind: str) -> None:
    image = {"black": np.zeros((*shape, 3), np.uint8), "one colour": np.full((*shape, 3), (90, 200, 30), np.uint8), "noise": noise(*shape)}[
        kind
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        facets = patches.load(ALL)([image])[0]
        half = {name: a.astype(np.float16) for name, a in facets.items() if a.dtype == np.float32}
    h, w = -(-shape[0] // 4), -(-shape[1] // 4)
    assert facets["tokens"].shape == (h, w, 50)
    assert all(np.isfinite(a).all() for a in half.values())
    assert np.isclose(facets["cls_attention"].sum(), 1, atol=1e-5)
    assert np.allclose(facets["attention.weight"].sum(1), 1, atol=1e-5)
    if kind != "noise":
        assert np.allclose(facets["tokens"], 0, atol=1e-3)
        assert np.allclose(facets["cls_attention"], 1 / (h * w))


def test_one_space_for_all_images_in_cls() -> None:
    extract = patches.load(patches.Params(facets=("cls",)))
    red, reddish, blue = (np.full((40, 40, 3), colour, np.uint8) for colour in ((200, 30, 30), (190, 40, 30), (30, 30, 200)))
    a, b, c = (facets["cls"] for facets in extract([red, reddish, blue]))
    assert a @ b > 0.9 > a @ c


def test_large_images_are_shrunk_and_middling_ones_are_not() -> None:
    extract = patches.load(patches.Params(facets=("cls_attention",)))
    large, middling = extract([np.zeros((900, 1200, 3), np.uint8), np.zeros((100, 640, 3), np.uint8)])
    assert large["cls_attention"].shape == (90, 120)
    assert middling["cls_attention"].shape == (25, 160)


def test_cells_tile_the_image() -> None:
    matrix = patches._resampling(10, 4)
    assert np.allclose(matrix[0], [0.4, 0.4, 0.2, 0, 0, 0, 0, 0, 0, 0])
    assert np.allclose(matrix.sum(0), 0.4), "each pixel counts the same"
    finer = patches._resampling(3, 6)
    assert np.allclose(finer @ [0, 1, 2], [0, 0.25, 0.75, 1.25, 1.75, 2])


def test_refusals() -> None:
    with pytest.raises(UsageError, match="Did you mean 'tokens'"):
        patches.load(patches.Params(facets=("token",)))
    with pytest.raises(UsageError, match="'facets' is empty"):
        patches.load(patches.Params(facets=()))
    with pytest.raises(BadData, match="expected uint8"):
        patches.load(patches.Params())([np.zeros((8, 8), np.uint8)])
    with pytest.raises(UsageError, match="stride is 0"):
        registry.build_params(patches.Params, {"stride": 0}, "backbone 'patches'")
