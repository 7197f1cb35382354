"""Recursive spectral partition of a graph into a tree of nested groups, stopped by normalised cut and by a perturbation bound.

At each node the graph is read as a perturbation of one whose k groups are disjoint cliques. k is where the spectrum of the Laplacian has
its widest gap. The split is trusted only while the perturbation is small against this gap (Davis & Kahan 1970).

Reference: Rossetti & Pirri, "Hierarchy-agnostic unsupervised segmentation: parsing semantic image structure", NeurIPS 2024. Normalised
cuts: Shi & Malik, TPAMI 22(8), 2000.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import check_choice
from uss_dagster.graphs.checks import check_weights
from uss_dagster.graphs.eigen import LAPLACIANS, Eigen, floored, smallest_eigenpairs
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.notes import note

HEURISTICS = ("maxgap", "fiedler")
SCALINGS = ("unit", "minmax", "standard", "none")
_TINY = 1e-12
ROUNDING = 1e-9
"""Eigenvalues that differ by less, as a share of the greatest, are equal."""
_ROWS = 512


@dataclass(frozen=True)
class Partition:
    """A tree over n items in preorder, node 0 the root. An inner node has two or more children, and every leaf has items.

    Parameters
    ----------
    labels : ndarray of int32, shape (n,)
        Leaf of each item.
    parent : ndarray of int32, shape (m,)
        -1 for the root.
    ncut : ndarray of float64, shape (m,)
        Cut of each node against its siblings over its association with all of its parent, 0 for the root.
    stop : tuple of str, length m
        Why a leaf was not split, "" for inner nodes.
    """

    labels: np.ndarray
    parent: np.ndarray
    ncut: np.ndarray
    stop: tuple[str, ...]


@dataclass(frozen=True)
class _Rules:
    max_kways: int
    min_points: int
    mncut_th: float
    max_perturb: float
    heuristic: str
    laplacian: str
    scaling: str
    eig_stab_th: float | None
    seed: int
    solver: str
    perturb_two: bool


def recursive_partition(
    affinity: np.ndarray,
    levels: int = 9,
    max_kways: int = 10,
    min_points: int = 1,
    mncut_th: float = 0.8,
    max_perturb: float = 50.0,
    *,
    heuristic: str = "maxgap",
    laplacian: str = "symmetrical",
    scaling: str = "unit",
    eig_stab_th: float | None = None,
    seed: int = 1234,
    solver: str = "auto",
    perturb_two: bool = False,
) -> Partition:
    """Split the items of an affinity recursively.

    The signs of eigenvectors are fixed, so the same affinity and seed give the same tree, as do multiples of the affinity.

    Parameters
    ----------
    affinity : ndarray of float, shape (n, n)
        Symmetric, 0 or more; its diagonal is ignored.
    levels : int, default 9
        Greatest depth below the root.
    max_kways : int, default 10
        Eigenpairs that are computed, so at most ``max_kways`` - 1 groups a split.
    min_points : int, default 1
        A node of no more items is a leaf.
    mncut_th : float, default 0.8
        A split with a mean normalised cut of this or more is tried with fewer groups, then given up.
    max_perturb : float, default 50
        Largest trusted ``perturbation_bound`` of a split in three or more groups.
    heuristic : {"maxgap", "fiedler"}, default "maxgap"
        "fiedler" always makes two groups.
    laplacian, solver
        See ``eigen.smallest_eigenpairs``.
    scaling : {"unit", "minmax", "standard", "none"}, default "unit"
        Of eigenvectors before k-means, see ``scaled``.
    eig_stab_th : float or None, default None
        Drop eigenvectors from the first one on whose histogram is flatter than this. None keeps all.
    seed : int, default 1234
        Of k-means.
    perturb_two : bool, default False
        Splits in two have to keep the bound as well; only that of two items, which has no gap after it, need not.
    """
    check_choice("heuristic", heuristic, HEURISTICS)
    check_choice("Laplacian", laplacian, LAPLACIANS)
    check_choice("scaling", scaling, SCALINGS)
    weights = check_weights(np.array(affinity, np.float64))
    np.fill_diagonal(weights, 0)
    rules = _Rules(max_kways, min_points, mncut_th, max_perturb, heuristic, laplacian, scaling, eig_stab_th, seed, solver, perturb_two)

    spectra: list[np.ndarray] = []

    def divide(inner: np.ndarray, items: np.ndarray) -> Division:
        spectra.append(np.zeros(0))
        groups, reason = _split(inner, rules, spectra)
        return reason if groups is None else (groups, normalised_cuts(inner, groups))

    tree = grown(weights, levels, divide)
    tried = iter(spectra)
    values = [np.zeros(0) if reason == "levels" else next(tried) for reason in tree.stop]
    # the first gap says only whether the graph is connected
    note(eigenvalues=[v.tolist() for v in values], eigengap=[float(np.diff(v)[1:].max()) if len(v) > 2 else None for v in values])
    return tree


Division = tuple[np.ndarray, np.ndarray] | str
"""(group of each item of a node, int (n,) of 0..k-1; each group's normalised cut, float (k,)), or why the node is a leaf."""


def grown(weights: np.ndarray, levels: int, divide: Callable[[np.ndarray, np.ndarray], Division]) -> Partition:
    """The tree of a graph, float (n, n), that is divided recursively down to a depth of ``levels``.

    Parameters
    ----------
    weights : ndarray of float, shape (n, n)
    levels : int
    divide : callable
        (weights between the items of a node, these items, ascending) → ``Division``.
    """
    labels = np.zeros(len(weights), np.int32)
    parent: list[int] = []
    ncut: list[float] = []
    stop: list[str] = []
    # a stack, not recursion: (parent, items, normalised cut, levels left), the next in preorder on top
    waiting = [(-1, np.arange(len(weights)), 0.0, levels)]
    while waiting:
        above, items, cut, left = waiting.pop()
        node = len(parent)
        parent.append(above)
        ncut.append(cut)
        labels[items] = node
        division: Division = "levels"
        if left > 0:
            division = divide(weights if len(items) == len(weights) else weights[np.ix_(items, items)], items)
        if isinstance(division, str):
            stop.append(division)
            continue
        stop.append("")
        groups, cuts = division
        waiting += [(node, items[groups == group], cuts[group], left - 1) for group in range(len(cuts) - 1, -1, -1)]
    note(nodes={"parent": list(parent), "ncut": [float(cut) for cut in ncut], "stop": list(stop), "items": _items(labels, parent)})
    return Partition(labels, np.array(parent, np.int32), np.array(ncut, np.float64), tuple(stop))


def _items(labels: np.ndarray, parent: list[int]) -> list[int]:
    """How many items each node of a tree in preorder holds. labels: leaf of each item."""
    count = np.bincount(labels, minlength=len(parent))
    for node in range(len(parent) - 1, 0, -1):
        count[parent[node]] += count[node]
    return list(count.tolist())


def normalised_cuts(affinity: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """cut(c) / assoc(c) of each group of items, float64 (k,), 0 for a group without weight. groups: int (n,), 0..k-1."""
    degree = affinity.sum(axis=1)
    member = groups[:, None] == np.arange(groups.max(initial=-1) + 1)
    return _cut_shares(affinity, degree, member.astype(np.float64))


def _cut_shares(affinity: np.ndarray, degree: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Cut over association of the items that each column of a 0/1 matrix (n, t) marks.

    Cuts are summed, not subtracted from the association, so that no weight across means exactly 0.
    """
    across = np.einsum("ij,ij->j", member, affinity @ (1 - member))
    return across / floored(degree @ member, degree)


def perturbation_bound(affinity: np.ndarray, groups: np.ndarray, gap: float, laplacian: str = "symmetrical") -> float:
    """|L - L*| / gap in the Frobenius norm, L* the Laplacian of disjoint cliques on the groups; 0 if both are 0.

    Parameters
    ----------
    affinity : ndarray of float, shape (n, n)
    groups : ndarray of int, shape (n,)
    gap : float
        Distance from the eigenvalue that ends the first k to the next.
    laplacian : str, default "symmetrical"
    """
    n = len(affinity)
    same_degree = (np.bincount(groups)[groups] - 1).astype(np.float64)
    degree = affinity.sum(axis=1)
    total = 0.0
    for start in range(0, n, _ROWS):
        rows = slice(start, min(start + _ROWS, n))
        ideal = (groups[rows, None] == groups).astype(np.float64)
        ideal[np.arange(rows.stop - start), np.arange(start, rows.stop)] = 0
        apart = _laplacian_rows(affinity[rows], degree, start, laplacian) - _laplacian_rows(ideal, same_degree, start, laplacian)
        total += float(np.einsum("ij,ij->", apart, apart))
    distance = np.sqrt(total)
    if distance <= _TINY * n:
        return 0.0
    return float(distance / gap) if gap > 0 else np.inf


def scaled(vectors: np.ndarray, how: str = "unit") -> np.ndarray:
    """Eigenvectors (n, k) scaled for k-means: ``unit`` rows, ``minmax`` or ``standard`` columns, or ``none``."""
    if how == "unit":
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
    if how == "minmax":
        return (vectors - vectors.min(axis=0)) / np.maximum(np.ptp(vectors, axis=0), _TINY)
    if how == "standard":
        return (vectors - vectors.mean(axis=0)) / np.maximum(vectors.std(axis=0), _TINY)
    return vectors


def threshold_split(affinity: np.ndarray, vector: np.ndarray) -> np.ndarray | None:
    """Two groups, int (n,), 1 where a vector (n,) exceeds the best of twelve thresholds; None if it is constant.

    Thresholds: ten evenly spaced from the minimum, without the maximum, then 0, then the mean. The best has the least mean of the
    normalised cuts of both sides, the first of equals.
    """
    low, high = vector.min(), vector.max()
    if high - low <= _TINY * max(abs(low), abs(high)):
        return None
    thresholds = np.concatenate([np.linspace(low, high, 10, endpoint=False), [0.0, vector.mean()]])
    above = vector[:, None] > thresholds
    above = above[:, above.any(axis=0) & ~above.all(axis=0)]
    sides = above.astype(np.float64)
    degree = affinity.sum(axis=1)
    out = degree @ sides
    cut = np.einsum("ij,ij->j", sides, affinity @ (1 - sides))
    score = (cut / floored(out, degree) + cut / floored(degree.sum() - out, degree)) / 2
    return above[:, int(np.argmin(score))].astype(np.int64)


def _split(weights: np.ndarray, rules: _Rules, spectra: list[np.ndarray]) -> tuple[np.ndarray | None, str]:
    """The groups of one node's items, int (m,), or None and why it is a leaf. spectra: the last one is set to the node's eigenvalues."""
    m = len(weights)
    if m <= max(rules.min_points, 1):
        return None, "size"
    if m == 2:
        if normalised_cuts(weights, np.arange(2)).mean() >= rules.mncut_th:
            return None, "normalised cut"
        return np.arange(2), ""
    q = min(rules.max_kways, m - 1)
    if not weights.any():  # every item stands alone; no eigenvector says so
        return np.minimum(np.arange(m), max(rules.max_kways - 2, 1)), ""
    if q < 2 or (rules.heuristic == "maxgap" and q == 2):
        return None, "no gap"
    # the gap after a second group is that to the third eigenvalue
    pairs = _pairs(weights, max(q, 3) if rules.perturb_two else q, rules)
    if pairs is None:
        return None, "no eigenvectors"
    spectra[-1] = pairs.values
    # gaps[i - 1] is between eigenvalues i and i + 1; the first of them says only whether the graph is connected
    gaps = np.diff(pairs.values)
    if len(gaps) > 1 and gaps[1:].max() < ROUNDING * pairs.values.max():
        return None, "no gap"  # of a clique of equal weights: what follows would divide it by rounding
    count = 2 if rules.heuristic == "fiedler" else 2 + int(np.argmax(gaps[1:]))
    k = _stable(pairs.vectors[:, :count], rules)
    if k < 2:
        return None, "unstable eigenvectors"
    vectors = pairs.vectors[:, :k]
    groups = _grouped(weights, vectors, k, rules)
    tested = k > 2 or rules.perturb_two
    if groups is not None and tested and not perturbation_bound(weights, groups, gaps[count - 1], rules.laplacian) <= rules.max_perturb:
        return None, "perturbation"
    while groups is None or normalised_cuts(weights, groups).mean() >= rules.mncut_th:
        if k == 2:
            return None, "constant eigenvector" if groups is None else "normalised cut"
        k -= 1
        groups = _grouped(weights, vectors, k, rules)
    return groups, ""


def _pairs(weights: np.ndarray, q: int, rules: _Rules) -> Eigen | None:
    try:
        return smallest_eigenpairs(weights, q, laplacian=rules.laplacian, solver=rules.solver)
    except np.linalg.LinAlgError:
        return None


def _grouped(weights: np.ndarray, vectors: np.ndarray, k: int, rules: _Rules) -> np.ndarray | None:
    """Two or more groups by eigenvectors (m, ≥ k), or None where there is only one."""
    if k == 2:
        return threshold_split(weights, vectors[:, 1])
    groups = kmeans(scaled(vectors, rules.scaling), k, seed=rules.seed, restarts=10, iterations=600, tolerance=1e-6).labels
    return groups if groups.max() > 0 else None


def _stable(vectors: np.ndarray, rules: _Rules) -> int:
    """How many of the eigenvectors (m, k) to keep: those before the first, beyond the constant one, of too flat a histogram."""
    count = vectors.shape[1]
    if rules.eig_stab_th is None:
        return count
    bins = max(len(vectors) // max(rules.min_points, 1), 3)
    for column in range(1, count):
        counts, _ = np.histogram(vectors[:, column], bins)
        if counts.min() / counts.max() > rules.eig_stab_th:
            return column
    return count


def _laplacian_rows(weights: np.ndarray, degree: np.ndarray, start: int, laplacian: str) -> np.ndarray:
    """Rows ``start``.. of the dense Laplacian of a graph, from the same rows of its affinity."""
    rows = np.arange(len(weights))
    own = degree[start : start + len(weights)]
    difference = -weights
    difference[rows, start + rows] += own
    if laplacian == "standard":
        return difference
    divisor = floored(degree)
    mine = divisor[start : start + len(weights)]
    if laplacian == "randomwalk":
        return difference / mine[:, None]
    return difference / np.sqrt(mine[:, None] * divisor)
