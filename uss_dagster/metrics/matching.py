"""Max-overlap class matching: mIoU, pixel accuracy and their kin when the ground truth picks the region for each class.

For every image and every class in it (all background is one class) the predicted region of greatest IoU is taken, and
its true and false positives and false negatives are pooled over the dataset. Several classes may take the same or nested
regions. This is an oracle, an upper bound: never rank it against matchings that do not see the ground truth.

What counts as a class is a *cut* of the class tree: its leaves; its nodes at one depth, with the leaves above that depth (only where
this joins leaves, so the names of a dataset say how deep its tree is); all its nodes below the root at once, as the released
hierarchical evaluation pools them, where some are inner; or the whole foreground against the background, where there is one.

Classes without a pixel in an image add nothing to it, and classes without a pixel anywhere are left out of the means.

Reference: Rossetti & Pirri, "Hierarchy-agnostic unsupervised segmentation", NeurIPS 2024, and its released evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uss_dagster.errors import UsageError
from uss_dagster.metrics.base import Contribution, Truth, metric_spec
from uss_dagster.metrics.covering import (
    ClassesLike,
    Overlap,
    as_class_tree,
    best_match,
    iou_matrix,
    leaf_rows,
    overlap,
    overlap_of_maps,
    tree_rows,
    with_background,
)
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, INNER

LEAVES, TREE, FIGURE = "leaves", "tree", "figure"
DEEPEST = 4
"""Cuts by depth 1..DEEPEST have metrics of their own; ``MaxOverlapMeter`` takes any depth."""


SPEC = metric_spec(__file__)


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """CUT.tp, CUT.fp, CUT.fn of each cut: pixels of each class, float64 (number of class-tree nodes,).

    All background stands at its first node, the whole foreground at the root.
    """
    table = overlap(truth, prediction)
    cuts: list[str | int] = [LEAVES, *coarser_depths(table.classes)]
    if INNER in table.classes.kind[1:]:
        cuts.append(TREE)
    if BACKGROUND in table.classes.kind:
        cuts.append(FIGURE)
    contribution = {f"{cut}.{name}": values for cut in cuts for name, values in cut_sums(table, cut).items()}
    return contribution if any(values.any() for values in contribution.values()) else None


def reduce(total: Contribution) -> dict[str, float]:
    """mIoU, pAcc (a recall: what a region covers beyond its class costs nothing), mAcc and frequency-weighted IoU of every cut."""
    values: dict[str, float] = {}
    for cut, suffix in ((LEAVES, ""), (TREE, "_tree"), *((str(d), f"_depth{d}") for d in range(1, DEEPEST + 1))):
        if f"{cut}.tp" in total:
            values |= {f"{name}{suffix}": value for name, value in summary(sums_of(total, cut)).items()}
    if f"{FIGURE}.tp" in total:
        two = {name: np.array([sums[0], sums[1:].sum()]) for name, sums in sums_of(total, FIGURE).items()}
        iou = dict(zip(("figure_iou", "ground_iou"), class_iou(two).tolist(), strict=True))
        iou["figure_ground_miou"] = (iou["figure_iou"] + iou["ground_iou"]) / 2
        values |= {name: value for name, value in iou.items() if not np.isnan(value)}
    return values


def coarser_depths(classes: ClassTree) -> list[int]:
    """Depths 1..DEEPEST at which the class tree's cut joins foreground leaves."""
    leaves = np.flatnonzero(np.asarray(classes.kind) == FOREGROUND)
    deepest = int(classes.depth[leaves].max(initial=0))
    return [d for d in range(1, min(deepest - 1, DEEPEST) + 1) if len(np.unique(classes.at_depth(d)[leaves])) < len(leaves)]


def cut_rows(table: Overlap, cut: str | int) -> tuple[np.ndarray, np.ndarray]:
    """(nodes (G,), holds bool (G, n)): the classes of a cut that are present; -1 is all background, 0 the whole foreground.

    cut: 'leaves', 'tree', 'figure', or a depth.
    """
    if cut == LEAVES:
        return leaf_rows(table)
    if cut == TREE:
        return tree_rows(table)
    kind = np.asarray(table.classes.kind)
    figure = (kind == FOREGROUND) | (kind == INNER)
    within = np.zeros(len(kind), np.int64) if cut == FIGURE else table.classes.at_depth(int(cut))
    holds = (within == np.arange(len(kind))[:, None]) & figure
    if cut != FIGURE:  # pixels of an inner node above the cut are of none of its classes
        holds[(table.classes.depth < int(cut)) & (kind == INNER)] = False
    nodes = np.flatnonzero(holds @ table.pixels > 0)
    return with_background(nodes, holds[nodes], table)


def cut_sums(table: Overlap, cut: str | int) -> Contribution:
    """tp, fp, fn of one image: pixels of each class of the cut against the predicted region of greatest IoU, float64 (n,)."""
    nodes, holds = cut_rows(table, cut)
    real = holds @ table.pixels
    shared, claimed = np.zeros(len(nodes)), np.zeros(len(nodes))
    if len(nodes) and table.candidates.any():
        match, _ = best_match(iou_matrix(table, holds), table.candidates)
        shared = (holds @ table.shared)[np.arange(len(nodes)), match]
        claimed = table.shared.sum(axis=0)[match]
    place = np.where(nodes >= 0, nodes, background_place(table.classes))
    sums = {"tp": shared, "fp": claimed - shared, "fn": real - shared}
    return {name: at_nodes(values, place, table.classes) for name, values in sums.items()}


def at_nodes(values: np.ndarray, nodes: np.ndarray, classes: ClassTree) -> np.ndarray:
    """Float64 (n,): the values at their class-tree nodes, 0 at all others."""
    every = np.zeros(len(classes))
    every[nodes] = values
    return every


def background_place(classes: ClassTree) -> int:
    """The node at which all background is counted."""
    return int(np.argmax(np.asarray(classes.kind) == BACKGROUND))


def sums_of(total: Contribution, cut: str) -> Contribution:
    """tp, fp and fn of one cut."""
    return {name: total[f"{cut}.{name}"] for name in ("tp", "fp", "fn")}


def class_iou(sums: Contribution) -> np.ndarray:
    """IoU of each class-tree node, NaN where it has no pixel in the ground truth."""
    tp, fp, fn = sums["tp"], sums["fp"], sums["fn"]
    return np.where(tp + fn > 0, tp / np.maximum(tp + fp + fn, 1), np.nan)


def summary(sums: Contribution, threshold: float = 0.0) -> dict[str, float]:
    """miou, pacc, macc and fiou; nothing where no class has a pixel. threshold: a class whose IoU is lower counts 0 in miou and fiou."""
    tp, real = sums["tp"], sums["tp"] + sums["fn"]
    present = real > 0
    if not present.any():
        return {}
    iou = class_iou(sums)[present]
    iou = iou * (iou >= threshold)
    tp, real = tp[present], real[present]
    return {
        "miou": float(iou.mean()),
        "pacc": float(tp.sum() / real.sum()),
        "macc": float((tp / real).mean()),
        "fiou": float((real / real.sum()) @ iou),
    }


class MaxOverlapMeter:
    """Max-overlap matching of leaf maps, without datasets: ``update`` image by image, ``merge``, ``result``.

    classes: the class tree, or the pair (parents, kinds). cut: 'leaves', a depth of the class tree, 'tree' for all its nodes at once,
    or 'figure' for foreground against background. thr: see ``summary``.

    >>> meter = MaxOverlapMeter(([-1, 0, 0], [-1, 0, 0]))
    >>> meter.update(np.array([[1, 1, 2, 2]]), np.array([[1, 1, 1, 2]]), [0, 0, 0])
    >>> round(meter.result()["miou"], 4)
    0.5833
    """

    def __init__(self, classes: ClassesLike, cut: str | int = LEAVES, thr: float = 0.0) -> None:
        self.classes = as_class_tree(classes)
        self.cut, self.thr = cut, thr
        if cut not in (LEAVES, TREE, FIGURE) and (not isinstance(cut, int) or cut < 1):
            raise UsageError(f"A cut of the class tree is '{LEAVES}', '{TREE}', '{FIGURE}' or a depth ≥ 1, got {cut!r}.")
        self.sums: Contribution = {name: np.zeros(len(self.classes)) for name in ("tp", "fp", "fn")}
        self.n = self.n_skipped = 0

    def update(self, gt_leafmap: np.ndarray, pred_leafmap: np.ndarray, pred_parent: Sequence[int] | np.ndarray) -> None:
        """Add one image; arguments as in ``covering.hierarchical_covering``."""
        sums = cut_sums(overlap_of_maps(gt_leafmap, self.classes, pred_leafmap, pred_parent), self.cut)
        scored = bool((sums["tp"] + sums["fn"]).any())
        self.n, self.n_skipped = self.n + scored, self.n_skipped + (not scored)
        for name, values in sums.items():
            self.sums[name] += values

    def merge(self, other: MaxOverlapMeter) -> None:
        """Add the images of another meter of the same classes and cut."""
        if (other.classes, other.cut) != (self.classes, self.cut):
            raise UsageError(f"Only meters of one class tree and one cut can be merged, got cuts {self.cut!r} and {other.cut!r}.")
        for name in self.sums:
            self.sums[name] += other.sums[name]
        self.n, self.n_skipped = self.n + other.n, self.n_skipped + other.n_skipped

    def result(self) -> dict[str, float | np.ndarray]:
        """miou, pacc, macc, fiou (absent before the first scored image), and of each class: nodes, tp, fp, fn (int64), iou, freq.

        nodes: class-tree node of each class, -1 for all background together, which comes first where there is any; then the foreground
        classes of the cut, ascending, those without a pixel too: IoU and frequency 0. iou: set to 0 below ``thr``.
        """
        kind = np.asarray(self.classes.kind)
        place = background_place(self.classes)
        nodes = _foreground_nodes(self.classes, self.cut)
        rows = nodes
        if (kind == BACKGROUND).any():
            nodes, rows = np.append(-1, nodes), np.append(place, nodes)
        iou = np.nan_to_num(class_iou(self.sums)[rows])
        real = (self.sums["tp"] + self.sums["fn"])[rows]
        counts = {name: values[rows].astype(np.int64) for name, values in self.sums.items()}
        detail = {"iou": iou * (iou >= self.thr), "freq": real / max(real.sum(), 1)}
        return {**summary(self.sums, self.thr), "nodes": nodes, **counts, **detail}


def _foreground_nodes(classes: ClassTree, cut: str | int) -> np.ndarray:
    """The nodes of a cut that stand above or at a foreground leaf, ascending."""
    leaves = np.flatnonzero(np.asarray(classes.kind) == FOREGROUND)
    if cut == LEAVES:
        return leaves
    if cut == TREE:
        above = np.flatnonzero(classes.ancestors[:, leaves].any(axis=1))
        return above[above > 0]
    return np.unique(classes.at_depth(0 if cut == FIGURE else int(cut))[leaves])
