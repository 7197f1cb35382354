"""Compiled loops of the contour map: integral images on rotated grids, box differences, texton filters and words.

Sums of counts are integers and every other sum runs in a written order, so the result does not depend on the machine's threads.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def integral(plane: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """out[y, x] = sum of plane[index[:y, :x]]. plane: uint8 (n,). index: int32 (h, w). out: int32 (h + 1, w + 1), its first row 0."""
    h, w = index.shape
    for y in range(h):
        row, above, below = index[y], out[y], out[y + 1]
        run = np.int32(0)
        below[0] = 0
        for x in range(w):
            run += np.int32(plane[row[x]])
            below[x + 1] = above[x + 1] + run


@numba.njit(cache=True)
def add_difference(table: np.ndarray, first: np.ndarray, last: np.ndarray, wide: int, tall: int, weight: float, out: np.ndarray) -> None:
    """out[y, x] += weight · (p - q)² / (p + q) for first[y] <= x < last[y], 0 where both counts are 0.

    p, q: the integrals of two boxes that meet in the edge between rows y - 1 and y, each ``wide`` pixels across that edge and ``tall``
    (odd) pixels along it. table: int32, see ``integral``. out: float32.
    """
    factor = np.float32(weight)
    half = tall // 2
    for y in range(out.shape[0]):
        a, n = first[y], last[y] - first[y]
        if n <= 0:
            continue
        left, right = a - half, a + half + 1
        top, middle, bottom = table[y - wide], table[y], table[y + wide]
        top0, middle0, bottom0 = top[left : left + n], middle[left : left + n], bottom[left : left + n]
        top1, middle1, bottom1 = top[right : right + n], middle[right : right + n], bottom[right : right + n]
        target = out[y, a : a + n]
        for x in range(n):
            both = middle1[x] - middle0[x]
            p = both - (top1[x] - top0[x])
            q = (bottom1[x] - bottom0[x]) - both
            difference, total = np.float32(p - q), np.float32(max(p + q, 1))
            target[x] += factor * (difference * difference / total)


@numba.njit(cache=True)
def keep_largest(response: np.ndarray, ys: np.ndarray, xs: np.ndarray, best: np.ndarray) -> None:
    """best = max(best, response read bilinearly at (ys, xs)), which lie inside it. best, ys, xs: float32 (H, W)."""
    for y in range(best.shape[0]):
        for x in range(best.shape[1]):
            v, u = ys[y, x], xs[y, x]
            v0, u0 = int(v), int(u)
            fv, fu = v - np.float32(v0), u - np.float32(u0)
            upper = response[v0, u0] * (np.float32(1) - fu) + response[v0, u0 + 1] * fu
            lower = response[v0 + 1, u0] * (np.float32(1) - fu) + response[v0 + 1, u0 + 1] * fu
            best[y, x] = max(best[y, x], upper * (np.float32(1) - fv) + lower * fv)


@numba.njit(cache=True)
def correlate(padded: np.ndarray, taps: np.ndarray, margin: int, out: np.ndarray) -> None:
    """out[y, x] = sum of taps[j, i] · padded[y + j + margin - k // 2, x + i + margin - k // 2]. All float32; taps (k, k), k odd."""
    h, w = out.shape
    k = taps.shape[0]
    shift = margin - k // 2
    for y in range(h):
        target = out[y]
        for x in range(w):
            target[x] = 0
        for j in range(k):
            row = padded[y + j + shift]
            for i in range(k):
                tap = taps[j, i]
                source = row[i + shift : i + shift + w]
                for x in range(w):
                    target[x] += tap * source[x]


@numba.njit(cache=True)
def nearest_word(channels: np.ndarray, words: np.ndarray, out: np.ndarray) -> None:
    """out[p] = the row of words (k, c) nearest to channels[:, p], the first of equals. channels: float32 (c, n), out: uint8 (n,)."""
    c, n = channels.shape
    k = words.shape[0]
    block = 256
    least = np.empty(block, np.float32)
    score = np.empty(block, np.float32)
    for begin in range(0, n, block):
        m = min(block, n - begin)
        target = out[begin : begin + m]
        for word in range(k):
            square = np.float32(0)
            for channel in range(c):
                square += words[word, channel] * words[word, channel]
            for p in range(m):
                score[p] = square
            for channel in range(c):
                value = np.float32(-2) * words[word, channel]
                source = channels[channel, begin : begin + m]
                for p in range(m):
                    score[p] += value * source[p]
            for p in range(m):
                if word == 0 or score[p] < least[p]:
                    least[p] = score[p]
                    target[p] = word
