"""A paper's table as text: every published row beside ours, ours without a published value, and published rows that were not computed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import pandas as pd

from uss_dagster.report.leaderboard import rows_of, without_details
from uss_dagster.report.published import published_rows
from uss_dagster.report.published_and_ours import repeated_rows
from uss_dagster.text import aligned

HEAD = ("dataset", "metric", "grid", "row", "published", "ours", "difference", "images", "why")


class Line(NamedTuple):
    """One line of the table, as text; the columns of ``HEAD``."""

    dataset: str
    metric: str
    grid: str
    row: str
    published: str
    ours: str = "–"
    difference: str = "–"
    images: str = "–"
    why: str = "not computed here"


def table_lines(frame: pd.DataFrame, repeated: pd.DataFrame, tables: Collection[str], class_sets: Mapping[str, str]) -> list[str]:
    """The aligned lines of a table, and below it, by number, why values may differ.

    Parameters
    ----------
    frame, repeated : pandas.DataFrame
        The results of ``leaderboard.build`` and ``published_and_ours.build``.
    tables : collection of str
        Names of the published tables that it is about.
    class_sets : mapping of str to str
        Class set of each dataset that is shown.
    """
    rows, beside = rows_of(frame[frame["dataset"].isin(list(class_sets))]), repeated_rows(repeated)
    titles = {row.metric: row.metric_title for row in rows}
    works = [(dataset, work) for dataset, classes in class_sets.items() for work in published_rows(classes, titles) if work.table in tables]
    metrics = {metric for _, work in works for metric in work.values}
    computed = {(one.dataset, one.metric, one.key) for one in beside}
    lines = [
        Line(
            *(one.dataset, one.metric_title, one.grid, one.title, f"{one.published:.3f}"),
            _with_interval(one.value, one.published + one.low, one.published + one.high),
            *(one.difference_text, f"{one.n:,}", one.why),
        )
        for one in beside
    ]
    repeating = {(one.ranking, one.entry) for one in beside}
    for row in [row for row in rows if row.metric in metrics] if metrics else without_details(rows):
        if (row.ranking, row.entry) not in repeating:
            ours = _with_interval(row.value, row.low, row.high)
            lines.append(Line(row.dataset, row.metric_title, row.grid, row.title, "not known", ours, images=f"{row.n:,}", why=""))
    for dataset, work in works:
        left = {metric: value for metric, value in work.values.items() if (dataset, metric, work.key) not in computed}
        lines += [Line(dataset, titles[metric], work.grid, work.title, f"{value:.3f}") for metric, value in left.items()]
    datasets, order = list(class_sets), list(titles.values())
    lines.sort(key=lambda line: (datasets.index(line.dataset), order.index(line.metric), line.row, line.grid))
    reasons = {why: f"[{number}]" for number, why in enumerate(dict.fromkeys(line.why for line in lines if line.why), start=1)}
    table = aligned(HEAD, [line._replace(why=reasons.get(line.why, "")) for line in lines], right=("published", "ours", "images"))
    return [*table, *(f"{number} {why}" for why, number in reasons.items())]


def _with_interval(value: float, low: float, high: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")
