"""Compiled loops of k-means: greedy seeding of many runs at once, and one run of Lloyd's algorithm."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def draw(nearest: np.ndarray, uniforms: np.ndarray, candidates: np.ndarray) -> bool:
    """Fill ``candidates`` (t,) with points drawn in proportion to ``nearest`` (n,), or return False where all of it is 0."""
    n = len(nearest)
    total = 0.0
    last = -1
    for i in range(n):
        total += nearest[i]
        if nearest[i] > 0:
            last = i
    if last < 0:
        return False
    for t in range(len(uniforms)):
        target = uniforms[t] * total
        cumulated = 0.0
        candidates[t] = last
        for i in range(last):
            cumulated += nearest[i]
            if cumulated > target:
                candidates[t] = i
                break
    return True


@numba.njit(cache=True)
def take_best(nearest: np.ndarray, products: np.ndarray, norms: np.ndarray, candidates: np.ndarray) -> int:
    """Lower ``nearest`` (n,) to the distance from that candidate after which its sum is least; returns its place.

    products: (t, n), inner products of the candidates with every point, overwritten. Differences that rounding could make count as 0.
    """
    best, lowest = 0, np.inf
    for t in range(len(candidates)):
        own = norms[candidates[t]]
        row = products[t]
        for i in range(len(nearest)):
            both = own + norms[i]
            squared = both - 2 * row[i]
            squared = squared if squared >= 1e-6 * both else 0 * both
            row[i] = min(squared, nearest[i])
        # eight partial sums: a single one would wait for each addition
        part = np.zeros(8)
        whole = len(nearest) // 8 * 8
        for i in range(0, whole, 8):
            for lane in range(8):
                part[lane] += row[i + lane]
        total = part.sum()
        for i in range(whole, len(nearest)):
            total += row[i]
        if total < lowest:
            best, lowest = t, total
    nearest[:] = products[best]
    return best


@numba.njit(cache=True)
def lloyd(
    exact: np.ndarray,
    points: np.ndarray,
    transposed: np.ndarray,
    norms: np.ndarray,
    centres: np.ndarray,
    labels: np.ndarray,
    iterations: int,
    shift_limit: float,
) -> int:
    """One run of Lloyd's algorithm from ``centres``, float64 (k, C), which it moves; ``labels``, int32 (n,), it fills.

    exact: float64 (n, C), for the means. points, transposed (C, n), norms: the same points in the precision of the products.
    Only the products with centres that moved are made anew: late in a run these are few. Ends when no label changes, or when
    the squared shifts of the centres sum to no more than ``shift_limit``. Returns the number of assignments made.
    """
    n, width = exact.shape
    k = len(centres)
    scores = np.empty((k, n), points.dtype)
    moved = np.arange(k)
    best = np.empty(n, points.dtype)
    new = np.empty(n, np.int32)
    count = np.zeros(k, np.int64)
    touched = np.zeros(k, np.bool_)
    labels[:] = -1
    for turn in range(iterations):
        some = np.empty((len(moved), width), points.dtype)
        for row in range(len(moved)):
            for j in range(width):
                some[row, j] = centres[moved[row], j]
        product = np.dot(some, transposed)
        for row in range(len(moved)):
            own = points.dtype.type(0)
            for j in range(width):
                own += some[row, j] * some[row, j]
            into, source = scores[moved[row]], product[row]
            for i in range(n):
                into[i] = own - 2 * source[i]
        # blocks of points keep ``best`` and ``new`` in the nearest cache
        for begin in range(0, n, 1024):
            end = min(begin + 1024, n)
            for i in range(begin, end):
                best[i] = scores[0, i]
                new[i] = 0
            for c in range(1, k):
                row_c = scores[c]
                for i in range(begin, end):
                    lower = row_c[i] < best[i]
                    best[i] = row_c[i] if lower else best[i]
                    new[i] = np.int32(c) if lower else new[i]
        count[:] = 0
        for i in range(n):
            count[new[i]] += 1
        for c in range(k):
            if count[c] == 0:
                # it starts again at the point worst served, of a cluster that has others
                worst, furthest = -1, -np.inf
                for i in range(n):
                    if count[new[i]] > 1 and best[i] + norms[i] > furthest:
                        worst, furthest = i, best[i] + norms[i]
                if worst >= 0:
                    count[new[worst]] -= 1
                    new[worst] = c
                    count[c] = 1
                    best[worst] = -norms[worst]
        touched[:] = False
        for i in range(n):
            if new[i] != labels[i]:
                touched[new[i]] = True
                if labels[i] >= 0:
                    touched[labels[i]] = True
                labels[i] = new[i]
        moved = np.flatnonzero(touched)
        if len(moved) == 0:
            return turn
        shift = 0.0
        sums = np.zeros((k, width))
        for i in range(n):
            if touched[labels[i]]:
                total, point = sums[labels[i]], exact[i]
                for j in range(width):
                    total[j] += point[j]
        for row in range(len(moved)):
            c = moved[row]
            if count[c]:
                for j in range(width):
                    mean = sums[c, j] / count[c]
                    shift += (mean - centres[c, j]) ** 2
                    centres[c, j] = mean
        if shift <= shift_limit:
            return turn + 1
    return iterations
