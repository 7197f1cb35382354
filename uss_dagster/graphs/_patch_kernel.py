"""Compiled loop of merging patches: a heap of borders that knows the place of each, and borders as linked lists that are spliced."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def _before(weight: np.ndarray, made: np.ndarray, e: int, f: int) -> bool:
    """Border e goes before border f: by greater weight, then by age."""
    return bool(weight[e] > weight[f] or (weight[e] == weight[f] and made[e] < made[f]))


@numba.njit(cache=True)
def _settle(heap: np.ndarray, place: np.ndarray, weight: np.ndarray, made: np.ndarray, p: int, count: int) -> None:
    """Move entry p of the heap up or down to where it belongs."""
    e = heap[p]
    while p > 0 and _before(weight, made, e, heap[(p - 1) // 2]):
        heap[p] = heap[(p - 1) // 2]
        place[heap[p]] = p
        p = (p - 1) // 2
    while 2 * p + 1 < count:
        child = 2 * p + 1
        if child + 1 < count and _before(weight, made, heap[child + 1], heap[child]):
            child += 1
        if not _before(weight, made, heap[child], e):
            break
        heap[p] = heap[child]
        place[heap[p]] = p
        p = child
    heap[p] = e
    place[e] = p


@numba.njit(cache=True)
def _cosine(sums: np.ndarray, length: np.ndarray, i: int, j: int) -> float:
    scale = length[i] * length[j]
    return float(np.dot(sums[i], sums[j]) / scale) if scale > 0 else 0.0


@numba.njit(cache=True)
def merge_patches(sums: np.ndarray, pairs: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Children int64 (m, 2) and weights float64 (m,) of the merges in their order; merge k makes cluster n + k.

    sums: float32 (n, C), features, overwritten. pairs: int64 (E, 2), borders in order of age, each pair once. least: the weight below which
    nothing is merged.
    """
    n, edges = len(sums), len(pairs)
    length = np.empty(n)
    for i in range(n):
        length[i] = np.sqrt(np.float64(np.dot(sums[i], sums[i])))
    # a border e lies between ends[e, 0] and ends[e, 1]; slots 2e and 2e + 1 are its places in the lists of these two
    ends = pairs.copy()
    head = np.full(n, -1, np.int64)
    after = np.full(2 * edges, -1, np.int64)
    weight = np.empty(edges)
    made = np.arange(edges)
    heap = np.arange(edges)
    place = np.arange(edges)
    gone = np.zeros(edges, np.bool_)
    for e in range(edges):
        weight[e] = _cosine(sums, length, ends[e, 0], ends[e, 1])
        for side in range(2):
            after[2 * e + side] = head[ends[e, side]]
            head[ends[e, side]] = 2 * e + side
    for p in range(edges):
        _settle(heap, place, weight, made, p, p + 1)

    name = np.arange(n)  # of the cluster that a slot of ``sums`` holds
    children = np.empty((max(n - 1, 0), 2), np.int64)
    weights = np.empty(max(n - 1, 0))
    border_with = np.full(n, -1, np.int64)
    count, merges, age = edges, 0, edges
    while count > 0 and weight[heap[0]] >= least:
        best = heap[0]
        i, j = ends[best]
        children[merges, 0], children[merges, 1] = min(name[i], name[j]), max(name[i], name[j])
        weights[merges] = weight[best]
        name[i] = n + merges
        merges += 1
        for c in range(sums.shape[1]):
            sums[i, c] += sums[j, c]
        length[i] = np.sqrt(np.float64(np.dot(sums[i], sums[i])))
        # the borders of i, then those of j; a second one with the same cluster goes
        last = -1
        for slot in (head[i], head[j]):
            while slot >= 0:
                e, side, following = slot // 2, slot % 2, after[slot]
                if not gone[e]:
                    other = ends[e, 1 - side]
                    if other in (i, j) or border_with[other] >= 0:
                        gone[e] = True
                        count -= 1
                        moved, hole = heap[count], place[e]
                        if hole < count:
                            heap[hole] = moved
                            _settle(heap, place, weight, made, hole, count)
                    else:
                        border_with[other] = e
                        ends[e, side] = i
                        after[slot] = -1
                        if last < 0:
                            head[i] = slot
                        else:
                            after[last] = slot
                        last = slot
                slot = following
        if last < 0:
            head[i] = -1
        slot = head[i]
        while slot >= 0:
            e = slot // 2
            other = ends[e, 1 - slot % 2]
            border_with[other] = -1
            weight[e] = _cosine(sums, length, i, other)
            made[e] = age
            age += 1
            _settle(heap, place, weight, made, place[e], count)
            slot = after[slot]
    return children[:merges], weights[:merges]
