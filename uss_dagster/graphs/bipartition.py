"""Recursive two-way Normalised Cuts into one full tree, which is then pruned at any threshold.

A node is cut along the eigenvector of the second smallest eigenvalue, at the best of all its n - 1 splits. The tree is built down to the
greatest cost of interest. Every lower threshold is a pruning of it, and there are at most as many different prunings as nodes.

The sweep over all splits is compiled: ``benchmarks/walk_cut.py`` measured it 6 to 13 times faster than a search of 100 thresholds (on a
busy machine).

References: Shi & Malik, "Normalized cuts and image segmentation", TPAMI 22(8), 2000; Newman, "Modularity and community structure in
networks", PNAS 103, 2006; Nagai, "Inappropriateness of the criterion of k-way normalized cuts for deciding the number of clusters",
Pattern Recognition Letters 28, 2007 (why the mean of Ncuts prefers two parts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from uss_dagster.errors import UsageError, check_choice
from uss_dagster.graphs.checks import check_weights
from uss_dagster.graphs.eigen import floored, positive_peak

Rule = Literal["gap", "mean", "modularity"]

_DENSE_BELOW = 200
_ROWS = 512
_KRYLOV = 24
"""Vectors of the Lanczos space, which is restarted once: where more are needed, eigenvalues crowd and the dense solver is faster."""
_ROUNDING = 1e-9
"""Entries of an eigenvector that differ by less, as a share of its range, are equal."""
_COST_ROUNDING = 1e-6
"""Costs that differ by less are equal: graphs come from transitions in float32."""


@dataclass(frozen=True)
class Split:
    """One split of a graph in two.

    Parameters
    ----------
    side : ndarray of bool, shape (n,)
        Side of each item, False for the first item.
    cost : float
        Ncut.
    position : int
        Number of items below the threshold.
    vector : ndarray of float64, shape (n,)
        The second eigenvector, along which it is.
    """

    side: np.ndarray
    cost: float
    position: int
    vector: np.ndarray


@dataclass(frozen=True)
class CutTree:
    """A binary tree of m nodes over n items, in preorder, the root first. Of two children the one with the lowest item comes first.

    Parameters
    ----------
    order : ndarray of int64, shape (n,)
        The items. Node v holds ``order[start[v]:stop[v]]``, in ascending order if it is a leaf.
    start, stop : ndarray of int64, shape (m,)
    parent : ndarray of int32, shape (m,)
        -1 for the root.
    depth : ndarray of int32, shape (m,)
    cost : ndarray of float64, shape (m,)
        Ncut of the best split of the node, whether the tree has it or not; infinite if none is possible.
    position : ndarray of int64, shape (m,)
        Number of items below the threshold of that split, -1 for none.
    inside, volume : ndarray of float64, shape (m,)
        Weight between the items of the node, and between these and all items.
    vector : ndarray of float64, shape (n,)
        Second eigenvector of the root, zeros if it has none.
    """

    order: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    cost: np.ndarray
    position: np.ndarray
    inside: np.ndarray
    volume: np.ndarray
    vector: np.ndarray

    def __len__(self) -> int:
        return len(self.parent)

    @cached_property
    def reach(self) -> np.ndarray:
        """Greatest cost on the way from the root to the split of each node, float64 (m,). At every higher threshold the split is in the tree."""
        reach = self.cost.copy()
        for node in range(1, len(self)):
            reach[node] = max(reach[node], reach[self.parent[node]])
        return reach

    @cached_property
    def is_inner(self) -> np.ndarray:
        """Whether each node has children, bool (m,)."""
        inner = np.zeros(len(self), bool)
        inner[self.parent[1:]] = True
        return inner

    @property
    def labels(self) -> np.ndarray:
        """Leaf of each item, int32 (n,)."""
        labels = np.empty(len(self.order), np.int32)
        for leaf in np.flatnonzero(~self.is_inner):
            labels[self.order[self.start[leaf] : self.stop[leaf]]] = leaf
        return labels

    def pruned(self, tau: float, depth: int | None = None) -> CutTree:
        """The tree of those splits that cost less than a threshold, as do all splits above them.

        Parameters
        ----------
        tau : float
            Threshold.
        depth : int, optional
            Greatest depth of a node.
        """
        above = np.maximum(self.parent, 0)
        keep = self.reach[above] < tau
        if depth is not None:
            keep &= self.depth <= depth
        keep[0] = True
        rank = np.cumsum(keep) - 1
        columns = {name: getattr(self, name)[keep] for name in ("start", "stop", "depth", "cost", "position", "inside", "volume")}
        columns["parent"] = np.where(self.parent[keep] >= 0, rank[above[keep]], -1).astype(np.int32)
        tree = replace(self, order=self.order.copy(), **columns)
        for leaf in np.flatnonzero(~tree.is_inner):
            tree.order[tree.start[leaf] : tree.stop[leaf]].sort()
        return tree

    def to_json(self) -> list[dict[str, object]]:
        """One record a node, of plain numbers and lists; items of inner nodes are those of their children."""
        children: list[list[int]] = [[] for _ in self.parent]
        for node, above in enumerate(self.parent.tolist()[1:], start=1):
            children[above].append(node)
        return [
            {
                "id": node,
                "parent": int(self.parent[node]),
                "depth": int(self.depth[node]),
                "size": int(self.stop[node] - self.start[node]),
                "cost": float(self.cost[node]) if np.isfinite(self.cost[node]) else None,
                "position": int(self.position[node]) if self.position[node] >= 0 else None,
                "children": children[node],
                "items": [] if children[node] else self.order[self.start[node] : self.stop[node]].tolist(),
            }
            for node in range(len(self))
        ]


def second_eigenpair(weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Second smallest eigenvalue λ and eigenvector y of (D - W) y = λ D y.

    The first pair, 0 and the constant vector, is known and deflated, so a graph of several components gives a vector that separates
    components. Large graphs: Lanczos on the inverse, in which the small eigenvalues are far apart as a rule.

    Parameters
    ----------
    weights : ndarray of float64, shape (n, n)
        Symmetric, n ≥ 2.

    Returns
    -------
    value : float
    vector : ndarray of float64, shape (n,)
        Of unit length; the entry of greatest magnitude is positive.
    """
    from scipy import linalg

    n = len(weights)
    root = np.sqrt(floored(weights.sum(axis=1)))
    trivial = root / np.linalg.norm(root)
    pair = _by_inverse(_deflated(weights, root, trivial)) if n >= _DENSE_BELOW else None
    if pair is None:
        values, vectors = linalg.eigh(_deflated(weights, root, trivial), subset_by_index=[0, 0], check_finite=False)
        pair = float(values[0]), vectors[:, 0]
    vector = pair[1] / root
    vector /= np.linalg.norm(vector)
    return max(pair[0], 0.0), positive_peak(vector)


def _deflated(weights: np.ndarray, root: np.ndarray, trivial: np.ndarray) -> np.ndarray:
    """The symmetrical Laplacian, float64 (n, n), with the trivial eigenvalue at 2, the greatest that there can be. root: of the degrees."""
    laplacian = weights / -root[:, None]
    laplacian /= root
    for start in range(0, len(laplacian), _ROWS):
        laplacian[start : start + _ROWS] += 2 * trivial[start : start + _ROWS, None] * trivial
    laplacian[np.arange(len(laplacian)), np.arange(len(laplacian))] += 1
    return laplacian


def _by_inverse(laplacian: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Least eigenvalue and its vector by Lanczos on the inverse, or None where others crowd around it. The matrix is overwritten."""
    from scipy import linalg
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    n = len(laplacian)
    # the small shift keeps a graph in several parts definite
    shift = 1e-10
    laplacian[np.arange(n), np.arange(n)] += shift
    try:
        # the transpose is in the order of columns that LAPACK works in, so no copy is made
        factor = linalg.cholesky(laplacian.T, lower=True, overwrite_a=True, check_finite=False)
        inverse = LinearOperator(
            (n, n),
            matvec=lambda v: linalg.solve_triangular(
                factor, linalg.solve_triangular(factor, v, lower=True, check_finite=False), lower=True, trans=1, check_finite=False
            ),
            dtype=np.float64,
        )
        start = np.random.default_rng(0).standard_normal(n)
        values, vectors = eigsh(inverse, 1, which="LA", v0=start, tol=1e-6, ncv=_KRYLOV, maxiter=2)
        return float(1 / values[0]) - shift, vectors[:, 0]
    except (ArpackError, np.linalg.LinAlgError):
        return None


def sweep(weights: np.ndarray, vector: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ncut of all splits along a vector.

    Parameters
    ----------
    weights : ndarray of float, shape (n, n)
    vector : ndarray of float, shape (n,)

    Returns
    -------
    order : ndarray of int64, shape (n,)
        The items sorted by the vector.
    costs : ndarray of float64, shape (n - 1,)
        Ncut of the first p + 1 of them against the others; infinite between equal entries, which no threshold separates.
    """
    from uss_dagster.graphs._walk_kernel import sweep_costs

    order = np.argsort(vector, kind="stable")
    costs = sweep_costs(np.ascontiguousarray(weights, np.float64), weights.sum(axis=1), order)
    values = vector[order]
    costs[np.diff(values) <= _ROUNDING * (values[-1] - values[0])] = np.inf
    return order, costs


def best_split(weights: np.ndarray, min_size: int = 1) -> Split | None:
    """The split of least Ncut along the second eigenvector with at least ``min_size`` items on each side; None if there is none."""
    n = len(weights)
    if n < max(2, 2 * min_size):
        return None
    vector = second_eigenpair(weights)[1]
    order, costs = sweep(weights, vector)
    allowed = costs[min_size - 1 : n - min_size]
    best = int(np.argmin(allowed)) + min_size - 1
    if not np.isfinite(costs[best]):
        return None
    side = np.ones(n, bool)
    side[order[: best + 1]] = False
    return Split(side if not side[0] else ~side, float(costs[best]), best + 1, vector)


def cut_tree(weights: np.ndarray, *, min_size: int = 1, max_depth: int = 8, most: float = 1.0) -> CutTree:
    """The full tree: every node is cut by ``best_split``, in the graph of its own items, with degrees counted inside it.

    A graph without any structure has a cost of 1 for every split.

    Parameters
    ----------
    weights : ndarray of float, shape (n, n)
        Symmetric, 0 or more; self loops are allowed.
    min_size : int, default 1
        Least number of items in a node.
    max_depth : int, default 8
        Greatest depth of a node.
    most : float, default 1
        Splits that cost this or more are not made.
    """
    weights = check_weights(np.ascontiguousarray(weights, np.float64))
    if min_size < 1 or max_depth < 0:
        raise UsageError(f"cut_tree: min_size {min_size} and max_depth {max_depth}, expected 1 or more and 0 or more.")
    n = len(weights)
    degree = weights.sum(axis=1)
    vector = np.zeros(n)
    order = np.arange(n)
    nodes: list[tuple[float, ...]] = []
    # (parent, first place in the order, items, depth, weights between them); the next in preorder on top
    waiting = [(-1, 0, np.arange(n), 0, weights)]
    while waiting:
        above, start, items, depth, inner = waiting.pop()
        order[start : start + len(items)] = items
        split = best_split(inner, min_size) if depth < max_depth else None
        if split and above < 0:
            vector = split.vector
        if split and split.cost >= most - _COST_ROUNDING:
            split = None
        inside, volume = float(inner.sum()), float(degree[items].sum())
        cost, position = (split.cost, split.position) if split else (np.inf, -1)
        nodes.append((above, start, start + len(items), depth, cost, position, inside, volume))
        if split:
            first, second = np.flatnonzero(~split.side), np.flatnonzero(split.side)
            node = len(nodes) - 1
            for side, place in ((second, start + len(first)), (first, start)):
                waiting.append((node, place, items[side], depth + 1, inner[np.ix_(side, side)]))
    kinds: dict[str, type] = {"parent": np.int32, "start": np.int64, "stop": np.int64, "depth": np.int32}
    kinds |= {"cost": np.float64, "position": np.int64, "inside": np.float64, "volume": np.float64}
    columns: dict[str, np.ndarray] = {
        name: np.array(values, kind) for (name, kind), values in zip(kinds.items(), zip(*nodes, strict=True), strict=True)
    }
    return CutTree(order=order, vector=vector, **columns)


def choose_threshold(tree: CutTree, rule: Rule = "gap") -> float:
    """The threshold to prune a full tree at: the middle of the interval of thresholds that give the same pruning.

    Parameters
    ----------
    tree : CutTree
    rule : {"gap", "mean", "modularity"}, default "gap"
        "gap": where the cheapest split that is refused costs most above the dearest one that is made; a pruning that makes no split has
        a cost of 0, one that refuses none a cost of 1. "mean": the lowest mean over leaves of 1 - inside / volume, of prunings with two
        leaves or more. "modularity": the highest modularity of Newman, 0 for the root alone. Of equals the lowest threshold.
    """
    check_choice("threshold rule", rule, get_args(Rule))
    splits = np.flatnonzero(tree.is_inner)
    splits = splits[np.argsort(tree.reach[splits], kind="stable")]
    marks = np.concatenate([[0.0], np.unique(tree.reach[splits]), [1.0]])
    if rule == "gap":
        best = int(np.argmax(np.diff(marks)))
    elif rule == "mean":
        leaving = 1 - tree.inside / np.maximum(tree.volume, 1e-300)
        sums = _over_leaves(tree, splits, leaving)
        score = np.append(np.inf, sums[1:] / np.arange(2, len(sums) + 1))
        best = int(np.argmin(score[_complete(tree, splits)]))
    else:
        total = max(float(tree.volume[0]), 1e-300)
        score = _over_leaves(tree, splits, tree.inside / total - (tree.volume / total) ** 2)
        best = int(np.argmax(np.round(score[_complete(tree, splits)], 12)))
    return float((marks[best] + marks[best + 1]) / 2)


def _over_leaves(tree: CutTree, splits: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Sum of a value over the leaves after no split, the first, the first two, …, float64 (splits + 1,)."""
    change = -value
    np.add.at(change, tree.parent[1:], value[1:])
    return np.cumsum(np.concatenate([value[:1], change[splits]]))


def _complete(tree: CutTree, splits: np.ndarray) -> np.ndarray:
    """Numbers of splits after which all of one ``reach`` are made, so that they are a pruning; 0 first."""
    reach = tree.reach[splits]
    return np.concatenate([[0], np.flatnonzero(np.append(np.diff(reach) > 0, True)[: len(reach)]) + 1])
