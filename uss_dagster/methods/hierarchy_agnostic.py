"""Hierarchy-agnostic segmentation: recursive spectral clustering of one image into a tree of nested regions.

On deep features all patches are joined in a dense graph and clustered spectrally into many parts; the graph of these parts is divided from
the top down. A division has as many groups as the spectrum has clear eigenvalues before its widest gap. It is trusted while the graph is
near enough, relative to this gap, to one of disjoint cliques, and made while its normalised cut is small.

On hand-made features a dense graph joins distant parts of one colour. There the leaves of a contour map are divided instead, joined
where they touch. Such a graph is sparse, so it is never near cliques and its widest gap says little. Divisions are in two by default, at
the eigenvector of the second eigenvalue.

Reference: Rossetti & Pirri, "Hierarchy-agnostic unsupervised segmentation: parsing semantic image structure", NeurIPS 2024. What
differs from the authors' program: every leaf keeps its own pixels, and ``max_perturb`` reaches both routes.
"""

from __future__ import annotations

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
from uss_dagster.methods.base import POSITIVE, MethodSpec, Samples, at_least, check_bounds, one_thread
from uss_dagster.refine.leaves import RefineMethod
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters. The first defaults are those of a dense graph, the second those of a local one.

    Parameters
    ----------
    graph : {'auto', 'dense', 'local'}
        See ``_spectral``. Default 'auto'.
    overclustering : {'simultaneous', 'none'} or None
        Items are first clustered into ``kover`` parts, or divided directly. Default None: 'simultaneous'; 'none'.
    heuristic : {'maxgap', 'fiedler'} or None
        Number of groups of a division: eigenvalues before the widest gap, or always two. Default None: 'maxgap'; 'fiedler'.
    kover : int
        Parts. Default 200.
    levels : int
        Greatest depth. Default 9.
    max_kways : int
        Most groups of a division, see ``recursive_partition``. Default 10.
    min_points : int
        Least items (not pixels) of a region that is divided. Default 1.
    mncut_th : float or None
        A division is made where its mean normalised cut is below. Default None: 0.8; no limit, since two leaves that touch always have 1,
        and heights tell good divisions from bad.
    max_perturb : float
        Largest perturbation at which a division is trusted. Default 50, which the authors' program runs with on its usual route; its
        configuration says 80.
    eig_stab_th : float or None
        See ``recursive_partition``. Default None.
    normalization : {'symmetrical', 'randomwalk', 'standard'}
        Of the Laplacian. Default 'symmetrical'.
    scaling : {'unit', 'minmax', 'standard', 'none'}
        Of eigenvectors before k-means. Default 'unit'.
    distance : {'cosine', 'l2', 'mahalanobis'}
        Of tokens in the dense graph, see ``dense_affinity``; 'mahalanobis': under the covariance of all tokens of the dataset.
        Default 'cosine'.
    adjacency : {'minmax', 'exp'}
        From distance to weight in the dense graph. Default 'minmax'.
    sigma, thresh : float
        Of that, see ``dense_affinity``. Default 1 and 0.
    temperature : float
        Of the local graph, see ``edge_weights``. Default 0.06.
    restarts, iterations, tolerance : int, int, float
        Of the k-means that makes the parts. Default 10, 600, 1e-6.
    seed : int
        Of every k-means. Default 1234.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none'.
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
        check_bounds(self, kover=at_least(1), max_kways=at_least(2), levels=at_least(0), min_points=at_least(1))
        check_bounds(self, sigma=POSITIVE, temperature=POSITIVE)


SPEC = MethodSpec(
    name="hierarchy_agnostic",
    title="Hierarchy-agnostic",
    params=Params,
    needs=("tokens",),
    paper="Rossetti & Pirri, NeurIPS 2024",
    summary="Recursive spectral clustering into nested regions; dense graph on deep tokens, local edge-aware graph on hand-made ones.",
)


def fit(samples: Samples, params: Params) -> Whitening | None:
    """The whitening of all tokens for the distance 'mahalanobis', None for others."""
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


@one_thread
def segment(sample: Sample, params: Params, state: Whitening | None = None) -> Regions:
    """The image (region 0) and the regions that it divides into; the image alone where nothing divides.

    ``score`` is 1 - the normalised cut against the siblings. ``level`` is the contrast of the children on a local graph, and 1 - their mean
    normalised cut, times that of all nodes above, on a dense one. ``source`` says which graph it was.
    """
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
