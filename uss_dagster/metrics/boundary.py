"""Boundary quality: how well the region that covers a class follows its outline, for cuts whose IoU hides it.

Each ground-truth region (leaf classes and all background together, or the segments of each annotator) is compared with the
predicted region of greatest IoU, as in ``covering`` and ``matching``: an oracle. All distances are in pixels of the evaluation
grid, between pixel centres by the chessboard measure, so a distance of d is d steps of a 3×3 erosion or dilation.

*Boundary IoU* is the IoU of the inner bands of both masks: the pixels of a mask within d of a pixel outside it, with d = 2 % of
the image's diagonal, rounded, at least 1. Beyond the image's edge is outside, and so are ignored pixels, since masks are of valid pixels.

*Trimap* scores are max-overlap mIoU and pAcc over a band alone: the valid pixels within r of a valid pixel of another ground-truth
class, so r pixels on each side of a boundary. The image's edge and ignored pixels are no boundary.

Pixels are pooled over the dataset, class by class.

References: Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation", CVPR 2021; Kohli et al., "Robust
higher order potentials for enforcing label consistency", IJCV 82(3), 2009 (trimap); Chen et al., "DeepLab", TPAMI 40(4), 2018 (trimap mIoU).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from uss_dagster.metrics.base import Contribution, Truth, deepest_value, metric_spec, nan_ratio
from uss_dagster.metrics.covering import (
    annotator_matches,
    annotator_mean,
    best_match,
    iou_matrix,
    leaf_rows,
    overlap,
    valid_classes,
)
from uss_dagster.metrics.matching import at_nodes, background_place, summary, sums_of
from uss_dagster.pixels import count_of_each
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND

BAND = 0.02
"""Width of the band of boundary IoU, as a share of the image's diagonal."""

TRIMAPS = (5, 20)
"""Widths of the trimap bands, in pixels on each side."""


SPEC = metric_spec(__file__)


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """BAND.tp, BAND.fp, BAND.fn of each band, float64 (number of class-tree nodes,), all background at its first node.

    Of annotators: the image's value and a count of 1.
    """
    if truth.kind == "annotators":
        value = _annotator_mean(truth, prediction)
        return None if np.isnan(value) else {"annotators": np.array(value), "annotators.n": np.array(1.0)}
    table = overlap(truth, prediction)
    nodes, holds = leaf_rows(table)
    if not len(nodes):
        return None
    match, _ = best_match(iou_matrix(table, holds), table.candidates)
    classes = class_map(table.classes, truth.regions)
    place = np.where(nodes >= 0, nodes, background_place(table.classes))
    width = band_width(*classes.shape)
    edges = inner_edges(prediction, match, width, classes)
    everyone = np.zeros(len(nodes), np.int64)
    counts = {"boundary": edge_counts([np.where(inner_bands(classes, width), classes, -1)], everyone, place, match, edges)}
    for r in TRIMAPS:
        counts[f"trimap{r}"] = band_counts(np.where(trimap(classes, r), classes, -1), place, match, prediction)
    contribution: Contribution = {}
    for kind, sums in counts.items():
        for name, values in zip(("tp", "fp", "fn"), sums, strict=True):
            contribution[f"{kind}.{name}"] = at_nodes(values, place, table.classes)
    return contribution


def reduce(total: Contribution) -> dict[str, float]:
    """Boundary mIoU, trimap mIoU and pAcc where any class has a pixel in the band; the mean over images with annotators."""
    if "annotators" in total:
        return {"boundary_iou_annotators": nan_ratio(total["annotators"], total["annotators.n"])}
    pooled = {band: summary(sums_of(total, band)) for band in ("boundary", *(f"trimap{r}" for r in TRIMAPS))}
    values = {"boundary_miou": pooled["boundary"]["miou"]} if pooled["boundary"] else {}
    for r in TRIMAPS:
        values |= {f"trimap_{name}_{r}": pooled[f"trimap{r}"][name] for name in ("miou", "pacc") if pooled[f"trimap{r}"]}
    return values


def band_width(height: int, width: int) -> int:
    """Width in pixels of the band of boundary IoU: 2 % of the diagonal, at least 1."""
    return max(1, round(BAND * float(np.hypot(height, width))))


def inner_band(mask: np.ndarray, width: int) -> np.ndarray:
    """Bool (H, W): pixels of a mask within ``width`` of a pixel outside it; beyond the image's edge is outside."""
    return mask & ~extreme(mask, width, np.logical_and, False)


def inner_bands(labels: np.ndarray, width: int) -> np.ndarray:
    """Bool (H, W): the inner bands of all regions of a label map; int (H, W), negative for pixels outside all of them."""
    return (labels >= 0) & (extreme(labels, width, np.minimum, -2) < extreme(labels, width, np.maximum, -2))


def trimap(classes: np.ndarray, width: int) -> np.ndarray:
    """Bool (H, W): pixels within ``width`` of a pixel of another class; classes: int (H, W), negative for pixels that do not count."""
    counts = classes >= 0
    none = np.iinfo(classes.dtype).max
    lowest = extreme(np.where(counts, classes, none), width, np.minimum, none)
    return counts & (lowest < extreme(classes, width, np.maximum, -1))


def extreme(values: np.ndarray, radius: int, pick: np.ufunc, outside: int) -> np.ndarray:
    """The minimum or maximum over the square of side 2·radius + 1 about each pixel, (H, W); ``outside`` stands beyond the edge.

    Windows double in length from step to step, so the work grows with the logarithm of the radius.
    """
    for _ in range(2):  # columns, then rows of the transposed, each time along the first axis
        values = np.pad(values, ((radius, radius), (0, 0)), constant_values=outside)
        length = 1
        while length < 2 * radius + 1:
            step = min(length, 2 * radius + 1 - length)
            values = pick(values[:-step], values[step:])
            length += step
        values = values.T
    return values


def class_map(classes: ClassTree, regions: Regions) -> np.ndarray:
    """Int (H, W): the class of each valid pixel of ground-truth regions, all background as its first node; -1 elsewhere."""
    name = np.arange(len(classes))
    name[np.asarray(classes.kind) == BACKGROUND] = background_place(classes)
    name[~valid_classes(classes)] = -1
    deepest = deepest_value(regions, regions.label)
    counted = (deepest >= 0) & (deepest < len(classes))
    return _of_atoms(np.where(counted, name[np.where(counted, deepest, 0)], -1), regions)


def _of_atoms(values: np.ndarray, regions: Regions) -> np.ndarray:
    """The value of each pixel's atom, (H, W), in 2 bytes where that is enough: bands need several such maps at once."""
    return values.astype(np.int16 if values.max(initial=0) < np.iinfo(np.int16).max else np.int32)[regions.atoms]


def band_counts(
    labels: np.ndarray, regions: np.ndarray, match: np.ndarray, prediction: Regions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tp, fp, fn), int64 (G,) each, of ground-truth regions in a band; a region without a pixel there has none of them.

    Parameters
    ----------
    labels : ndarray
        Int (H, W), the region of each pixel of the band, negative elsewhere.
    regions : ndarray
        (G,), values of ``labels``.
    match : ndarray
        (G,), the predicted region of each, or -1.
    prediction : Regions
    """
    from uss_dagster.regions.counting import pair_counts

    size = int(max(labels.max(initial=-1), regions.max(initial=-1))) + 1
    shared = pair_counts(labels.astype(np.int32).ravel(), prediction.atoms.ravel(), size, prediction.members.shape[1])[:-1, :-1]
    mine = shared.sum(axis=1)[regions]
    served = (match >= 0) & (mine > 0)
    members = prediction.members[match[served]]
    both, theirs = np.zeros_like(mine), np.zeros_like(mine)
    both[served] = (shared[regions[served]] * members).sum(axis=1)
    theirs[served] = members @ shared.sum(axis=0)
    return both, theirs - both, mine - both


Edge = tuple[int, tuple[slice, slice], np.ndarray]
"""A predicted region, the window of its box, and its inner band there, bool."""


def inner_edges(prediction: Regions, match: np.ndarray, width: int, labels: np.ndarray | None = None) -> Iterator[Edge]:
    """The inner bands of the regions in ``match``, one at a time: that of one may be as large as the image. labels: negative for pixels outside."""
    for region in np.unique(match[match >= 0]).tolist():
        x, y, columns, rows = prediction.boxes[region].tolist()
        window = np.s_[y : y + rows, x : x + columns]
        mask = prediction.window(region, window)
        yield region, window, inner_band(mask if labels is None else mask & (labels[window] >= 0), width)


def edge_counts(
    bands: Sequence[np.ndarray], owner: np.ndarray, regions: np.ndarray, match: np.ndarray, edges: Iterable[Edge]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(tp, fp, fn) as ``band_counts``, of the inner bands of both sides.

    Parameters
    ----------
    bands : sequence of ndarray
        For each segmentation, int (H, W), the region of each pixel of the inner bands, negative elsewhere.
    owner : ndarray
        (G,), the segmentation of each ground-truth region.
    regions : ndarray
        (G,), values of ``bands``.
    match : ndarray
        (G,), the predicted region of each, or -1.
    edges : iterable
        The inner bands of the regions in ``match``.
    """
    size = max((int(band.max(initial=-1)) for band in bands), default=-1) + 1
    size = max(size, int(regions.max(initial=-1)) + 1)
    mine, shared, theirs = np.zeros((3, len(regions)), np.int64)
    for number, band in enumerate(bands):
        own = owner == number
        mine[own] = count_of_each(band, size + 1, -1)[1:][regions[own]]
    for region, window, edge in edges:
        for number, band in enumerate(bands):
            served = (match == region) & (owner == number) & (mine > 0)
            if served.any():
                shared[served] = count_of_each(band[window][edge], size + 1, -1)[1:][regions[served]]
                theirs[served] = np.count_nonzero(edge)
    return shared, theirs - shared, mine - shared


def _annotator_mean(truth: Truth, prediction: Regions) -> float:
    """Mean over annotators of the mean boundary IoU of their segments with the predicted regions of greatest IoU."""
    regions, annotator, match, _ = annotator_matches(truth, prediction)
    width = band_width(*prediction.shape)
    bands = []
    for person in range(int(annotator.max(initial=-1)) + 1):
        own = regions[annotator == person]
        segments = _of_atoms(np.append(own, -1)[truth.regions.last_holder(own)], truth.regions)
        bands.append(np.where(inner_bands(segments, width), segments, -1))
    tp, fp, fn = edge_counts(bands, annotator, regions, match, inner_edges(prediction, match, width))
    return annotator_mean(annotator, tp / (tp + fp + fn))
