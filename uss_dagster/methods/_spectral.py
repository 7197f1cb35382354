"""What the spectral methods share: the graph of an image, and the regions of its partition.

*dense*: every cell of the token grid is joined with every other, by tokens alone. *local*: leaves of a contour map are joined where they
touch, by tokens and by the boundary between them (``graphs.local_graph``). *leaves*: every leaf of a contour map is joined with every
other, by mean tokens alone. ``auto``: the dense graph where the backbone's tokens are comparable across images, as deep ones are; the
local one where they are hand-made or whitened image by image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.contours import contour_strength, histogram_planes
from uss_dagster.graphs.local_graph import LocalGraph, contrast_heights, few_leaves, local_graph
from uss_dagster.graphs.region_graph import region_means
from uss_dagster.methods.base import feature_grid
from uss_dagster.pixels import check_image, shrink_long_side, to_lab
from uss_dagster.refine.leaves import Refine, RefineMethod, refine_leaves
from uss_dagster.regions import Regions

Graph = Literal["auto", "dense", "local"]
LeafGraph = Literal["auto", "dense", "local", "leaves"]

MOST_CELLS = 7200
"""Cells of a dense graph: a larger token grid is first averaged onto a coarser one. As many as 60 × 120, in 415 MB."""
LONG_SIDE = 480
"""An image longer than 4/3 of it is reduced to it for its contours, in pixels: their radii were chosen for this size."""


@dataclass(frozen=True)
class Items:
    """What the graph of one image joins. place: int64 (h, w), the item at each cell of a grid over the image. features: float64 (n, C).

    grid: the features as a grid (h', w', C). local: the local graph, None for a complete one. leaves: the items are contour leaves.
    """

    place: np.ndarray
    features: np.ndarray
    grid: np.ndarray
    local: LocalGraph | None
    leaves: bool = False

    @property
    def plain(self) -> bool:
        """There is nothing to cut: one item, or dense ones that are all alike, whose cut would depend on rounding."""
        spread, size = np.ptp(self.features, axis=0).max(initial=0.0), np.abs(self.features).max(initial=0.0)
        return len(self.features) == 1 or (self.local is None and bool(spread <= 1e-6 * size))

    @property
    def area(self) -> np.ndarray:
        """Share of the image that each item has, float64 (n,)."""
        return np.bincount(self.place.ravel(), minlength=len(self.features)) / self.place.size


def items_of(sample: Sample, facet: str, graph: LeafGraph) -> Items:
    """The items of an image and their features, from a facet (h', w', C)."""
    grid = feature_grid(sample, facet)
    if graph == "dense" or (graph == "auto" and sample.features.comparable):
        place = _cells(*grid.shape[:2])
        return Items(place, region_means(place, int(place.max()) + 1, grid), grid, None)
    strength = contour_strength(histogram_planes(to_lab(shrink_long_side(check_image(sample.image), LONG_SIDE))))
    if graph == "leaves":
        place = few_leaves(strength)
        return Items(place, region_means(place, int(place.max()) + 1, grid), grid, None, leaves=True)
    local = local_graph(strength, grid)
    return Items(local.leaves, local.features, grid, local, leaves=True)


def lone_root(sample: Sample) -> Regions:
    """The image as its only region: nothing was split."""
    return Regions.from_tree(np.zeros(sample.image.shape[:2], np.int32), [-1], level=[0.0])


def tree_regions(sample: Sample, items: Items, labels: np.ndarray, parent: np.ndarray, ncut: np.ndarray, refine: RefineMethod) -> Regions:
    """Regions of a tree over the items. ``score`` is 1 - ncut, ``source`` the kind of the graph.

    labels: int (n,), tree leaf of each item. parent: int (m,), in preorder. ncut: float (m,), of each node against its siblings, 0 for the root.
    level: ``contrast_heights`` on a local graph, ``trust_levels`` on a dense one.
    """
    if items.local is None:
        level = trust_levels(parent, ncut)
    else:
        level = contrast_heights(items.local, labels, parent)
    return Regions.from_tree(leaf_map(sample, items, labels, refine), parent, level=level, score=1 - ncut, source=kind(items))


def leaf_map(sample: Sample, items: Items, labels: np.ndarray, refine: RefineMethod) -> np.ndarray:
    """Labels (n,) of the items at the pixels of the image, (H, W). Tokens make leaves soft where these lie on the token grid."""
    soft = None if items.leaves else items.grid
    return refine_leaves(labels[items.place], sample.image, Refine(method=refine), soft)


def kind(items: Items) -> str:
    if items.local is not None:
        return "local graph"
    return "graph of leaves" if items.leaves else "dense graph"


def trust_levels(parent: np.ndarray, ncut: np.ndarray) -> np.ndarray:
    """Heights where there are no contours, float64 (m,): at an inner node the product of 1 - mean ncut of the children over the node
    and all nodes above it, so that a split counts no more than the splits that led to it; 0 at leaves.
    """
    m = len(parent)
    children = np.bincount(parent[1:], minlength=m)
    level = np.where(children > 0, 1 - np.bincount(parent[1:], ncut[1:], m) / np.maximum(children, 1), 0.0)
    for node in range(1, m):
        level[node] *= level[parent[node]]
    return level


def _cells(h: int, w: int) -> np.ndarray:
    """Item of each cell of a grid, int64 (h, w): its own, or that of a block of cells where there are more than ``MOST_CELLS``."""
    share = min(1.0, (MOST_CELLS / (h * w)) ** 0.5)
    # a strip keeps one cell across, and gives up more of them along
    rows = min(max(1, int(h * share)), MOST_CELLS)
    columns = min(max(1, int(w * share)), MOST_CELLS // rows)
    return (np.arange(h) * rows // h)[:, None] * columns + np.arange(w) * columns // w
