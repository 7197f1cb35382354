"""Covering: how well the best region of a prediction covers each ground-truth region, flat and along the class tree.

NMCovering is the mean, over ground-truth regions, of the greatest IoU that any predicted region has with it. NHCovering also
asks that what covers the ancestors of a region lies above what covers the region. Both count valid pixels only, leave roots
(whole images) out on both sides, and take semantic regions: one a class and image, and one for all background together.

Everything is a function of one table, the pixels of each class in each predicted region, which comes from the joint
histogram of atoms.

Reference: Arbeláez et al., "Contour detection and hierarchical image segmentation", TPAMI 33(5), 2011 (covering); Rossetti & Pirri,
"Hierarchy-agnostic unsupervised segmentation", NeurIPS 2024, and its released evaluation (NMCovering, NHCovering).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.metrics.base import Contribution, Metric, MetricSpec, Truth, nan_ratio
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, IGNORE, INNER
from uss_dagster.regions.regions import joint_histogram

MODES = ("code", "formula")


SPEC = MetricSpec(
    name="covering",
    title="Covering",
    truths=("classes", "annotators"),
    metrics={
        "nm_covering": Metric("NMCovering", "hierarchical, full resolution"),
        "nh_covering": Metric("NHCovering", "hierarchical, full resolution, released code"),
        "nm_covering_flat": Metric("NMCovering, leaf classes", "flat, full resolution"),
        "nm_covering_annotators": Metric("NMCovering, annotators", "annotator mean, full resolution"),
    },
    paper="Rossetti & Pirri, NeurIPS 2024; Arbeláez et al., TPAMI 2011",
)


@dataclass(frozen=True)
class Covering:
    """Covering of one image's G ground-truth regions; nm and nh are NaN where G = 0 (nothing but background or ignore).

    gt_nodes: int64 (G,), class-tree node of each region, ascending; -1 for all background together, last. match: int64 (G,),
    predicted region with the greatest IoU, the first of equals, or -1 where nothing was predicted below the root. iou: float64
    (G,), that IoU, before any threshold. weight: float64 (G,), share of the region's line of descent that its match respects;
    in mode 'formula', of the predicted region that maximises IoU times share. nested: float64 (G,), what the region adds to nh.
    """

    nm: float
    nh: float
    gt_nodes: np.ndarray
    match: np.ndarray
    iou: np.ndarray
    weight: np.ndarray
    nested: np.ndarray


@dataclass(frozen=True)
class Overlap:
    """Valid pixels of one image by class and predicted region.

    pixels: float64 (n,), valid pixels of each class-tree node (those whose deepest class it is). shared: float64 (n, K), those of
    them in each predicted region. parent: int (K,), of predicted regions. candidates: bool (K,), those that take part: all but roots.
    """

    classes: ClassTree
    pixels: np.ndarray
    shared: np.ndarray
    parent: np.ndarray
    candidates: np.ndarray


def hierarchical_covering(
    gt: np.ndarray,
    classes: ClassTree | tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray],
    pred: np.ndarray,
    pred_parent: Sequence[int] | np.ndarray,
    threshold: float = 0.0,
    mode: str = "code",
) -> Covering:
    """NMCovering and NHCovering of a predicted tree against a class tree.

    gt: int (H, W), class-tree leaf of each pixel; values that the tree does not know are ignored, with a warning. classes: the
    class tree, or the pair (parents, kinds). pred: int (H, W), leaf of the predicted tree, -1 for none. pred_parent: parents in
    preorder; node 0 is the root. threshold: a region whose best IoU is lower counts 0. mode: 'code' is the released evaluation, 'formula'
    the printed equation of NHCovering, which has no threshold.

    >>> gt = np.array([[1, 1, 1, 1, 1, 1, 2, 2]])
    >>> result = hierarchical_covering(gt, ([-1, 0, 0], [-1, 0, 0]), gt, [0, 0, 0])
    >>> result.nm, result.nh
    (1.0, 1.0)
    """
    tree = classes if isinstance(classes, ClassTree) else ClassTree.from_arrays(*(np.asarray(values).tolist() for values in classes))
    gt, pred, parent = np.asarray(gt), np.asarray(pred), np.array(pred_parent, np.int64)
    k = len(parent)
    if gt.shape != pred.shape:
        raise BadData(f"Ground truth is {gt.shape} and the prediction {pred.shape} (height, width); resize one to the other.")
    if k == 0 or parent[0] not in (-1, 0) or (parent[1:] >= np.arange(1, k)).any() or parent.min() < -1:
        raise BadData("pred_parent must list parents before children, the root first with parent 0 or -1.")
    if pred.size and not -1 <= int(pred.min()) <= int(pred.max()) < k:
        raise BadData(f"The prediction holds {pred.min()}..{pred.max()}, but pred_parent knows nodes 0..{k - 1} (-1 is none).")
    parent[0] = -1
    known = (gt > 0) & (gt < len(tree))
    if not known.all():
        strangers = np.unique(gt[~known])
        warnings.warn(f"{np.count_nonzero(~known)} pixels of classes not in the tree are ignored: {strangers[:5].tolist()}.", stacklevel=2)
        gt = np.where(known, gt, 0)
    pairs = np.bincount((gt.astype(np.int64) * (k + 1) + (pred + 1)).ravel(), minlength=len(tree) * (k + 1))
    table = pairs.reshape(len(tree), k + 1).astype(np.float64)
    table[~_valid(tree)] = 0
    shared = table[:, 1:].copy()
    for node in range(k - 1, 0, -1):
        if parent[node] >= 0:
            shared[:, parent[node]] += shared[:, node]
    candidates = np.arange(k) > 0
    return cover_tree(Overlap(tree, table.sum(axis=1), shared, parent, candidates), threshold, mode)


def overlap(truth: Truth, prediction: Regions) -> Overlap:
    """The table of valid pixels for a ground truth of kind 'classes'; pixels in no class, and of ignore classes, are not valid."""
    if truth.classes is None:
        raise BadData("Ground truth of kind 'classes' comes without its class tree; pass Truth(kind, regions, classes).")
    n = len(truth.classes)
    deepest = _deepest_label(truth.regions)
    if int(deepest.max(initial=-1)) >= n:
        raise BadData(f"Ground truth has class {deepest.max()}, but the class tree ends at {n - 1}.")
    valid = np.zeros(len(deepest), bool)
    valid[deepest >= 0] = _valid(truth.classes)[deepest[deepest >= 0]]
    by_class = np.zeros((n, len(deepest)))
    by_class[deepest[valid], np.flatnonzero(valid)] = 1
    table = by_class @ joint_histogram(truth.regions, prediction).astype(np.float64)
    shared = table @ prediction.members.T.astype(np.float64)
    return Overlap(truth.classes, table.sum(axis=1), shared, prediction.parent, ~prediction.is_root)


def tree_covering(truth: Truth, prediction: Regions, threshold: float = 0.0, mode: str = "code") -> Covering:
    """``hierarchical_covering`` of a ground truth of kind 'classes' by any family of regions."""
    return cover_tree(overlap(truth, prediction), threshold, mode)


def cover_tree(table: Overlap, threshold: float = 0.0, mode: str = "code") -> Covering:
    """Both coverings from the table of one image."""
    if mode not in MODES:
        raise UsageError(f"Unknown mode '{mode}' of covering.{did_you_mean(mode, MODES)}")
    nodes, holds = tree_rows(table)
    if not len(nodes):
        none = np.zeros(0)
        return Covering(np.nan, np.nan, nodes, nodes, none, none, none)
    iou = iou_matrix(table, holds)
    match, best = best_match(iou, table.candidates)
    # lines[r, p]: region p is region r or lies above it (the root is not among the regions)
    above = table.classes.ancestors
    lines = np.array([[above[p, r] if min(p, r) >= 0 else p == r for p in nodes.tolist()] for r in nodes.tolist()])
    passed = best * (best >= threshold)
    if mode == "code":
        weight = _respected(lines, match, table)
        nested = passed * weight
    else:
        weight, nested = _jointly_respected(lines, match, iou, table)
    return Covering(float(passed.mean()), float(nested.mean()), nodes, match, best, weight, nested)


def tree_rows(table: Overlap) -> tuple[np.ndarray, np.ndarray]:
    """(nodes (G,), holds bool (G, n)): the ground-truth tree of an image without its root.

    A region for each class-tree node with foreground pixels at or below it, even where it equals its only child's, and one, -1,
    for all background. No regions where there is no foreground. Pixels labelled with an inner node count for it and what is above it.
    """
    kind = np.asarray(table.classes.kind)
    above = table.classes.ancestors
    figure = (kind == FOREGROUND) | (kind == INNER)
    nodes = np.flatnonzero(above @ (figure * table.pixels) > 0)
    nodes = nodes[nodes > 0]
    return _with_background(nodes, above[nodes] & figure, table) if len(nodes) else (nodes, np.zeros((0, len(kind)), bool))


def leaf_rows(table: Overlap) -> tuple[np.ndarray, np.ndarray]:
    """(nodes (G,), holds bool (G, n)): the leaf classes present, and -1 for all background together."""
    kind = np.asarray(table.classes.kind)
    nodes = np.flatnonzero((kind == FOREGROUND) & (table.pixels > 0))
    return _with_background(nodes, np.eye(len(kind), dtype=bool)[nodes], table)


def iou_matrix(table: Overlap, holds: np.ndarray) -> np.ndarray:
    """IoU over valid pixels of ground-truth regions (unions of classes, bool (G, n), not empty) with all predicted ones: (G, K)."""
    shared = holds @ table.shared
    return shared / ((holds @ table.pixels)[:, None] + table.shared.sum(axis=0) - shared)


def best_match(iou: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(match int64 (G,), IoU (G,)): the first candidate of greatest IoU; -1 and 0 where there are no candidates."""
    if not candidates.any():
        return np.full(len(iou), -1), np.zeros(len(iou))
    match = np.argmax(np.where(candidates, iou, -1.0), axis=1)
    return match, iou[np.arange(len(iou)), match]


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """Each metric's value on this image and a count of 1; None where it has no scored region."""
    if truth.kind == "annotators":
        values = {"nm_covering_annotators": _annotator_mean(truth, prediction)}
    else:
        table = overlap(truth, prediction)
        tree = cover_tree(table)
        _, holds = leaf_rows(table)
        flat = best_match(iou_matrix(table, holds), table.candidates)[1]
        values = {"nm_covering": tree.nm, "nh_covering": tree.nh, "nm_covering_flat": float(flat.mean()) if len(flat) else np.nan}
    contribution: Contribution = {}
    for name, value in values.items():
        if not np.isnan(value):
            contribution |= {name: np.array(value), f"{name}.n": np.array(1.0)}
    return contribution or None


def reduce(total: Contribution) -> dict[str, float]:
    """Means over the images that have the score."""
    return {name: nan_ratio(total[name], total[f"{name}.n"]) for name in SPEC.metrics if name in total}


def _annotator_mean(truth: Truth, prediction: Regions) -> float:
    """NMCovering of each annotator's segments, averaged over annotators; an annotator with the whole image only has none."""
    regions = truth.regions
    table = regions.members.astype(np.float64) @ joint_histogram(regions, prediction).astype(np.float64)
    shared = table @ prediction.members.T.astype(np.float64)
    union = regions.area[:, None] + prediction.area - shared
    best = best_match(shared / np.maximum(union, 1), ~prediction.is_root)[1]
    counted = ~regions.is_root & (regions.area > 0)
    _, annotator = np.unique(np.asarray(regions.source)[counted], return_inverse=True)
    return float((np.bincount(annotator, best[counted]) / np.bincount(annotator)).mean()) if len(annotator) else np.nan


def _valid(classes: ClassTree) -> np.ndarray:
    """Bool (n,): classes whose pixels count; the root stands for no class."""
    valid = np.asarray(classes.kind) != IGNORE
    valid[0] = False
    return valid


def _deepest_label(regions: Regions) -> np.ndarray:
    """Class of the last, so deepest, region holding each atom, -1 for none: int64 (A,)."""
    label = np.full(regions.members.shape[1], -1, np.int64)
    for region, held in enumerate(regions.members):
        label[held] = regions.label[region]
    return label


def _with_background(nodes: np.ndarray, holds: np.ndarray, table: Overlap) -> tuple[np.ndarray, np.ndarray]:
    ground = np.asarray(table.classes.kind) == BACKGROUND
    if not table.pixels[ground].any():
        return nodes, holds
    return np.append(nodes, -1), np.concatenate([holds, ground[None]])


def _respected(lines: np.ndarray, match: np.ndarray, table: Overlap) -> np.ndarray:
    """Share of each region's line whose matches lie on the line of the region's own match."""
    weight = np.zeros(len(match))
    for region, line in enumerate(lines):
        if match[region] >= 0:
            weight[region] = np.isin(match[line], _line(int(match[region]), table)).mean()
    return weight


def _jointly_respected(lines: np.ndarray, match: np.ndarray, iou: np.ndarray, table: Overlap) -> tuple[np.ndarray, np.ndarray]:
    """(share, share · IoU) of the predicted region that maximises the product; matches of a line are a set, as printed."""
    if not table.candidates.any():
        return np.zeros(len(match)), np.zeros(len(match))
    count = np.zeros_like(iou)
    for region, line in enumerate(lines):
        count[region, match[line]] = 1
    for node, above in enumerate(table.parent.tolist()):
        if above >= 0:
            count[:, node] += count[:, above]
    share = count / lines.sum(axis=1, keepdims=True)
    chosen, product = best_match(iou * share, table.candidates)
    return share[np.arange(len(match)), chosen], product


def _line(region: int, table: Overlap) -> list[int]:
    """The region and what lies above it, without roots."""
    line = []
    while region >= 0:
        if table.candidates[region]:
            line.append(region)
        region = int(table.parent[region])
    return line
