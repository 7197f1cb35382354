"""Greedy merging of a region graph into a binary tree with monotone heights, an ultrametric map.

The cost of a pair is a feature distance plus the mean strength of the common border, times a slowly growing function
of size that lets small regions go first. The size term with exponent 1/2, features only, on a complete graph is Ward's criterion.

References: Arbeláez, "Boundary extraction in natural images using ultrametric contour maps", CVPRW 2006; Ward,
"Hierarchical grouping to optimize an objective function", JASA 58, 1963.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from uss_dagster.graphs.region_graph import RegionGraph


@dataclass(frozen=True)
class MergeTree:
    """A tree over n leaves, ready for ``Regions.from_tree(tree.leaf[labels], tree.parent, level=tree.height)``.

    parent: int32 (m,), in preorder, the root first with parent -1; m = 2n - 1 when the graph is connected. The child that holds
    the lowest leaf comes first. height: float64 (m,), 0 at leaves, never lower than a child's. leaf: int32 (n,), node of each leaf.
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
    cost, or the height of the merge before where that is greater. Joined regions take area-weighted mean features and
    length-weighted mean border strengths. Equal costs: the pair of lowest (i, j) first, where leaves are numbered as given
    and merged regions after them in order of making. What no border connects is joined at last under the root, at the
    greatest height so far.

    area: (n,), positive. features: float (n, C).
    """
    n = len(area)
    size = np.asarray(area, np.float64).tolist()
    whole = sum(size)
    mean = np.zeros((max(2 * n - 1, 1), features.shape[1]))
    mean[:n] = features
    # borders[i][j] = (length, length · mean strength); an entry lives while both of its regions do
    borders: list[dict[int, tuple[float, float]]] = [{} for _ in range(n)]
    for (i, j), length, strength in zip(graph.pairs.tolist(), graph.length.tolist(), graph.strength.tolist(), strict=True):
        borders[i][j] = borders[j][i] = (length, length * strength)

    def costs(region: int, others: list[int]) -> list[float]:
        apart = mean[others] - mean[region]
        distance = np.sqrt(np.einsum("ij,ij->i", apart, apart)).tolist()
        found = []
        for other, d in zip(others, distance, strict=True):
            length, strength = borders[region][other]
            shrink = (size[region] * size[other] / ((size[region] + size[other]) * whole)) ** size_exponent
            found.append((feature_weight * d + strength / length) * shrink)
        return found

    queue: list[tuple[float, int, int]] = []
    for region in range(n):
        others = [other for other in borders[region] if other > region]
        if others:
            queue += zip(costs(region, others), [region] * len(others), others, strict=True)
    heapq.heapify(queue)

    alive = [True] * n
    children: list[list[int]] = []
    heights: list[float] = []
    height = 0.0
    while queue:
        cost, i, j = heapq.heappop(queue)
        if not (alive[i] and alive[j]):
            continue
        height = max(cost, height)
        new = len(alive)
        alive[i] = alive[j] = False
        alive.append(True)
        children.append([i, j])
        heights.append(height)
        size.append(size[i] + size[j])
        mean[new] = (size[i] * mean[i] + size[j] * mean[j]) / size[new]
        joined = borders[i]
        for other, (length, strength) in borders[j].items():
            before = joined.get(other, (0.0, 0.0))
            joined[other] = (before[0] + length, before[1] + strength)
        del joined[i], joined[j]
        borders.append(joined)
        others = list(joined)
        for other in others:
            borders[other].pop(i, None)
            borders[other].pop(j, None)
            borders[other][new] = joined[other]
        if others:
            for other, cost in zip(others, costs(new, others), strict=True):
                heapq.heappush(queue, (cost, other, new))
        borders[i] = borders[j] = {}
    left = [region for region, lives in enumerate(alive) if lives]
    if len(left) > 1:
        children.append(left)
        heights.append(height)
    return _preorder(n, children, heights)


def ward_tree(area: np.ndarray, centres: np.ndarray) -> MergeTree:
    """Ward's agglomeration of weighted points (n, C), with heights ``sqrt(n_i n_j / ((n_i + n_j) N)) · |c_i - c_j|``."""
    n = len(area)
    first, second = np.triu_indices(n, 1)
    complete = RegionGraph(np.stack([first, second], axis=1), np.ones(len(first)), np.zeros(len(first)))
    return merge_tree(complete, area, centres, feature_weight=1.0, size_exponent=0.5)


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
