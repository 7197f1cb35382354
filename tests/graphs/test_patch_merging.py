"""Iterative merging: the release's masks a level, a plain re-scan, and what must hold of any grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.patch_merging import merge_record

GOLDEN = Path(__file__).parents[1] / "golden" / "unsam_golden.npz"
THETAS = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
CASES = ("c00", "c01", "c03", "c04", "c07", "c09", "c12")


def smooth(seed: int, h: int, w: int, channels: int = 8, sigma: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((h, w, channels))
    return gaussian_filter(noise, (sigma, sigma, 0))


def iterative_merge(features: np.ndarray, thetas: list[float], min_patches: int = 4) -> list[np.ndarray]:
    record = merge_record(features, min(thetas))
    return [record.masks(record.clusters_at(theta, min_patches)) for theta in thetas]


def as_set(masks: np.ndarray) -> set[bytes]:
    return {np.ascontiguousarray(mask).tobytes() for mask in masks}


def rescanned(features: np.ndarray, theta: float) -> list[set[int]]:
    """Clusters at one threshold by looking at all pairs before every merge."""
    h, w, channels = features.shape
    clusters = {i: ({i}, features.reshape(h * w, channels)[i].astype(np.float64)) for i in range(h * w)}

    def touch(a: set[int], b: set[int]) -> bool:
        return any((abs(p // w - q // w) + abs(p % w - q % w)) == 1 for p in a for q in b)

    while True:
        pairs = [(i, j) for i in clusters for j in clusters if i < j and touch(clusters[i][0], clusters[j][0])]
        if not pairs:
            return []
        cosine = {
            (i, j): clusters[i][1] @ clusters[j][1] / (np.linalg.norm(clusters[i][1]) * np.linalg.norm(clusters[j][1])) for i, j in pairs
        }
        i, j = max(cosine, key=lambda pair: cosine[pair])
        if cosine[i, j] < theta:
            return [members for members, _ in clusters.values()]
        members, total = clusters.pop(j)
        clusters[i] = clusters[i][0] | members, clusters[i][1] + total


@pytest.mark.parametrize("case", CASES)
def test_every_level_is_the_release(case: str) -> None:
    golden = np.load(GOLDEN)
    features = golden[f"{case}_features"]
    h, w = features.shape[:2]
    masks = np.unpackbits(golden[f"{case}_merge_masks"], axis=1)[:, : h * w].astype(bool)
    for level, found in enumerate(iterative_merge(features, THETAS)):
        assert as_set(found) == as_set(masks[golden[f"{case}_merge_level"] == level])
    halves = iterative_merge(features.astype(np.float16).astype(np.float32), THETAS)
    assert [len(found) for found in halves] == golden[f"{case}_merge16_count"].tolist()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 5))
def test_clusters_are_those_of_a_rescan(seed: int, h: int, w: int) -> None:
    features = smooth(seed, h, w)
    for theta in (0.8, 0.3):
        (found,) = iterative_merge(features, [theta], min_patches=1)
        expected = {frozenset(members) for members in rescanned(features, theta)}
        assert {frozenset(np.flatnonzero(mask).tolist()) for mask in found} == expected


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
def test_levels_nest_and_tile_and_are_connected(seed: int, h: int, w: int) -> None:
    from scipy.ndimage import label

    record = merge_record(smooth(seed, h, w))
    assert len(record.children) == h * w - 1
    assert record.size[-1] == h * w
    finer = None
    for theta in (0.9, 0.6, 0.3, 0.0, -1.1):
        # whether emitted or not: every cluster that stands
        masks = record.masks(record.standing(record.merges_at(theta)))
        if len(masks) == 0:
            continue
        assert (masks.sum(axis=0) == 1).all()
        assert all(label(mask)[1] == 1 for mask in masks)
        if finer is not None:
            for mask in masks:
                assert all((part <= mask).all() or not (part & mask).any() for part in finer)
        finer = masks


def test_the_record_answers_any_thresholds_in_any_order() -> None:
    features = smooth(5, 12, 15)
    together = iterative_merge(features, [0.2, 0.7, 0.5])
    for theta, found in zip([0.2, 0.7, 0.5], together, strict=True):
        assert as_set(found) == as_set(iterative_merge(features, [theta])[0])


def test_a_record_that_stops_early_answers_what_it_reaches_and_refuses_the_rest() -> None:
    features = smooth(8, 10, 14)
    short, whole = merge_record(features, 0.5), merge_record(features)
    assert len(short.children) < len(whole.children)
    for theta in (0.9, 0.5):
        assert as_set(short.masks(short.clusters_at(theta))) == as_set(whole.masks(whole.clusters_at(theta)))
    with pytest.raises(UsageError, match="recorded down to a cosine"):
        short.clusters_at(0.4)


@pytest.mark.parametrize("scale", [1e-20, 0.37, 4.0, 1e20])
def test_scale_of_features_changes_nothing(scale: float) -> None:
    features = smooth(6, 10, 10)
    for before, after in zip(iterative_merge(features, THETAS), iterative_merge(features * scale, THETAS), strict=True):
        assert as_set(before) == as_set(after)


def test_transposed_and_mirrored_grids_give_the_same_clusters() -> None:
    features = smooth(7, 9, 13)
    for turn in (lambda a: a.swapaxes(-1, -2), lambda a: a[..., ::-1, :], lambda a: a[..., ::-1]):
        turned = np.moveaxis(turn(np.moveaxis(features, 2, 0)), 0, 2)
        for before, after in zip(iterative_merge(features, THETAS), iterative_merge(turned, THETAS), strict=True):
            assert as_set(turn(before)) == as_set(after)


def test_equal_weight_merges_and_ties_go_to_the_older_border() -> None:
    # cosine of exactly 0.6 between the two sides: it reaches 0.6
    two = np.array([[[1.0, 0.0], [0.6, 0.8]]])
    assert merge_record(two).merges_at(float(merge_record(two).weight[0])) == 1
    # all borders alike: of patch 1 the left one is the oldest
    assert merge_record(np.ones((2, 2, 1))).children.tolist()[0] == [0, 1]


def test_blank_and_tiny_grids() -> None:
    for features in (np.zeros((6, 5, 3)), np.ones((6, 5, 3)), np.ones((1, 1, 3))):
        assert [len(masks) for masks in iterative_merge(features, [0.5, -2.0])] in ([0, 0], [0, 0])
    strip = iterative_merge(np.repeat([[1.0, 0.0], [0.0, 1.0]], 6, axis=0)[None], [0.5])[0]
    assert strip.shape == (2, 1, 12)
    with pytest.raises(BadData, match="no grid of finite features"):
        iterative_merge(np.full((3, 3, 2), np.nan), [0.5])
    with pytest.raises(BadData, match="no grid of finite features"):
        iterative_merge(np.ones((3, 3)), [0.5])
