"""Compiled loops of mask suppression: runs of pixels, what two masks share, and the greedy choice."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def shared_pixels(runs: np.ndarray, first: int, after_first: int, second: int, after_second: int) -> int:
    """Pixels in both of two masks. runs: int64 (R, 2), [begin, end) in ascending order within a mask; the masks are slices of it."""
    shared = 0
    while first < after_first and second < after_second:
        begin = max(runs[first, 0], runs[second, 0])
        end = min(runs[first, 1], runs[second, 1])
        if end > begin:
            shared += end - begin
        if runs[first, 1] < runs[second, 1]:
            first += 1
        else:
            second += 1
    return shared


@numba.njit(cache=True)
def suppress(runs: np.ndarray, start: np.ndarray, area: np.ndarray, span: np.ndarray, order: np.ndarray, limit: float) -> np.ndarray:
    """Bool (K,): masks that no stays mask earlier in ``order`` covers with IoU > ``limit``.

    start: int64 (K + 1,), slices of the runs. span: int64 (K, 2), first and last pixel + 1 of each mask.

    Kept masks are held in lists by area, in steps of a factor of 1 / limit, so that a mask looks at three lists only.
    """
    n = len(area)
    stays = np.zeros(n, np.bool_)
    step = np.log(1 / limit) if 0 < limit < 1 else np.inf
    largest = 1
    for mask in range(n):
        largest = max(largest, area[mask])
    lists = int(np.log(largest) / step) + 2 if step < np.inf else 1
    head = np.full(lists, -1, np.int64)
    following = np.full(n, -1, np.int64)
    for mask in order:
        size = area[mask]
        own = int(np.log(max(size, 1)) / step) if step < np.inf else 0
        free = True
        for near in range(max(own - 1, 0), min(own + 2, lists)):
            other = head[near]
            while other >= 0 and free:
                small, large = min(size, area[other]), max(size, area[other])
                reach = min(span[mask, 1], span[other, 1]) - max(span[mask, 0], span[other, 0])
                # IoU is at most min / max of the areas; and no more is shared than the spans share
                if small > limit * large and reach > limit * large:
                    shared = shared_pixels(runs, start[mask], start[mask + 1], start[other], start[other + 1])
                    free = not shared > limit * (size + area[other] - shared)
                other = following[other]
        if free:
            stays[mask] = True
            following[mask] = head[own]
            head[own] = mask
    return stays


@numba.njit(cache=True)
def suppress_window(runs: np.ndarray, start: np.ndarray, area: np.ndarray, order: np.ndarray, limit: float, window: int) -> np.ndarray:
    """Bool (K,): the same where a stays mask is compared with the next ``window`` - 1 masks in ``order`` only."""
    n = len(area)
    stays = np.ones(n, np.bool_)
    for place in range(n):
        mask = order[place]
        if not stays[mask]:
            continue
        for later in range(place + 1, min(place + window, n)):
            other = order[later]
            if stays[other]:
                shared = shared_pixels(runs, start[mask], start[mask + 1], start[other], start[other + 1])
                if shared > limit * (area[mask] + area[other] - shared):
                    stays[other] = False
    return stays
