"""Figures that papers report, for orientation beside the leaderboard; nothing here was measured by this project.

The figures are in ``published.yaml``, each with its source, under the class set of its dataset and the name of the metric whose convention
it follows: the same images with other classes are another experiment. They are never ranked against measured rows: images, sizes and
post-processing differ from paper to paper, so even equal conventions are not equal experiments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from uss_dagster.files import parse_yaml


@dataclass(frozen=True)
class PublishedRow:
    """One row of a paper's table, on one class set.

    Parameters
    ----------
    title : str
        The method.
    setting : str
        Backbone, images and evaluation, in words.
    source : str
        Where the figures can be looked up.
    supervised : bool
        Whether the method has seen ground truth.
    values : mapping of str to float
        Metric to value: a fraction, or bits for the variation of information.
    key : str, default ''
        'table/row', by which entries of profiles name it.
    method, weights, size, grid : str, default ''
        What the figures were made with: the method of this project that is meant, weights, size of the input, grid of the evaluation.
        '' where it is not known.
    images : int, default 0
        Images that the figures are of; 0 where it is not known.
    """

    title: str
    setting: str
    source: str
    supervised: bool
    values: Mapping[str, float]
    key: str = ""
    method: str = ""
    weights: str = ""
    size: str = ""
    grid: str = ""
    images: int = 0

    @property
    def table(self) -> str:
        """The name of its table; '' without a key."""
        return self.key.partition("/")[0]


@cache
def published_figures() -> Mapping[str, tuple[PublishedRow, ...]]:
    """Rows by the class set of the dataset."""
    rows: dict[str, tuple[PublishedRow, ...]] = {}
    for work in parse_yaml(Path(__file__).with_suffix(".yaml").read_bytes()):
        images = work.pop("images", {})
        for classes, values in work.pop("values").items():
            row = PublishedRow(**{"supervised": False, **work, "values": values, "images": images.get(classes, 0)})
            rows[classes] = (*rows.get(classes, ()), row)
    return rows


@cache
def published_keys() -> frozenset[str]:
    """Names of all rows that entries may refer to."""
    return frozenset(row.key for rows in published_figures().values() for row in rows if row.key)


def published_rows(classes: str, metrics: Collection[str]) -> list[PublishedRow]:
    """Rows for datasets of this class set that have a value of one of these metrics, with only such values."""
    rows = []
    for row in published_figures().get(classes, ()):
        values = {metric: value for metric, value in row.values.items() if metric in metrics}
        if values:
            rows.append(replace(row, values=values))
    return rows
