"""Compiled loops over pixels and trees: joint histograms, and sums along lines of descent."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def pair_counts(first: np.ndarray, second: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Joint histogram of two integer arrays (N,): int64 (rows + 1, columns + 1).

    Values outside 0..rows-1 and 0..columns-1 are counted in the last row and the last column. Pixels that repeat the pair
    before them cost a comparison each, so the work is least where regions are large.
    """
    counts = np.zeros((rows + 1, columns + 1), np.int64)
    length = len(first)
    begin = 0
    while begin < length:
        a, b = first[begin], second[begin]
        end = begin + 1
        while end < length and first[end] == a and second[end] == b:
            end += 1
        row = a if 0 <= a < rows else rows
        column = b if 0 <= b < columns else columns
        counts[row, column] += end - begin
        begin = end
    return counts


@numba.njit(cache=True)
def add_to_children(table: np.ndarray, parent: np.ndarray) -> None:
    """Add each row of a table (K, n), in place, to the rows of all nodes below it; parents (-1 for none) come before their children."""
    for node in range(len(parent)):
        if parent[node] >= 0:
            table[node] += table[parent[node]]
