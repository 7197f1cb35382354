"""Compiled loops of mean-field inference; see ``crf.py``. Imported only where they run."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def smooth(block: np.ndarray, norm: np.ndarray, taps: np.ndarray, height: int, width: int, scratch: np.ndarray, out: np.ndarray) -> None:
    """out = norm · G(norm · block), float32 (n, 4), with the separable symmetric kernel G; nothing comes from outside the image."""
    size, reach = 4 * width, 4 * (len(taps) - 1)
    across, down = scratch.reshape(height, size), out.reshape(height, size)
    padded, nothing = np.zeros(size + 2 * reach, np.float32), np.zeros(size, np.float32)
    for y in range(height):
        for x in range(width):
            p = y * width + x
            for c in range(4):
                padded[reach + 4 * x + c] = norm[p] * block[p, c]
        line = across[y]
        for i in range(size):
            line[i] = taps[0] * padded[reach + i]
        for t in range(1, len(taps)):
            tap = taps[t]
            before, after = padded[reach - 4 * t : reach - 4 * t + size], padded[reach + 4 * t : reach + 4 * t + size]
            for i in range(size):
                line[i] += tap * (before[i] + after[i])
    for y in range(height):
        line, source = down[y], across[y]
        for i in range(size):
            line[i] = taps[0] * source[i]
        for t in range(1, len(taps)):
            if t > y and t >= height - y:
                break
            tap = taps[t]
            before = across[y - t] if t <= y else nothing
            after = across[y + t] if t < height - y else nothing
            for i in range(size):
                line[i] += tap * (before[i] + after[i])
        for x in range(width):
            p = y * width + x
            for c in range(4):
                out[p, c] *= norm[p]


@njit(cache=True, nogil=True)
def settle(field: np.ndarray, unary: np.ndarray, first: int, last: int) -> None:
    """field = softmax over all labels of field - unary, in place, for the pixels first..last-1; both float32 (blocks, n, 4)."""
    blocks = len(field)
    for p in range(first, last):
        top = np.float32(-np.inf)
        for b in range(blocks):
            for c in range(4):
                value = field[b, p, c] - unary[b, p, c]
                field[b, p, c] = value
                top = max(top, value)
        total = np.float32(0)
        for b in range(blocks):
            for c in range(4):
                value = np.exp(field[b, p, c] - top)
                field[b, p, c] = value
                total += value
        scale = np.float32(1) / total
        for b in range(blocks):
            for c in range(4):
                field[b, p, c] *= scale
