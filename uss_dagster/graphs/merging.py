"""Greedy merging into a binary tree with monotone heights, an ultrametric map: of a region graph, of points, or by normalised cuts.

The cost of a pair is a feature distance plus the mean strength of the common border, times a slowly growing function of size that lets
small regions merge first. The size term with exponent 1/2, features only, on a complete graph is Ward's criterion. The loop is compiled;
``benchmarks/contour_merge.py`` times whole segmentations with it beside scikit-image's Felzenszwalb.

References: Arbeláez, "Boundary extraction in natural images using ultrametric contour maps", CVPRW 2006; Ward,
"Hierarchical grouping to optimize an objective function", JASA 58, 1963; Müllner, "Modern hierarchical, agglomerative clustering
algorithms", arXiv 1109.2378 (the linkages of points, SciPy's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from uss_dagster.graphs.eigen import floored
from uss_dagster.graphs.region_graph import RegionGraph
from uss_dagster.graphs.vectors import unit
from uss_dagster.pixels import numbered_by_first

Linkage = Literal["ward", "average", "complete", "single"]


@dataclass(frozen=True)
class MergeTree:
    """A tree over n leaves, ready for ``Regions.from_tree(tree.leaf[labels], tree.parent, level=tree.height)``.

    Parameters
    ----------
    parent : ndarray of int32, shape (m,)
        In preorder, the root first with parent -1; m = 2n - 1 if the graph is connected. The child with the lowest leaf comes first.
    height : ndarray of float64, shape (m,)
        0 at leaves, never lower than that of a child.
    leaf : ndarray of int32, shape (n,)
        Node of each leaf.
    """

    parent: np.ndarray
    height: np.ndarray
    leaf: np.ndarray


def merge_tree(
    graph: RegionGraph, area: np.ndarray, features: np.ndarray, *, feature_weight: float = 0.3, size_exponent: float = 0.2
) -> MergeTree:
    """Merge the cheapest adjacent pair until one region is left::

        cost(i, j) = (feature_weight · |z_i - z_j| + b_ij) · (n_i n_j / ((n_i + n_j) N)) ^ size_exponent

    with z the mean feature, n the area, N the sum of all areas, and b the mean border strength. The height of a merge is its
    cost, or the height of the merge before if that is greater. Joined regions take area-weighted mean features and
    length-weighted mean border strengths. Of equal costs the pair of lowest (i, j) comes first, where leaves have their own numbers
    and merged regions follow in the order of merging. Components of the graph are joined last, under the root, at the greatest height
    so far.

    Parameters
    ----------
    graph : RegionGraph
    area : ndarray, shape (n,)
        Positive.
    features : ndarray of float, shape (n, C)
    feature_weight : float, default 0.3
    size_exponent : float, default 0.2
    """
    n = len(area)
    children, heights = merges(graph, area, features, feature_weight=feature_weight, size_exponent=size_exponent)
    below = children.tolist()
    # what is in no merge has nothing above it
    left = np.setdiff1d(np.arange(n + len(below)), children).tolist()
    if len(left) > 1:
        below.append(left)
        heights = np.append(heights, heights[-1] if len(heights) else 0.0)
    return _preorder(n, below, heights.tolist())


def merges(
    graph: RegionGraph, area: np.ndarray, features: np.ndarray, *, feature_weight: float, size_exponent: float
) -> tuple[np.ndarray, np.ndarray]:
    """The merges of ``merge_tree`` in their order: children int64 (m, 2) and heights float64 (m,); merge k makes region n + k."""
    from uss_dagster.graphs._merge_kernel import merge

    length, strength, size, points = (np.ascontiguousarray(a, np.float64) for a in (graph.length, graph.strength, area, features))
    pairs = np.ascontiguousarray(graph.pairs, np.int64)
    return merge(pairs, length, strength, size, points, float(feature_weight), float(size_exponent))


def border_heights(
    graph: RegionGraph, area: np.ndarray, features: np.ndarray, *, feature_weight: float = 0.3, size_exponent: float = 0.2
) -> np.ndarray:
    """The height at which each border of the graph disappears in ``merge_tree``, float64 (E,): its ultrametric map.

    Merged again as border strengths, with no features and exponent 0, they give the same tree. Their mean over several trees gives a
    tree between them. Parameters as for ``merge_tree``.
    """
    from uss_dagster.graphs._merge_kernel import meeting_heights

    children, heights = merges(graph, area, features, feature_weight=feature_weight, size_exponent=size_exponent)
    return meeting_heights(children, heights, np.ascontiguousarray(graph.pairs, np.int64), len(area))


def merged_down(labels: np.ndarray, graph: RegionGraph, area: np.ndarray, most: int, *, size_exponent: float) -> np.ndarray:
    """Labels with fewer regions, int64 (H, W), merged by boundary strength alone and numbered by first pixel.

    Components of the graph are never joined, so more than ``most`` regions may be left.

    Parameters
    ----------
    labels : ndarray of int, shape (H, W)
    graph : RegionGraph
    area : ndarray, shape (n,)
    most : int
        Greatest number of regions.
    size_exponent : float
        See ``merge_tree``.
    """
    n = len(area)
    children, _ = merges(graph, area, np.zeros((n, 0)), feature_weight=0.0, size_exponent=size_exponent)
    into = np.arange(n + len(children))
    done = min(len(children), max(n - most, 0))
    for made in range(done - 1, -1, -1):
        into[children[made]] = into[n + made]
    return numbered_by_first(into[labels])[0]


def ward_tree(area: np.ndarray, centres: np.ndarray) -> MergeTree:
    """Ward's agglomeration of weighted points (n, C), with heights ``sqrt(n_i n_j / ((n_i + n_j) N)) · |c_i - c_j|``."""
    n = len(area)
    first, second = np.triu_indices(n, 1)
    complete = RegionGraph(np.stack([first, second], axis=1), np.ones(len(first)), np.zeros(len(first)))
    return merge_tree(complete, area, centres, feature_weight=1.0, size_exponent=0.5)


def linkage_tree(points: np.ndarray, linkage: Linkage, distance: Literal["cosine", "l2"] = "cosine", most: int | None = None) -> MergeTree:
    """Agglomerative clustering of points, each of weight 1; heights are the distances at which clusters join.

    Parameters
    ----------
    points : ndarray of float, shape (n, C)
    linkage : {"ward", "average", "complete", "single"}
        "ward" is of Euclidean distances, with "cosine" between the points at length 1.
    distance : {"cosine", "l2"}, default "cosine"
        "cosine" is 1 - the cosine.
    most : int or None, default None
        Leaves of the tree, at most: points that join before are one leaf. None: as many as points.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import pdist

    n = len(points)
    if n == 1:
        return _preorder(1, [], [])
    vectors = unit(np.asarray(points, np.float64)) if distance == "cosine" else np.asarray(points, np.float64)
    if linkage == "ward" or distance == "l2":
        table = hierarchy.linkage(vectors, linkage)
    else:
        table = hierarchy.linkage(pdist(vectors, "sqeuclidean") / 2, linkage)
    return _merged_tree(table[:, :2].astype(np.int64), table[:, 2], n, n if most is None else most)


def cut_linkage_tree(affinity: np.ndarray) -> MergeTree:
    """Greedy merging by normalised cuts: the pair that leaves the least sum over groups of cut over association merges, until one is left.

    Heights are the shares of merges made, as the sums need not rise. Of equal sums the pair of lowest numbers comes first, merged groups
    being numbered after all items.

    Parameters
    ----------
    affinity : ndarray of float, shape (n, n)
        Symmetric, 0 or more.
    """
    weights = np.array(affinity, np.float64)
    n = len(weights)
    number, children = np.arange(n), np.empty((max(n - 1, 0), 2), np.int64)
    for merge in range(n - 1):
        degree = weights.sum(axis=1)
        inside = np.diag(weights)
        share = (degree - inside) / floored(degree)
        together = degree[:, None] + degree
        cut = together - inside[:, None] - inside - 2 * weights
        change = cut / floored(together) - share[:, None] - share
        change[np.tril_indices(len(weights))] = np.inf
        a, b = np.unravel_index(int(np.argmin(change)), change.shape)
        children[merge] = sorted((number[a], number[b]))
        # the merged group takes the last place
        weights = np.block([[weights, (weights[a] + weights[b])[:, None]], [weights[a] + weights[b], np.zeros(1)]])
        weights[-1, -1] = inside[a] + inside[b] + 2 * weights[a, b]
        rest = np.delete(np.arange(len(weights)), [a, b])
        weights, number = weights[np.ix_(rest, rest)], np.append(number, n + merge)[rest]
    return _merged_tree(children, np.arange(1, n) / max(n - 1, 1), n, n)


def _merged_tree(children: np.ndarray, heights: np.ndarray, n: int, most: int) -> MergeTree:
    """The tree of all n - 1 merges of n points, merge k making cluster n + k; what joins before ``most`` clusters are left is one leaf."""
    early = max(n - most, 0)
    into = np.arange(n + len(children))
    for merge in range(early - 1, -1, -1):
        into[children[merge]] = into[n + merge]
    clusters, leaf = np.unique(into[:n], return_inverse=True)
    place = np.zeros(len(into), np.int64)
    place[clusters] = np.arange(len(clusters))
    place[n + early :] = len(clusters) + np.arange(len(children) - early)
    tree = _preorder(len(clusters), place[children[early:]].tolist(), heights[early:].tolist())
    return MergeTree(tree.parent, tree.height, tree.leaf[leaf])


def _preorder(n: int, children: list[list[int]], heights: list[float]) -> MergeTree:
    """Renumber the nodes (leaves 0..n-1, then one a merge, the root last) in preorder."""
    first_leaf = list(range(n))
    for below in children:
        first_leaf.append(min(first_leaf[c] for c in below))
    count = len(first_leaf)
    parent, height = np.full(count, -1, np.int32), np.zeros(count)
    leaf = np.zeros(n, np.int32)
    stack = [(count - 1, -1)]
    node = 0
    while stack:
        old, above = stack.pop()
        parent[node] = above
        if old < n:
            leaf[old] = node
        else:
            height[node] = heights[old - n]
            below = sorted(children[old - n], key=first_leaf.__getitem__, reverse=True)
            stack += [(child, node) for child in below]
        node += 1
    return MergeTree(parent, height, leaf)
