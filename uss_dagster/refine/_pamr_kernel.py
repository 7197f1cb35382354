"""Compiled loops of pixel-adaptive mask refinement; see ``pamr.py``. Imported only where they run."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def affinities(image: np.ndarray, offsets: np.ndarray, scale: float, first: int, last: int, out: np.ndarray) -> None:
    """The affinity of each pixel in the rows first..last-1 to its neighbours, float32 (H·W, K), summing to 1 over them.

    image: float64 (H, W, 3). offsets: int64 (K, 2), rows and columns; beyond the border the nearest pixel counts.
    """
    height, width, channels = image.shape
    k = len(offsets)
    logit = np.empty(k)
    for y in range(first, last):
        for x in range(width):
            logit[:] = 0
            for c in range(channels):
                own = image[y, x, c]
                total, squares = 0.0, 0.0
                for i in range(k):
                    value = image[min(max(y + offsets[i, 0], 0), height - 1), min(max(x + offsets[i, 1], 0), width - 1), c] - own
                    total += value
                    squares += value * value
                # the pixel itself adds a difference of zero
                spread = np.sqrt(max(squares / (k + 1) - (total / (k + 1)) ** 2, 0.0))
                for i in range(k):
                    value = image[min(max(y + offsets[i, 0], 0), height - 1), min(max(x + offsets[i, 1], 0), width - 1), c] - own
                    logit[i] -= abs(value) / (scale * spread + 1e-8) / channels
            top = logit.max()
            total = 0.0
            for i in range(k):
                logit[i] = np.exp(logit[i] - top)
                total += logit[i]
            for i in range(k):
                out[y * width + x, i] = logit[i] / total


@njit(cache=True, nogil=True)
def spread_labels(block: np.ndarray, affinity: np.ndarray, offsets: np.ndarray, height: int, width: int, out: np.ndarray) -> None:
    """out = each pixel's neighbours' values weighted by its affinities, float32 (H·W, 4)."""
    for y in range(height):
        for x in range(width):
            p = y * width + x
            for c in range(4):
                out[p, c] = 0
            for i in range(len(offsets)):
                q = min(max(y + offsets[i, 0], 0), height - 1) * width + min(max(x + offsets[i, 1], 0), width - 1)
                weight = affinity[p, i]
                for c in range(4):
                    out[p, c] += weight * block[q, c]
