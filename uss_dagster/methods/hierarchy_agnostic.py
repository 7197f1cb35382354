"""Hierarchy-agnostic segmentation: recursive spectral clustering of one image into a tree of nested regions.

In the paper all patches are joined in a dense graph and clustered spectrally into many parts; the graph of these parts is divided from the
top down. A division has as many groups as the spectrum has clear eigenvalues before its widest gap. It is trusted while the graph is near
enough, relative to this gap, to one of disjoint cliques, and made while its normalised cut is small. ``preset: paper`` runs this.

On deep features the default divides the leaves of a contour map in place of parts: each carries its mean token, all are joined with each
other, and a division is in two, at the eigenvector of the second eigenvalue. Regions then have the borders of the image, which a grid of
patches does not; docs/hierarchy-agnostic.md has what both reach.

On hand-made features a complete graph joins distant parts of one colour. There leaves are joined where they touch. Such a graph is sparse, so
it is never near cliques and its widest gap says little: divisions are in two as well.

Reference: Rossetti & Pirri, "Hierarchy-agnostic unsupervised segmentation: parsing semantic image structure", NeurIPS 2024. What
differs from the authors' program: every leaf keeps its own pixels, and ``max_perturb`` reaches both routes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from uss_dagster.bounds import POSITIVE, SHARE, at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.affinity import Covariance, Whitening, cosine_affinity, dense_affinity
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.local_graph import edge_weights
from uss_dagster.graphs.merging import cut_linkage_tree
from uss_dagster.graphs.overclustering import over_cluster, part_graph
from uss_dagster.graphs.partition import Partition, normalised_cuts, recursive_partition
from uss_dagster.graphs.spectrum_slices import Factor
from uss_dagster.graphs.superpixels import pixel_parts
from uss_dagster.methods._spectral import Items, LeafGraph, items_of, kind, lone_root, tree_regions
from uss_dagster.methods.base import MethodSpec, Samples, of_preset, one_thread
from uss_dagster.pixels import nearest
from uss_dagster.refine.leaves import RefineMethod
from uss_dagster.regions import Regions
from uss_dagster.regions.regions import ancestor_matrix

Parts = Literal["simultaneous", "kmeans", "pixelkmeans", "felzenszwalb", "slic", "quickshift", "watershed", "none"]
Heuristic = Literal["maxgap", "fiedler"]
Merging = Literal["topdown", "bottomup"]
Adjacency = Literal["minmax", "exp"]
MOST_MERGED = 2000
"""Parts that are merged from the bottom up: time grows with their cube."""


@dataclass(frozen=True)
class Preset:
    """What a preset sets: parameters of the same names."""

    graph: LeafGraph = "auto"
    kover: int = 200
    max_perturb: float = 50.0


_PAPER = Preset("dense")
PRESETS = {
    "default": Preset(),
    "paper": _PAPER,
    "paper_config": replace(_PAPER, max_perturb=80.0),
    "paper_cityscapes": replace(_PAPER, kover=300),
}


@dataclass(frozen=True)
class Route:
    """What a kind of graph sets: parameters of the same names."""

    overclustering: Parts
    heuristic: Heuristic
    mncut_th: float
    adjacency: Adjacency
    sigma: float


ROUTES = {
    "dense graph": Route("simultaneous", "maxgap", 0.8, "minmax", 1.0),
    "graph of leaves": Route("none", "fiedler", 0.8, "exp", 0.2),
    # two leaves that touch always have a normalised cut of 1; heights tell good divisions from bad
    "local graph": Route("none", "fiedler", np.inf, "minmax", 1.0),
}


@dataclass(frozen=True)
class Params:
    """All parameters. Those with default None are the preset's or those of the kind of graph, in this order: dense; leaves; local.

    Parameters
    ----------
    preset : {'default', 'paper', 'paper_config', 'paper_cityscapes'}
        'paper': the dense graph with the values that the authors' program runs with. 'paper_config': with ``max_perturb`` 80, as its
        configuration says. 'paper_cityscapes': with ``kover`` 300. Default 'default'.
    graph : {'auto', 'dense', 'local', 'leaves'} or None
        See ``_spectral``; 'auto' takes 'leaves' where tokens are comparable across images, else 'local'. Default None: 'auto'; 'dense' in
        the paper's presets.
    overclustering : {'simultaneous', 'kmeans', 'pixelkmeans', 'felzenszwalb', 'slic', 'quickshift', 'watershed', 'none'} or None
        How items are first joined into parts: by spectral clustering into ``kover``; by k-means of their tokens; by a segmentation of the
        pixels, taken at the centre of each cell of the token grid (dense graph only); or not at all. Default None: 'simultaneous'; 'none';
        'none'.
    merging : {'topdown', 'bottomup'}
        Parts are divided recursively, or merged two by two as normalised cuts rise least, see ``cut_linkage_tree``: then nothing says where to
        stop. Default 'topdown'.
    heuristic : {'maxgap', 'fiedler'} or None
        Number of groups of a division: eigenvalues before the widest gap, or always two. Default None: 'maxgap'; 'fiedler'; 'fiedler'.
    kover : int or None
        Parts. Default None: 200; 300 in 'paper_cityscapes'.
    levels : int
        Greatest depth. Default 9.
    max_kways : int
        Most groups of a division, see ``recursive_partition``. Default 10.
    min_points : int
        Least items (not pixels) of a region that is divided. Default 1.
    mncut_th : float or None
        A division is made where its mean normalised cut is below. Default None: 0.8; 0.8; no limit.
    max_perturb : float or None
        Largest perturbation at which a division in three or more is trusted. Default None: 50, which the authors' program runs with; 80 in
        'paper_config'.
    perturb_two : bool
        The bound holds for divisions in two as well, which the authors' program does not test. Default false.
    eig_stab_th : float or None
        See ``recursive_partition``. Default None.
    normalization : {'symmetrical', 'randomwalk', 'standard'}
        Of the Laplacian. Default 'symmetrical'.
    scaling : {'unit', 'minmax', 'standard', 'none'}
        Of eigenvectors before k-means. Default 'unit'.
    distance : {'cosine', 'l2', 'mahalanobis'}
        Of tokens, not on the local graph, see ``dense_affinity``; 'mahalanobis': under the covariance of all tokens of the dataset.
        Default 'cosine'.
    adjacency : {'minmax', 'exp'} or None
        From distance to weight, not on the local graph. Default None: 'minmax'; 'exp'.
    sigma : float or None
        Of 'exp'. Default None: 1; 0.2.
    thresh : float
        Smaller weights become 0, not on the local graph. Default 0.
    temperature : float
        Of the local graph, see ``edge_weights``. Default 0.06.
    restarts : int
        Of the k-means that makes the parts. Default 10.
    iterations : int
        Of that, at most. Default 600.
    tolerance : float
        Of that. Default 1e-6.
    seed : int
        Of every k-means. Default 1234.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none'.
    """

    preset: Literal["default", "paper", "paper_config", "paper_cityscapes"] = "default"
    graph: LeafGraph | None = None
    overclustering: Parts | None = None
    merging: Merging = "topdown"
    heuristic: Heuristic | None = None
    kover: int | None = None
    levels: int = 9
    max_kways: int = 10
    min_points: int = 1
    mncut_th: float | None = None
    max_perturb: float | None = None
    perturb_two: bool = False
    eig_stab_th: float | None = None
    normalization: Literal["symmetrical", "randomwalk", "standard"] = "symmetrical"
    scaling: Literal["unit", "minmax", "standard", "none"] = "unit"
    distance: Literal["cosine", "l2", "mahalanobis"] = "cosine"
    adjacency: Adjacency | None = None
    sigma: float | None = None
    thresh: float = 0.0
    temperature: float = 0.06
    restarts: int = 10
    iterations: int = 600
    tolerance: float = 1e-6
    seed: int = 1234
    refine: RefineMethod = "none"

    def __post_init__(self) -> None:
        check_bounds(self, kover=at_least(1), max_kways=at_least(2), levels=at_least(0), min_points=at_least(1))
        check_bounds(self, sigma=POSITIVE, temperature=POSITIVE, restarts=at_least(1), iterations=at_least(1), tolerance=at_least(0))
        check_bounds(self, mncut_th=at_least(0), max_perturb=at_least(0), eig_stab_th=SHARE, thresh=SHARE)

    @property
    def settings(self) -> Preset:
        """The values of the preset, replaced by the parameters that are not None."""
        return of_preset(PRESETS[self.preset], self)


SPEC = MethodSpec(
    name="hierarchy_agnostic",
    title="Hierarchy-agnostic",
    params=Params,
    needs=("tokens",),
    paper="Rossetti & Pirri, NeurIPS 2024",
    summary="Recursive spectral clustering into nested regions; all leaves of a contour map joined on deep tokens, those that touch on "
    "hand-made ones; the paper's dense graph of patches with preset 'paper'.",
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
    graph = params.settings.graph
    if graph == "auto" and sample.features.comparable:
        graph = "leaves"
    items = items_of(sample, "tokens", graph)
    if items.plain:
        return lone_root(sample)
    tree = _partition(sample, items, params, state)
    return tree_regions(sample, items, tree.labels, tree.parent, tree.ncut, params.refine)


def _partition(sample: Sample, items: Items, params: Params, state: Whitening | None) -> Partition:
    route = of_preset(ROUTES[kind(items)], params)
    affinity, factor = _affinity(items, params, route, state)
    parts = np.arange(len(affinity))
    if route.overclustering != "none":
        parts = _parts(sample.image, items, affinity, params, route.overclustering, factor)
        affinity = part_graph(affinity, parts)
    if params.merging == "bottomup":
        return _bottom_up(affinity, parts)
    tree = recursive_partition(
        affinity,
        params.levels,
        params.max_kways,
        params.min_points,
        route.mncut_th,
        params.settings.max_perturb,
        heuristic=route.heuristic,
        laplacian=params.normalization,
        scaling=params.scaling,
        eig_stab_th=params.eig_stab_th,
        seed=params.seed,
        perturb_two=params.perturb_two,
    )
    return Partition(tree.labels[parts], tree.parent, tree.ncut, tree.stop)


def _bottom_up(affinity: np.ndarray, parts: np.ndarray) -> Partition:
    """The tree of merged parts, each node with its normalised cut against the other below the same node."""
    if len(affinity) > MOST_MERGED:
        raise UsageError(
            f"hierarchy_agnostic: merging 'bottomup' takes {MOST_MERGED} parts at most, got {len(affinity)}. Choose an 'overclustering'."
        )
    tree = cut_linkage_tree(affinity)
    below = ancestor_matrix(tree.parent)[:, tree.leaf]
    ncut = np.zeros(len(tree.parent))
    for node in np.unique(tree.parent[1:]):
        children, items = np.flatnonzero(tree.parent == node), np.flatnonzero(below[node])
        ncut[children] = normalised_cuts(affinity[np.ix_(items, items)], below[children[1], items].astype(np.int64))
    return Partition(tree.leaf[parts], tree.parent, ncut, ("",) * len(ncut))


def _parts(image: np.ndarray, items: Items, affinity: np.ndarray, params: Params, step: Parts, factor: Factor | None) -> np.ndarray:
    """The part of each item, int (n,), 0.. without a gap. factor: of the affinity."""
    count, seed, restarts, iterations, tolerance = params.settings.kover, params.seed, params.restarts, params.iterations, params.tolerance
    clustered = functools.partial(kmeans, seed=seed, restarts=restarts, iterations=iterations, tolerance=tolerance)
    if step == "simultaneous":
        return over_cluster(
            affinity,
            count,
            laplacian=params.normalization,
            scaling=params.scaling,
            restarts=restarts,
            iterations=iterations,
            tolerance=tolerance,
            seed=seed,
            factor=factor,
        )
    if step == "kmeans":
        return clustered(items.features, min(count, len(affinity))).labels
    if items.leaves:
        raise UsageError(
            f"hierarchy_agnostic: overclustering '{step}' divides pixels; it goes with the dense graph. Choose preset 'paper'."
        )
    if step == "pixelkmeans":
        labels = clustered(image.reshape(-1, 3), count).labels.reshape(image.shape[:2])
    else:
        labels = pixel_parts(image, step, count)
    part = np.zeros(len(affinity), np.int64)
    part[items.place] = nearest(labels, *items.place.shape)
    return np.unique(part, return_inverse=True)[1]


def _affinity(items: Items, params: Params, route: Route, state: Whitening | None) -> tuple[np.ndarray, Factor | None]:
    """The affinity of the items, and its factor where it has one."""
    if items.local is not None:
        return edge_weights(items.local, params.temperature), None
    features, distance = items.features, params.distance
    if distance == "mahalanobis":
        if state is None:
            raise UsageError("hierarchy_agnostic: distance 'mahalanobis' needs the state that fit(all samples, params) returns.")
        features, distance = state(features), "l2"
    if not items.leaves and (distance, route.adjacency, params.thresh) == ("cosine", "minmax", 0):
        return cosine_affinity(features)
    affinity = dense_affinity(features, distance=distance, similarity=route.adjacency, sigma=route.sigma, threshold=params.thresh)
    if items.leaves:  # a leaf counts by its area, as a part does by its patches
        affinity *= items.area[:, None] * items.area * len(affinity)
    return affinity, None
