"""Scores of single images as columns: a dozen bytes a score, where a row as a Python object takes hundreds."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uss_dagster.scoring.scorer import ScoreRow, convention_of

ConventionKey = tuple[str, str, str, str]
"""Metric, protocol, scope and grid."""


class ImageScores:
    """Scores of the images of a dataset by convention; an image need not have all."""

    def __init__(self) -> None:
        self._ids: list[pa.Array] = []
        self._images = 0
        self._columns: dict[ConventionKey, list[tuple[np.ndarray, np.ndarray]]] = {}

    @classmethod
    def of(cls, rows: Iterable[ScoreRow]) -> ImageScores:
        """The scores of these rows."""
        scores = cls()
        scores.add(rows)
        return scores

    def add(self, rows: Iterable[ScoreRow]) -> None:
        """Add the scores of images that were not added before."""
        place: dict[str, int] = {}
        columns: dict[ConventionKey, tuple[array[int], array[float]]] = {}
        for row in rows:
            images, values = columns.setdefault(convention_of(row), (array("i"), array("d")))
            images.append(place.setdefault(str(row["image_id"]), self._images + len(place)))
            values.append(row["value"])
        self._ids.append(pa.array(place, pa.string()))
        self._images += len(place)
        for key, (images, values) in columns.items():
            self._columns.setdefault(key, []).append((np.array(images, np.int32), np.array(values)))

    def without(self, metrics: Collection[str]) -> ImageScores:
        """The scores without those of some metrics."""
        scores = ImageScores()
        scores._ids, scores._images = self._ids, self._images
        scores._columns = {key: columns for key, columns in self._columns.items() if key[0] not in metrics}
        return scores

    def conventions(self) -> list[ConventionKey]:
        """The conventions with a score, in the order in which they came."""
        return list(self._columns)

    def ids(self) -> pa.Array:
        """The images with a score, ascending."""
        images = [places for columns in self._columns.values() for places, _ in columns]
        there = np.unique(np.concatenate(images)) if images else np.zeros(0, np.int32)
        return self._all_ids().take(pa.array(there)).sort()

    def scores(self, key: ConventionKey) -> tuple[pa.Array, np.ndarray]:
        """(ids, values) of one convention, by ascending id."""
        places, values = map(np.concatenate, zip(*self._columns[key], strict=True))
        ids = self._all_ids().take(pa.array(places))
        order = pc.sort_indices(ids)
        return ids.take(order), values[order.to_numpy()]

    def _all_ids(self) -> pa.Array:
        self._ids = [pa.concat_arrays(self._ids)] if self._ids else [pa.array([], pa.string())]
        return self._ids[0]


def mean_scores(runs: Sequence[ImageScores]) -> ImageScores:
    """The scores of several runs as one: those of the same number are averaged over the runs that have it."""
    if len(runs) == 1:
        return runs[0]
    return ImageScores.of(_mean_rows(runs))


def _mean_rows(runs: Sequence[ImageScores]) -> Iterator[ScoreRow]:
    for key in dict.fromkeys(key for run in runs for key in run.conventions()):
        values: dict[str, list[float]] = {}
        for run in runs:
            if key in run.conventions():
                ids, numbers = run.scores(key)
                for image_id, value in zip(ids.to_pylist(), numbers.tolist(), strict=True):
                    values.setdefault(image_id, []).append(value)
        metric, protocol, scope, grid = key
        for image_id, of_runs in values.items():
            value = math.fsum(of_runs) / len(of_runs)
            yield {"metric": metric, "protocol": protocol, "scope": scope, "grid": grid, "image_id": image_id, "value": value, "n": 1}
