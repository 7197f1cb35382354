"""Attention as a random walk between the cells of a grid: a transition matrix, its powers, its stationary
distribution, and symmetric graphs of it.

A row of softmax attention is a probability distribution over cells, so the matrix is that of a Markov chain and its powers are walks of
several steps.

References: Ivanova et al., "Unsupervised segmentation by diffusing, walking and cutting", arXiv 2412.04678 (attention powers and
graphs); Meilă & Shi, "A random walks view of spectral segmentation", AISTATS 2001 (Ncut as escape probability); Tian et al., "Diffuse,
attend, and segment", CVPR 2024 (weights of the resolutions); Kemeny & Snell, "Finite Markov chains", 1960 (lumping).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from uss_dagster.errors import BadData, UsageError, check_choice
from uss_dagster.pixels import linear_taps

GRAPHS = ("cos", "dot", "sym", "rw")
LEAST = 1e-8
"""Least weight of a graph, so that graphs are connected. Graphs are scaled so that the degree of a node is about 1 or more."""

Grid = tuple[int, int]
_ROWS = 512


def transition(matrix: Any) -> np.ndarray:
    """Attention (n, n), dense or scipy sparse, as a dense float32 transition matrix: checked, its rows rescaled to sum to 1."""
    dense = np.asarray(matrix if isinstance(matrix, np.ndarray) else matrix.toarray(), np.float32)
    if dense.ndim != 2 or dense.shape[0] != dense.shape[1] or not len(dense):
        raise BadData(f"Attention has shape {dense.shape}, expected one row and one column for each of one or more cells.")
    sums = dense.sum(axis=1, dtype=np.float64)
    if not np.isfinite(sums).all() or dense.min() < 0 or np.abs(sums - 1).max() > 0.01:
        raise BadData("Attention holds values that are negative or not finite, or rows that do not sum to 1; extract it again.")
    return dense / sums[:, None].astype(np.float32)


def blocks_of(grid: Grid, target: Grid) -> np.ndarray:
    """The cell of the target grid in which each cell of a grid begins, int64 (h·w,): its block where the target is coarser."""
    (h, w), (rows, columns) = grid, target
    return ((np.arange(h) * rows // h)[:, None] * columns + np.arange(w) * columns // w).ravel()


def coarsen(matrix: Any, grid: Grid, target: Grid) -> Any:
    """The chain lumped into the blocks of a coarser grid: columns of a block summed, rows averaged; rows still sum to 1.

    This is the chain of blocks for a walker that is anywhere in a block with equal probability. It is exact if all cells of a block have
    the same transitions to the blocks.

    Parameters
    ----------
    matrix : ndarray or scipy sparse array, shape (n, n)
        n = h · w; the result is of the same kind.
    grid, target : (int, int)
        Rows and columns; the target is not finer.
    """
    from scipy import sparse

    _check_grid(matrix.shape, grid)
    if target[0] > grid[0] or target[1] > grid[1]:
        raise UsageError(f"A chain on a grid {grid} cannot be coarsened to {target}, which is finer.")
    if target == grid:
        return matrix
    block = blocks_of(grid, target)
    n, count = len(block), target[0] * target[1]
    members = sparse.csr_array((np.ones(n, matrix.dtype), (block, np.arange(n))), shape=(count, n))
    size = np.bincount(block, minlength=count).astype(matrix.dtype)
    if isinstance(matrix, np.ndarray):
        return (members @ (members @ matrix / size[:, None]).T).T
    return (sparse.diags_array(1 / size) @ members @ matrix @ members.T).tocsr()


def feature_walk(features: np.ndarray, alpha: float = 10.0) -> np.ndarray:
    """The walk over features that goes from item to item by their likeness, a transition matrix float32 (n, n).

    It is the walk of the graph "cos" of ``walk_graph`` over the features, so its "rw" graph at one step is that graph again.

    Parameters
    ----------
    features : ndarray of float, shape (n, C)
    alpha : float, default 10
    """
    return transition(_unit_rows(np.maximum(_cosines(features, alpha), LEAST)))


def walk(step: np.ndarray, k: int) -> np.ndarray:
    """Transitions of k steps, float32 (n, n), by repeated squaring; rows are rescaled to sum to 1 after each product."""
    if k < 1:
        raise UsageError(f"A walk of {k} steps was asked for, expected 1 or more.")
    square, power = step, None
    while True:
        if k & 1:
            power = square if power is None else _unit_rows(power @ square)
        k >>= 1
        if not k:
            assert power is not None
            return power
        square = _unit_rows(square @ square)


def vote(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Labels (h, w) at (height, width), int32: at each pixel the label of the greatest bilinear weight, the lowest of equals."""
    from uss_dagster.graphs import _walk_kernel as kernel

    (top, _), (bottom, below) = linear_taps(height, labels.shape[0])
    (left, _), (beside, right) = linear_taps(width, labels.shape[1])
    return kernel.vote(labels.astype(np.int32), np.stack([top, bottom]), below, np.stack([left, beside]), right)


def stationary(step: np.ndarray, iterations: int = 200, tolerance: float = 1e-8) -> np.ndarray:
    """The stationary distribution of the walk, float64 (n,), summing to 1; the same for every power of the walk.

    From the uniform distribution, half a step at a time so that a periodic chain converges as well. A chain that mixes too slowly is solved
    as a linear system. A chain of several components, which has no unique answer, keeps the share of each component at the start.
    """
    from scipy.sparse.csgraph import connected_components

    transposed = np.ascontiguousarray(step.T, np.float64)
    transposed /= transposed.sum(axis=0)
    share = np.full(len(step), 1 / len(step))
    for _ in range(iterations):
        following = (share + transposed @ share) / 2
        change = np.abs(following - share).sum()
        share = following / following.sum()
        if change <= tolerance:
            return share
    if connected_components(transposed > 0, connection="strong", return_labels=False) > 1:
        return share
    system = transposed - np.eye(len(step))
    system[-1] = 1
    right_side = np.zeros(len(step))
    right_side[-1] = 1
    solved = np.maximum(np.linalg.solve(system, right_side), 0)
    return solved / solved.sum()


def walk_graph(power: np.ndarray, graph: str = "cos", *, alpha: float = 10.0, share: np.ndarray | None = None) -> np.ndarray:
    """A symmetric graph of the transitions P of a walk, float64 (n, n), no weight below ``LEAST``; self loops stay.

    Parameters
    ----------
    power : ndarray of float32, shape (n, n)
    graph : {"cos", "dot", "sym", "rw"}, default "cos"
        "cos": cosines between rows, rescaled to 0..1 by their least and greatest, to the power ``alpha``; ones if all are equal.
        "dot": P Pᵀ. "sym": (P + Pᵀ) / 2. "rw": (F + Fᵀ) / 2 with the flow F = diag(share) P, times n; Ncut is then the probability of
        leaving one side plus that of leaving the other. For a doubly stochastic walk it is "sym".
    alpha : float, default 10
    share : ndarray of float, shape (n,), optional
        Stationary distribution for "rw"; computed if missing.
    """
    check_choice("graph", graph, GRAPHS)
    if graph == "cos":
        weights = _cosines(power, alpha)
    else:
        if graph == "rw":
            flow = power * (len(power) * (stationary(power) if share is None else share))[:, None]
        else:
            flow = (power if graph == "sym" else power @ power.T).astype(np.float64)
        weights = (flow + flow.T) / 2
    return np.maximum(weights, LEAST, out=weights)


def _cosines(rows: np.ndarray, alpha: float) -> np.ndarray:
    """Cosines between rows, brought to 0..1 by the least and the greatest, to the power alpha."""
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    products = units @ units.T
    del units
    cosines = products.astype(np.float64)
    del products
    for start in range(0, len(cosines), _ROWS):  # by blocks: a second matrix would double the memory
        part = slice(start, start + _ROWS)
        mean = (cosines[part, start:] + cosines[start:, part].T) / 2
        cosines[part, start:], cosines[start:, part] = mean, mean.T
    np.fill_diagonal(cosines, 1)
    low, high = cosines.min(), cosines.max()
    if high - low <= 1e-5:  # alike up to rounding in float32
        return np.ones_like(cosines)
    cosines -= low
    cosines /= high - low
    return np.power(cosines, alpha, out=cosines)


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def _check_grid(shape: tuple[int, ...], grid: Grid) -> None:
    if shape != (grid[0] * grid[1],) * 2:
        raise BadData(f"A chain of shape {shape} does not fit a grid {grid}, expected {(grid[0] * grid[1],) * 2}.")
