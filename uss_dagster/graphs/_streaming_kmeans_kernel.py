"""Compiled loops of k-means over shards: float16 rows widened, assigned to their nearest centres and summed in one go."""

from __future__ import annotations

import numba
import numpy as np

_BLOCK = 64
"""Rows that are widened, multiplied and summed together: 96 KiB at 384 channels, so they stay in the second cache."""


@numba.njit(cache=True, nogil=True)
def widen(half: np.ndarray, bits: np.ndarray, floats: np.ndarray) -> bool:
    """Float16 rows, as uint16 (n, C), into ``floats``, float32, which shares its memory with ``bits``, int32. False: not all are finite.

    The exponent moves by 13 bits and is then off by 2^112, which a product repairs, also for subnormal numbers. Three plain loops
    become vector instructions; NumPy's own conversion takes several times as long.
    """
    n, width = half.shape
    scale = np.float32(2.0**112)
    top = np.int32(0)
    for i in range(n):
        for j in range(width):
            plain = np.int32(half[i, j]) & 0x7FFF
            top = max(top, plain)
            bits[i, j] = plain << 13
    for i in range(n):
        for j in range(width):
            floats[i, j] *= scale
    for i in range(n):
        for j in range(width):
            bits[i, j] |= (np.int32(half[i, j]) & 0x8000) << 16
    return bool(top < 0x7C00)


@numba.njit(cache=True, nogil=True)
def _tally(
    rows: np.ndarray, products: np.ndarray, own: np.ndarray, labels: np.ndarray, sums: np.ndarray, counts: np.ndarray, part: np.ndarray
) -> float:
    """Nearest centre of each row by its products with all centres, the first of equals; returns the sum of squared distances."""
    width, k = rows.shape[1], len(own)
    part[:] = 0
    flat = rows.reshape(-1)
    inertia = float(np.dot(flat, flat))
    for i in range(len(rows)):
        best, lowest = 0, own[0] - 2 * products[i, 0]
        for c in range(1, k):
            score = own[c] - 2 * products[i, c]
            if score < lowest:
                best, lowest = c, score
        labels[i] = best
        counts[best] += 1
        row, total = rows[i], part[best]
        inertia += lowest
        for j in range(width):
            total[j] += row[j]
    for c in range(k):
        for j in range(width):
            sums[c, j] += part[c, j]
    return inertia


@numba.njit(cache=True, nogil=True)
def assign_half(
    half: np.ndarray, transposed: np.ndarray, own: np.ndarray, labels: np.ndarray, sums: np.ndarray, counts: np.ndarray
) -> float:
    """``assign_single`` of float16 rows given as uint16 (n, C); NaN where some are not finite."""
    n, width = half.shape
    bits = np.empty((_BLOCK, width), np.int32)
    floats = bits.view(np.float32)
    part = np.empty((len(own), width), np.float32)
    inertia = 0.0
    for begin in range(0, n, _BLOCK):
        end = min(begin + _BLOCK, n)
        if not widen(half[begin:end], bits, floats):
            return np.nan
        rows = floats[: end - begin]
        inertia += _tally(rows, np.dot(rows, transposed), own, labels[begin:end], sums, counts, part)
    return inertia


@numba.njit(cache=True, nogil=True)
def assign_single(
    points: np.ndarray, transposed: np.ndarray, own: np.ndarray, labels: np.ndarray, sums: np.ndarray, counts: np.ndarray
) -> float:
    """Fill ``labels`` (n,) with the nearest centre of each point (n, C), float32; add to ``sums``, float64 (k, C), and ``counts`` (k,).

    transposed: the centres, float32 (C, k). own: their squared lengths. Returns the sum of squared distances.
    """
    part = np.empty((len(own), points.shape[1]), np.float32)
    inertia = 0.0
    for begin in range(0, len(points), _BLOCK):
        rows = points[begin : begin + _BLOCK]
        inertia += _tally(rows, np.dot(rows, transposed), own, labels[begin : begin + _BLOCK], sums, counts, part)
    return inertia
