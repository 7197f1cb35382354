"""Semantic segmentation without labels: clusters that mean the same over the whole dataset, matched to classes once.

A prediction's regions carry a cluster in ``label`` (-1: none); the flat map takes the deepest region with a cluster at each pixel.
Everything is a function of one table over the dataset, the valid pixels of each cluster in each class. Classes are the leaf
classes, all background together being one; pixels of ignore classes, and those known only as an inner class, are not valid.

Conventions, each under its own name:

- *Hungarian*: one cluster a class, so that the most pixels are matched; where several assignments match as many, the one of
  greatest mean IoU. Leftover ``error``: pixels of clusters beyond the classes are missed, and classes without a pixel in the
  ground truth are left out of the mean. Leftover ``stego``: as that evaluation does, leftover clusters together are one more
  class of IoU 0, and a class without a pixel that a cluster is forced upon counts 0. Pixels without a cluster are errors in both.
- *Many-to-one*: each cluster goes to its most frequent class, an easier task. It is never called Hungarian.
- *COMUS* (also MaskContrast): pixels without a cluster are the cluster 'background'. IoU decides, not pixels: one-to-one where there
  are as many clusters as classes, majority (each cluster to its class of greatest IoU) for any number, and the mean takes in every
  class, also absent ones. 'Background fixed' pins the background cluster to the background class and matches the rest.
- *Foreground and background*: IoU of the two halves, pixels without a cluster being background.

References: Hamilton et al., "Unsupervised semantic segmentation by distilling feature correspondences", ICLR 2022 (STEGO);
Van Gansbeke et al., "Unsupervised semantic segmentation by contrasting object mask proposals", ICCV 2021 (MaskContrast); Zadaianchuk et
al., "Unsupervised semantic segmentation with self-supervised object-centric representations", ICLR 2023 (COMUS).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.metrics.base import Accumulator, Contribution, Truth, deepest_value, mean, metric_spec, nan_ratio, poisson_weights
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND
from uss_dagster.regions.regions import joint_histogram

LEFTOVER = ("error", "stego")


SPEC = metric_spec(__file__)


@dataclass(frozen=True)
class Matching:
    """Clusters matched to C classes.

    miou, accuracy: NaN where there is no valid pixel. iou: float64 (C,), NaN for a class that the mean leaves out. match: int64
    (C,), cluster of each class, -1 where it has none; where many clusters may share a class, int64 (K,), class of each cluster.
    """

    miou: float
    accuracy: float
    iou: np.ndarray
    match: np.ndarray


# -- matching a table of pixels -----------------------------------------------------------------------


def hungarian(table: np.ndarray, missed: np.ndarray | None = None, leftover: str = "error") -> Matching:
    """One cluster a class, matching the most pixels.

    table: integers (K, C), valid pixels of each cluster in each class. missed: (C,), valid pixels of each class in no cluster.

    >>> result = hungarian(np.array([[50, 2, 0], [5, 30, 1], [0, 3, 20]]))
    >>> round(result.miou, 6), round(result.accuracy, 6)
    (0.814078, 0.900901)
    """
    if leftover not in LEFTOVER:
        raise UsageError(f"Unknown leftover '{leftover}'.{did_you_mean(leftover, LEFTOVER)}")
    table, real, size = _sums(table, missed)
    # Clusters without a pixel do not exist; with leftover error, classes without one neither.
    clusters, classes = np.flatnonzero(size > 0), np.flatnonzero((real > 0) | (leftover == "stego"))
    match = np.full(len(real), -1)
    match[classes] = _most_pixels(table[np.ix_(clusters, classes)], real[classes], clusters)
    shared, claimed = _of_matched(table, size, match)
    iou = _ratios(shared, real + claimed - shared)
    if leftover == "error":
        iou[real == 0] = np.nan
        counted = iou
    else:
        counted = np.append(iou, 0.0 if size.sum() > claimed.sum() else np.nan)
    return Matching(mean(counted[~np.isnan(counted)]), nan_ratio(shared.sum(), real.sum()), iou, match)


def many_to_one(table: np.ndarray, missed: np.ndarray | None = None) -> Matching:
    """Each cluster to the class that most of its pixels have; absent classes are left out of the mean."""
    table, real, _ = _sums(table, missed)
    target = np.argmax(table, axis=1) if table.size else np.zeros(len(table), np.int64)
    shared, claimed = of_targets(table, target)
    iou = np.where(real > 0, _ratios(shared, real + claimed - shared), np.nan)
    return Matching(mean(iou[~np.isnan(iou)]), nan_ratio(shared.sum(), real.sum()), iou, target)


def one_to_one_by_iou(table: np.ndarray, fixed: bool = False) -> Matching:
    """One cluster a class so that the sum of IoUs is greatest; the mean takes in every class. fixed: the last cluster (row) is
    the background and goes to the last class (column)."""
    table, real, size = _sums(table, None)
    match = np.full(len(real), -1)
    free = np.s_[:-1] if fixed else np.s_[:]
    clusters, classes = assign(_iou(table, size, real)[free, free])
    match[classes] = clusters
    if fixed:
        match[-1] = len(table) - 1
    shared, claimed = _of_matched(table, size, match)
    return _over_every_class(shared, claimed, real, match)


def majority_by_iou(table: np.ndarray) -> Matching:
    """Each cluster to its class of greatest IoU; the mean takes in every class."""
    table, real, size = _sums(table, None)
    target = np.argmax(_iou(table, size, real), axis=1) if table.size else np.zeros(len(table), np.int64)
    return _over_every_class(*of_targets(table, target), real, target)


def _over_every_class(shared: np.ndarray, claimed: np.ndarray, real: np.ndarray, match: np.ndarray) -> Matching:
    iou = np.nan_to_num(_ratios(shared, real + claimed - shared))
    return Matching(float(iou.mean()) if real.sum() else np.nan, nan_ratio(shared.sum(), real.sum()), iou, match)


def _sums(table: np.ndarray, missed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(table float64 (K, C), pixels of each class (C,), pixels of each cluster (K,))."""
    table = np.asarray(table, np.float64)
    real = table.sum(axis=0) + (0 if missed is None else np.asarray(missed, np.float64))
    return table, real, table.sum(axis=1)


def _most_pixels(table: np.ndarray, real: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Cluster of each class, -1 for none. Counts are whole numbers, so a second criterion that stays below 1/2 in sum only breaks
    ties: greater IoU, and rather no cluster than one upon a class without a pixel."""
    match = np.full(len(real), -1)
    second = np.where(real > 0, _iou(table, table.sum(axis=1), real), -1.0)
    rows, columns = assign(table + second / (4 * len(real) + 4))
    match[columns] = clusters[rows]
    return match


def assign(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) matched one to one, as many as there are of the fewer, so that the sum of their entries is greatest."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(table, maximize=True)


def _iou(table: np.ndarray, size: np.ndarray, real: np.ndarray) -> np.ndarray:
    return table / np.maximum(size[:, None] + real - table, 1)


def _of_matched(table: np.ndarray, size: np.ndarray, match: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that each class shares with its cluster, and pixels of that cluster: (C,), (C,)."""
    classes = np.flatnonzero(match >= 0)
    shared, claimed = np.zeros((2, len(match)))
    shared[classes], claimed[classes] = table[match[classes], classes], size[match[classes]]
    return shared, claimed


def of_targets(table: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same where each cluster goes to a class of its own choice."""
    c = table.shape[1]
    shared = np.bincount(target, table[np.arange(len(table)), target], c)
    return shared, np.bincount(target, table.sum(axis=1), c)


def _ratios(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=denominator > 0)


# -- from regions to the table ------------------------------------------------------------------------


def class_columns(classes: ClassTree) -> np.ndarray:
    """Column of each class-tree node in a table, int64 (n,): leaf classes in order, then all background; -1 for all others."""
    kind = np.asarray(classes.kind)
    column = np.where(kind == FOREGROUND, np.cumsum(kind == FOREGROUND) - 1, -1)
    return np.where(kind == BACKGROUND, np.count_nonzero(kind == FOREGROUND), column)


def class_pixels(truth: Truth, prediction: Regions, row: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Valid pixels of each row in each class, int64 (rows, C), and of each class in no row, int64 (C,).

    row: int (A,), the row of each atom of the prediction, -1 for none.
    """
    columns = class_columns(truth.tree())
    node = deepest_value(truth.regions, truth.regions.label)
    if int(node.max(initial=-1)) >= len(columns):
        raise BadData(f"Ground truth has class {node.max()}, but the class tree ends at {len(columns) - 1}.")
    column = np.where(node >= 0, columns[node], -1)
    count = int(columns.max()) + 1
    joint = joint_histogram(truth.regions, prediction)
    first, second = np.nonzero(joint * (column >= 0)[:, None])
    where = (row[second] + 1) * count + column[first]
    table = np.bincount(where, joint[first, second], (rows + 1) * count).astype(np.int64).reshape(rows + 1, count)
    return table[1:], table[0]


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """Pairs of cluster (-1: none) and class (column) that share valid pixels of one image, and how many; None where none is valid."""
    atom = deepest_value(prediction, prediction.label, prediction.label >= 0)
    clusters, row = np.unique(atom, return_inverse=True)
    table, _ = class_pixels(truth, prediction, row, len(clusters))
    rows, classes = np.nonzero(table)
    return {"cluster": clusters[rows], "class": classes, "pixels": table[rows, classes]} if len(rows) else None


def reduce(total: Contribution) -> dict[str, float]:
    """All values of one table.

    total: 'table' (K, C) and 'missed' (C,) as in ``hungarian``; 'background': 1 where the last class is background; 'one_to_one':
    1 where there are as many clusters as classes; 'predicted_background': 1 where pixels without a cluster are a cluster.
    """
    table, missed = total["table"], total["missed"]
    results = {
        "hungarian": hungarian(table, missed),
        "stego": hungarian(table, missed, "stego"),
        "many_to_one": many_to_one(table, missed),
    }
    values: dict[str, float] = {}
    if total["background"]:
        with_background = np.concatenate([table, missed[None]]) if total["predicted_background"] else table
        results["comus_majority"] = majority_by_iou(with_background)
        if total["one_to_one"]:
            results["comus"] = one_to_one_by_iou(with_background)
            if total["predicted_background"]:
                results["comus_fixed"] = one_to_one_by_iou(with_background, fixed=True)
        if total["predicted_background"]:
            objects, ground = table[:, :-1].sum(), missed[-1]
            wrong = table[:, -1].sum() + missed[:-1].sum()
            values = {"foreground_iou": nan_ratio(objects, objects + wrong), "background_iou": nan_ratio(ground, ground + wrong)}
    for name, result in results.items():
        values |= {f"{name}_miou": result.miou, f"{name}_accuracy": result.accuracy}
    return {name: values[name] for name in SPEC.metrics if name in values}


class PairCounts(Accumulator):
    """Pixels of the pairs of cluster and class that occur, over images and in each bootstrap replicate, for any number of clusters.

    A single image has no values of its own: which class a cluster stands for is a question to the dataset.
    """

    def __init__(self, replicates: int = 0) -> None:
        super().__init__(measure, reduce, replicates)
        self._row: dict[tuple[int, int], int] = {}
        self._counts = np.zeros((0, 1 + replicates), np.int64)  # the images as they are, then the replicates
        self._clusters = 0
        self._classes: ClassTree | None = None

    def update(self, image_id: str, truth: Truth, prediction: Regions) -> dict[str, float] | None:
        pairs = measure(truth, prediction)
        if pairs is None:
            self.skipped.append(image_id)
            return None
        weights = np.append(1, poisson_weights(image_id, self.replicates))
        rows = self._rows(zip(pairs["cluster"].tolist(), pairs["class"].tolist(), strict=True))
        self._counts[rows] += np.multiply.outer(pairs["pixels"], weights)
        self._clusters = max(self._clusters, int(prediction.label.max(initial=-1)) + 1)
        self._classes = truth.classes
        self.n += 1
        return {}

    def merge(self, other: Accumulator) -> None:
        assert isinstance(other, PairCounts)
        rows = self._rows(other._row)
        self._counts[rows] += other._counts[: len(other._row)]
        self._clusters = max(self._clusters, other._clusters)
        self._classes = self._classes or other._classes
        self.n += other.n
        self.skipped += other.skipped

    def result(self) -> dict[str, float]:
        return self._values([0])[0] if self.n else {}

    def replicate_results(self) -> list[dict[str, float]]:
        return self._values(range(1, 1 + self.replicates)) if self.n else []

    def _rows(self, pairs: Iterable[tuple[int, int]]) -> list[int]:
        rows = [self._row.setdefault(pair, len(self._row)) for pair in pairs]
        missing = len(self._row) - len(self._counts)
        if missing > 0:
            more = max(missing, len(self._counts))  # at least doubled, so that rows are rarely copied
            self._counts = np.concatenate([self._counts, np.zeros((more, self._counts.shape[1]), np.int64)])
        return rows

    def _values(self, columns: Iterable[int]) -> list[dict[str, float]]:
        assert self._classes is not None
        pairs = np.array(list(self._row), np.int64)
        clusters, row = np.unique(np.append(pairs[:, 0], -1), return_inverse=True)
        place, count = (row[:-1], pairs[:, 1]), int(class_columns(self._classes).max()) + 1
        predicted_background = bool(self._counts[: len(pairs), 0][pairs[:, 0] < 0].any())
        total = {
            "background": np.array(BACKGROUND in self._classes.kind),
            "predicted_background": np.array(predicted_background),
            "one_to_one": np.array(self._clusters + predicted_background == count),
        }
        # Clusters without a valid pixel count where clusters must be as many as classes.
        hidden = np.zeros((max(0, self._clusters - (len(clusters) - 1)), count))
        values = []
        for column in columns:
            table = np.zeros((len(clusters), count))
            table[place] = self._counts[: len(pairs), column]
            values.append(reduce(total | {"table": np.concatenate([table[1:], hidden]), "missed": table[0]}))
        return values


accumulator = PairCounts
"""The number of clusters is known only when all images have been seen."""
