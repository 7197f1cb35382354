"""Diffuse–Walk–Cut: attention between patches as a random walk, cut in two again and again, a threshold chosen for each image.

The walk is brought to a grid of about ``grid``² cells, taken ``k`` steps at a time, and made a symmetric graph: by default of how alike
two patches' transitions are. Recursive Normalised Cuts make one full tree of it, and an automatic rule says where to prune.

Reference: Ivanova et al., "Unsupervised segmentation by diffusing, walking and cutting", arXiv 2412.04678. This is a reimplementation from
descriptions: the paper's rule for the threshold, its best k, its exponent and its upsampling are not known to us, so every such choice
is a parameter, and numbers are not those of the authors. Any backbone with the facet ``attention`` will do, not diffusion models only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.bipartition import CutTree, Rule, choose_threshold, cut_tree
from uss_dagster.graphs.walk import coarsen, stationary, transition, vote, walk, walk_graph
from uss_dagster.methods.base import MethodSpec
from uss_dagster.pixels import bilinear, nearest
from uss_dagster.refine.leaves import Refine, RefineMethod, refine_leaves
from uss_dagster.regions import Regions
from uss_dagster.runtime import peak_memory_mb


@dataclass(frozen=True)
class Params:
    """grid: side of a square of as many cells as there may be; attention on more is lumped onto so many. k: steps of the walk.

    graph: ``cos`` (likeness of transitions, to the power ``alpha``), ``dot``, ``sym`` or ``rw``, see ``walk_graph``. tau: a split is made
    below this Ncut; a number, or a rule that chooses it by image, see ``choose_threshold``. A number has to be chosen anew for each k
    and graph. most: the Ncut that the full tree goes to. min_share, min_cells: each side of a cut has this share of all cells, and so
    many. max_depth: of the tree.

    upsample: ``onehot``, cells' labels interpolated bilinearly; ``attn``, the segment whose mean transitions go to a pixel most; ``assign``,
    the segment whose mean transitions are most like a pixel's, at ``assign_size`` rows and columns. refine: borders pulled to the image's.
    min_component: connected parts below this share of the image go to a neighbour.

    tree: ``pruned``, the leaves are the segments; ``full``, everything down to ``most``, with the levels that tell where to cut.
    """

    grid: int = 32
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
        if not 1 <= self.grid <= 64 or self.k < 1 or self.max_depth < 0 or self.min_cells < 1 or self.assign_size < 1:
            raise UsageError(
                f"diffuse_walk_cut: grid {self.grid}, k {self.k}, max_depth {self.max_depth}, min_cells {self.min_cells}, assign_size "
                f"{self.assign_size}, expected 1 to 64, 1 or more, 0 or more, 1 or more, and 1 or more."
            )
        if not self.alpha > 0 or not 0 <= self.min_share < 1 or not 0 <= self.min_component < 1 or not 0 <= self.most <= 1:
            raise UsageError(
                f"diffuse_walk_cut: alpha {self.alpha}, min_share {self.min_share}, min_component {self.min_component}, most {self.most}, "
                "expected above 0, 0 to below 1, 0 to below 1, and 0 to 1."
            )
        if isinstance(self.tau, float) and not 0 <= self.tau <= self.most:
            raise UsageError(f"diffuse_walk_cut: tau is {self.tau}, expected 0 to {self.most} ('most'), or one of gap, mean, modularity.")


SPEC = MethodSpec(
    name="diffuse_walk_cut",
    title="Diffuse–Walk–Cut (reimplementation)",
    params=Params,
    needs=("attention",),
    paper="Ivanova et al., arXiv 2412.04678",
    licence="MIT (this project)",
    reimplementation=True,
    summary="Attention as a random walk of k steps, recursive two-way normalised cuts, a threshold chosen for each image.",
)


_LEAST_COST = 1e-12
"""Costs below it are one level."""


@dataclass(frozen=True)
class WalkCut:
    """Everything that one image gives. labels: int32 (H, W), the segments from 0. tree: the full one, over the cells of ``grid`` (h, w) in
    raster order. tau: where it is pruned, and ``rule`` why. vector: float64 (h, w), the first eigenvector that is not trivial.
    seconds: of each stage. peak_mb: memory of the process so far. regions: what ``segment`` returns.
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


def walk_cut(sample: Sample, params: Params) -> WalkCut:
    """The method with all it finds on the way."""
    from threadpoolctl import threadpool_limits

    clock = _Clock()
    with threadpool_limits(1):  # sums inside BLAS come out in one order
        step, grid, plain = _walk_of(sample, params.grid)
        power = walk(step, params.k)
        clock.lap("walk")
        if plain:
            weights = np.ones_like(power)
        else:
            weights = walk_graph(power, params.graph, alpha=params.alpha, share=stationary(step) if params.graph == "rw" else None)
        clock.lap("graph")
        least = max(params.min_cells, int(np.ceil(params.min_share * len(step))))
        tree = cut_tree(weights, min_size=least, max_depth=params.max_depth, most=params.most)
        clock.lap("cut")
        tau = params.tau if isinstance(params.tau, float) else choose_threshold(tree, params.tau)
        segments = tree.pruned(tau)
        clock.lap("threshold")
        shown = tree if params.tree == "full" else segments
        regions = _regions(sample, shown, step, power, grid, params)
        # the segment of each node that has pixels of its own, by one of its cells
        labels = segments.labels[shown.order[shown.start]][regions.deepest()]
        clock.lap("pixels")
    flat = np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int32)
    rule = params.tau if isinstance(params.tau, str) else "constant"
    return WalkCut(flat, regions, tree, grid, tau, rule, params.k, tree.vector.reshape(grid), clock.seconds, peak_memory_mb())


def _regions(sample: Sample, tree: CutTree, step: np.ndarray, power: np.ndarray, grid: tuple[int, int], params: Params) -> Regions:
    pixels = _to_pixels(tree.labels.reshape(grid), step, power, sample.image.shape[:2], params)
    pixels = refine_leaves(pixels, sample.image, Refine(method=params.refine))
    if params.min_component > 0:
        pixels = _without_crumbs(pixels, params.min_component * pixels.size)
    level = np.zeros(len(tree))
    level[tree.is_inner] = -np.log10(np.clip(tree.reach[tree.is_inner], _LEAST_COST, 1))
    score = np.ones(len(tree))
    score[1:] = np.clip(1 - tree.cost[tree.parent[1:]], 0, 1)
    rule = params.tau if isinstance(params.tau, str) else "constant"
    return Regions.from_tree(pixels, tree.parent, level=level, score=score, source=rule)


def _walk_of(sample: Sample, side: int) -> tuple[np.ndarray, tuple[int, int], bool]:
    """(transitions float32 (n, n), grid (h, w), nothing to see): attention lumped onto no more than side² cells.

    There is nothing to see in a local walk that goes everywhere it may with the same probability: only the grid itself would be cut.
    """
    attention = sample.features.sparse_attention()
    n = attention.shape[0]
    values, rows = attention.data, np.diff(attention.indptr)
    if attention.shape != (n, n) or not n or not np.isfinite(values).all() or values.min(initial=0) < 0 or not rows.all():
        raise BadData(
            f"Image '{sample.image_id}': 'attention' of shape {attention.shape} is no transition matrix of finite probabilities, "
            "a row of them for each cell; extract it again."
        )
    grid = attention_grid(sample, n)
    local = 2 * attention.nnz < n * n
    attention.eliminate_zeros()
    plain = local and bool((_row_range(attention) <= 1e-6).all())
    target = _coarse_grid(*grid, side * side)
    step = transition(coarsen(attention if local else attention.toarray(), grid, target))
    return step, target, plain


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
        score, size_there = member @ step, size
    else:
        means = member @ power
        # a pixel's own length is a common factor of its cosines, so interpolated products have the same winner
        score = (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)) @ power.T.astype(np.float64)
        size_there = min(params.assign_size, size[0]), min(params.assign_size, size[1])
    best, most = np.zeros(size_there, np.int32), np.full(size_there, -np.inf)
    for leaf, one in zip(leaves.tolist(), score.reshape(-1, *labels.shape), strict=True):
        here = bilinear(one, *size_there)
        better = here > most
        best[better], most[better] = leaf, here[better]
    return nearest(best, *size)


def _without_crumbs(pixels: np.ndarray, area: float) -> np.ndarray:
    """Connected parts of fewer pixels go to the neighbour with the longest border; what results has the label most of it had."""
    from uss_dagster.graphs.superpixels import absorb_small, connected_parts

    merged = absorb_small(connected_parts(pixels), area)
    labels, place = np.unique(pixels, return_inverse=True)
    held = np.bincount(merged.ravel() * len(labels) + place.ravel(), minlength=(int(merged.max()) + 1) * len(labels))
    return labels[held.reshape(-1, len(labels)).argmax(axis=1)][merged]


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = now - self._last
        self._last = now
