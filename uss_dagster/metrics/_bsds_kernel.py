"""Compiled loops of ``bsds``: which region holds each atom at each scale, and the scores of every scale from one table of counts.

20 times faster than labelling each scale with SciPy and counting with NumPy: ``benchmarks/bsds.py``.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def cuts(holders, begin, end, scales):
    """Int32 (scales, A): the region of each atom at each scale, -1 for none.

    holders: bool (A, K). Of the regions that hold an atom, the last one with begin <= scale < end is taken, else the last one.
    """
    atoms, regions = holders.shape
    region_at = np.full((scales, atoms), -1, np.int32)
    filled = np.zeros(scales, np.bool_)
    for atom in range(atoms):
        filled[:] = False
        left, smallest = scales, -1
        for region in range(regions - 1, -1, -1):
            if not holders[atom, region]:
                continue
            if smallest < 0:
                smallest = region
            for scale in range(begin[region], end[region]):
                if not filled[scale]:
                    filled[scale] = True
                    region_at[scale, atom] = region
                    left -= 1
            if not left:
                break
        for scale in range(scales):
            if not filled[scale]:
                region_at[scale, atom] = smallest
    return region_at


@numba.njit(cache=True)
def scores(region_at, regions, atom, column, count, area, owner, real, annotators, pixels):
    """(cnt, ri, voi, reverse_cnt, reverse_sum, best IoU of each column) of the segmentations ``region_at`` (scales, A).

    regions: region ids run from -1 to regions - 1. atom, column, count: pixels of each atom in each column, where a column is a region
    of one annotator, or (not real) the pixels he left out. area, owner, real: pixels, annotator and kind of each column.
    """
    scales, atoms = region_at.shape
    columns = len(area)
    slot = np.full(regions + 1, -1, np.int64)
    used = np.empty(atoms, np.int64)
    widest = 0
    for scale in range(scales):
        widest = max(widest, _number(region_at[scale], slot, used))
    table = np.zeros((widest, columns), np.int64)
    cnt, ri, voi = np.zeros(scales), np.zeros(scales), np.zeros(scales)
    reverse_cnt, reverse_sum = np.zeros(scales), np.zeros(scales)
    best = np.zeros(columns)
    column_squares, column_logs = np.zeros(annotators, np.int64), np.zeros(annotators)
    for c in range(columns):
        column_squares[owner[c]] += area[c] * area[c]
        column_logs[owner[c]] += _weighted_log(area[c])
    everything = numba.int64(pixels)
    pairs = everything * (everything - 1) // 2
    for scale in range(scales):
        if scale and (region_at[scale] == region_at[scale - 1]).all():
            for values in (cnt, ri, voi, reverse_cnt, reverse_sum):
                values[scale] = values[scale - 1]
            continue
        segments = _number(region_at[scale], slot, used)
        for entry in range(len(atom)):
            table[slot[region_at[scale, atom[entry]] + 1], column[entry]] += count[entry]
        squares, logs = 0, 0.0
        joint_squares, joint_logs = np.zeros(annotators, np.int64), np.zeros(annotators)
        covered = np.zeros(columns)
        for place in range(segments):
            size = 0
            for c in range(columns):
                if owner[c] == 0:
                    size += table[place, c]
            squares += size * size
            logs += _weighted_log(size)
            matched = 0.0
            for c in range(columns):
                shared = table[place, c]
                if not shared:
                    continue
                table[place, c] = 0
                joint_squares[owner[c]] += shared * shared
                joint_logs[owner[c]] += _weighted_log(shared)
                if real[c] and used[place] >= 0:
                    iou = shared / (area[c] + size - shared)
                    covered[c] = max(covered[c], iou)
                    matched = max(matched, iou)
            if used[place] >= 0:
                reverse_cnt[scale] += size * matched
                reverse_sum[scale] += size
        for c in range(columns):
            cnt[scale] += area[c] * covered[c]
            best[c] = max(best[c], covered[c])
        for s in range(annotators):
            # exact: half of an even number of ordered pairs that only one of the two segmentations keeps together
            apart = (squares + column_squares[s] - 2 * joint_squares[s]) // 2
            ri[scale] += 1.0 - apart / pairs if pairs else 1.0
            voi[scale] += max(0.0, (logs + column_logs[s] - 2 * joint_logs[s]) / pixels)
        ri[scale] /= annotators
        voi[scale] /= annotators
    return cnt, ri, voi, reverse_cnt, reverse_sum, best


@numba.njit(cache=True)
def _number(region_of_atom, slot, used):
    """Number of distinct regions; slot[region + 1] is a region's number, used[number] the region."""
    slot[:] = -1
    segments = 0
    for region in region_of_atom:
        if slot[region + 1] < 0:
            slot[region + 1] = segments
            used[segments] = region
            segments += 1
    return segments


@numba.njit(cache=True)
def _weighted_log(n):
    return n * np.log2(n) if n else 0.0
