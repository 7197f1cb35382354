"""Max-overlap class matching: mIoU, pixel accuracy and their kin when the ground truth picks the region for each class.

For every image and every leaf class in it (all background is one class) the predicted region of greatest IoU is taken, and
its true and false positives and false negatives are pooled over the dataset. Several classes may take the same or nested
regions. This is an oracle, an upper bound: never rank it against matchings that do not see the ground truth.

Classes without a pixel in an image add nothing to it, and classes without a pixel anywhere are left out of the means.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.metrics.base import Contribution, Metric, MetricSpec, Truth
from uss_dagster.metrics.covering import best_match, iou_matrix, leaf_rows, overlap
from uss_dagster.regions import Regions
from uss_dagster.regions.classes import BACKGROUND

_PROTOCOL = "max overlap per image, leaf classes, full resolution"

SPEC = MetricSpec(
    name="matching",
    title="Max-overlap matching",
    truths=("classes",),
    metrics={
        "miou": Metric("mIoU (oracle)", _PROTOCOL, oracle=True),
        "pacc": Metric("pAcc (oracle)", _PROTOCOL, oracle=True),
        "macc": Metric("mAcc (oracle)", _PROTOCOL, oracle=True),
        "fiou": Metric("fIoU (oracle)", _PROTOCOL, oracle=True),
    },
    paper="Rossetti & Pirri, NeurIPS 2024",
)


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """tp, fp, fn: pixels of each class, float64 (number of class-tree nodes,); all background stands at its first node."""
    table = overlap(truth, prediction)
    nodes, holds = leaf_rows(table)
    if not len(nodes):
        return None
    iou = iou_matrix(table, holds)
    match, _ = best_match(iou, table.candidates)
    found = match >= 0
    shared = np.where(found, (holds @ table.shared)[np.arange(len(nodes)), match], 0)
    chosen = np.where(found, table.shared.sum(axis=0)[match], 0)
    place = np.where(nodes >= 0, nodes, np.argmax(np.asarray(table.classes.kind) == BACKGROUND))
    sums = {"tp": shared, "fp": chosen - shared, "fn": holds @ table.pixels - shared}
    contribution: Contribution = {}
    for name, values in sums.items():
        contribution[name] = np.zeros(len(table.classes))
        contribution[name][place] = values
    return contribution


def class_iou(total: Contribution) -> np.ndarray:
    """IoU of each class-tree node, NaN where it has no pixel in the ground truth."""
    tp, fp, fn = total["tp"], total["fp"], total["fn"]
    return np.where(tp + fn > 0, tp / np.maximum(tp + fp + fn, 1), np.nan)


def reduce(total: Contribution) -> dict[str, float]:
    """mIoU, pAcc (a recall: what a region covers beyond its class costs nothing), mAcc and frequency-weighted IoU."""
    tp, real = total["tp"], total["tp"] + total["fn"]
    present = real > 0
    if not present.any():
        return dict.fromkeys(SPEC.metrics, float("nan"))
    iou = class_iou(total)[present]
    tp, real = tp[present], real[present]
    return {
        "miou": float(iou.mean()),
        "pacc": float(tp.sum() / real.sum()),
        "macc": float((tp / real).mean()),
        "fiou": float((real / real.sum()) @ iou),
    }
