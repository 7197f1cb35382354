"""Panoptic quality without classes: how many ground-truth segments are found, and how well.

Both sides are segmentations: each pixel belongs to one segment or to none. Ground truth of kind 'classes': the deepest region at each pixel,
so an object where the dataset has objects, else all pixels of a class; all background is one segment. Of kind 'instances': the last object that holds
the pixel. Pixels of ignore classes, and those in no such region, are void. Predictions: masks are laid down by score, best first, then deepest
first, then in stored order; a mask keeps the pixels that are free, and one of which more than half is taken is left out. Roots take no part. So a
segmentation stays as it is, and a tree without scores gives its leaves.

Segments match where their IoU, without void pixels of the prediction, is above 1/2, so each has at most one match. With the matched pairs TP,
predicted segments without a match FP (unless more than half of one is void or crowd) and ground-truth segments without one FN (crowds are none),

    PQ = sum of IoU over TP / (TP + FP / 2 + FN / 2) = SQ · RQ,  SQ = mean IoU of TP,  RQ = TP / (TP + FP / 2 + FN / 2),

of all images together. There is one class. For *things* the stuff is void too, and for *stuff* the things; both where the class tree has nodes of these
names. Everything is a function of the joint histogram of the two sides' atoms.

Reference: Kirillov, He, Girshick, Rother & Dollár, "Panoptic segmentation", CVPR 2019, and its evaluation code (panopticapi).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.metrics.base import Contribution, Truth, metric_spec, nan_ratio
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND
from uss_dagster.regions.regions import joint_histogram

SPEC = metric_spec(__file__)
THINGS = "things"
GROUPS = (THINGS, "stuff")
"""Names of nodes of a class tree below which things and stuff are."""


@dataclass(frozen=True)
class TrueSegments:
    """Ground-truth segments of one image.

    Parameters
    ----------
    holds : ndarray
        Bool (G, A), the atoms of each; no atom is in two.
    node : ndarray
        Int (G,), class-tree node of each; -1 without classes.
    crowd : ndarray
        Bool (G,).
    """

    holds: np.ndarray
    node: np.ndarray
    crowd: np.ndarray


def true_segments(truth: Truth) -> TrueSegments:
    """The segments of a ground truth."""
    regions = truth.regions
    region = regions.last_holder()
    node = np.append(regions.label, -1)[region]
    if truth.kind == "classes":
        kind = np.append(truth.tree().kind, -1)  # the last entry serves no class
        if int(node.max(initial=-1)) >= len(kind) - 1:
            raise BadData(f"Ground truth has class {node.max()}, but the class tree ends at {len(kind) - 2}.")
        region = np.where(np.isin(kind[node], (FOREGROUND, BACKGROUND)), region, -1)
        region = np.where(kind[node] == BACKGROUND, len(regions), region)  # one segment, after all others
    numbers, first = np.unique(region, return_index=True)
    first = first[numbers >= 0]
    numbers = numbers[numbers >= 0]
    sources = (*regions.source, "")
    crowd = np.array([sources[number] == "crowd" for number in numbers.tolist()], bool)
    return TrueSegments(region == numbers[:, None], node[first], crowd)


def without_overlap(prediction: Regions, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A segmentation of masks that may overlap.

    Parameters
    ----------
    prediction : Regions
        K masks over A atoms.
    among : ndarray
        Bool (K,), those that take part.

    Returns
    -------
    region : ndarray
        Int (P,), those that are segments.
    holds : ndarray
        Bool (P, A), the atoms that each of them keeps; no atom is in two.
    """
    members = np.flatnonzero(among)
    order = members[np.lexsort((members, -prediction.depth[members], -prediction.score[members]))]
    free = np.ones(prediction.members.shape[1], bool)
    region, holds = [], []
    for mask in order.tolist():
        keeps = prediction.members[mask] & free
        area = int(prediction.atom_area[keeps].sum())
        if area and 2 * area >= prediction.area[mask]:
            region.append(mask)
            holds.append(keeps)
            free &= ~keeps
    return np.array(region, np.int64), np.array(holds, bool).reshape(len(region), len(free))


def match(both: np.ndarray, real: np.ndarray, size: np.ndarray, void: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """What segments of one class add: TP, sum of IoU, FP, FN, float64 (4,).

    Parameters
    ----------
    both : ndarray
        Int (G, P), pixels in each pair of ground-truth and predicted segment; crowds are not among the ground truth.
    real, size : ndarray
        Pixels of the ground-truth segments (G,) and of the predicted ones (P,).
    void : ndarray
        Int (P,), those of them that are void.
    ignored : ndarray
        Int (P,), those that are void or crowd.
    """
    union = real[:, None] + size - both - void
    matched = 2 * both > union
    tp = np.count_nonzero(matched)
    wrong = ~matched.any(axis=0) & (2 * ignored <= size)
    return np.array([tp, (both[matched] / union[matched]).sum(), np.count_nonzero(wrong), len(real) - tp])


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """The sums of ``match`` of all segments, of things and of stuff; None where there is neither a ground-truth segment nor a wrong one."""
    segments = true_segments(truth)
    _, holds = without_overlap(prediction, ~prediction.is_root)
    joint = joint_histogram(truth.regions, prediction) @ holds.T.astype(np.int64)  # pixels of each true atom in each predicted segment
    both, size = segments.holds @ joint, joint.sum(axis=0)
    real = segments.holds @ truth.regions.atom_area
    sums = {}
    for name, counts in {"all": np.ones(len(real), bool), **groups(truth.classes, segments.node)}.items():
        void = size - both[counts].sum(axis=0)
        crowd = counts & segments.crowd
        own = counts & ~segments.crowd
        sums[name] = match(both[own], real[own], size, void, void + both[crowd].sum(axis=0))
    return sums if any(values.any() for values in sums.values()) else None


def groups(classes: ClassTree | None, node: np.ndarray) -> dict[str, np.ndarray]:
    """Which nodes are things and which are stuff, bool as ``node``; nothing where the class tree does not tell them apart."""
    if classes is None or not set(GROUPS) <= set(classes.names):
        return {}
    return {name: classes.ancestors[classes.names.index(name)][node] & (node >= 0) for name in GROUPS}


def reduce(total: Contribution) -> dict[str, float]:
    """PQ, SQ and RQ of each group; SQ where there is a match, the others where there is a segment."""
    values: dict[str, float] = {}
    for name, (tp, iou, fp, fn) in total.items():
        suffix = "" if name == "all" else f"_{name}"
        weight = tp + fp / 2 + fn / 2
        numbers = {"pq": nan_ratio(iou, weight), "sq": nan_ratio(iou, tp), "rq": nan_ratio(tp, weight)}
        values |= {f"{key}{suffix}": number for key, number in numbers.items() if not np.isnan(number)}
    return values
