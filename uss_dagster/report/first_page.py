"""What the first page says without scripts: all main numbers in plain tables, and what each metric measures.

Belongs here: values for ``templates/index.html.j2`` that are made from the leaderboard's rows. Does not belong here: what scripts draw (``board``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from uss_dagster.report.facts import Datasets, Entries, Metrics, title_of
from uss_dagster.report.html import dataset_page, entry_page
from uss_dagster.report.leaderboard import Row, by_ranking, entry_order
from uss_dagster.report.metric_lines import families, metric_line


class PlainRow(NamedTuple):
    """An entry in a plain table. cells: its score in each column, None where it was not run."""

    title: str
    page: str
    cells: Sequence[Row | None]


class PlainTable(NamedTuple):
    """All main metrics of a dataset. columns: the first row of each ranking, which tells the metric."""

    title: str
    page: str
    columns: Sequence[Row]
    rows: Sequence[PlainRow]


class MetricGroup(NamedTuple):
    """Metrics that belong together. lines: title of each metric, and what it measures; metrics of one line share an item."""

    title: str
    lines: Sequence[tuple[str, str]]


def plain_tables(rows: Sequence[Row], entries: Entries, datasets: Datasets) -> list[PlainTable]:
    """A table for each dataset that has scores, in the order of the datasets; detailed metrics are left out."""
    tables = []
    for dataset in datasets:
        main = [row for row in rows if row.dataset == dataset and not row.detail]
        if not main:
            continue
        rankings = by_ranking(main).values()
        of_column = [{row.entry: row for row in ranking} for ranking in rankings]
        lines = [
            PlainRow(title_of(entries, entry), entry_page(entry), [column.get(entry) for column in of_column])
            for entry in entry_order(main)
        ]
        tables.append(PlainTable(title_of(datasets, dataset), dataset_page(dataset), [ranking[0] for ranking in rankings], lines))
    return tables


def metric_groups(rows: Sequence[Row], metrics: Metrics) -> list[MetricGroup]:
    """The metrics of some rows in groups, those with lines in the order of ``metric_lines``; titles that share a line stand together."""
    titles: dict[str, dict[str, dict[str, None]]] = {section.group: {} for section in families().values()}
    for row in rows:
        line = metric_line(row.metric, metrics[row.metric])
        titles.setdefault(line.group, {}).setdefault(line.line, {})[row.metric_title] = None
    return [MetricGroup(group, _lines(lines)) for group, lines in titles.items() if lines]


def _lines(lines: Mapping[str, Mapping[str, None]]) -> list[tuple[str, str]]:
    return [("; ".join(titles), line) for line, titles in lines.items()]
