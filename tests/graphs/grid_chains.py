"""Chains on any grid, and the mean of chains of several resolutions, to compare lumping and walks with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from scipy import sparse

from uss_dagster.errors import UsageError, check_choice
from uss_dagster.graphs.walk import Grid, blocks_of, coarsen, transition
from uss_dagster.pixels import linear_taps


def refine_grid(matrix: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """The chain on a finer grid: each row as a map interpolated bilinearly and rescaled to sum to 1; a cell has the row of the cell it lies in."""
    if target[0] < grid[0] or target[1] < grid[1]:
        raise UsageError(f"A chain on a grid {grid} cannot be refined to {target}, which is coarser.")
    if target == grid:
        return matrix
    taps = []
    for size, cells in zip(target, grid, strict=True):
        (low, near), (high, far) = linear_taps(size, cells)
        entries = (np.concatenate([near, far]), (np.tile(np.arange(size), 2), np.concatenate([low, high])))
        taps.append(sparse.coo_array(entries, shape=(size, cells)))
    upsampling = sparse.csr_array(sparse.kron(*taps)).astype(matrix.dtype)
    fine = (upsampling @ matrix.T).T
    fine /= fine.sum(axis=1, keepdims=True)
    return fine[blocks_of(target, grid)]


def to_grid(matrix: np.ndarray, grid: Grid, target: Grid) -> np.ndarray:
    """The chain on any other grid: coarsened along the longer sides, then refined along the shorter ones."""
    between = min(grid[0], target[0]), min(grid[1], target[1])
    return refine_grid(coarsen(matrix, grid, between), between, target)


def aggregate(
    maps: Iterable[tuple[Grid, np.ndarray]],
    target: Grid,
    weights: Literal["proportional", "uniform"] | Mapping[int, float] = "proportional",
) -> np.ndarray:
    """The weighted mean of transition matrices of several resolutions, float32 (n, n) on the target grid.

    Parameters
    ----------
    maps : iterable of ((int, int), ndarray)
        A grid (h, w) and its matrix (h · w, h · w) each.
    target : (int, int)
    weights : {"proportional", "uniform"} or mapping of int to float, default "proportional"
        "proportional" to the side length, or by the number of rows of a grid. They are rescaled to sum to 1.
    """
    total, whole = np.zeros((target[0] * target[1],) * 2, np.float32), 0.0
    for grid, matrix in maps:
        if isinstance(weights, Mapping):
            if grid[0] not in weights:
                raise UsageError(f"No weight is given for the grid of {grid[0]} rows; weights are given for {sorted(weights)}.")
            weight = float(weights[grid[0]])
        else:
            check_choice("weights", weights, ("proportional", "uniform"))
            weight = (grid[0] * grid[1]) ** 0.5 if weights == "proportional" else 1.0
        if weight < 0:
            raise UsageError(f"The weight of the grid {grid} is {weight}, expected 0 or more.")
        total += np.float32(weight) * to_grid(transition(matrix), grid, target)
        whole += weight
    if whole <= 0:
        raise UsageError("Nothing to aggregate: no attention was given, or all its weights are 0.")
    return total / total.sum(axis=1, keepdims=True)
