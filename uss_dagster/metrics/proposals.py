"""Mask proposals without classes: average recall and precision as COCO computes them, and segmentation from one click.

Regions are the proposals, ranked by score. There are two protocols, each under its own name:

- *distinct masks*: each mask counts once, and the root of a tree takes no part. This is for entries whose regions are trees.
- *COCO*: every region takes part as it is given, repeated ones and whole images too, and a COCO file's own areas decide sizes. The
  numbers are those of COCOeval with ``useCats = 0`` on the same files. Categories mean nothing here; COCOeval leaves out results
  of a category that the ground truth does not list.

Where all regions have one score, AP, AR at fewer regions than an image has, and the answer of best score to a click depend on the order
in which regions are stored; ``arbitrary`` names them. A list of COCO results has an order, by which COCOeval ranks equal scores.

See ``metrics.coco.matches`` for the matching and ``metrics.coco.clicks`` for clicks, which the regions at the clicked point answer.

Reference: Lin et al., "Microsoft COCO", ECCV 2014, and its evaluation code; Wang et al., "Segment anything without supervision",
NeurIPS 2024 (AR@1000 without classes, 1-IoU).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.metrics.base import Accumulator, Contribution, Truth, deepest_value, metric_spec, poisson_weights
from uss_dagster.metrics.coco.clicks import click_point
from uss_dagster.metrics.coco.matches import MAX_DETS, Matches, check_scores, match_overlaps, read_masks, reduce_matches, summaries
from uss_dagster.regions import Regions
from uss_dagster.regions.classes import FOREGROUND, IGNORE, INNER
from uss_dagster.regions.coded import CodedRegions
from uss_dagster.regions.regions import joint_histogram

SPEC = metric_spec(__file__)


def match_regions(truth: Truth, prediction: Regions, as_given: bool = False) -> Matches:
    """Match the proposals of one image to its ground truth, and click every ground truth once.

    as_given: by the COCO protocol; by default each mask counts once, and roots do not.

    Ground truth of kind 'instances': the regions; source 'crowd' marks crowds. Of kind 'classes': regions that are neither root
    nor background nor ignored, each mask once; pixels of ignored classes and of none are taken out of everything.
    """
    if truth.regions.shape != prediction.shape:
        raise BadData(f"Ground truth is {truth.regions.shape}, its regions are {prediction.shape} (height, width); both cover one image.")
    targets, valid, crowd = ground_truth(truth)
    both_coded = isinstance(truth.regions, CodedRegions) and isinstance(prediction, CodedRegions) and valid is None
    shared = None if both_coded else joint_histogram(truth.regions, prediction)
    if shared is not None and valid is not None:
        shared[~valid] = 0
    ranked = _as_given(prediction) if as_given else _distinct(prediction, prediction.atom_area if shared is None else shared.sum(axis=0))
    if shared is None:
        iou, area, truth_area, holders = _overlap_of_codes(truth.regions, prediction, targets, ranked, crowd)
    else:
        iou, area, truth_area, holders = _overlap(truth.regions, prediction, shared, targets, ranked, crowd)
    sizes = (_sizes(prediction, area, ranked), _sizes(truth.regions, truth_area, targets)) if as_given else (area, truth_area)
    matches = match_overlaps(prediction.score[ranked].astype(np.float64), iou, *sizes, crowd)
    clicked = np.flatnonzero((truth_area > 0) & ~crowd)
    matches.clicks[:] = _click_regions(truth.regions, valid, targets, iou, clicked, holders)
    return matches


Holders = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(x, y), int (n,) each, of pixels → bool (n, D), the proposals that hold each."""


def _overlap(
    truths: Regions, prediction: Regions, shared: np.ndarray, targets: np.ndarray, ranked: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Holders]:
    """(IoU (D, G), area of the proposals (D,), of the ground truths (G,), who holds a pixel); shared: valid pixels of each pair of atoms."""
    mine, theirs = truths.members[targets], prediction.members[ranked]
    counts = shared.astype(np.float64)  # exact below 2⁵³, and multiplied by BLAS
    both = (mine.astype(np.float64) @ counts @ theirs.T.astype(np.float64)).astype(np.int64).T
    truth_area, area = mine @ shared.sum(axis=1), theirs @ shared.sum(axis=0)
    union = np.where(crowd, area[:, None], area[:, None] + truth_area - both)
    iou = np.ascontiguousarray(both / np.maximum(union, 1))
    return iou, area, truth_area, lambda x, y: theirs[:, prediction.atoms[y, x]].T


def _overlap_of_codes(
    truths: Regions, prediction: Regions, targets: np.ndarray, ranked: np.ndarray, crowd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Holders]:
    """The same along run-length codes: the work grows with edges of masks, not with pixels."""
    from uss_dagster.metrics.coco import kernel

    shape = prediction.shape
    truth_codes, codes = truths.rles(), prediction.rles()
    truth = read_masks(shape, [truth_codes[i] for i in targets], "", "ground truth", targets.tolist())
    proposal = read_masks(shape, [codes[i] for i in ranked], "", "region", ranked.tolist())
    edges, place, area, _ = proposal

    def holders(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        pixels = x * shape[0] + y
        held = [np.searchsorted(edges[first:last], pixels, "right") % 2 == 1 for first, last in itertools.pairwise(place.tolist())]
        return np.array(held, bool).reshape(len(ranked), len(pixels)).T

    return kernel.overlaps(*proposal, *truth, crowd, 0.0), area, truth[2], holders  # type: ignore[call-arg, arg-type]


def ground_truth(truth: Truth) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """(indices of the regions that count, bool (A,), atoms whose pixels are valid, or None for all, bool, which of the regions are crowds)."""
    regions = truth.regions
    if truth.kind == "instances":
        order = np.argsort(regions.coco.category, kind="stable") if regions.coco else np.arange(len(regions))
        return order, None, np.array([regions.source[region] == "crowd" for region in order], bool)
    if truth.kind != "classes" or truth.classes is None:
        raise BadData(f"Proposals need ground truth of kind 'instances', or 'classes' with its class tree, got '{truth.kind}'.")
    if int(regions.label.max(initial=-1)) >= len(truth.classes):
        raise BadData(f"Ground truth has class {regions.label.max()}, but the class tree ends at {len(truth.classes) - 1}.")
    kind = np.append(truth.classes.kind, IGNORE)  # the last entry serves label -1
    leaf = deepest_value(regions, regions.label)
    valid = (kind[leaf] != IGNORE) & (leaf != 0)
    area = regions.atom_area * valid
    counts = ~regions.is_root & (regions.label > 0) & np.isin(kind[regions.label], (FOREGROUND, INNER))
    targets = _each_mask_once(regions, np.flatnonzero(counts & (regions.members @ area > 0)), area)
    return targets, valid, np.zeros(len(targets), bool)


def _as_given(prediction: Regions) -> np.ndarray:
    """Indices of the proposals, best score first, equals by category and in stored order, at most 1000."""
    check_scores(prediction.score, "Region")
    order = np.arange(len(prediction)) if prediction.coco is None else np.argsort(prediction.coco.category, kind="stable")
    return order[np.argsort(-prediction.score[order], kind="stable")][: MAX_DETS[-1]]


def _sizes(regions: Regions, area: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The areas that decide sizes: those that a COCO file states, else the given ones of the masks."""
    if regions.coco is None:
        return area
    stated = regions.coco.area[chosen]
    return np.where(np.isnan(stated), area, stated)


def _distinct(prediction: Regions, area: np.ndarray) -> np.ndarray:
    """Indices of the proposals, best score first and in stored order among equals: no root, each mask once, at most 1000.

    area: valid pixels of each atom.
    """
    check_scores(prediction.score, "Region")
    order = np.argsort(-prediction.score, kind="stable")
    return _each_mask_once(prediction, order[~prediction.is_root[order]], area)[: MAX_DETS[-1]]


def _each_mask_once(regions: Regions, order: np.ndarray, area: np.ndarray) -> np.ndarray:
    """``order`` without regions whose valid pixels are those of an earlier one; area: valid pixels of each atom."""
    rows = np.packbits(regions.members[order][:, area > 0], axis=1)
    seen: dict[bytes, int] = {}
    for region, row in zip(order.tolist(), rows, strict=True):
        seen.setdefault(row.tobytes(), region)
    return np.array(list(seen.values()), np.int64)


def _click_regions(
    truths: Regions, valid: np.ndarray | None, targets: np.ndarray, iou: np.ndarray, clicked: np.ndarray, holders: Holders
) -> np.ndarray:
    """The sums of ``Matches.clicks``: the answers to a click are the proposals that hold it, 0 where none does."""
    points = np.zeros((len(clicked), 2), np.int64)
    for row, target in enumerate(targets[clicked].tolist()):
        x, y, width, height = truths.boxes[target].tolist()
        window = np.s_[y : y + height, x : x + width]
        mask = truths.window(target, window)
        points[row] = np.add(click_point(mask if valid is None else mask & valid[truths.atoms[window]]), (x, y))
    clicks = np.zeros(3)
    for column, held in zip(clicked.tolist(), holders(points[:, 0], points[:, 1]), strict=True):
        answers = iou[held, column]
        clicks += (answers[0], answers.max(), 1) if len(answers) else (0, 0, 1)
    return clicks


def measure(truth: Truth, prediction: Regions) -> Contribution:
    """The part of one image that adds up: what AR and clicks need. AP needs an ``accumulator``."""
    return match_regions(truth, prediction).contribution()


def reduce(total: Contribution) -> dict[str, float]:
    """AR and clicks from added contributions; a value without ground truth is left out."""
    return reduce_matches(total)


@dataclass
class Ranking:
    """Whether scores rank the proposals seen so far.

    Parameters
    ----------
    lowest, highest : float
        Of all scores.
    most, count : int
        Proposals of the image that has most, and of all images.
    listed : bool
        A list of COCO results says the order by which equal scores are ranked.
    """

    lowest: float = math.inf
    highest: float = -math.inf
    most: int = 0
    count: int = 0
    listed: bool = False

    def add(self, other: Ranking) -> None:
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        self.most, self.count = max(self.most, other.most), self.count + other.count
        self.listed |= other.listed

    @property
    def equal(self) -> bool:
        """All scores are equal, and there are several."""
        return self.lowest == self.highest and self.count > 1

    def arbitrary(self) -> list[str]:
        """The numbers that depend on the order of equal scores."""
        if self.listed or not self.equal:
            return []
        return [name for name in SPEC.metrics if name.startswith("ap")] + [f"ar{k}" for k in MAX_DETS if k < self.most] + ["click_max"]


class ProposalAccumulator(Accumulator):
    """Keeps every image's ``Matches``: average precision ranks the proposals of all images together."""

    def __init__(self, replicates: int = 0, as_given: bool = False) -> None:
        super().__init__(measure, reduce, replicates)
        self.as_given = as_given
        self.images: dict[str, Matches] = {}
        self.places: dict[str, int] = {}
        self.ranking = Ranking()

    def update(self, image_id: str, truth: Truth, prediction: Regions) -> dict[str, float] | None:
        """Add one image; returns its own AR and clicks, or None where it has neither ground truth nor proposals."""
        matches = match_regions(truth, prediction, self.as_given)
        if not len(matches.score) and not matches.truths.any():
            self.skipped.append(image_id)
            return None
        self._add({image_id: matches}, {image_id: truth.place})
        score, count, listed = matches.score, len(matches.score), self.as_given and prediction.coco is not None and prediction.coco.listed
        self.ranking.add(Ranking(score.min(initial=math.inf), score.max(initial=-math.inf), count, count, listed))
        return reduce(matches.contribution())

    def merge(self, other: Accumulator) -> None:
        """Add another accumulator of proposals, of other images."""
        assert isinstance(other, ProposalAccumulator)
        self._add(other.images, other.places)
        self.ranking.add(other.ranking)
        self.skipped += other.skipped

    def result(self) -> dict[str, float]:
        """Values over all images so far, whatever order they came in; those without any ground truth are left out."""
        return next(self._summaries(np.ones((1, self.n), np.int64)))

    def replicate_results(self) -> list[dict[str, float]]:
        """Values of each bootstrap replicate, in which an image counts as often as it was drawn."""
        weights = [poisson_weights(image_id, self.replicates) for image_id in self._ordered()]
        return list(self._summaries(np.array(weights, np.int64).reshape(self.n, self.replicates).T)) if self.n else []

    def _summaries(self, weights: np.ndarray) -> Iterator[dict[str, float]]:
        return summaries([self.images[image_id] for image_id in self._ordered()], weights)

    def arbitrary(self) -> list[str]:
        return self.ranking.arbitrary()

    def notes(self) -> Iterator[str]:
        if names := self.arbitrary():
            yield f"all scores are equal, so {', '.join(names)} depend on the order of the masks and are left out."
        elif self.ranking.equal:
            yield "all scores are equal, so AP depends on the order of the results in their file, as it does in COCOeval."

    def _ordered(self) -> list[str]:
        return sorted(self.images, key=lambda image_id: (self.places[image_id], image_id))

    def _add(self, images: Mapping[str, Matches], places: Mapping[str, int]) -> None:
        twice = self.images.keys() & images.keys()
        if twice:
            raise BadData(f"'{sorted(twice)[0]}' is scored twice; give each image once.")
        self.images.update(images)
        self.places.update(places)
        self.n = len(self.images)


accumulator = ProposalAccumulator
