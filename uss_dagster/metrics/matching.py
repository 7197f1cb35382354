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

import numpy as np

from uss_dagster.metrics.base import Contribution, Truth, metric_spec
from uss_dagster.metrics.covering import (
    Overlap,
    best_match,
    iou_matrix,
    leaf_rows,
    overlap,
    tree_rows,
    with_background,
)
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, INNER

LEAVES, TREE, FIGURE = "leaves", "tree", "figure"
DEEPEST = 4
"""Cuts by depth 1..DEEPEST have metrics of their own; ``cut_sums`` takes any depth."""


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
