"""A graph that joins only regions that touch, weighted by the edges of the image, and the heights of trees over it.

It is meant for hand-made features, which cannot tell two distant patches of one colour apart: a dense affinity would join them. The
nodes are watershed regions of a contour map. A weight is large where the common border is long, the features are similar and no
boundary lies between.

References: Shi & Malik, "Normalized cuts and image segmentation", TPAMI 22(8), 2000; Arbeláez et al., "Contour detection and
hierarchical image segmentation", TPAMI 33(5), 2011.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.graphs.merging import merged_down
from uss_dagster.graphs.region_graph import RegionGraph, region_graph, region_means
from uss_dagster.graphs.vectors import scaled_tokens
from uss_dagster.graphs.watershed import contour_leaves
from uss_dagster.regions.regions import depth_of

LEAF_EXPONENT = 0.25
"""Size exponent with which superfluous leaves are merged by boundary strength alone."""
FEATURE_POWER = 8.0
"""Mean squared length that centred features are scaled to, about that of the embedded backbone's, so that one feature weight serves all."""
HEIGHT_POWER = 0.5
"""Heights are divided by the greatest one to this power: a threshold then means more nearly the same in a plain picture and a busy one."""


@dataclass(frozen=True)
class LocalGraph:
    """Touching regions of one image.

    Parameters
    ----------
    leaves : ndarray of int64, shape (h, w)
        Region of each pixel of the half-size image, 0..n-1.
    graph : RegionGraph
        Which regions touch.
    area : ndarray of int64, shape (n,)
        Pixels of each.
    features : ndarray of float64, shape (n, C)
    """

    leaves: np.ndarray
    graph: RegionGraph
    area: np.ndarray
    features: np.ndarray


def local_graph(strength: np.ndarray, tokens: np.ndarray, *, most_leaves: int = 600, smoothing: float = 1.0) -> LocalGraph:
    """The leaves of a contour map with their mean tokens.

    Parameters
    ----------
    strength : ndarray of float, shape (h, w)
        Boundary strength at half size.
    tokens : ndarray of float, shape (h', w', C)
    most_leaves : int, default 600
        More leaves are merged down to this number by boundary strength alone.
    smoothing : float, default 1
        Standard deviation of a Gaussian before the watershed, in full-size pixels.
    """
    leaves = few_leaves(strength, most_leaves, smoothing)
    area = np.bincount(leaves.ravel())
    return LocalGraph(leaves, region_graph(leaves, strength), area, region_means(leaves, len(area), scaled_tokens(tokens, FEATURE_POWER)))


def few_leaves(strength: np.ndarray, most_leaves: int = 600, smoothing: float = 1.0) -> np.ndarray:
    """Leaves of a contour map, int64 (h, w), numbered 0..; parameters as for ``local_graph``."""
    leaves = contour_leaves(strength, smoothing)
    if int(leaves.max()) >= most_leaves:
        graph, area = region_graph(leaves, strength), np.bincount(leaves.ravel())
        leaves = merged_down(leaves, graph, area, most_leaves, size_exponent=LEAF_EXPONENT)
    return leaves


def edge_weights(local: LocalGraph, temperature: float = 0.06, feature_weight: float = 0.3) -> np.ndarray:
    """Affinity float64 (n, n) of leaves, 0 where they do not touch and on the diagonal::

    W(i, j) = length_ij · exp(-(feature_weight · |z_i - z_j| + b_ij) / temperature)

    with z the mean features and b the mean boundary strength along the common border.
    """
    first, second = local.graph.pairs.T
    apart = np.linalg.norm(local.features[first] - local.features[second], axis=1)
    weights = np.zeros((len(local.area), len(local.area)))
    weights[first, second] = local.graph.length * np.exp(-(feature_weight * apart + local.graph.strength) / temperature)
    return weights + weights.T


def contrast_heights(
    local: LocalGraph, labels: np.ndarray, parent: np.ndarray, *, feature_weight: float = 0.3, size_exponent: float = 0.2
) -> np.ndarray:
    """Heights of the nodes of any tree over the leaves, float64 (m,): 0 at its leaves, never lower than a child's.

    The contrast of two touching children of a node is the cost that ``merge_tree`` would have for joining them::

        (feature_weight · |z_u - z_v| + b_uv) · (n_u n_v / ((n_u + n_v) N)) ^ size_exponent

    The height of a node is the mean over the pairs of its children, weighted by the length of their borders, or the greatest height
    below it if that is more. All are then divided by that of the root to the power ``HEIGHT_POWER``.

    Parameters
    ----------
    local : LocalGraph
    labels : ndarray of int, shape (n,)
        Leaf of the tree for each leaf of the graph.
    parent : ndarray of int, shape (m,)
        In preorder, -1 for the root.
    feature_weight, size_exponent : float, default 0.3 and 0.2
    """
    m = len(parent)
    area, sums = np.bincount(labels, local.area, m), np.zeros((m, local.features.shape[1]))
    np.add.at(sums, labels, local.features * local.area[:, None])
    for node in range(m - 1, 0, -1):
        area[parent[node]] += area[node]
        sums[parent[node]] += sums[node]
    means = sums / np.maximum(area, 1)[:, None]

    first, second, edge = _siblings(local, labels, parent)
    pairs, pair = np.unique(first * m + second, return_inverse=True)
    u, v = pairs // m, pairs % m
    length = np.bincount(pair, local.graph.length[edge], len(pairs))
    strength = np.bincount(pair, (local.graph.length * local.graph.strength)[edge], len(pairs)) / np.maximum(length, 1)
    size = area[u] * area[v] / ((area[u] + area[v]) * area[0])
    cost = (feature_weight * np.linalg.norm(means[u] - means[v], axis=1) + strength) * size**size_exponent
    height = np.bincount(parent[u], length * cost, m) / np.maximum(np.bincount(parent[u], length, m), 1)
    for node in range(m - 1, 0, -1):
        height[parent[node]] = max(height[parent[node]], height[node])
    return height / max(height[0], 1e-9) ** HEIGHT_POWER


def _siblings(local: LocalGraph, labels: np.ndarray, parent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each border between two leaves of the tree: the two siblings (lower first) on whose common border it lies, and its index."""
    depth = depth_of(np.append(-1, parent[1:]))
    first, second = labels[local.graph.pairs].T
    edge = np.flatnonzero(first != second)
    first, second = first[edge].astype(np.int64), second[edge].astype(np.int64)
    while (apart := parent[first] != parent[second]).any():
        deeper, level = depth[first] - depth[second], apart
        first = np.where(level & (deeper >= 0), parent[first], first)
        second = np.where(level & (deeper <= 0), parent[second], second)
    return np.minimum(first, second), np.maximum(first, second), edge
