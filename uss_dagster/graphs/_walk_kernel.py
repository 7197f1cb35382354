"""Compiled loops of walk cuts: Ncut of every split along an order, and the winner of bilinearly upsampled memberships."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def sweep_costs(weights: np.ndarray, degree: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Ncut of the first p + 1 items of the order against the others, float64 (n - 1,). weights: float64 (n, n), symmetric.

    An item that changes sides adds to the cut its weight to later items and takes away its weight to earlier ones, so each split
    follows from the one before. A side without any weight costs nothing.
    """
    n = len(order)
    costs = np.empty(n - 1)
    total = degree.sum()
    low, cut = 0.0, 0.0
    for p in range(n - 1):
        row = weights[order[p]]
        # four partial sums: a single one would wait for each addition
        a, b, c, d = 0.0, 0.0, 0.0, 0.0
        whole = p // 4 * 4
        for q in range(0, whole, 4):
            a += row[order[q]]
            b += row[order[q + 1]]
            c += row[order[q + 2]]
            d += row[order[q + 3]]
        for q in range(whole, p):
            a += row[order[q]]
        cut += degree[order[p]] - row[order[p]] - 2 * ((a + b) + (c + d))
        low += degree[order[p]]
        held = max(cut, 0.0)
        costs[p] = held / max(low, 1e-300) + held / max(total - low, 1e-300)
    return costs


@numba.njit(cache=True)
def vote(labels: np.ndarray, rows: np.ndarray, below: np.ndarray, columns: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The label of the greatest bilinear weight at each pixel, int32 (H, W), the lowest of equals.

    labels: int32 (h, w). rows, columns: int64 (2, H) and (2, W), the two cells around each pixel. below, right: float64 (H,) and
    (W,), the weight of the second.
    """
    out = np.empty((rows.shape[1], columns.shape[1]), np.int32)
    label_at = np.empty(4, np.int32)
    weight = np.empty(4)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for corner in range(4):
                down, across = corner // 2, corner % 2
                label_at[corner] = labels[rows[down, y], columns[across, x]]
                weight[corner] = (below[y] if down else 1 - below[y]) * (right[x] if across else 1 - right[x])
            best, most = np.int32(-1), -1.0
            for corner in range(4):
                label, sum_ = label_at[corner], 0.0
                for other in range(4):
                    if label_at[other] == label:
                        sum_ += weight[other]
                if sum_ > most + 1e-12 or (sum_ > most - 1e-12 and label < best):
                    best, most = label, sum_
            out[y, x] = best
    return out
