"""Mask suppression: the release's windowed results, and the exact one against all pairs compared by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.regions import Regions, rle

GOLDEN = Path(__file__).parents[1] / "golden" / "unsam_golden.npz"


def unpacked(packed: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.unpackbits(packed, axis=1)[:, : height * width].reshape(-1, height, width).astype(bool)


def regions_of(masks: np.ndarray) -> Regions:
    return Regions.from_masks(masks, shape=masks.shape[1:])


def pool(seed: int, count: int = 60) -> np.ndarray:
    """Blobs, noisy copies of them, exact copies, and an empty mask."""
    rng = np.random.default_rng(seed)
    blobs = [gaussian_filter(rng.standard_normal((24, 31)), 3) > rng.uniform(0, 0.1) for _ in range(count // 4)]
    noisy = [blob ^ (rng.random(blob.shape) < rng.choice([0.003, 0.02, 0.06])) for blob in blobs * 2]
    masks = np.stack([*blobs, *noisy, *blobs[: count // 4], np.zeros((24, 31), bool)])
    return masks[rng.permutation(len(masks))]


def by_all_pairs(masks: np.ndarray, priority: np.ndarray, iou: float) -> list[int]:
    kept: list[int] = []
    for new in np.argsort(-priority, kind="stable").tolist():
        overlaps = [(masks[new] & masks[old]).sum() / max((masks[new] | masks[old]).sum(), 1) for old in kept]
        same = [np.array_equal(masks[new], masks[old]) for old in kept]
        if not any(overlap > iou for overlap in overlaps) and not any(same):
            kept.append(new)
    return kept


@pytest.mark.parametrize("case", [0, 1])
def test_window_of_five_is_the_release(case: int) -> None:
    golden = np.load(GOLDEN)
    masks = unpacked(golden[f"nms{case}_pool"], 48, 64)
    kept = mask_nms(regions_of(masks), masks.sum(axis=(1, 2)), 0.9, window=5)
    np.testing.assert_array_equal(kept, golden[f"nms{case}_keep"])


def test_six_copies_leave_two_in_a_window_and_one_without() -> None:
    masks = np.repeat(np.eye(7, dtype=bool)[None], 6, axis=0)
    assert mask_nms(regions_of(masks), np.zeros(6), window=5).tolist() == [0, 5]
    assert mask_nms(regions_of(masks), np.zeros(6)).tolist() == [0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.5, 0.8, 0.9, 1.0]), st.booleans())
def test_exact_suppression_equals_all_pairs(seed: int, iou: float, by_area: bool) -> None:
    masks = pool(seed, 24)
    priority = masks.sum(axis=(1, 2)).astype(float) if by_area else np.random.default_rng(seed).integers(0, 5, len(masks)).astype(float)
    assert mask_nms(regions_of(masks), priority, iou).tolist() == by_all_pairs(masks, priority, iou)


def test_regions_codes_and_arrays_agree() -> None:
    masks = pool(3)
    area = masks.sum(axis=(1, 2))
    kept = mask_nms(regions_of(masks), area, 0.8)
    assert 5 < len(kept) < len(masks)
    np.testing.assert_array_equal(mask_nms(regions_of(masks), area, 0.8), kept)
    np.testing.assert_array_equal(mask_nms(rle.encode(masks), area, 0.8), kept)
    np.testing.assert_array_equal(mask_nms(rle.encode(masks), area, 0.8, window=5), mask_nms(regions_of(masks), area, 0.8, window=5))


def test_nothing_in_nothing_out_and_what_is_refused() -> None:
    assert mask_nms(regions_of(np.zeros((0, 4, 4), bool)), np.zeros(0)).shape == (0,)
    with pytest.raises(BadData, match="3 masks were given 2 priorities"):
        mask_nms(regions_of(np.zeros((3, 4, 4), bool)), np.zeros(2))
    with pytest.raises(BadData, match="mask 1 is NaN"):
        mask_nms(regions_of(np.zeros((2, 4, 4), bool)), np.array([1, np.nan]))
    with pytest.raises(UsageError, match=r"iou 1\.5"):
        mask_nms(regions_of(np.zeros((1, 4, 4), bool)), np.ones(1), 1.5)
    with pytest.raises(BadData, match="equally many pixels"):
        mask_nms([*rle.encode(np.ones((1, 3, 3), bool)), *rle.encode(np.ones((1, 4, 4), bool))], np.ones(2))
