"""Region adjacency: which regions of a label map touch, the length and strength of their borders, and mean features of regions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.pixels import linear_taps


@dataclass(frozen=True)
class RegionGraph:
    """Adjacent regions of a label map.

    Parameters
    ----------
    pairs : ndarray of int64, shape (E, 2)
        i < j, in ascending order.
    length : ndarray of float64, shape (E,)
        4-neighbour pixel pairs across the border.
    strength : ndarray of float64, shape (E,)
        Mean boundary strength over these pixel pairs, 0 if unknown.
    """

    pairs: np.ndarray
    length: np.ndarray
    strength: np.ndarray


def region_graph(labels: np.ndarray, strength: np.ndarray | None = None) -> RegionGraph:
    """The adjacency of a label map.

    Parameters
    ----------
    labels : ndarray of int, shape (H, W)
        0 or more.
    strength : ndarray of float, shape (H, W), optional
        Boundary strength of each pixel. A pixel pair counts the stronger of its two pixels, so that a thin ridge counts in full on
        whichever side of the border it lies.
    """
    n = int(labels.max(initial=-1)) + 1
    keys, weights = [], []
    for first, second in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        a, b = labels[first], labels[second]
        differ = a != b
        a, b = a[differ].astype(np.int64), b[differ].astype(np.int64)
        keys.append(np.minimum(a, b) * n + np.maximum(a, b))
        if strength is not None:
            weights.append(np.maximum(strength[first][differ], strength[second][differ]))
    edges, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    length = np.bincount(inverse, minlength=len(edges)).astype(np.float64)
    total = np.zeros(len(edges)) if strength is None else np.bincount(inverse, np.concatenate(weights), len(edges))
    return RegionGraph(np.stack([edges // max(n, 1), edges % max(n, 1)], axis=1), length, total / np.maximum(length, 1))


def region_means(labels: np.ndarray, n: int, grid: np.ndarray) -> np.ndarray:
    """Mean over each region of a feature grid interpolated bilinearly at the label map, float64 (n, C).

    The interpolated features are never formed: the mean of a region is a weighted sum of grid cells, and only the weights are computed.

    Parameters
    ----------
    labels : ndarray of int, shape (H, W)
        0..n-1, each present.
    n : int
        Number of regions.
    grid : ndarray of float, shape (h, w, C)
        With (h, w) = (H, W) the result is the plain mean.
    """
    from scipy import sparse

    (height, width), (h, w) = labels.shape, grid.shape[:2]
    region = labels.ravel()
    if (h, w) == (height, width):
        cells, weights, regions = [np.arange(h * w)], [np.ones(h * w)], [region]
    else:
        cells, weights, regions = [], [], []
        for y, wy in linear_taps(height, h):
            for x, wx in linear_taps(width, w):
                cells.append((y[:, None] * w + x).ravel())
                weights.append((wy[:, None] * wx).ravel())
                regions.append(region)
    entries = (np.concatenate(weights), (np.concatenate(regions), np.concatenate(cells)))
    total = sparse.coo_array(entries, shape=(n, h * w)).tocsr() @ grid.reshape(h * w, -1).astype(np.float64)
    return total / np.bincount(region, minlength=n)[:, None]
