"""Panoptic quality with classes: each class is matched to one cluster over the dataset, then segments are compared class by class.

Predicted regions carry a cluster in ``label`` (-1: none, and no part in this), and are laid down as in ``panoptic``. Clusters are matched to classes
one to one so that the most pixels agree, as in ``semantic`` (Hungarian; all background is one class). Clusters beyond the classes are left out: what
they cover is missed, and adds no false positives.

Of a class below the node 'things' of the class tree, each region is a segment; of any other class, all its pixels in an image are one, on both sides.
A class without such a node, so each class of a dataset without 'things', is of the second kind. PQ, SQ and RQ of a class are those of ``panoptic``
over all images, and are averaged over the classes that have a segment on either side. A predicted segment of which more than half is void or a crowd of
its own class is no false positive.

Reference: Kirillov et al., "Panoptic segmentation", CVPR 2019; Niu et al., "Unsupervised universal image segmentation", CVPR 2024 (U2Seg, matching of
clusters by Hungarian assignment).
"""

from __future__ import annotations

import numpy as np

from uss_dagster.metrics.base import Contribution, Truth, metric_spec
from uss_dagster.metrics.panoptic import GROUPS, THINGS, groups, match, true_segments, without_overlap
from uss_dagster.metrics.semantic import class_columns, class_pixels, hungarian
from uss_dagster.regions import Regions
from uss_dagster.regions.regions import joint_histogram

SPEC = metric_spec(__file__)
MISSED, SEGMENTS = "missed", "segments"
"""Keys of a contribution beside the clusters and ``GROUPS``."""


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """What each cluster adds if it stands for a class.

    Returns
    -------
    dict or None
        Number of a cluster, as text → float64 (C, 4): its pixels in each class, TP, sum of IoU, and FP. 'missed' → (C,), pixels of each class in no
        cluster. 'segments' → (C,), ground-truth segments of each class. 'things' and 'stuff' → (C,), above 0 where a class is one. None where no
        pixel is valid.
    """
    tree = truth.tree()
    segments = true_segments(truth)
    region, holds = without_overlap(prediction, (prediction.label >= 0) & ~prediction.is_root)
    joint = joint_histogram(truth.regions, prediction) @ holds.T.astype(np.int64)
    both, size, real = segments.holds @ joint, joint.sum(axis=0), segments.holds @ truth.regions.atom_area
    void = size - both.sum(axis=0)
    clusters, row = np.unique(prediction.label[region], return_inverse=True)
    of_atom = np.append(row, -1)[np.where(holds.any(axis=0), holds.argmax(axis=0), -1)] if len(region) else np.full(holds.shape[1], -1)
    pixels, missed = class_pixels(truth, prediction, of_atom, len(clusters))
    if not pixels.any() and not missed.any():
        return None
    columns = class_columns(tree)
    node = np.array([np.flatnonzero(columns == column)[0] for column in range(len(missed))])  # of each column, one
    total: Contribution = {MISSED: missed, SEGMENTS: np.zeros(len(missed))}
    total |= {name: np.zeros(len(missed)) for name in GROUPS} | groups(tree, node)
    merged = ~np.asarray(total[THINGS], bool)
    for number, cluster in enumerate(clusters.tolist()):
        theirs = row == number
        no_match = np.where(merged, 2 * void[theirs].sum() <= size[theirs].sum(), np.count_nonzero(2 * void[theirs] <= size[theirs]))
        total[str(cluster)] = np.stack([pixels[number], *np.zeros((2, len(missed))), no_match], axis=1)
    for column in np.unique(columns[segments.node]).tolist():
        mine = columns[segments.node] == column
        own, crowd = mine & ~segments.crowd, both[mine & segments.crowd].sum(axis=0)
        total[SEGMENTS][column] = own.any() if merged[column] else own.sum()
        for number, cluster in enumerate(clusters.tolist()):
            theirs = row == number
            sums = both[own][:, theirs], real[own], size[theirs], void[theirs], (void + crowd)[theirs]
            total[str(cluster)][column, 1:] = match(*(_as_one(*sums) if merged[column] else sums))[:3]
    return total


def _as_one(both: np.ndarray, *areas: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arguments of ``match`` with all segments of a side as one, or none where there is none."""
    one = np.full((min(len(both), 1), min(both.shape[1], 1)), both.sum())
    return one, *(values.sum(keepdims=True)[: len(values)] for values in areas)


def reduce(total: Contribution) -> dict[str, float]:
    """PQ, SQ and RQ, means over classes; of a class without a match SQ is 0, as in the evaluation code."""
    segments = total[SEGMENTS]
    clusters = sorted((key for key in total if key.isdecimal()), key=int)
    tables = np.array([*(total[key] for key in clusters), np.zeros((len(segments), 4))])  # the last one serves classes without a cluster
    cluster = hungarian(tables[:-1, :, 0], total[MISSED]).match
    tp, iou, fp = tables[cluster, np.arange(len(segments)), 1:].T
    fn = segments - tp
    weight = tp + fp / 2 + fn / 2
    numbers = {"pq": iou / np.maximum(weight, 0.5), "sq": iou / np.maximum(tp, 1), "rq": tp / np.maximum(weight, 0.5)}
    values: dict[str, float] = {}
    for name in ("all", *GROUPS):
        of = (weight > 0) & ((total[name] > 0) if name in GROUPS else True)
        suffix = "" if name == "all" else f"_{name}"
        values |= {f"classes_{key}{suffix}": float(number[of].mean()) for key, number in numbers.items() if of.any()}
    return values
