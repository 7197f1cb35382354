"""k-means of one image into few clusters: all restarts run together, so that each step is one product of matrices.

For two clusters the products of ``graphs.kmeans`` are too narrow for BLAS; those of ten runs at once are not.

References: Lloyd, IEEE TIT 28, 1982; Arthur & Vassilvitskii, "k-means++", SODA 2007.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.errors import UsageError
from uss_dagster.pixels import numbered_by_first


def few_clusters(points: np.ndarray, k: int, *, seed: int = 0, restarts: int = 10, iterations: int = 50) -> np.ndarray:
    """Labels of the run of least inertia, int32 (n,), numbered by the first point of each cluster.

    Products are float32. Every run has random numbers of its own, so the first runs are the same for any number of restarts. There are
    fewer clusters than k if the points have fewer distinct values.

    Parameters
    ----------
    points : ndarray of float, shape (n, C)
    k : int
        Number of clusters.
    seed : int, default 0
    restarts : int, default 10
    iterations : int, default 50
        At most; a run ends when none of its labels changes.
    """
    if points.ndim != 2 or not len(points) or k < 1 or restarts < 1:
        raise UsageError(f"few_clusters got points {points.shape}, k = {k} and {restarts} restarts, expected one or more of each.")
    points = np.asarray(points, np.float32)
    points = points - points.mean(axis=0, dtype=np.float64).astype(np.float32)
    n = len(points)
    norms = np.einsum("ij,ij->i", points, points)
    centres = points[_seeds(points, norms, k, seed, restarts)]  # (restarts, k, C)
    labels = np.full((restarts, n), -1, np.int32)
    inertia = np.zeros(restarts)
    going = np.arange(restarts)
    for _ in range(iterations):
        some = centres[going]
        score = np.einsum("rkc,rkc->rk", some, some)[:, :, None] - 2 * (some.reshape(-1, some.shape[2]) @ points.T).reshape(-1, k, n)
        lowest, new = score[:, 0], np.zeros((len(going), n), np.int32)
        for cluster in range(1, k):  # argmin over so short an axis is slow
            new[score[:, cluster] < lowest] = cluster
            lowest = np.minimum(lowest, score[:, cluster])
        inertia[going] = lowest.sum(axis=1, dtype=np.float64)
        changed = (new != labels[going]).any(axis=1)
        labels[going] = new
        going, new = going[changed], new[changed]
        if not len(going):
            break
        held = new[:, None] == np.arange(k)[None, :, None]
        sums = (held.reshape(-1, n).astype(np.float32) @ points).reshape(-1, k, points.shape[1])
        count = held.sum(axis=2)[:, :, None]
        centres[going] = np.where(count > 0, sums / np.maximum(count, 1), centres[going])
    best = labels[int(np.argmin(np.round(inertia + norms.sum(dtype=np.float64), 6)))]
    return numbered_by_first(best)[0].astype(np.int32)


def _seeds(points: np.ndarray, norms: np.ndarray, k: int, seed: int, runs: int) -> np.ndarray:
    """For each run k points, int64 (runs, k), each drawn in proportion to its squared distance from those before."""
    streams = [np.random.default_rng([seed, run]) for run in range(runs)]
    seeds = np.empty((runs, k), np.int64)
    seeds[:, 0] = [stream.integers(len(points)) for stream in streams]
    nearest = np.full((runs, len(points)), np.inf)
    for step in range(1, k):
        last = seeds[:, step - 1]
        squared = norms[last][:, None] + norms[None] - 2 * (points[last] @ points.T)
        # what rounding can make counts as no distance
        squared[squared < 1e-6 * (norms[last][:, None] + norms[None])] = 0
        nearest = np.minimum(nearest, squared)
        cumulated = np.cumsum(nearest, axis=1)
        targets = np.array([stream.random() for stream in streams]) * cumulated[:, -1]
        seeds[:, step] = [np.searchsorted(row, value, side="right") for row, value in zip(cumulated, targets, strict=True)]
    return np.minimum(seeds, len(points) - 1)
