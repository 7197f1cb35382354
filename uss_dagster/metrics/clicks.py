"""Number of clicks to reach an IoU (NoC): how much help a person needs to select each object.

Each ground-truth object is selected by itself. The first click is at its centre; each further one at the centre of the largest error: of the connected
sets (4 neighbours) of pixels that are missed or wrong, the one with most pixels, a missed one before a wrong one of equal size, then the first row by
row. Its centre is the pixel farthest from its border, see ``coco.clicks``. A click on a missed pixel is positive, on a wrong one negative.

After each click the regions answer all clicks so far. A positive click takes the best region that holds it and no negative click, a negative click
takes out the best region that holds it and no positive one; best is the greatest score, of equals the largest, then the first. Roots take no part. The
answer is what positive clicks take, less what negative clicks take out. NoC@.85 is the number of clicks after which its IoU with the object first
is .85 or more, and 20 where that many do not do; the mean is over all objects of all images. Objects and pixels that count are those of ``proposals``.

Reference: Xu, Price, Cohen, Yang & Huang, "Deep interactive object selection", CVPR 2016; Sofiiuk, Petrov & Konushin, "Reviving iterative training with
mask guidance for interactive segmentation", ICIP 2022.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from uss_dagster.metrics.base import Contribution, Truth, metric_spec
from uss_dagster.metrics.coco.clicks import click_point
from uss_dagster.metrics.proposals import ground_truth
from uss_dagster.regions import Regions

SPEC = metric_spec(__file__)
MOST = 20
"""Clicks on an object."""
LEVELS = {"noc80": 0.8, "noc85": 0.85, "noc90": 0.9}
Click = tuple[int, int]
"""(x, y) of a pixel."""


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """Sums of clicks over the objects of an image, one a level, and the number of objects; None without one."""
    targets, counted, crowd = ground_truth(truth)
    valid = None if counted is None else counted[truth.regions.atoms]
    counts = [
        clicks_needed(truth.regions.mask(target), lambda positive, negative: answer(prediction, positive, negative), valid)
        for target in targets[~crowd & (truth.regions.area[targets] > 0)].tolist()
    ]
    return {"clicks": np.sum(counts, axis=0), "objects": np.array(float(len(counts)))} if counts else None


def reduce(total: Contribution) -> dict[str, float]:
    """The mean number of clicks for each level."""
    return dict(zip(LEVELS, (total["clicks"] / total["objects"]).tolist(), strict=True)) if total["objects"] else {}


def clicks_needed(
    target: np.ndarray, answers: Callable[[list[Click], list[Click]], np.ndarray], valid: np.ndarray | None = None
) -> np.ndarray:
    """Clicks until an object is selected.

    Parameters
    ----------
    target : ndarray
        Bool (H, W), the object.
    answers : callable
        (positive clicks, negative clicks) → bool (H, W), what is selected.
    valid : ndarray, optional
        Bool (H, W), the pixels that count. Default: all.

    Returns
    -------
    ndarray
        Int (3,), clicks for each of ``LEVELS``, at most ``MOST``.
    """
    counts = np.ones_like(target) if valid is None else valid
    target = target & counts
    needed, levels = np.full(len(LEVELS), MOST), np.array(list(LEVELS.values()))
    clicks: tuple[list[Click], list[Click]] = ([], [])
    selected = np.zeros_like(target)
    for number in range(1, MOST + 1):
        missed, wrong = target & ~selected, selected & ~target & counts
        sign, click = next_click(missed, wrong)
        if click in clicks[sign]:  # the answer to the same clicks would be the same again
            break
        clicks[sign].append(click)
        selected = answers(*clicks)
        shared = np.count_nonzero(selected & target)
        iou = shared / np.count_nonzero((selected | target) & counts)
        needed = np.where((iou >= levels) & (needed == MOST), number, needed)
        if iou >= levels.max():
            break
    return needed


def next_click(missed: np.ndarray, wrong: np.ndarray) -> tuple[int, Click]:
    """(0 for a positive or 1 for a negative click, its pixel): the centre of the largest connected error, bool (H, W) each, not both empty."""
    from scipy import ndimage

    sets = [ndimage.label(error)[0] for error in (missed, wrong)]
    sizes = [np.bincount(labels.ravel())[1:] for labels in sets]
    sign = int(sizes[1].max(initial=0) > sizes[0].max(initial=0))
    number = 1 + int(np.argmax(sizes[sign]))
    rows, columns = ndimage.find_objects(sets[sign])[number - 1]
    x, y = click_point(sets[sign][rows, columns] == number)
    return sign, (x + columns.start, y + rows.start)


def answer(prediction: Regions, positive: list[Click], negative: list[Click]) -> np.ndarray:
    """What clicks select among regions, bool (H, W)."""
    order = np.lexsort((np.arange(len(prediction)), -prediction.area, -prediction.score))
    order = order[~prediction.is_root[order]]
    points = np.array([*positive, *negative])
    holds = prediction.members[order][:, prediction.atoms[points[:, 1], points[:, 0]]]
    is_negative = np.arange(len(points)) >= len(positive)
    selected = np.zeros((2, prediction.members.shape[1]), bool)
    for click, sign in enumerate(is_negative.tolist()):
        fits = np.flatnonzero(holds[:, click] & ~holds[:, is_negative != sign].any(axis=1))
        if len(fits):
            selected[int(sign)] |= prediction.members[order[fits[0]]]
    return np.asarray((selected[0] & ~selected[1])[prediction.atoms])
