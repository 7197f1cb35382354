"""The leaderboard as Markdown and as LaTeX."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from uss_dagster.report.facts import Datasets, Entries, title_of
from uss_dagster.report.leaderboard import Row, by_ranking, entry_order, without_details
from uss_dagster.report.published import PublishedRow
from uss_dagster.report.references import keys_of

WIDEST = 6
"""Metrics side by side in one LaTeX table; more make another table."""


def to_markdown(rows: Sequence[Row], datasets: Datasets) -> str:
    """One table a dataset: entries as rows in the order of the first metric's ranks, metrics as columns.

    Parameters
    ----------
    rows : sequence of Row
        The leaderboard, in its order.
    datasets : mapping
        Facts of the datasets. Their published figures follow in a table of their own, which ranks nothing.
    """
    if not rows:
        return "# Leaderboard\n\nNo scores yet.\n"
    parts = [
        "# Leaderboard\n",
        "Value ± half the width of its 95 % bootstrap interval over images. **Bold**: best. ≈: tied with the best, the interval of the "
        "paired difference contains 0. –: not run. n/a: run, but undefined on these images. ↑ higher is better, ↓ lower is better.\n",
    ]
    for dataset in dict.fromkeys(row.dataset for row in rows):
        of_dataset = [row for row in rows if row.dataset == dataset]
        parts += _markdown_tables(dataset, of_dataset)
        if dataset in datasets and datasets[dataset].published:
            parts.append(_published_table(of_dataset, datasets[dataset].published))
    return "\n".join(parts)


def _markdown_tables(dataset: str, rows: list[Row]) -> list[str]:
    """Heading, table and notes of one dataset."""
    groups = list(by_ranking(without_details(rows)).values())
    heads, notes = [], []
    for number, group in enumerate(groups, 1):
        first = group[0]
        title = _markdown(first.metric_title)
        heads.append(f"{title} {'↑' if first.higher_is_better else '↓'} [{number}]")
        images = "–".join(str(n) for n in sorted({min(row.n for row in group), max(row.n for row in group)}))
        oracle = " Oracle: the ground truth picks the regions, an upper bound." if first.oracle else ""
        notes.append(f"{number}. {title}: {_markdown(first.ranking.convention)}, {images} images.{oracle}")
    columns = [{row.entry: row for row in group} for group in groups]
    of_entry = {row.entry: row for row in reversed(rows)}
    lines = [f"| Entry | Backbone | {' | '.join(heads)} |", "| --- | --- |" + " ---: |" * len(groups)]
    for entry in entry_order(rows):
        cells = [_name(of_entry[entry]), _markdown(of_entry[entry].backbone) or "–", *(_markdown_cell(c.get(entry)) for c in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return [f"## {_markdown(dataset)}\n", "\n".join(lines) + "\n", "\n".join(notes) + "\n"]


def _published_table(rows: list[Row], published: Sequence[PublishedRow]) -> str:
    titles = {row.metric: row.metric_title for row in rows if any(row.metric in work.values for work in published)}
    lines = [
        "Published figures, **not measured here**: other images, sizes or post-processing may lie behind them, so they rank nothing.\n",
        f"| Published | {' | '.join(map(_markdown, titles.values()))} | Source |",
        "| --- |" + " ---: |" * len(titles) + " --- |",
    ]
    for work in published:
        values = [f"{work.values[metric]:.3f}" if metric in work.values else "–" for metric in titles]
        lines.append(f"| *{_name(work)}* | {' | '.join(values)} | {_markdown(work.source)}; {_markdown(work.setting)} |")
    return "\n".join(lines) + "\n"


def _name(row: Row | PublishedRow) -> str:
    return _markdown(row.title) + (" (uses labels)" if row.supervised else "")


def _markdown_cell(row: Row | None) -> str:
    if row is None:
        return "–"
    if row.rank == 1:
        return f"**{row.text}**"
    return f"{row.text} ≈" if row.tied_with_best else row.text


def _markdown(text: str) -> str:
    """Text that stands in a Markdown table cell as itself."""
    return re.sub(r"([\\|*_`<>\[\]#])", r"\\\1", " ".join(str(text).split()))


# -- LaTeX --------------------------------------------------------------------------------------------

_TABLE = r"""\begin{table}
  \centering\small
  \caption{%(caption)s}
  \begin{tabular}{ll%(columns)s}
    \toprule
    %(heads)s \\
    \midrule
%(lines)s
    \bottomrule
  \end{tabular}
\end{table}"""


def to_latex(rows: list[Row], entries: Entries, datasets: Datasets) -> str:
    """Tables of one dataset for the package ``booktabs``: bold is the best of a column, a dagger what is tied with it.

    Metrics of one table may follow different protocols; the caption names each, and every column is ranked by itself.
    """
    if not rows:
        return "% No scores yet.\n"
    name = rows[0].dataset
    source = _cite(keys_of("dataset", datasets[name].kind or name, datasets[name].citation))
    groups = list(by_ranking(without_details(rows)).values())
    of_entry = {row.entry: row for row in reversed(rows)}
    tables = ["% Needs \\usepackage{booktabs}; the bibliography is references.bib."]
    for start in range(0, len(groups), WIDEST):
        part = groups[start : start + WIDEST]
        firsts = [group[0] for group in part]
        columns = [{row.entry: row for row in group} for group in part]
        lines = []
        for entry in entry_order(rows):
            row = of_entry[entry]
            cite = _cite(keys_of("method", row.method, entries[entry].paper))
            labels = " (uses labels)" if row.supervised else ""
            cells = [_tex(row.title) + labels + cite, _tex(row.backbone) or "--", *(_tex_cell(column.get(entry)) for column in columns)]
            lines.append("    " + " & ".join(cells) + r" \\")
        conventions = "; ".join(f"{_tex(row.metric_title)}: {_tex(row.ranking.convention)}" for row in firsts)
        caption = (
            f"{_tex(title_of(datasets, name))}{source}. Value $\\pm$ half its 95\\,\\% bootstrap interval over images. Bold: best; "
            f"$^\\dagger$: cannot be told apart from it (paired). Each column is ranked by itself. {conventions}."
        )
        arrows = [r"$\uparrow$" if row.higher_is_better else r"$\downarrow$" for row in firsts]
        heads = [f"{_tex(row.metric_title)} {arrow}" for row, arrow in zip(firsts, arrows, strict=True)]
        text = {"caption": caption, "columns": "r" * len(part), "lines": "\n".join(lines)}
        tables.append(_TABLE % {**text, "heads": " & ".join(["Entry", "Backbone", *heads])})
    return "\n".join(tables) + "\n"


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
