"""Interpolation against its definitions and torch, the guided filter against windows solved one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.region_graph import region_means
from uss_dagster.pixels import bilinear, nearest
from uss_dagster.refine.upsampling import bicubic, guided_filter, guided_labels
from uss_dagster.regions import Regions

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(sizes, st.tuples(st.integers(1, 30), st.integers(1, 30)))
@settings(max_examples=60, deadline=None)
def test_nearest_is_the_cell_under_the_pixel_centre(grid: tuple[int, int], size: tuple[int, int]) -> None:
    labels = np.arange(grid[0] * grid[1]).reshape(grid)
    ours = nearest(labels, *size)
    expected = [
        [labels[(2 * y + 1) * grid[0] // (2 * size[0]), (2 * x + 1) * grid[1] // (2 * size[1])] for x in range(size[1])]
        for y in range(size[0])
    ]
    np.testing.assert_array_equal(ours, expected)
    regions = Regions.from_masks([labels == v for v in labels.ravel()]).resized(*size)
    np.testing.assert_array_equal(np.array(regions.masks()).argmax(axis=0), ours)


@pytest.mark.parametrize("size", [(23, 30), (5, 7), (3, 2), (1, 40)])
@pytest.mark.parametrize("grid", [(5, 7), (1, 4), (1, 1)])
def test_interpolation_is_that_of_the_region_graph_and_of_torch(grid: tuple[int, int], size: tuple[int, int]) -> None:
    import torch

    maps = np.random.default_rng(0).normal(size=(3, *grid))
    given_maps = torch.from_numpy(maps)[None]
    pixel = np.arange(size[0] * size[1]).reshape(size)
    np.testing.assert_allclose(bilinear(maps, *size).reshape(3, -1).T, region_means(pixel, pixel.size, maps.transpose(1, 2, 0)), atol=1e-12)
    for ours, mode in ((bilinear, "bilinear"), (bicubic, "bicubic")):
        theirs = torch.nn.functional.interpolate(given_maps, size=size, mode=mode, align_corners=False)[0].numpy()
        np.testing.assert_allclose(ours(maps, *size), theirs, atol=1e-10)


def test_whole_numbers_are_interpolated_as_fractions() -> None:
    np.testing.assert_allclose(bilinear(np.array([[0, 1]]), 1, 4), [[0, 0.25, 0.75, 1]])


def windows(soft: np.ndarray, image: np.ndarray, radius: int, eps: float) -> np.ndarray:
    """One ridge regression for each window, then the mean over the windows that hold a pixel."""
    height, width = soft.shape
    colour = image / 255
    total, count = np.zeros(soft.shape), np.zeros(soft.shape)
    for y in range(height):
        for x in range(width):
            part = np.s_[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            c, p = colour[part].reshape(-1, 3), soft[part].ravel()
            apart = c - c.mean(axis=0)
            slope = np.linalg.solve(apart.T @ apart / len(c) + eps * np.eye(3), apart.T @ (p - p.mean()) / len(c))
            total[part] += colour[part] @ slope + p.mean() - slope @ c.mean(axis=0)
            count[part] += 1
    return total / count


@pytest.mark.parametrize("size", [(14, 17), (1, 20), (20, 1), (2, 2)])
@pytest.mark.parametrize("radius", [1, 3, 30])
def test_guided_filter_against_windows(size: tuple[int, int], radius: int) -> None:
    rng = np.random.default_rng(0)
    image, maps = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.random((2, *size))
    ours = guided_filter(maps, image, radius=radius, eps=1e-2)
    np.testing.assert_allclose(ours, [windows(m, image, radius, 1e-2) for m in maps], atol=1e-9)


@given(st.integers(0, 1000), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_maps_with_small_support_are_filtered_whole(seed: int, radius: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (16, 19, 3), dtype=np.uint8)
    maps = np.zeros((3, 16, 19))
    y, x = rng.integers(0, 14), rng.integers(0, 16)
    maps[0, y : y + 2, x : x + 3] = rng.random(maps[0, y : y + 2, x : x + 3].shape)
    maps[1] = 1 - maps[0]
    ours = guided_filter(maps, image, radius=radius, eps=1e-3)
    np.testing.assert_allclose(ours, [windows(m, image, radius, 1e-3) for m in maps], atol=1e-9)
    assert not ours[2].any()
    np.testing.assert_array_equal(guided_labels(maps, image, radius=radius, eps=1e-3), ours.argmax(axis=0))


def test_a_coarse_border_moves_to_the_edge_of_the_image() -> None:
    image = np.full((48, 48, 3), 40, np.uint8)
    image[:, 21:] = (90, 160, 200)
    cells = np.zeros((2, 6, 6))
    cells[0, :, :3], cells[1, :, 3:] = 1, 1
    labels = guided_labels(bilinear(cells, 48, 48), image, radius=8, eps=1e-4)
    np.testing.assert_array_equal(labels, np.broadcast_to(np.arange(48) >= 21, (48, 48)))


def test_broken_requests_are_refused() -> None:
    image, maps = np.zeros((4, 5, 3), np.uint8), np.ones((2, 4, 5))
    with pytest.raises(BadData, match="NaN"):
        guided_filter(maps * np.nan, image)
    with pytest.raises(UsageError, match="expected a uint8 image"):
        guided_filter(maps, image[:3])
    with pytest.raises(UsageError, match="radius 0"):
        guided_filter(maps, image, radius=0)
