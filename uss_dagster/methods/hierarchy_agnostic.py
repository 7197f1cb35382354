"""Hierarchy-agnostic segmentation: recursive spectral clustering of one image into a tree of nested regions.

On deep features: all patches in a dense graph, clustered spectrally into many parts, and the graph of these parts divided from the top
down. A division has as many groups as the spectrum has clear eigenvalues before its widest gap; it is trusted while the graph is near
enough, against this gap, to one of disjoint cliques, and kept while its normalised cut is small.

On hand-made features a dense graph joins remote things of one colour. There the leaves of a contour map are divided instead, joined
where they touch. Such a graph is sparse, so it is never near cliques and its widest gap says little: divisions are in two by default, at
the eigenvector of the second eigenvalue.

Reference: Rossetti & Pirri, "Hierarchy-agnostic unsupervised segmentation: parsing semantic image structure", NeurIPS 2024. What
differs from the authors' program: every leaf keeps its own pixels, and ``max_perturb`` reaches both routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.affinity import Covariance, Whitening, dense_affinity
from uss_dagster.graphs.local_graph import edge_weights
from uss_dagster.graphs.overclustering import over_cluster, part_graph
from uss_dagster.graphs.partition import Partition, recursive_partition
from uss_dagster.methods._spectral import Graph, Items, items_of, lone_root, tree_regions
from uss_dagster.methods.base import MethodSpec
from uss_dagster.refine.leaves import RefineMethod
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """graph: ``dense``, ``local``, or ``auto``, see ``_spectral``. overclustering: ``simultaneous``, first into ``kover`` parts, or ``none``,
    items are divided directly. heuristic: ``maxgap``, or ``fiedler`` for two groups always. mncut_th: a division whose mean normalised cut
    is not below this is not made. Unless given, these are simultaneous, maxgap and 0.8 on a dense graph; on a local one none,
    fiedler, and no limit: two leaves that touch always have 1, whatever lies between them, and heights tell good divisions from bad.

    levels: greatest depth. max_kways, min_points (items, not pixels), max_perturb, eig_stab_th, normalization (of the Laplacian) and
    scaling (of eigenvectors before k-means): see ``recursive_partition``. max_perturb 50 is what the authors' program runs with on its
    usual route, 80 what its configuration says.

    distance (``mahalanobis``: under the covariance of all tokens of the dataset), adjacency, sigma, thresh: of the dense graph, see
    ``dense_affinity``. temperature: of the local one, see ``edge_weights``. restarts, iterations, tolerance: of the k-means that makes the parts.
    """

    graph: Graph = "auto"
    overclustering: Literal["simultaneous", "none"] | None = None
    heuristic: Literal["maxgap", "fiedler"] | None = None
    kover: int = 200
    levels: int = 9
    max_kways: int = 10
    min_points: int = 1
    mncut_th: float | None = None
    max_perturb: float = 50.0
    eig_stab_th: float | None = None
    normalization: Literal["symmetrical", "randomwalk", "standard"] = "symmetrical"
    scaling: Literal["unit", "minmax", "standard", "none"] = "unit"
    distance: Literal["cosine", "l2", "mahalanobis"] = "cosine"
    adjacency: Literal["minmax", "exp"] = "minmax"
    sigma: float = 1.0
    thresh: float = 0.0
    temperature: float = 0.06
    restarts: int = 10
    iterations: int = 600
    tolerance: float = 1e-6
    seed: int = 1234
    refine: RefineMethod = "none"

    def __post_init__(self) -> None:
        if self.kover < 1 or self.max_kways < 2 or self.levels < 0 or self.min_points < 1:
            raise UsageError(
                f"hierarchy_agnostic: kover {self.kover}, max_kways {self.max_kways}, levels {self.levels}, min_points {self.min_points}, "
                "expected at least 1, 2, 0 and 1."
            )
        if self.sigma <= 0 or self.temperature <= 0:
            raise UsageError(f"hierarchy_agnostic: sigma {self.sigma} and temperature {self.temperature}, expected both above 0.")


SPEC = MethodSpec(
    name="hierarchy_agnostic",
    title="Hierarchy-agnostic",
    params=Params,
    needs=("tokens",),
    paper="Rossetti & Pirri, NeurIPS 2024",
    licence="MIT (this project)",
    summary="Recursive spectral clustering into nested regions; dense graph on deep tokens, local edge-aware graph on hand-made ones.",
)


def fit(samples: Iterable[Sample], params: Params) -> Whitening | None:
    """The whitening of all tokens for ``distance: mahalanobis``; other distances need no look at the dataset."""
    if params.distance != "mahalanobis":
        return None
    tokens = Covariance()
    for sample in samples:
        if not sample.features.comparable:
            raise UsageError(
                "hierarchy_agnostic: distance 'mahalanobis' needs tokens that compare between images, and this backbone's do not. "
                "Choose 'cosine', or a deep backbone."
            )
        tokens.update(sample.features["tokens"])
    return tokens.whitening()


def segment(sample: Sample, params: Params, state: Whitening | None = None) -> Regions:
    """The image (region 0) and the regions that it divides into; the image alone where nothing divides.

    ``score`` is 1 - the normalised cut against the siblings. ``level`` is the contrast of the children on a local graph, and 1 - their mean
    normalised cut, times that of all nodes above, on a dense one. ``source`` says which graph it was.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums inside BLAS come out in one order
        items = items_of(sample, "tokens", params.graph)
        if items.plain:
            return lone_root(sample)
        tree = _partition(items, params, state)
        return tree_regions(sample, items, tree.labels, tree.parent, tree.ncut, params.refine)


def _partition(items: Items, params: Params, state: Whitening | None) -> Partition:
    affinity = _affinity(items, params, state)
    route, heuristic, mncut_th = ("simultaneous", "maxgap", 0.8) if items.local is None else ("none", "fiedler", np.inf)
    parts = np.arange(len(affinity))
    if (params.overclustering or route) == "simultaneous":
        parts = over_cluster(
            affinity,
            params.kover,
            laplacian=params.normalization,
            scaling=params.scaling,
            restarts=params.restarts,
            iterations=params.iterations,
            tolerance=params.tolerance,
            seed=params.seed,
        )
        affinity = part_graph(affinity, parts)
    tree = recursive_partition(
        affinity,
        params.levels,
        params.max_kways,
        params.min_points,
        mncut_th if params.mncut_th is None else params.mncut_th,
        params.max_perturb,
        heuristic=params.heuristic or heuristic,
        laplacian=params.normalization,
        scaling=params.scaling,
        eig_stab_th=params.eig_stab_th,
        seed=params.seed,
    )
    return Partition(tree.labels[parts], tree.parent, tree.ncut, tree.stop)


def _affinity(items: Items, params: Params, state: Whitening | None) -> np.ndarray:
    if items.local is not None:
        return edge_weights(items.local, params.temperature)
    features, distance = items.features, params.distance
    if distance == "mahalanobis":
        if state is None:
            raise UsageError("hierarchy_agnostic: distance 'mahalanobis' needs the state that fit(all samples, params) returns.")
        features, distance = state(features), "l2"
    return dense_affinity(features, distance=distance, similarity=params.adjacency, sigma=params.sigma, threshold=params.thresh)
