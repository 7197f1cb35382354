"""Figures that papers report, for orientation beside the leaderboard; nothing here was measured by this project.

The figures are in ``published.yaml``, each with its source, under the name of the metric whose convention it follows. They are never
ranked against measured rows: images, sizes and post-processing differ from paper to paper, so even equal conventions are not equal
experiments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from uss_dagster.files import parse_yaml


@dataclass(frozen=True)
class PublishedRow:
    """One row of a paper's table, on one dataset.

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
    """

    title: str
    setting: str
    source: str
    supervised: bool
    values: Mapping[str, float]


@cache
def published_figures() -> Mapping[str, tuple[PublishedRow, ...]]:
    """Rows by the name of the dataset's adapter."""
    rows: dict[str, tuple[PublishedRow, ...]] = {}
    for work in parse_yaml(Path(__file__).with_suffix(".yaml").read_bytes()):
        for kind, values in work["values"].items():
            row = PublishedRow(work["title"], work["setting"], work["source"], work.get("supervised", False), values)
            rows[kind] = (*rows.get(kind, ()), row)
    return rows


def published_rows(kind: str, metrics: Collection[str]) -> list[PublishedRow]:
    """Rows for a dataset of this adapter that have a value of one of these metrics, with only such values."""
    rows = []
    for row in published_figures().get(kind, ()):
        values = {metric: value for metric, value in row.values.items() if metric in metrics}
        if values:
            rows.append(PublishedRow(row.title, row.setting, row.source, row.supervised, values))
    return rows
