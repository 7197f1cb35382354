"""Two-way Normalised Cuts, recursively, until no cut is cheap enough.

At each node the items are ordered by the eigenvector of the second smallest eigenvalue of the Laplacian, and every threshold on it is
tried. Ncut = cut/assoc(A) + cut/assoc(B) lies between 0 and 2; halving a graph without any structure costs a little more than 1.

Reference: Shi & Malik, "Normalized cuts and image segmentation", TPAMI 22(8), 2000. Their graph joined pixels by colour and distance;
here it follows the backbone, see ``_spectral``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from uss_dagster.bounds import PART, POSITIVE, at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.affinity import dense_affinity
from uss_dagster.graphs.eigen import floored, smallest_eigenpairs
from uss_dagster.graphs.local_graph import edge_weights
from uss_dagster.graphs.partition import Division, Partition, grown
from uss_dagster.methods._spectral import Graph, items_of, lone_root, tree_regions
from uss_dagster.methods.base import MethodSpec, one_thread
from uss_dagster.refine.leaves import RefineMethod
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    graph : {'auto', 'dense', 'local'}
        See ``_spectral``. Default 'auto'.
    ncut_th : float or None
        A cut is made where its Ncut is below, 0 to 2. Default None: 1 on a dense graph; no limit on a local one, where two leaves that touch
        always have 2.
    min_area : float
        Least share of the image on each side of a cut. Default 0.0005.
    levels : int
        Greatest depth. Default 20.
    distance : {'cosine', 'l2'}
        Of tokens in the dense graph, see ``dense_affinity``. Default 'cosine'.
    adjacency : {'minmax', 'exp'}
        From distance to weight in the dense graph. Default 'exp'.
    sigma : float
        Of 'exp'. Default 0.3.
    temperature : float
        Of the local graph, see ``edge_weights``. Default 0.06.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none'.
    """

    graph: Graph = "auto"
    ncut_th: float | None = None
    min_area: float = 0.0005
    levels: int = 20
    distance: Literal["cosine", "l2"] = "cosine"
    adjacency: Literal["minmax", "exp"] = "exp"
    sigma: float = 0.3
    temperature: float = 0.06
    refine: RefineMethod = "none"

    def __post_init__(self) -> None:
        check_bounds(self, ncut_th=at_least(0), min_area=PART, levels=at_least(0), sigma=POSITIVE, temperature=POSITIVE)


SPEC = MethodSpec(
    name="ncut_recursive",
    title="Recursive Normalised Cuts",
    params=Params,
    needs=("tokens",),
    paper="Shi & Malik, TPAMI 2000",
    summary="Two-way normalised cuts at the best threshold of the second eigenvector, recursively; the graph follows the backbone.",
    segmentation=True,
)


@one_thread
def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """A binary tree from the image (region 0) down; the image alone where no cut is made. Level, score and source are those of
    ``hierarchy_agnostic``.
    """
    items = items_of(sample, "tokens", params.graph)
    if items.plain:
        return lone_root(sample)
    if items.local is None:
        affinity, limit = dense_affinity(items.features, distance=params.distance, similarity=params.adjacency, sigma=params.sigma), 1.0
    else:
        affinity, limit = edge_weights(items.local, params.temperature), np.inf
    limit = limit if params.ncut_th is None else params.ncut_th
    tree = cut_down(affinity, items.area, limit, params.min_area, params.levels)
    return tree_regions(sample, items, tree.labels, tree.parent, tree.ncut, params.refine)


def cut_down(affinity: np.ndarray, area: np.ndarray, limit: float, min_area: float, levels: int) -> Partition:
    """The binary tree of the items of an affinity (n, n): every cut below ``limit`` that leaves each side ``min_area`` is made."""

    def divide(inner: np.ndarray, items: np.ndarray) -> Division:
        cut = best_cut(inner, area[items], min_area) if len(items) > 1 else None
        if cut is None or cut[1].sum() >= limit:
            return "normalised cut"
        return cut[0].astype(np.int64), cut[1]

    return grown(affinity, levels, divide)


def best_cut(affinity: np.ndarray, area: np.ndarray, min_area: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The side of each item, bool (n,), False for the first item, and cut over association of the two sides, of the threshold on the second
    eigenvector with the smallest sum of both, the lowest of equals. None where no threshold leaves each side ``min_area``.

    affinity: (n, n), n ≥ 2, diagonal 0.
    """
    vector = smallest_eigenpairs(affinity, 2, laplacian="randomwalk").vectors[:, 1]
    order = np.argsort(vector, kind="stable")
    values, size = vector[order], np.cumsum(area[order])
    # a threshold lies between different values; entries that differ by rounding only are one value
    possible = np.diff(values) > 1e-9 * max(values[-1] - values[0], 1e-12)
    possible &= (size[:-1] >= min_area) & (size[-1] - size[:-1] >= min_area)
    if not possible.any():
        return None
    degree = affinity.sum(axis=1)[order]
    rank = np.argsort(order, kind="stable")
    # row by row, weight to the items before: twice its running sum is the weight inside the first side
    before = np.array([affinity[item, order[:place]].sum() for item, place in zip(order, rank[order], strict=True)])
    low, total = np.cumsum(degree), degree.sum()
    cut = np.maximum(low - 2 * np.cumsum(before), 0)[:-1]
    shares = cut / floored(low[:-1], degree), cut / floored(total - low[:-1], degree)
    score = np.where(possible, shares[0] + shares[1], np.inf)
    best = int(np.argmin(score))
    side = rank > best
    cuts = np.array([shares[0][best], shares[1][best]])
    return (side, cuts) if not side[0] else (~side, cuts[::-1])
