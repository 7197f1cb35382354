"""The compiled loops of the watershed: regional minima and flooding with one first-in, first-out queue a level."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def regional_minima(levels: np.ndarray) -> tuple[np.ndarray, int]:
    """Markers int32 (H, W), 0 for none and 1.. in raster order, and their number.

    A plateau is an 8-connected set of pixels of one level; it is a minimum where no 8-neighbour is lower. The 4-connected parts of
    minima get a marker each. levels: int (H, W).
    """
    h, w = levels.shape
    seen = np.zeros((h, w), np.bool_)
    lowest = np.zeros((h, w), np.bool_)
    stack = np.empty(h * w, np.int64)
    for begin in range(h * w):
        if seen[begin // w, begin % w]:
            continue
        level = levels[begin // w, begin % w]
        stack[0], count, done = begin, 1, 0
        seen[begin // w, begin % w] = True
        minimum = True
        while done < count:  # the stack keeps the whole plateau
            y, x = stack[done] // w, stack[done] % w
            done += 1
            for v in range(max(y - 1, 0), min(y + 2, h)):
                for u in range(max(x - 1, 0), min(x + 2, w)):
                    if levels[v, u] < level:
                        minimum = False
                    elif levels[v, u] == level and not seen[v, u]:
                        seen[v, u] = True
                        stack[count] = v * w + u
                        count += 1
        for k in range(count):
            lowest[stack[k] // w, stack[k] % w] = minimum
    markers = np.zeros((h, w), np.int32)
    number = 0
    for begin in range(h * w):
        if not lowest[begin // w, begin % w] or markers[begin // w, begin % w]:
            continue
        number += 1
        markers[begin // w, begin % w] = number
        stack[0], count = begin, 1
        while count:
            count -= 1
            y, x = stack[count] // w, stack[count] % w
            for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                if 0 <= v < h and 0 <= u < w and lowest[v, u] and not markers[v, u]:
                    markers[v, u] = number
                    stack[count] = v * w + u
                    count += 1
    return markers, number


@numba.njit(cache=True)
def flood(levels: np.ndarray, markers: np.ndarray, highest: int) -> None:
    """Grow the markers in place over all pixels, 4-connected, lowest level first; of one level, first reached first served.

    levels: int (H, W), 0..highest. markers: int32 (H, W), 0 for none.
    """
    h, w = levels.shape
    head = np.full(highest + 1, -1, np.int64)
    tail = np.full(highest + 1, -1, np.int64)
    after = np.full(h * w, -1, np.int64)
    waiting = 0
    for p in range(h * w):
        if markers[p // w, p % w]:
            level = levels[p // w, p % w]
            if head[level] < 0:
                head[level] = p
            else:
                after[tail[level]] = p
            tail[level] = p
            waiting += 1
    level = 0
    while waiting:
        while head[level] < 0:
            level += 1
        p = head[level]
        head[level] = after[p]
        waiting -= 1
        y, x = p // w, p % w
        lowest = level
        for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if 0 <= v < h and 0 <= u < w and not markers[v, u]:
                markers[v, u] = markers[y, x]
                q, its = v * w + u, levels[v, u]
                if head[its] < 0:
                    head[its] = q
                else:
                    after[tail[its]] = q
                tail[its] = q
                waiting += 1
                lowest = min(lowest, its)
        level = lowest
