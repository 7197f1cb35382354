"""Compiled product of a packed 0/1 matrix with a vector."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def bits_times(packed: np.ndarray, vector: np.ndarray, out: np.ndarray) -> None:
    """out = B @ vector for a 0/1 matrix B (n, m), float64.

    packed: uint8 (ceil(m / 8), n), 8 columns of B in a byte, the first in its highest bit ("four Russians": the 256 possible sums of
    8 entries are made once, and each row looks one up). vector: float64 (8 · ceil(m / 8),).
    """
    sums = np.empty(256)
    out[:] = 0.0
    for group in range(len(packed)):
        sums[0] = 0.0
        size = 1
        for bit in range(8):
            entry = vector[8 * group + 7 - bit]
            for low in range(size):
                sums[size + low] = sums[low] + entry
            size *= 2
        row = packed[group]
        for i in range(len(out)):
            out[i] += sums[row[i]]
