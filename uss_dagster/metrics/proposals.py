"""Mask proposals without classes: average recall and precision as COCO computes them, and segmentation from one click.

Regions are the proposals, ranked by score; whole images take no part, and each mask counts once. See ``metrics.coco.matches`` for the
matching and ``metrics.coco.clicks`` for clicks, which the regions at the clicked point answer.

Reference: Lin et al., "Microsoft COCO", ECCV 2014, and its evaluation code; Wang et al., "Segment anything without supervision",
NeurIPS 2024 (AR@1000 without classes, 1-IoU).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.metrics.base import Accumulator, Contribution, Truth, metric_spec, poisson_weights
from uss_dagster.metrics.coco.clicks import click_point
from uss_dagster.metrics.coco.matches import MAX_DETS, Matches, check_scores, match_overlaps, reduce_matches, summaries
from uss_dagster.regions import Regions
from uss_dagster.regions.classes import FOREGROUND, IGNORE, INNER
from uss_dagster.regions.regions import intersections

SPEC = metric_spec(__file__)


def match_regions(truth: Truth, prediction: Regions) -> Matches:
    """Match the proposals of one image to its ground truth, and click every ground truth once.

    Ground truth of kind 'instances': the regions; source 'crowd' marks crowds. Of kind 'classes': regions that are neither whole image
    nor background nor ignored, each mask once; pixels of ignored classes and of none are taken out of everything. Sizes are those of masks.
    """
    if truth.regions.shape != prediction.shape:
        raise BadData(f"Ground truth is {truth.regions.shape}, its regions are {prediction.shape} (height, width); both cover one image.")
    targets, valid, crowd = ground_truth(truth)
    ranked = _ranked(prediction, valid)
    both = intersections(truth.regions, prediction, valid)[targets][:, ranked].T
    truth_area, area = _areas(truth.regions, valid)[targets], _areas(prediction, valid)[ranked]
    union = np.where(crowd, area[:, None], area[:, None] + truth_area - both)
    iou = np.ascontiguousarray(both / np.maximum(union, 1))
    matches = match_overlaps(prediction.score[ranked].astype(np.float64), iou, area, truth_area, crowd)
    matches.clicks[:] = _click_regions(truth.regions, prediction, valid, targets, ranked, iou, (truth_area > 0) & ~crowd)
    return matches


def ground_truth(truth: Truth) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """(indices of the regions that count, valid pixels bool (H, W) or None for all, bool, which of the regions are crowds)."""
    regions = truth.regions
    if truth.kind == "instances":
        return np.arange(len(regions)), None, np.array([source == "crowd" for source in regions.source], bool)
    if truth.kind != "classes" or truth.classes is None:
        raise BadData(f"Proposals need ground truth of kind 'instances', or 'classes' with its class tree, got '{truth.kind}'.")
    if int(regions.label.max(initial=-1)) >= len(truth.classes):
        raise BadData(f"Ground truth has class {regions.label.max()}, but the class tree ends at {len(truth.classes) - 1}.")
    kind = np.append(truth.classes.kind, IGNORE)  # the last entry serves label -1
    leaf = truth.leaf_classes()
    valid = (kind[leaf] != IGNORE) & (leaf != 0)
    counts = ~regions.is_root & (regions.label > 0) & np.isin(kind[regions.label], (FOREGROUND, INNER))
    targets = _each_mask_once(regions, np.flatnonzero(counts & (_areas(regions, valid) > 0)), valid)
    return targets, valid, np.zeros(len(targets), bool)


def _ranked(prediction: Regions, valid: np.ndarray | None) -> np.ndarray:
    """Indices of the proposals, best score first and in stored order among equals: no whole image, each mask once, at most 1000."""
    check_scores(prediction.score, "Region")
    order = np.argsort(-prediction.score, kind="stable")
    return _each_mask_once(prediction, order[~prediction.is_root[order]], valid)[: MAX_DETS[-1]]


def _each_mask_once(regions: Regions, order: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """``order`` without regions whose valid pixels are those of an earlier one."""
    rows = np.packbits(regions.members[order][:, _atom_areas(regions, valid) > 0], axis=1)
    seen: dict[bytes, int] = {}
    for region, row in zip(order.tolist(), rows, strict=True):
        seen.setdefault(row.tobytes(), region)
    return np.array(list(seen.values()), np.int64)


def _atom_areas(regions: Regions, valid: np.ndarray | None) -> np.ndarray:
    return regions.atom_area if valid is None else np.bincount(regions.atoms[valid], minlength=regions.members.shape[1])


def _areas(regions: Regions, valid: np.ndarray | None) -> np.ndarray:
    return regions.members @ _atom_areas(regions, valid)


def _click_regions(
    truths: Regions,
    prediction: Regions,
    valid: np.ndarray | None,
    targets: np.ndarray,
    ranked: np.ndarray,
    iou: np.ndarray,
    clicked: np.ndarray,
) -> np.ndarray:
    """The sums of ``Matches.clicks``: the answers to a click are the proposals that hold it, 0 where none does."""
    clicks = np.zeros(3)
    for column in np.flatnonzero(clicked):
        x, y, width, height = truths.boxes[targets[column]]
        window = np.s_[y : y + height, x : x + width]
        mask = truths.members[targets[column]][truths.atoms[window]]
        column_x, row_y = click_point(mask if valid is None else mask & valid[window])
        answers = iou[prediction.members[ranked, prediction.atoms[y + row_y, x + column_x]], column]
        clicks += (answers[0], answers.max(), 1) if len(answers) else (0, 0, 1)
    return clicks


def measure(truth: Truth, prediction: Regions) -> Contribution:
    """The part of one image that adds up: what AR and clicks need. AP needs an ``accumulator``."""
    return match_regions(truth, prediction).contribution()


def reduce(total: Contribution) -> dict[str, float]:
    """AR and clicks from added contributions; a value without ground truth is left out."""
    return reduce_matches(total)


class ProposalAccumulator(Accumulator):
    """Keeps every image's ``Matches``: average precision ranks the proposals of all images together."""

    def __init__(self, replicates: int = 0) -> None:
        super().__init__(measure, reduce, replicates)
        self.images: dict[str, Matches] = {}

    def update(self, image_id: str, truth: Truth, prediction: Regions) -> dict[str, float] | None:
        """Add one image; returns its own AR and clicks, or None where it has neither ground truth nor proposals."""
        matches = match_regions(truth, prediction)
        if not len(matches.score) and not matches.truths.any():
            self.skipped.append(image_id)
            return None
        self._add({image_id: matches})
        return reduce(matches.contribution())

    def merge(self, other: Accumulator) -> None:
        """Add another accumulator of proposals, of other images."""
        assert isinstance(other, ProposalAccumulator)
        self._add(other.images)
        self.skipped += other.skipped

    def result(self) -> dict[str, float]:
        """Values over all images so far, whatever order they came in; those without any ground truth are left out."""
        return next(self._summaries(np.ones((1, self.n), np.int64)))

    def replicate_results(self) -> list[dict[str, float]]:
        """Values of each bootstrap replicate, in which an image counts as often as it was drawn."""
        weights = [poisson_weights(image_id, self.replicates) for image_id in sorted(self.images)]
        return list(self._summaries(np.array(weights, np.int64).reshape(self.n, self.replicates).T)) if self.n else []

    def _summaries(self, weights: np.ndarray) -> Iterator[dict[str, float]]:
        return summaries([self.images[image_id] for image_id in sorted(self.images)], weights)

    def _add(self, images: Mapping[str, Matches]) -> None:
        twice = self.images.keys() & images.keys()
        if twice:
            raise BadData(f"'{sorted(twice)[0]}' is scored twice; give each image once.")
        self.images.update(images)
        self.n = len(self.images)


accumulator = ProposalAccumulator
