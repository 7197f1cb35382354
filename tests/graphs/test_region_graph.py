"""Region adjacency and region means against loops over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.graphs.region_graph import region_graph, region_means
from uss_dagster.pixels import bilinear


def pixel_pairs(labels: np.ndarray, strength: np.ndarray) -> dict[tuple[int, int], list[float]]:
    found: dict[tuple[int, int], list[float]] = {}
    height, width = labels.shape
    for y in range(height):
        for x in range(width):
            for y2, x2 in ((y + 1, x), (y, x + 1)):
                if y2 < height and x2 < width and labels[y, x] != labels[y2, x2]:
                    pair = min(labels[y, x], labels[y2, x2]), max(labels[y, x], labels[y2, x2])
                    found.setdefault(pair, []).append(max(strength[y, x], strength[y2, x2]))
    return found


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 2), (7, 11)])
def test_against_pixel_pairs(height: int, width: int) -> None:
    rng = np.random.default_rng(height * 100 + width)
    labels, strength = rng.integers(0, 5, (height, width)), rng.random((height, width))
    graph, expected = region_graph(labels, strength), pixel_pairs(labels, strength)
    assert [tuple(p) for p in graph.pairs.tolist()] == sorted(expected)
    assert graph.length.tolist() == [len(expected[p]) for p in sorted(expected)]
    np.testing.assert_allclose(graph.strength, [np.mean(expected[p]) for p in sorted(expected)], atol=1e-12)
    assert not region_graph(labels).strength.any()


def test_a_thin_ridge_counts_in_full() -> None:
    labels = np.array([[0, 0, 1, 1]])
    assert region_graph(labels, np.array([[0, 1.0, 0, 0]])).strength.tolist() == [1.0]
    assert region_graph(labels, np.array([[0, 0, 1.0, 0]])).strength.tolist() == [1.0]


@pytest.mark.parametrize("grid", [(1, 1), (1, 3), (3, 4), (12, 17), (20, 30)])
def test_region_means_are_means_of_the_upsampled_grid(grid: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(12 * 17).reshape(12, 17) % 6
    features = rng.normal(size=(*grid, 3))
    full = np.stack([bilinear(features[..., c], 12, 17) for c in range(3)], axis=-1)
    expected = [full[labels == i].mean(axis=0) for i in range(6)]
    np.testing.assert_allclose(region_means(labels, 6, features), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(23, 30), (5, 7), (3, 2)])
def test_upsample_aligns_cell_centres(size: tuple[int, int]) -> None:
    grid = np.random.default_rng(0).normal(size=(5, 7))
    y, x = ((np.arange(n) + 0.5) / n for n in size)
    rows = np.stack([np.interp(y * 5 - 0.5, np.arange(5), column) for column in grid.T], axis=1)
    expected = np.stack([np.interp(x * 7 - 0.5, np.arange(7), row) for row in rows])
    np.testing.assert_allclose(bilinear(grid, *size), expected, atol=1e-12)
