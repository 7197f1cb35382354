"""The watershed against the definition of minima and a plain heap, and what its leaves promise."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.graphs._watershed_kernel import flood
from uss_dagster.graphs.superpixels import connected_parts
from uss_dagster.graphs.watershed import LEVELS, colour_leaves, contour_leaves, regional_minima, watershed


def random_levels(seed: int, height: int, width: int, highest: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest + 1, (height, width)).astype(np.int32)


def flooded_by_heap(levels: np.ndarray, markers: np.ndarray) -> np.ndarray:
    """Meyer's flooding with one heap of (level, arrival)."""
    labels = markers.copy()
    queue = [(int(levels[p]), k, p) for k, p in enumerate(zip(*np.nonzero(markers), strict=True))]
    heapq.heapify(queue)
    arrivals = len(queue)
    while queue:
        _, _, (y, x) = heapq.heappop(queue)
        for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if 0 <= v < labels.shape[0] and 0 <= u < labels.shape[1] and not labels[v, u]:
                labels[v, u] = labels[y, x]
                heapq.heappush(queue, (int(levels[v, u]), arrivals, (v, u)))
                arrivals += 1
    return labels


def minima_by_search(levels: np.ndarray) -> np.ndarray:
    """Markers by their definition: plateaus without a lower neighbour, one marker for each 4-connected part."""
    height, width = levels.shape

    def part(start: tuple[int, int], steps: list[tuple[int, int]], inside: np.ndarray) -> set[tuple[int, int]]:
        part, stack = {start}, [start]
        while stack:
            y, x = stack.pop()
            for v, u in ((y + dy, x + dx) for dy, dx in steps):
                if 0 <= v < height and 0 <= u < width and inside[v, u] and (v, u) not in part:
                    part.add((v, u))
                    stack.append((v, u))
        return part

    eight = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    padded = np.pad(levels, 1, constant_values=levels.max() + 1)
    lowest = np.ones(levels.shape, bool)
    for pixel in np.ndindex(levels.shape):
        plateau = part(pixel, eight, levels == levels[pixel])
        lowest[pixel] = all(padded[y : y + 3, x : x + 3].min() >= levels[pixel] for y, x in plateau)
    markers = np.zeros(levels.shape, np.int32)
    for pixel in np.ndindex(levels.shape):
        if lowest[pixel] and not markers[pixel]:
            markers[tuple(np.array(sorted(part(pixel, [(-1, 0), (0, -1), (0, 1), (1, 0)], lowest))).T)] = markers.max() + 1
    return markers


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**20), st.integers(1, 10), st.integers(1, 10), st.sampled_from([0, 1, 3, 40]))
def test_minima_are_plateaus_without_a_lower_neighbour(seed: int, height: int, width: int, highest: int) -> None:
    levels = random_levels(seed, height, width, highest)
    markers = regional_minima(levels)
    assert markers.dtype == np.int32
    np.testing.assert_array_equal(markers, minima_by_search(levels))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**20), st.integers(1, 24), st.integers(1, 24), st.sampled_from([0, 1, 3, 40]))
def test_flooding(seed: int, height: int, width: int, highest: int) -> None:
    levels = random_levels(seed, height, width, highest)
    markers = regional_minima(levels)
    flooded = markers.copy()
    flood(levels, flooded, highest)
    np.testing.assert_array_equal(flooded, flooded_by_heap(levels, markers))


def test_leaves_are_connected_and_numbered() -> None:
    from scipy import ndimage

    strength = ndimage.gaussian_filter(np.random.default_rng(3).random((40, 60)), 1.5)
    labels = watershed(strength)
    assert sorted(set(labels.ravel().tolist())) == list(range(int(labels.max()) + 1))
    assert connected_parts(labels).max() == labels.max()


def test_lines_run_along_the_ridge() -> None:
    """A cross of strength 1 cuts a picture into four; smoothing does not move it."""
    strength = np.zeros((30, 40), np.float32)
    strength[14:16] = strength[:, 19:21] = 1
    labels = contour_leaves(strength, 1.0)
    assert labels.max() == 3
    assert [len(np.unique(part)) for part in (labels[:15, :20], labels[:15, 20:], labels[15:, :20], labels[15:, 20:])] == [1] * 4


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_a_plain_map_is_one_leaf(shape: tuple[int, int]) -> None:
    assert contour_leaves(np.full(shape, 0.3, np.float32)).tolist() == np.zeros(shape, int).tolist()


def test_differences_below_a_level_do_not_count() -> None:
    bumps = 0.5 + np.random.default_rng(0).uniform(0, 0.3 / LEVELS, (20, 20))
    assert watershed(bumps).max() == 0


def test_pieces_of_a_picture_end_where_colours_change() -> None:
    rng = np.random.default_rng(5)
    image = rng.integers(100, 108, (90, 120, 3)).astype(np.uint8)
    image[20:70, 31:80] = rng.integers(150, 158, (50, 49, 3))
    drawn = np.zeros(image.shape[:2], int)
    drawn[20:70, 31:80] = 1
    labels = colour_leaves(image)
    bright = np.bincount(labels.ravel(), drawn.ravel())
    astray = np.minimum(bright, np.bincount(labels.ravel()) - bright).sum()
    assert astray <= 4  # of the corners' pixels, of 10,800
    assert int(connected_parts(labels).max()) == int(labels.max())


def test_pieces_grow_with_the_picture() -> None:
    """Twelve times the pixels, and less than twice the pieces."""
    rng = np.random.default_rng(6)
    counts = [int(colour_leaves(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).max()) + 1 for side in (300, 1050)]
    assert 1000 < counts[0] < counts[1] < 2 * counts[0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 7)])
def test_small_and_plain_pictures_are_one_piece(shape: tuple[int, int]) -> None:
    assert not colour_leaves(np.full((*shape, 3), 77, np.uint8)).any()
