"""A merge tree whose first division is between a figure and its ground.

Greedy merging joins regions that touch, so the ground on the two sides of an object is joined through the object, and no region holds the
ground alone. But every region of a binary tree divides the image in two, itself and the rest. The division that separates a figure best
from its ground is made the first one: the leaves of each side are merged again without those of the other. Parts of one side that do not
touch count as adjacent where both touch the other side.

The figure is the region that differs most from the rest for its size, by Ward's distance, and holds little of the image's border. That
the ground is what reaches the border is the boundary prior of Zhu, Liang, Wei & Sun, "Saliency optimization from robust
background detection", CVPR 2014.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.graphs.merging import MergeTree
from uss_dagster.graphs.region_graph import RegionGraph

BORDER_WEIGHT = 0.9
"""The score of a division is multiplied by 1 minus this times the lesser side's share of the image's border."""


def figure_of(tree: MergeTree, area: np.ndarray, features: np.ndarray, border: np.ndarray) -> np.ndarray:
    """The leaves of the figure, bool (n,), those of the side with less of the border; none where the tree has one leaf.

    Parameters
    ----------
    tree : MergeTree
    area : ndarray of float, shape (n,)
    features : ndarray of float, shape (n, C)
    border : ndarray of float, shape (n,)
        Pixels of the image's border that each leaf has.
    """
    n, m = len(area), len(tree.parent)
    if n == 1:
        return np.zeros(1, bool)
    sums = np.zeros((m, features.shape[1] + 2))
    sums[tree.leaf] = np.column_stack([area, border, area[:, None] * features])
    for node in range(m - 1, 0, -1):
        sums[tree.parent[node]] += sums[node]
    whole, size = sums[0], sums[1:, 0]
    rest = np.maximum(whole[0] - size, 1e-12)
    apart = np.linalg.norm(sums[1:, 2:] / size[:, None] - (whole[2:] - sums[1:, 2:]) / rest[:, None], axis=1)
    share = sums[1:, 1] / max(whole[1], 1e-12)
    score = apart * np.sqrt(size * rest) * (1 - BORDER_WEIGHT * np.minimum(share, 1 - share))
    best = 1 + int(np.argmax(score))
    inside = np.zeros(m, bool)
    inside[best] = True
    for node in range(best + 1, m):
        inside[node] = inside[tree.parent[node]]
    figure = inside[tree.leaf]
    return figure if share[best - 1] <= 0.5 else ~figure


def figure_graph(graph: RegionGraph, figure: np.ndarray) -> RegionGraph:
    """The graph without the borders between figure and ground, which ``merge_tree`` then joins last.

    Parts of one side that are not joined any more touch wherever both touch the other side: borders of length 1 and strength 0.

    Parameters
    ----------
    graph : RegionGraph
    figure : ndarray of bool, shape (n,)
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(figure)
    first, second = graph.pairs.T
    within = figure[first] == figure[second]
    joined = coo_array((np.ones(np.count_nonzero(within)), (first[within], second[within])), shape=(n, n))
    part = connected_components(joined, directed=False)[1]
    touching = np.zeros(n, bool)
    touching[graph.pairs[~within].ravel()] = True
    pairs = [graph.pairs[within]]
    for side in (figure, ~figure):
        leaves = np.flatnonzero(touching & side)
        one, other = (leaves[index] for index in np.triu_indices(len(leaves), 1))
        apart = part[one] != part[other]
        pairs.append(np.stack([one[apart], other[apart]], axis=1))
    every = np.concatenate(pairs)
    added = len(every) - len(pairs[0])
    order = np.lexsort((every[:, 1], every[:, 0]))
    length = np.append(graph.length[within], np.ones(added))
    strength = np.append(graph.strength[within], np.zeros(added))
    return RegionGraph(every[order], length[order], strength[order])


def border_pixels(labels: np.ndarray) -> np.ndarray:
    """Pixels of the image's border in each region of a label map, float64 (n,); a corner counts twice."""
    edges = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.bincount(edges, minlength=int(labels.max()) + 1).astype(np.float64)
