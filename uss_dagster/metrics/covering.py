"""Covering: how well the best region of a prediction covers each ground-truth region, flat and along the class tree.

NMCovering is the mean, over ground-truth regions, of the greatest IoU that any predicted region has with it; NFCovering is the
same over foreground regions alone. NHCovering also asks that what covers the ancestors of a region lies above what covers the
region. All count valid pixels only, leave roots (whole images) out on both sides, and take semantic regions: one a class and
image, and one for all background together.

Everything is a function of one table, the pixels of each class in each predicted region, which one pass over the image fills: 400 times
faster than the product of masks by BLAS (``benchmarks/covering.py``).

Reference: Arbeláez et al., "Contour detection and hierarchical image segmentation", TPAMI 33(5), 2011 (covering); Rossetti & Pirri,
"Hierarchy-agnostic unsupervised segmentation", NeurIPS 2024, and its released evaluation (NFCovering, NMCovering, NHCovering).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import UsageError, did_you_mean
from uss_dagster.metrics.base import Contribution, Truth, deepest_value, mean, metric_spec, nan_ratio
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, IGNORE, INNER
from uss_dagster.regions.regions import joint_histogram

MODES = ("code", "formula")

SPEC = metric_spec(__file__)


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
    them in each predicted region. parent: int64 (K,), of predicted regions. candidates: bool (K,), those that take part: all but roots.
    """

    classes: ClassTree
    pixels: np.ndarray
    shared: np.ndarray
    parent: np.ndarray
    candidates: np.ndarray


def overlap(truth: Truth, prediction: Regions) -> Overlap:
    """The table of valid pixels for a ground truth of kind 'classes'; pixels in no class, and of ignore classes, are not valid.

    Pixels of classes that the tree does not know are ignored, with a warning.
    """
    tree = truth.tree()
    n = len(tree)
    deepest = deepest_value(truth.regions, truth.regions.label)
    unknown = deepest >= n
    if unknown.any():
        _warn_of_strangers(int(truth.regions.atom_area[unknown].sum()), np.unique(deepest[unknown]))
    counts = (deepest >= 0) & ~unknown
    counts[counts] = valid_classes(tree)[deepest[counts]]
    by_class = np.zeros((n, len(deepest)))
    by_class[deepest[counts], np.flatnonzero(counts)] = 1
    table = by_class @ joint_histogram(truth.regions, prediction).astype(np.float64)
    shared = table @ prediction.members.T.astype(np.float64)
    return Overlap(tree, table.sum(axis=1), shared, prediction.parent.astype(np.int64), ~prediction.is_root)


def tree_covering(truth: Truth, prediction: Regions, threshold: float = 0.0, mode: str = "code") -> Covering:
    """NMCovering and NHCovering of a ground truth of kind 'classes' by any family of regions.

    threshold: a region whose best IoU is lower counts 0. mode: 'code' is the released evaluation, 'formula' the printed equation of
    NHCovering, which has no threshold.

    >>> from uss_dagster.regions import ClassTree, Regions
    >>> gt = Regions.from_tree(np.array([[1, 1, 1, 1, 1, 1, 2, 2]]), [-1, 0, 0], label=[0, 1, 2])
    >>> result = tree_covering(Truth("classes", gt, ClassTree.from_arrays([-1, 0, 0], [-1, 0, 0])), gt)
    >>> result.nm, result.nh
    (1.0, 1.0)
    """
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
    lines = np.eye(len(nodes), dtype=bool)
    named = nodes[nodes >= 0]
    lines[: len(named), : len(named)] = table.classes.ancestors[np.ix_(named, named)].T
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
    return with_background(nodes, above[nodes] & figure, table) if len(nodes) else (nodes, np.zeros((0, len(kind)), bool))


def leaf_rows(table: Overlap) -> tuple[np.ndarray, np.ndarray]:
    """(nodes (G,), holds bool (G, n)): the leaf classes present, and -1 for all background together."""
    kind = np.asarray(table.classes.kind)
    nodes = np.flatnonzero((kind == FOREGROUND) & (table.pixels > 0))
    return with_background(nodes, np.eye(len(kind), dtype=bool)[nodes], table)


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
        code, formula, half = cover_tree(table), cover_tree(table, mode="formula"), cover_tree(table, threshold=0.5)
        nodes, holds = leaf_rows(table)
        best = best_match(iou_matrix(table, holds), table.candidates)[1]
        values = {
            "nm_covering": code.nm,
            "nh_covering": code.nh,
            "nh_covering_formula": formula.nh,
            "nm_covering_50": half.nm,
            "nh_covering_50": half.nh,
            "nm_covering_flat": mean(best),
            "nf_covering": mean(best[nodes >= 0]),
        }
    contribution: Contribution = {}
    for name, value in values.items():
        if not np.isnan(value):
            contribution |= {name: np.array(value), f"{name}.n": np.array(1.0)}
    return contribution or None


def reduce(total: Contribution) -> dict[str, float]:
    """Means over the images that have the score."""
    return {name: nan_ratio(total[name], total[f"{name}.n"]) for name in SPEC.metrics if name in total}


def annotator_matches(truth: Truth, prediction: Regions) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(region, annotator, match, IoU) of each annotators' region, (G,) each; whole images and empty regions are left out."""
    regions = truth.regions
    counted = np.flatnonzero(~regions.is_root & (regions.area > 0))
    match, best = best_match(region_iou(regions, prediction)[counted], ~prediction.is_root)
    _, annotator = np.unique(np.asarray(regions.source)[counted], return_inverse=True)
    return counted, annotator, match, best


def annotator_mean(annotator: np.ndarray, values: np.ndarray) -> float:
    """The mean over annotators of the mean of their regions' values; NaN where there are none."""
    return float((np.bincount(annotator, values) / np.bincount(annotator)).mean()) if len(annotator) else np.nan


def _annotator_mean(truth: Truth, prediction: Regions) -> float:
    """NMCovering of each annotator's segments, averaged over annotators; an annotator with the whole image only has none."""
    _, annotator, _, best = annotator_matches(truth, prediction)
    return annotator_mean(annotator, best)


def region_iou(first: Regions, second: Regions) -> np.ndarray:
    """IoU of every pair of regions, float64 (K1, K2); 0 where both are empty."""
    counts = joint_histogram(first, second).astype(np.float64)
    mine, theirs = first.members.astype(np.float64), second.members.T.astype(np.float64)
    shared = mine @ counts @ theirs
    union = (mine @ counts.sum(axis=1))[:, None] + counts.sum(axis=0) @ theirs - shared
    return shared / np.maximum(union, 1)


def _warn_of_strangers(pixels: int, labels: np.ndarray) -> None:
    warnings.warn(f"{pixels} pixels of classes not in the tree are ignored: {labels[:5].tolist()}.", stacklevel=3)


def valid_classes(classes: ClassTree) -> np.ndarray:
    """Bool (n,): classes whose pixels count; the root stands for no class."""
    valid = np.asarray(classes.kind) != IGNORE
    valid[0] = False
    return valid


def with_background(nodes: np.ndarray, holds: np.ndarray, table: Overlap) -> tuple[np.ndarray, np.ndarray]:
    ground = np.asarray(table.classes.kind) == BACKGROUND
    if not table.pixels[ground].any():
        return nodes, holds
    return np.append(nodes, -1), np.concatenate([holds, ground[None]])


def _respected(lines: np.ndarray, match: np.ndarray, table: Overlap) -> np.ndarray:
    """Share of each region's line whose matches lie on the line of the region's own match."""
    if not table.candidates.any():
        return np.zeros(len(match))
    over = np.zeros((len(match), len(table.candidates)), bool)
    for region, own in enumerate(match.tolist()):
        over[region, _line(own, table)] = True
    return (lines & over[:, match]).sum(axis=1) / lines.sum(axis=1)


def _jointly_respected(lines: np.ndarray, match: np.ndarray, iou: np.ndarray, table: Overlap) -> tuple[np.ndarray, np.ndarray]:
    """(share, share · IoU) of the predicted region that maximises the product; matches of a line are a set, as printed."""
    from uss_dagster.regions.counting import add_to_children

    if not table.candidates.any():
        return np.zeros(len(match)), np.zeros(len(match))
    count = np.zeros(iou.shape[::-1], np.int64)
    for region, line in enumerate(lines):
        count[match[line], region] = 1
    add_to_children(count, table.parent)
    share = count.T / lines.sum(axis=1, keepdims=True)
    best, product = best_match(iou * share, table.candidates)
    return share[np.arange(len(match)), best], product


def _line(region: int, table: Overlap) -> list[int]:
    """The region and what lies above it, without roots."""
    line = []
    while region >= 0:
        if table.candidates[region]:
            line.append(region)
        region = int(table.parent[region])
    return line
