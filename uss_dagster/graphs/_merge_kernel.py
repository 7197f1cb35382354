"""Compiled loops of greedy merging: a heap of pairs, borders as linked lists that are spliced when regions join, and meeting heights."""

from __future__ import annotations

import heapq

import numba
import numpy as np


@numba.njit(cache=True)
def _cost(
    mean: np.ndarray, size: np.ndarray, whole: float, i: int, j: int, strength: float, feature_weight: float, size_exponent: float
) -> float:
    square = 0.0
    for c in range(mean.shape[1]):
        square += (mean[i, c] - mean[j, c]) ** 2
    shrink = (size[i] * size[j] / ((size[i] + size[j]) * whole)) ** size_exponent
    return float((feature_weight * np.sqrt(square) + strength) * shrink)


@numba.njit(cache=True)
def merge(
    pairs: np.ndarray,
    length: np.ndarray,
    strength: np.ndarray,
    area: np.ndarray,
    features: np.ndarray,
    feature_weight: float,
    size_exponent: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Children (m, 2) and heights (m,) of the merges in their order; merge k makes region n + k. See ``merging.merge_tree``.

    pairs: int64 (E, 2), i < j, each pair once. length, strength: float64 (E,). area: float64 (n,). features: float64 (n, C).
    """
    n, edges = len(area), len(pairs)
    most = max(2 * n - 1, 1)
    size = np.zeros(most)
    mean = np.zeros((most, features.shape[1]))
    size[:n] = area
    mean[:n] = features
    whole = 0.0
    for region in range(n):
        whole += size[region]

    # a border e lies between ends[e, 0] and ends[e, 1]; slots 2e and 2e + 1 are its places in the lists of these two
    ends = pairs.copy()
    long = length.copy()
    total = length * strength
    gone = np.zeros(edges, np.bool_)
    head = np.full(most, -1, np.int64)
    tail = np.full(most, -1, np.int64)
    after = np.full(2 * edges, -1, np.int64)
    for e in range(edges):
        for side in range(2):
            slot, region = 2 * e + side, ends[e, side]
            if head[region] < 0:
                head[region] = slot
            else:
                after[tail[region]] = slot
            tail[region] = slot

    queue = [
        (_cost(mean, size, whole, ends[e, 0], ends[e, 1], total[e] / long[e], feature_weight, size_exponent), ends[e, 0], ends[e, 1])
        for e in range(edges)
    ]
    heapq.heapify(queue)

    alive = np.zeros(most, np.bool_)
    alive[:n] = True
    children = np.empty((max(n - 1, 0), 2), np.int64)
    heights = np.empty(max(n - 1, 0))
    border_with = np.full(most, -1, np.int64)  # of the region being count
    height, count = 0.0, 0
    while queue:
        cost, i, j = heapq.heappop(queue)
        if not (alive[i] and alive[j]):
            continue
        height = max(cost, height)
        new = n + count
        children[count, 0], children[count, 1] = i, j
        heights[count] = height
        count += 1
        alive[i] = alive[j] = False
        alive[new] = True
        size[new] = size[i] + size[j]
        for c in range(mean.shape[1]):
            mean[new, c] = (size[i] * mean[i, c] + size[j] * mean[j, c]) / size[new]

        # the borders of i, then those of j; one that leads where another led before is added to it
        last = -1
        for old in (i, j):
            slot = head[old]
            while slot >= 0:
                e, side, following = slot // 2, slot % 2, after[slot]
                other = ends[e, 1 - side]
                if not gone[e]:
                    if other in (i, j):
                        gone[e] = True
                    elif border_with[other] >= 0:
                        first = border_with[other]
                        long[first] += long[e]
                        total[first] += total[e]
                        gone[e] = True
                    else:
                        border_with[other] = e
                        ends[e, side] = new
                        after[slot] = -1
                        if last < 0:
                            head[new] = slot
                        else:
                            after[last] = slot
                        last = slot
                slot = following
        slot = head[new]
        while slot >= 0:
            e = slot // 2
            other = ends[e, 1 - slot % 2]
            border_with[other] = -1
            cost = _cost(mean, size, whole, other, new, total[e] / long[e], feature_weight, size_exponent)
            heapq.heappush(queue, (cost, other, new))
            slot = after[slot]
    return children[:count], heights[:count]


@numba.njit(cache=True)
def meeting_heights(children: np.ndarray, heights: np.ndarray, pairs: np.ndarray, n: int) -> np.ndarray:
    """Height of the lowest region that holds both leaves of each pair; each pair is joined by some merge."""
    count = len(children)
    above = np.full(n + count, -1, np.int64)
    for k in range(count):
        above[children[k, 0]] = above[children[k, 1]] = n + k
    met = np.empty(len(pairs))
    for e in range(len(pairs)):
        i, j = pairs[e]
        while i != j:  # a region above has a greater number
            if i < j:
                i = above[i]
            else:
                j = above[j]
        met[e] = heights[i - n]
    return met
