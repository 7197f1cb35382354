"""The leaderboard as Markdown and as LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from uss_dagster.report.facts import Datasets, Entries, title_of
from uss_dagster.report.leaderboard import Row, by_ranking, entry_order, without_details
from uss_dagster.report.mean_ranks import MeanRankTable
from uss_dagster.report.published import PublishedRow
from uss_dagster.report.published_and_ours import repeated_rows
from uss_dagster.report.references import keys_of
from uss_dagster.templates import render

READS = ("templates",)
WIDEST = 6
"""Metrics side by side in one LaTeX table; more make another table."""


class Column(NamedTuple):
    """One ranking of a table. first: its first row. rows: its rows by entry."""

    first: Row
    rows: Mapping[str, Row]


@dataclass(frozen=True)
class Table:
    """The table of one dataset: entries as rows in the order of the first metric's ranks, rankings as columns.

    Parameters
    ----------
    dataset : str
    entries : sequence of Row
        One row of each entry, for its title, method and backbone.
    columns : sequence of Column
    published : sequence of PublishedRow
        Figures of papers.
    published_metrics : mapping of str to str
        Metrics that these figures have, with their titles.
    """

    dataset: str
    entries: Sequence[Row]
    columns: Sequence[Column]
    published: Sequence[PublishedRow] = ()
    published_metrics: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: str, rows: list[Row], published: Sequence[PublishedRow] = ()) -> Table:
        """The table of a dataset's rows of the leaderboard."""
        of_entry = {row.entry: row for row in reversed(rows)}
        columns = [Column(group[0], {row.entry: row for row in group}) for group in by_ranking(without_details(rows)).values()]
        titles = {row.metric: row.metric_title for row in rows if any(row.metric in work.values for work in published)}
        return cls(dataset, [of_entry[entry] for entry in entry_order(rows)], columns, published, titles)


def to_markdown(rows: Sequence[Row], datasets: Datasets, ranks: pd.DataFrame | None = None, repeated: pd.DataFrame | None = None) -> str:
    """One table a dataset.

    Parameters
    ----------
    rows : sequence of Row
        The leaderboard, in its order.
    datasets : mapping
        Facts of the datasets. Their published figures follow in a table of their own, which ranks nothing.
    ranks : pandas.DataFrame, optional
        The result of ``mean_ranks.build``, for a table over all datasets.
    repeated : pandas.DataFrame, optional
        The result of ``published_and_ours.build``, for a table of published values beside ours.
    """
    tables = [
        Table.of(dataset, [row for row in rows if row.dataset == dataset], datasets[dataset].published if dataset in datasets else ())
        for dataset in dict.fromkeys(row.dataset for row in rows)
    ]
    over_datasets = None if ranks is None else MeanRankTable.of(ranks)
    beside = repeated_rows(repeated) if repeated is not None else []
    return render("uss_dagster.report", "leaderboard.md.j2", tables=tables, ranks=over_datasets, repeated=beside, plain=_markdown)


def _markdown(text: str) -> str:
    """Text that stands in a Markdown table cell as itself."""
    return re.sub(r"([\\|*_`<>\[\]#])", r"\\\1", " ".join(str(text).split()))


# -- LaTeX --------------------------------------------------------------------------------------------


def to_latex(rows: list[Row], entries: Entries, datasets: Datasets) -> str:
    """Tables of one dataset for the package ``booktabs``: bold is the best of a column, a dagger what is tied with it.

    Metrics of one table may follow different protocols; the caption names each, and every column is ranked by itself.
    """
    if not rows:
        return "% No scores yet.\n"
    name = rows[0].dataset
    table = Table.of(name, rows)
    return render(
        "uss_dagster.report",
        "leaderboard.tex.j2",
        parts=[table.columns[start : start + WIDEST] for start in range(0, len(table.columns), WIDEST)],
        entries=table.entries,
        title=title_of(datasets, name),
        cite_dataset=_cite(keys_of("dataset", datasets[name].kind or name, datasets[name].citation)),
        cite=lambda row: _cite(keys_of("method", row.method, entries[row.entry].paper)),
        cell=_tex_cell,
        tex=_tex,
    )


def _cite(keys: Sequence[str]) -> str:
    return f"~\\cite{{{','.join(keys)}}}" if keys else ""


def _tex_cell(row: Row | None) -> str:
    if row is None or math.isnan(row.value):
        return "--" if row is None else "n/a"
    value = rf"\textbf{{{row.value:.3f}}}" if row.rank == 1 else f"{row.value:.3f}"
    mark = r"$^\dagger$" if row.tied_with_best and row.rank != 1 else ""
    spread = "" if math.isnan(row.low) else rf" {{\scriptsize$\pm${row.half_width:.3f}}}"
    return value + mark + spread


_TEX = {
    **{letter: f"\\{letter}" for letter in "{}&%$#_"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "≥": r"$\geq$",
}


def _tex(text: str | None) -> str:
    """Text that LaTeX sets as itself."""
    return "".join(_TEX.get(letter, letter) for letter in " ".join(str(text or "").split()))
