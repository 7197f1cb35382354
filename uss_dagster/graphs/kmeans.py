"""k-means with careful seeding, for one image or a sample of many.

References: Lloyd, "Least squares quantization in PCM", IEEE TIT 28, 1982; Arthur & Vassilvitskii, "k-means++: the advantages of
careful seeding", SODA 2007 (here greedy: the best of a few candidates at each step).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Clusters:
    """labels: int32 (n,). centres: float64 (k, C); fewer than asked for where the points have fewer distinct values.

    inertia: mean squared distance of a point to its centre.
    """

    labels: np.ndarray
    centres: np.ndarray
    inertia: float


def kmeans(points: np.ndarray, k: int, *, seed: int = 0, restarts: int = 3, iterations: int = 50) -> Clusters:
    """The best of ``restarts`` runs on points (n, C); a run ends when no label changes.

    Distances are float32 products on centred points, sums are float64. The same seed gives the same clusters, numbered by the
    first point that each holds.
    """
    offset = points.mean(axis=0, dtype=np.float64)
    exact = points - offset
    centred = exact.astype(np.float32)
    norms = np.einsum("ij,ij->i", centred, centred)
    rng = np.random.default_rng(seed)
    best = min((_run(centred, exact, norms, k, rng, iterations) for _ in range(max(restarts, 1))), key=lambda run: run.inertia)
    used, first = np.unique(best.labels, return_index=True)
    order = used[np.argsort(first)]
    rank = np.zeros(len(best.centres), np.int32)
    rank[order] = np.arange(len(order))
    return Clusters(rank[best.labels], best.centres[order] + offset, best.inertia)


def _run(centred: np.ndarray, exact: np.ndarray, norms: np.ndarray, k: int, rng: np.random.Generator, iterations: int) -> Clusters:
    centres = exact[_seeds(centred, norms, k, rng)]
    labels = np.full(len(centred), -1)
    for _ in range(max(iterations, 1)):
        scores = _scores(centred, centres)
        new = np.argmin(scores, axis=1)
        empty = np.flatnonzero(np.bincount(new, minlength=len(centres)) == 0)
        if len(empty):
            # it starts again at the point worst served, a different one for each
            distance = scores[np.arange(len(new)), new] + norms
            new[np.argsort(-distance, kind="stable")[: len(empty)]] = empty
        if np.array_equal(new, labels):
            break
        labels = new
        centres = _means(exact, labels, centres)
    apart = exact - centres[labels]
    return Clusters(labels.astype(np.int32), centres, float(np.einsum("ij,ij->", apart, apart) / len(apart)))


def _seeds(centred: np.ndarray, norms: np.ndarray, k: int, rng: np.random.Generator) -> list[int]:
    """Indices of up to k distinct points, each drawn in proportion to its squared distance from those before."""
    trials = 2 + int(np.log(max(k, 1)))
    chosen = [int(rng.integers(len(centred)))]
    nearest = _squared(centred, norms, chosen)[:, 0]
    for _ in range(1, min(k, len(centred))):
        cumulated = np.cumsum(nearest, dtype=np.float64)
        if cumulated[-1] <= 0:
            break
        draws = np.searchsorted(cumulated, rng.random(trials) * cumulated[-1], side="right")
        candidates = np.minimum(draws, np.flatnonzero(nearest)[-1])
        after = np.minimum(nearest[:, None], _squared(centred, norms, candidates))
        pick = int(np.argmin(after.sum(axis=0, dtype=np.float64)))
        chosen.append(int(candidates[pick]))
        nearest = after[:, pick]
    return chosen


def _squared(centred: np.ndarray, norms: np.ndarray, indices: list[int] | np.ndarray) -> np.ndarray:
    """Squared distances (n, t) to the points of these indices; rounding errors near zero count as zero."""
    squared = norms[:, None] + norms[indices] - 2 * (centred @ centred[indices].T)
    squared[squared < 1e-6 * (norms[:, None] + norms[indices])] = 0
    return squared


def _scores(centred: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Squared distances (n, k) less each point's own squared norm."""
    small = centres.astype(np.float32)
    return np.einsum("ij,ij->i", small, small) - 2 * (centred @ small.T)


def _means(exact: np.ndarray, labels: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Mean of each cluster's points, float64; a cluster without points keeps its centre."""
    from scipy import sparse

    n, k = len(labels), len(before)
    count = np.bincount(labels, minlength=k)[:, None]
    belongs = sparse.csr_array((np.ones(n), labels, np.arange(n + 1)), shape=(n, k))
    return np.where(count > 0, (belongs.T @ exact) / np.maximum(count, 1), before)
