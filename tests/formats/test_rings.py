"""Masks as one line: what has holes and thin parts comes back exactly, from Pillow and from OpenCV; separate parts are joined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label
from skimage.morphology import binary_dilation

from uss_dagster.formats.rings import line_of_mask, mask_of_line


def random_mask(height: int, width: int, seed: int, share: float, one_part: bool) -> np.ndarray:
    mask = np.random.default_rng(seed).random((height, width)) < share
    mask[height // 2, width // 2] = True
    if one_part:
        parts = label(mask, connectivity=2)
        mask = parts == parts[height // 2, width // 2]
    return mask


@settings(deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1), st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_a_mask_of_one_part_comes_back(height, width, seed, share):
    mask = random_mask(height, width, seed, share, one_part=True)
    line = line_of_mask(mask)
    assert len(line) >= 3
    assert np.array_equal(mask_of_line(line, mask.shape), mask)


@settings(deadline=None)
@given(st.integers(2, 24), st.integers(2, 24), st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.3, 0.5, 0.7]))
def test_parts_are_joined_by_thin_lines(height, width, seed, share):
    mask = random_mask(height, width, seed, share, one_part=False)
    again = mask_of_line(line_of_mask(mask), mask.shape)
    assert again[mask].all()
    assert label(again, connectivity=2).max() == 1


def test_opencv_fills_the_same_pixels():
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed: no comparison with its fillPoly")
    for seed in range(40):
        mask = random_mask(30, 40, seed, 0.4 + 0.015 * seed, one_part=True)
        if seed % 2:
            mask = binary_dilation(mask)
        drawn = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(drawn, [line_of_mask(mask).astype(np.int32)], 1)
        assert np.array_equal(drawn.astype(bool), mask)


def test_a_rectangle_has_four_points():
    mask = np.zeros((9, 12), bool)
    mask[2:6, 3:9] = True
    assert sorted(map(tuple, line_of_mask(mask).tolist())) == [(3, 2), (3, 5), (8, 2), (8, 5)]
