"""Per-image oracles: the ground truth names the segments of each image anew, as training-free methods are usually scored.

A prediction is read as one flat segmentation: the regions that carry a dataset-wide label (those of the cut that all images share, see
``graphs.semantic_labels``), each a segment of its own whatever its label; or, where none does, its deepest regions. Each pixel belongs
to the last such region that holds it, and what none holds is missed. Classes are the leaf classes, all background together being
one; pixels of ignore classes, and those known only as an inner class, are not valid. True and false positives and false negatives
are added over images; mIoU is the mean over classes that have any of them, accuracy the share of valid pixels that are true
positives. Upper bounds all, on different scales:

- *diffseg*: the released evaluation of DiffSeg and DiffCut. One segment a class, matching the most pixels. Every class of the tree
  takes part, so a segment left over may fall to a class that the image has not, a false positive of it. Which one is up to the solver, so
  it gets what it gets there: classes as rows, segments as columns in the order of their numbers, those without a valid pixel too, and
  empty columns up to the number of classes. When classes run out, a segment is only missed.
- *strict*: the same with the image's own classes, and segments in an order that depends on their pixels alone. A segment left over
  stands for the class it covers most, in vain: all its pixels are missed by their classes, and those of other classes are false positives
  of it as well.
- *diffcut*: for classes with a background. Object classes are matched first, all segments that win no class of the image become one,
  and then all is matched again as in diffseg.
- *majority*: each segment is named after the class it covers most, many segments a class: what a perfect choice of names could reach.

References: Tian et al., "Diffuse, attend, and segment", CVPR 2024 (DiffSeg); Couairon et al., "DiffCut", NeurIPS 2024; both with
their released evaluations.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.metrics.base import Contribution, Truth, deepest_value, mean, metric_spec, nan_ratio
from uss_dagster.metrics.semantic import assign, class_columns, class_pixels, of_targets
from uss_dagster.regions import Regions
from uss_dagster.regions.classes import BACKGROUND

_PROTOCOLS = ("diffseg", "strict", "diffcut", "majority")

SPEC = metric_spec(__file__)


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """tp, fp, fn of each protocol, float64 (C,); None where no pixel is valid."""
    labelled = prediction.label >= 0
    return sums(truth, prediction, labelled if labelled.any() else np.ones(len(prediction), bool))


def sums(truth: Truth, prediction: Regions, among: np.ndarray) -> Contribution | None:
    """The result of ``measure`` where each pixel belongs to the deepest of some regions, bool (K,), that holds it."""
    atom = deepest_value(prediction, np.arange(len(prediction)), among)
    segments, row = np.unique(atom[atom >= 0], return_inverse=True)
    rows = np.full(len(atom), -1)
    rows[atom >= 0] = row
    numbered, missed = class_pixels(truth, prediction, rows, len(segments))
    table = numbered[numbered.sum(axis=1) > 0]
    if not table.size and not missed.any():
        return None
    table = table[np.lexsort((*table.T[::-1], table.sum(axis=1)))[::-1]]
    real = table.sum(axis=0) + missed
    results = {"diffseg": diffseg(numbered), "strict": strict(table, real > 0), "majority": majority(table)}
    if BACKGROUND in truth.tree().kind and len(set(class_columns(truth.tree()).tolist()) - {-1}) > 1:
        results["diffcut"] = diffcut(table, real > 0)
    contribution: Contribution = {}
    for name, (tp, fp) in results.items():
        contribution |= {f"{name}.tp": tp, f"{name}.fp": fp, f"{name}.fn": real - tp}
    return contribution


def reduce(total: Contribution) -> dict[str, float]:
    """mIoU and accuracy of each protocol that has sums."""
    return values_of(total, "oracle")


def values_of(total: Contribution, prefix: str) -> dict[str, float]:
    """The result of ``reduce``, its names after a prefix."""
    values: dict[str, float] = {}
    for name in _PROTOCOLS:
        if f"{name}.tp" not in total:
            continue
        tp, fp, fn = (total[f"{name}.{part}"] for part in ("tp", "fp", "fn"))
        union = tp + fp + fn
        iou = tp[union > 0] / union[union > 0]
        values[f"{prefix}_{name}_miou"] = mean(iou)
        values[f"{prefix}_{name}_accuracy"] = nan_ratio(tp.sum(), (tp + fn).sum())
    return values


def diffseg(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tp, fp), float64 (C,) each, of pixels (S, C) of each segment in each class, segments in the order of their numbers."""
    empty = np.zeros((max(table.shape[1] - len(table), 0), table.shape[1]), table.dtype)
    columns = np.concatenate([table, empty]).T
    classes, segments = assign(columns)
    tp = columns[classes, segments].astype(np.float64)
    return tp, columns[:, segments].sum(axis=0) - tp


def strict(table: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tp, fp); present: bool (C,), the classes that the image has."""
    tp, fp = np.zeros((2, table.shape[1]))
    own = np.flatnonzero(present)
    segments, columns = assign(table[:, own])
    tp[own[columns]] = table[segments, own[columns]]
    fp[own[columns]] = table[np.ix_(segments, own)].sum(axis=1) - tp[own[columns]]
    left = np.setdiff1d(np.arange(len(table)), segments)
    stands_for = table[left].argmax(axis=1) if len(left) else left
    np.add.at(fp, stands_for, table[left].sum(axis=1) - table[left, stands_for])
    return tp, fp


def diffcut(table: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tp, fp); the last class is background."""
    segments, classes = assign(table[:, :-1])
    wins = np.zeros(len(table), bool)
    wins[segments[present[classes]]] = True
    return diffseg(np.concatenate([table[wins], table[~wins].sum(axis=0, keepdims=True)]))


def majority(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(tp, fp); a tie goes to the first class."""
    target = table.argmax(axis=1) if table.size else np.zeros(len(table), np.int64)
    shared, claimed = of_targets(table, target)
    return shared, claimed - shared
