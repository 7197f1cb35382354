"""Compiled loops of the permutohedral lattice; see ``lattice.py``. Imported only where they run."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def embed(points: np.ndarray, scale: np.ndarray, low: np.ndarray, stride: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The d + 1 corners of the simplex around each point: their keys, int64 (n, d + 1), and barycentric shares, float32.

    Corner k of a simplex is its nearest remainder-0 point plus k in every coordinate, less d + 1 in those of highest rank.
    """
    n, d = points.shape
    keys = np.empty((n, d + 1), np.int64)
    shares = np.empty((n, d + 1), np.float32)
    place, corner = np.empty(d + 1), np.empty(d + 1)
    rank = np.empty(d + 1, np.int64)
    share = np.empty(d + 2)
    for p in range(n):
        total = 0.0
        for j in range(d, 0, -1):
            value = points[p, j - 1] * scale[j - 1]
            place[j] = total - j * value
            total += value
        place[0] = total
        excess = 0
        for j in range(d + 1):
            nearest = np.floor(place[j] / (d + 1) + 0.5)
            corner[j] = nearest * (d + 1)
            excess += int(nearest)
        rank[:] = 0
        for i in range(d):
            for j in range(i + 1, d + 1):
                if place[i] - corner[i] < place[j] - corner[j]:
                    rank[i] += 1
                else:
                    rank[j] += 1
        # coordinates must sum to zero: the least certain roundings give way
        for j in range(d + 1):
            rank[j] += excess
            if rank[j] < 0:
                rank[j] += d + 1
                corner[j] += d + 1
            elif rank[j] > d:
                rank[j] -= d + 1
                corner[j] -= d + 1
        share[:] = 0
        for j in range(d + 1):
            value = (place[j] - corner[j]) / (d + 1)
            share[d - rank[j]] += value
            share[d - rank[j] + 1] -= value
        share[0] += 1 + share[d + 1]
        for k in range(d + 1):
            key = 0
            for j in range(d):
                coordinate = int(corner[j]) + k
                if rank[j] > d - k:
                    coordinate -= d + 1
                key += (coordinate - low[j]) * stride[j]
            keys[p, k] = key
            shares[p, k] = share[k]
    return keys, shares


@njit(cache=True, nogil=True)
def with_bridges(keys: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The keys, and every key that at least two of them reach in one step; both sorted. A merge of the shifted lists."""
    n = len(keys)
    shifts = np.concatenate((steps, -steps))
    ways = len(shifts)
    cursor = np.zeros(ways, np.int64)
    head = keys[0] + shifts
    beyond = np.iinfo(np.int64).max
    vertices = np.empty(n * (1 + len(steps)), np.int64)
    count, own = 0, 0
    while True:
        least = keys[own] if own < n else beyond
        for w in range(ways):
            least = min(least, head[w])
        if least == beyond:
            return vertices[:count].copy()
        reached = 0
        for w in range(ways):
            if head[w] == least:
                reached += 1
                cursor[w] += 1
                head[w] = keys[cursor[w]] + shifts[w] if cursor[w] < n else beyond
        is_key = own < n and keys[own] == least
        if is_key:
            own += 1
        if is_key or reached >= 2:
            vertices[count] = least
            count += 1


@njit(cache=True, nogil=True)
def neighbours(vertices: np.ndarray, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the vertices one step up and down each axis, int32 (d + 1, m); m where there is none. Keys are sorted."""
    m = len(vertices)
    up, down = np.full((len(steps), m), m, np.int32), np.full((len(steps), m), m, np.int32)
    for j in range(len(steps)):
        t = 0
        for v in range(m):
            target = vertices[v] + steps[j]
            # steps may go down in the order of keys, but the target keys still ascend
            while t < m and vertices[t] < target:
                t += 1
            if t < m and vertices[t] == target:
                up[j, v] = t
                down[j, t] = v
    return up, down


@njit(cache=True, nogil=True)
def numbers(vertices: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The place of each key in ``vertices``, int32, by a hash table with open addressing."""
    bits = 4
    while (1 << bits) < 2 * len(vertices):
        bits += 1
    mask, shift = (1 << bits) - 1, np.uint64(64 - bits)
    golden = np.uint64(0x9E3779B97F4A7C15)
    table = np.full(1 << bits, -1, np.int32)
    for v in range(len(vertices)):
        slot = np.int64((np.uint64(vertices[v]) * golden) >> shift)
        while table[slot] >= 0:
            slot = (slot + 1) & mask
        table[slot] = v
    flat = keys.ravel()
    number = np.empty(len(flat), np.int32)
    for i in range(len(flat)):
        slot = np.int64((np.uint64(flat[i]) * golden) >> shift)
        while vertices[table[slot]] != flat[i]:
            slot = (slot + 1) & mask
        number[i] = table[slot]
    return number.reshape(keys.shape)


@njit(cache=True, nogil=True)
def add_filtered(
    block: np.ndarray,
    onto: np.ndarray,
    index: np.ndarray,
    share: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    values: np.ndarray,
    blurred: np.ndarray,
) -> None:
    """Splat, blur along each axis, slice: block becomes onto + filtered block, float32 (n, 4). values, blurred: scratch (m + 1, 4).

    Row m stays zero: it stands for every missing neighbour.
    """
    n, corners = index.shape
    m = up.shape[1]
    half = np.float32(0.5)
    values[:] = 0
    blurred[m] = 0
    for p in range(n):
        a, b, c, d = block[p, 0], block[p, 1], block[p, 2], block[p, 3]
        for k in range(corners):
            weight, v = share[p, k], index[p, k]
            values[v, 0] += weight * a
            values[v, 1] += weight * b
            values[v, 2] += weight * c
            values[v, 3] += weight * d
    for j in range(corners):
        for v in range(m):
            above, below = up[j, v], down[j, v]
            for lane in range(4):
                blurred[v, lane] = values[v, lane] + half * (values[above, lane] + values[below, lane])
        values, blurred = blurred, values
    for p in range(n):
        a, b, c, d = onto[p, 0], onto[p, 1], onto[p, 2], onto[p, 3]
        for k in range(corners):
            weight, v = share[p, k], index[p, k]
            a += weight * values[v, 0]
            b += weight * values[v, 1]
            c += weight * values[v, 2]
            d += weight * values[v, 3]
        block[p, 0], block[p, 1], block[p, 2], block[p, 3] = a, b, c, d
