"""Diffuse–Walk–Cut: attention between patches as a random walk, cut in two recursively, with a threshold chosen for each image.

The walk is reduced to a grid of about ``grid``² cells, taken ``k`` steps at a time, and made a symmetric graph: by default of the likeness of
two patches' transitions. Recursive Normalised Cuts make one full tree of it, and an automatic rule says where to prune.

Reference: Ivanova et al., "Unsupervised segmentation by diffusing, walking and cutting", arXiv 2412.04678. This is a reimplementation from
descriptions: the paper's rule for the threshold, its best k, its exponent and its upsampling are not known to us, so every such choice
is a parameter, and numbers are not those of the authors. Any backbone with the facet ``attention`` will do, not diffusion models only; with
``features`` the walk goes by the likeness of other facets.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from uss_dagster.bounds import PART, POSITIVE, at_least, check_bounds, within, wrong_value
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData
from uss_dagster.graphs.bipartition import CutTree, Rule, choose_threshold, cut_tree
from uss_dagster.graphs.region_graph import region_means
from uss_dagster.graphs.vectors import unit
from uss_dagster.graphs.walk import blocks_of, coarsen, feature_walk, stationary, transition, vote, walk, walk_graph
from uss_dagster.methods._maps import winners
from uss_dagster.methods.base import MethodSpec, feature_grid, one_thread
from uss_dagster.notes import note
from uss_dagster.pixels import nearest
from uss_dagster.refine.leaves import Refine, RefineMethod, refine_leaves
from uss_dagster.regions import Regions
from uss_dagster.runtime import peak_memory_mb


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    grid : int
        The walk is on at most grid² cells, 1 to 64; attention on more is lumped. Default 32.
    features : {'attention', 'tokens', 'keys', 'queries', 'values'}
        The facet that the walk is of: 'attention' is one itself; of the others it goes by cosines, see ``feature_walk``. Default 'attention'.
    k : int
        Steps of the walk. Default 2.
    graph : {'cos', 'dot', 'sym', 'rw'}
        How the walk becomes a symmetric graph, see ``walk_graph``. Default 'cos', the likeness of transitions to the power ``alpha``. With
        other ``features`` and one step, 'rw' is the graph of their cosines.
    alpha : float
        That power, also of the cosines of ``features``. Default 10.
    tau : {'gap', 'mean', 'modularity'} or float
        Ncut below which a split is made, or the rule that chooses it by image, see ``choose_threshold``. A number has to be chosen anew for
        each ``k`` and ``graph``. Default 'gap'.
    most : float
        Ncut to which the full tree goes, 0 to 1. Default 1.
    min_share, min_cells : float, int
        Each side of a cut has this share of all cells, and so many. Default 0.005 and 4.
    max_depth : int
        Of the tree. Default 8.
    upsample : {'onehot', 'attn', 'assign'}
        From cells to pixels: labels interpolated bilinearly ('onehot'); the segment whose mean transitions lead to a pixel most ('attn'); the
        segment whose mean transitions are most like a pixel's ('assign'). Default 'onehot'.
    assign_size : int
        Rows and columns at which 'assign' compares, in pixels. Default 128.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none'.
    min_component : float
        Connected parts below this share of the image go to a neighbour. Default 0.
    tree : {'pruned', 'full'}
        Leaves of the result are the segments, or those of the full tree, with levels that tell where to cut. Default 'pruned'.
    """

    grid: int = 32
    features: Literal["attention", "tokens", "keys", "queries", "values"] = "attention"
    k: int = 2
    graph: Literal["cos", "dot", "sym", "rw"] = "cos"
    alpha: float = 10.0
    tau: Rule | float = "gap"
    most: float = 1.0
    min_share: float = 0.005
    min_cells: int = 4
    max_depth: int = 8
    upsample: Literal["onehot", "attn", "assign"] = "onehot"
    assign_size: int = 128
    refine: RefineMethod = "none"
    min_component: float = 0.0
    tree: Literal["pruned", "full"] = "pruned"

    def __post_init__(self) -> None:
        check_bounds(self, grid=within(1, 64), alpha=POSITIVE, most=within(0, 1), max_depth=at_least(0), min_share=PART, min_component=PART)
        check_bounds(self, **dict.fromkeys(("k", "min_cells", "assign_size"), at_least(1)))
        if isinstance(self.tau, float) and not 0 <= self.tau <= self.most:
            raise wrong_value("tau", self.tau, f"0 to {self.most} ('most'), or one of gap, mean, modularity")

    @property
    def rule(self) -> str:
        """How the threshold is chosen."""
        return self.tau if isinstance(self.tau, str) else "constant"


SPEC = MethodSpec(
    name="diffuse_walk_cut",
    title="Diffuse–Walk–Cut (reimplementation)",
    params=Params,
    needs=("attention",),
    facet_parameter="features",
    paper="Ivanova et al., arXiv 2412.04678",
    summary="Attention as a random walk of k steps, recursive two-way normalised cuts, a threshold chosen for each image.",
    segmentation=("tree", "pruned"),
)


_LEAST_COST = 1e-12
"""Costs below it are one level."""


@dataclass(frozen=True)
class WalkCut:
    """All results for one image.

    labels: int32 (H, W), the segments from 0. regions: what ``segment`` returns. tree: the full one, over the cells of ``grid`` (h, w) in
    raster order. tau: where it is pruned, by ``rule``. k: steps. vector: float64 (h, w), the first eigenvector that is not trivial.
    seconds: of each stage. peak_mb: memory of the process so far.
    """

    labels: np.ndarray
    regions: Regions
    tree: CutTree
    grid: tuple[int, int]
    tau: float
    rule: str
    k: int
    vector: np.ndarray
    seconds: dict[str, float]
    peak_mb: float

    @property
    def segments(self) -> int:
        """How many segments have pixels."""
        return int(self.labels.max()) + 1


def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """The image (region 0) and the parts it is cut into.

    ``level`` is -log10 of the greatest cost on the way down to a region's own split, 0 at leaves, so that the cut of the tree at t is the
    pruning at 10^-t: costs near the root of a local walk are tiny. ``score`` is 1 - the cost of the split that made the region, ``source``
    the rule that chose the threshold.
    """
    return walk_cut(sample, params).regions


@one_thread
def walk_cut(sample: Sample, params: Params) -> WalkCut:
    """The method with all its intermediate results."""
    clock = _Clock()
    step, grid, plain = _walk_of(sample, params)
    power = walk(step, params.k)
    clock.lap("walk")
    least = max(params.min_cells, int(np.ceil(params.min_share * len(step))))
    share = stationary(step) if params.graph == "rw" and not plain else None
    nothing = np.empty((0, 0), np.float32)
    if params.upsample == "onehot":
        step = nothing  # each matrix is large: it goes once nothing needs it
    weights = np.ones_like(power) if plain else walk_graph(power, params.graph, alpha=params.alpha, share=share)
    if params.upsample == "onehot":
        power = nothing
    clock.lap("graph")
    tree = cut_tree(weights, min_size=least, max_depth=params.max_depth, most=params.most)
    clock.lap("cut")
    tau = params.tau if isinstance(params.tau, float) else choose_threshold(tree, params.tau)
    note(rule=params.rule, threshold=float(tau), steps=params.k, eigenvector=tree.vector.reshape(grid))
    note(nodes={"parent": tree.parent, "ncut": tree.cost, "items": tree.stop - tree.start, "reach": tree.reach})
    segments = tree.pruned(tau)
    clock.lap("threshold")
    result = tree if params.tree == "full" else segments
    regions = _regions(sample, result, step, power, grid, params)
    # the segment of each node that has pixels of its own, by one of its cells
    labels = segments.labels[result.order[result.start]][regions.deepest()]
    clock.lap("pixels")
    flat = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    vector = tree.vector.reshape(grid)
    return WalkCut(flat, regions, tree, grid, tau, params.rule, params.k, vector, clock.seconds, peak_memory_mb())


def _regions(sample: Sample, tree: CutTree, step: np.ndarray, power: np.ndarray, grid: tuple[int, int], params: Params) -> Regions:
    pixels = _to_pixels(tree.labels.reshape(grid), step, power, sample.image.shape[:2], params)
    pixels = refine_leaves(pixels, sample.image, Refine(method=params.refine))
    if params.min_component > 0:
        pixels = _without_small_parts(pixels, params.min_component * pixels.size)
    level = np.zeros(len(tree))
    level[tree.is_inner] = -np.log10(np.clip(tree.reach[tree.is_inner], _LEAST_COST, 1))
    score = np.ones(len(tree))
    score[1:] = np.clip(1 - tree.cost[tree.parent[1:]], 0, 1)
    return Regions.from_tree(pixels, tree.parent, level=level, score=score, source=params.rule)


def _walk_of(sample: Sample, params: Params) -> tuple[np.ndarray, tuple[int, int], bool]:
    """(transitions float32 (n, n), grid (h, w), whether the walk is plain): on no more than ``params.grid``² cells."""
    if params.features == "attention":
        return _attention_walk(sample, params.grid)
    features = feature_grid(sample, params.features)
    h, w = features.shape[:2]
    target = _coarse_grid(h, w, params.grid**2)
    means = region_means(blocks_of((h, w), target).reshape(h, w), target[0] * target[1], features)
    return feature_walk(means, params.alpha), target, False


def _attention_walk(sample: Sample, side: int) -> tuple[np.ndarray, tuple[int, int], bool]:
    """As ``_walk_of``: attention lumped onto no more than side² cells.

    A plain walk is local, goes to each neighbour with the same probability, and reaches every cell: a cut of it would follow the grid, not
    the image. Where it does not reach every cell, its parts are structure.
    """
    from scipy import sparse
    from scipy.sparse.csgraph import connected_components

    attention = sample.features["attention"] if sample.features.has_dense_attention else sample.features.sparse_attention()
    n = attention.shape[0]
    dense = isinstance(attention, np.ndarray)
    values = attention if dense else attention.data
    empty = not (attention.any(axis=1) if dense else np.diff(attention.indptr)).all()
    if attention.shape != (n, n) or not n or not np.isfinite(values).all() or values.min(initial=0) < 0 or empty:
        raise BadData(
            f"Image '{sample.image_id}': 'attention' of shape {attention.shape} is no transition matrix of finite probabilities, "
            "a row of them for each cell; extract it again."
        )
    grid = attention_grid(sample, n)
    target = _coarse_grid(*grid, side * side)
    local = 2 * (np.count_nonzero(attention) if dense else attention.nnz) < n * n
    if not local:
        return transition(coarsen(attention if dense else attention.toarray(), grid, target)), target, False
    attention = sparse.csr_array(attention)
    attention.eliminate_zeros()
    plain = bool((_row_range(attention) <= 1e-6).all()) and connected_components(attention, return_labels=False) == 1
    return transition(coarsen(attention, grid, target)), target, plain


def _row_range(matrix: Any) -> np.ndarray:
    """The greatest less the least entry that is stored in each row of a CSR matrix without empty rows."""
    begin = matrix.indptr[:-1]
    return np.maximum.reduceat(matrix.data, begin) - np.minimum.reduceat(matrix.data, begin)


def attention_grid(sample: Sample, n: int) -> tuple[int, int]:
    """(h, w) of the n cells between which attention is: that of another facet, or the one whose cells are most nearly square."""
    for facet in ("cls_attention", "keys", "tokens"):
        if facet in sample.features and (shape := sample.features[facet].shape[:2])[0] * shape[1] == n:
            return int(shape[0]), int(shape[1])
    height, width = sample.image.shape[:2]
    divisors = np.flatnonzero(n % np.arange(1, n + 1) == 0) + 1
    cell = np.abs(np.log((height / divisors) / (width / (n // divisors))))
    h = int(divisors[np.argmin(cell)])
    return h, n // h


def _coarse_grid(h: int, w: int, cells: int) -> tuple[int, int]:
    """A grid of the same shape with no more than so many cells; the same one where it has no more."""
    share = min(1.0, (cells / (h * w)) ** 0.5)
    rows, columns = max(1, int(h * share + 1e-9)), max(1, int(w * share + 1e-9))
    # a grid of one or few rows keeps them, and gives up more of its columns
    return min(rows, max(1, cells // columns)), min(columns, max(1, cells // rows))


def _to_pixels(labels: np.ndarray, step: np.ndarray, power: np.ndarray, size: tuple[int, int], params: Params) -> np.ndarray:
    """Labels (h, w) at the size of the image, int32 (H, W)."""
    if params.upsample == "onehot":
        return vote(labels, *size)
    leaves, place = np.unique(labels, return_inverse=True)
    member = np.zeros((len(leaves), labels.size))
    member[place.ravel(), np.arange(labels.size)] = 1 / np.bincount(place.ravel())[place.ravel()]
    if params.upsample == "attn":
        score, target = member @ step, size
    else:
        # a pixel's own length is a common factor of its cosines, so interpolated products have the same winner
        score = unit(member @ power) @ power.T.astype(np.float64)
        target = min(params.assign_size, size[0]), min(params.assign_size, size[1])
    return nearest(winners(zip(leaves.tolist(), score.reshape(-1, *labels.shape), strict=True), *target), *size)


def _without_small_parts(pixels: np.ndarray, area: float) -> np.ndarray:
    """Connected parts of fewer pixels go to the neighbour with the longest border; the result has the label of most of its pixels."""
    from uss_dagster.graphs.superpixels import absorb_small, connected_parts

    merged = absorb_small(connected_parts(pixels), area)
    labels, place = np.unique(pixels, return_inverse=True)
    counts = np.bincount(merged.ravel() * len(labels) + place.ravel(), minlength=(int(merged.max()) + 1) * len(labels))
    return labels[counts.reshape(-1, len(labels)).argmax(axis=1)][merged]


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
