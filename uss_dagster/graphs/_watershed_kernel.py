"""The compiled loop of the watershed: flooding with one first-in, first-out queue for each level."""

from __future__ import annotations

import numba
import numpy as np


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
