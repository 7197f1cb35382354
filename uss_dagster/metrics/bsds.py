"""The BSDS500 region benchmark: covering, probabilistic Rand index and variation of information over a range of scales.

A prediction is a family of segmentations, one a scale, and scales are shared by all images. Every image has several
annotators. ODS takes the one scale that is best for the dataset, OIS the best scale of each image; Best (covering only)
the best region of any scale for each ground-truth region. Covering is pooled over pixels and annotators of all images:
the direction is ground truth covered by segments. PRI and VOI (bits, lower is better) are means over annotators, then images.

Pixels that an annotator or a segmentation leaves out are covered by nothing and cover nothing; PRI and VOI count them as
one more segment.

The loops are compiled (``_bsds_kernel``): 20 times faster than labelling each scale with SciPy and counting with NumPy
(``benchmarks/bsds.py``).

Reference: Arbeláez et al., "Contour detection and hierarchical image segmentation", TPAMI 33(5), 2011; Unnikrishnan et al., "Toward
objective evaluation of image segmentation algorithms", TPAMI 29(6), 2007 (PRI); Meilă, "Comparing clusterings", COLT 2003 (VOI).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics.base import Contribution, Truth, metric_spec, nan_ratio
from uss_dagster.regions import Regions
from uss_dagster.regions.regions import joint_histogram

if TYPE_CHECKING:  # for annotations alone
    from uss_dagster.artifacts.tables import Hierarchy

SPEC = metric_spec(__file__)

COUNT = 99
"""Scales of a hierarchy."""
FEWEST, MOST = 1.3, 200.0
"""Regions an image, on average, at the coarsest and at the finest scale."""
DEPTHS = 9
"""Cuts of a tree without levels."""


@dataclass(frozen=True)
class Scales:
    """The scales that all images share. kind 'level': ``Regions.cut`` at each value; 'depth': regions not deeper than each value.

    values: ascending; levels are float32 numbers, so that a comparison comes out alike in single and double precision.
    """

    kind: str
    values: tuple[float, ...]


class RegionScores(NamedTuple):
    """One image, T scales: cnt / sum is the covering of its annotators' regions, ri and voi are means over annotators; float64 (T,) each.

    best: covered pixels (as in cnt) when each ground-truth region takes the best segment of any scale. reverse_cnt / reverse_sum: covering of
    the segments by the regions of all annotators together, which the benchmark computes and does not report.
    """

    cnt: np.ndarray
    sum: np.ndarray
    ri: np.ndarray
    voi: np.ndarray
    best: float
    reverse_cnt: np.ndarray
    reverse_sum: np.ndarray


def prepare(predictions: Iterable[Regions | Hierarchy]) -> Scales:
    """The scales of an entry, chosen without ground truth; whatever the order of the images, the same.

    Only ``parent``, ``level`` and ``source`` of each prediction are read, one at a time, so an object with just these columns will
    do, and memory does not grow with the number of images. The rules, in order:

    - no region has a level: depth cuts 1..9;
    - every region's source is 'ucm', an ultrametric contour map with values 0..1: levels 0.01, 0.02, …, 0.99, as published;
    - at most 99 different levels: all of them, hence every segmentation there is;
    - else 99 levels (fewer where some coincide) at which an image has 1.3 to 200 regions on average, in geometric steps; where
      no region has children, so that regions cannot be counted without their masks, 99 quantiles of all levels.
    """
    pool = _Levels()
    for prediction in predictions:
        pool.add(prediction)
    return pool.scales()


def measure(truth: Truth, prediction: Regions, state: Scales | None = None) -> Contribution | None:
    """cnt, ri, voi: float64 (T,); sum, best, images and what the image has at its own best scales: scalars. None without regions in the truth."""
    if state is None:
        raise UsageError("The metric 'bsds' needs scales that all images share: pass the result of bsds.prepare(all predictions).")
    if not len(truth.regions) or not truth.regions.area.any():
        return None
    result = bsds_region(prediction, truth.regions, state)
    return {
        "cnt": result.cnt,
        "ri": result.ri,
        "voi": result.voi,
        "sum": result.sum[0],
        "own_cnt": result.cnt.max(),
        "own_ri": result.ri.max(),
        "own_voi": result.voi.min(),
        "best": np.array(result.best),
        "images": np.array(1.0),
    }


def reduce(total: Contribution) -> dict[str, float]:
    """ODS, OIS and Best of the images added up."""
    pixels, images = total["sum"], total["images"]
    return {
        "bsds_covering_ods": nan_ratio(total["cnt"].max(), pixels),
        "bsds_covering_ois": nan_ratio(total["own_cnt"], pixels),
        "bsds_covering_best": nan_ratio(total["best"], pixels),
        "bsds_pri_ods": nan_ratio(total["ri"].max(), images),
        "bsds_pri_ois": nan_ratio(total["own_ri"], images),
        "bsds_voi_ods": nan_ratio(total["voi"].min(), images),
        "bsds_voi_ois": nan_ratio(total["own_voi"], images),
    }


def bsds_region(family: Regions, annotators: Regions, scales: Scales) -> RegionScores:
    """Scores of a family of segmentations of one image, the regions cut at ``scales``; annotators are told apart by ``source``.

    >>> regions = Regions.from_label_map(np.array([[1, 1, 1, 2, 2, 2]]))
    >>> scores = bsds_region(regions, Regions.from_label_map(np.array([[1, 1, 2, 2, 3, 3]])), Scales("depth", (1.0,)))
    >>> round(float((scores.cnt / scores.sum)[0]), 6), round(float(scores.ri[0]), 6), round(float(scores.voi[0]), 6)
    (0.527778, 0.666667, 1.251629)
    """
    from uss_dagster.metrics import _bsds_kernel as kernel

    if family.shape != annotators.shape:
        raise BadData(
            f"The segmentation is {family.shape} and its ground truth {annotators.shape} (height, width); one image has one size."
        )
    drawn = _Annotators.of(annotators)
    many = len(drawn.column)
    pairs = joint_histogram(family, annotators)
    mine, other = np.nonzero(pairs)
    table = np.tile(mine, many), drawn.column[:, other].ravel(), np.tile(pairs[mine, other], many)
    at = region_at(family, scales)
    cnt, ri, voi, reverse_cnt, reverse_sum, best = kernel.scores(
        at, len(family), *table, drawn.area, drawn.owner, drawn.real, many, family.atoms.size
    )
    pixels = np.full(len(cnt), float(drawn.area[drawn.real].sum()))
    return RegionScores(cnt, pixels, ri, voi, float(drawn.area @ best), reverse_cnt, reverse_sum)


def region_at(prediction: Regions, scales: Scales) -> np.ndarray:
    """Int32 (T, A): the region that each atom belongs to at each scale, -1 for none; ``[t][prediction.atoms]`` is ``prediction.cut(value t)``."""
    from uss_dagster.metrics import _bsds_kernel as kernel

    values = np.asarray(scales.values, np.float32)
    if scales.kind == "depth":  # a deeper region comes later and goes first
        begin = np.searchsorted(values, prediction.depth.astype(np.float32))
        end = np.full(len(begin), len(values))
    else:  # from a region's level to that of its parent; NaN sorts last, so it never begins
        begin = np.searchsorted(values, prediction.level)
        end = np.where(prediction.parent >= 0, begin[prediction.parent], len(values)) if len(begin) else begin
    return kernel.cuts(np.ascontiguousarray(prediction.members.T), begin.astype(np.int64), end.astype(np.int64), len(values))


@dataclass(frozen=True)
class _Annotators:
    """Ground truth as columns of a table: a column is a region of one annotator, or the pixels he left out.

    column: int (S, A), of each atom. area, owner: int64 (C,), pixels and annotator of each column; real: bool (C,), it is a region.
    """

    column: np.ndarray
    area: np.ndarray
    owner: np.ndarray
    real: np.ndarray

    @classmethod
    def of(cls, regions: Regions) -> _Annotators:
        source = np.asarray(regions.source)
        column, area, owner, real, columns = [], [], [], [], 0
        for number, name in enumerate(sorted(set(regions.source))):
            own = regions.members[source == name]
            if (own.sum(axis=0)[regions.atom_area > 0] > 1).any():
                raise BadData(f"Regions of annotator '{name}' share pixels; each annotator's segmentation must be flat.")
            labels = np.concatenate([np.zeros((1, own.shape[1]), bool), own]).argmax(axis=0)  # 0, the empty row, for none
            names, index = np.unique(labels, return_inverse=True)
            column.append(index + columns)
            area.append(np.bincount(index, regions.atom_area, len(names)).astype(np.int64))
            owner.append(np.full(len(names), number))
            real.append(names > 0)
            columns += len(names)
        return cls(np.array(column), np.concatenate(area), np.concatenate(owner), np.concatenate(real))


class _Levels:
    """Levels of all images, pooled in bounded memory: counts of 2²⁰ steps of float32 numbers (1/2048 apart, relatively), each with its greatest level."""

    _DROPPED_BITS = 12

    def __init__(self) -> None:
        steps = 1 << (32 - self._DROPPED_BITS)
        self.regions, self.joins = np.zeros(steps, np.int64), np.zeros(steps, np.int64)
        self.greatest = np.full(steps, -np.inf, np.float32)
        self.distinct: np.ndarray | None = np.zeros(0, np.float32)
        self.images = self.never_joined = 0
        self.all_ucm = True

    def add(self, prediction: Regions | Hierarchy) -> None:
        parent, level = np.asarray(prediction.parent), np.asarray(prediction.level, np.float32) + np.float32(0)  # no negative zero
        finite = np.isfinite(level)
        self.images += 1
        self.all_ucm &= set(prediction.source) <= {"ucm"}
        if self.distinct is not None:
            self.distinct = np.union1d(self.distinct, level[finite])
            if len(self.distinct) > COUNT:
                self.distinct = None
        step = self._step(level[finite])
        np.add.at(self.regions, step, 1)
        np.maximum.at(self.greatest, step, level[finite])
        # reaching the level of a region with c children leaves c - 1 regions fewer
        below = np.bincount(parent[parent >= 0], minlength=len(parent))
        fewer = np.maximum(below - 1, 0)
        np.add.at(self.joins, step, fewer[finite])
        self.never_joined += int(np.count_nonzero(parent < 0) + fewer[~finite].sum())

    def scales(self) -> Scales:
        if not self.regions.any():
            return Scales("depth", tuple(float(d) for d in range(1, DEPTHS + 1)))
        if self.all_ucm:
            return self._levels(np.arange(1, COUNT + 1) / (COUNT + 1))
        if self.distinct is not None:
            return self._levels(self.distinct)
        used = np.flatnonzero(self.regions)
        if not self.joins.any():
            upto = np.cumsum(self.regions[used])
            targets = np.arange(1, COUNT + 1) / (COUNT + 1) * upto[-1]
            return self._levels(self.greatest[used[np.searchsorted(upto, targets)]])
        joins = self.joins[used]
        left = self.never_joined + joins.sum() - np.cumsum(joins)  # regions of all images at the greatest level of each step
        coarsest, finest = self.never_joined / self.images, (self.never_joined + joins.sum()) / self.images
        fewest, most = max(FEWEST, coarsest), min(MOST, finest)
        targets = np.geomspace(fewest, most if most > fewest else finest, COUNT) * self.images
        # the lowest level with at most so many regions as its target; left descends
        steps = len(left) - np.searchsorted(left[::-1], targets + 1e-6, side="right")
        return self._levels(self.greatest[used[steps]])

    @staticmethod
    def _levels(values: np.ndarray) -> Scales:
        return Scales("level", tuple(np.unique(np.asarray(values, np.float32)).astype(np.float64).tolist()))

    def _step(self, level: np.ndarray) -> np.ndarray:
        """The step of each float32 number; steps ascend with the numbers."""
        bits = level.view(np.uint32)
        ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        return (ascending >> np.uint32(self._DROPPED_BITS)).astype(np.int64)
