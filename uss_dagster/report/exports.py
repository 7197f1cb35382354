"""What can be taken away: tables as CSV, JSON, Markdown and LaTeX, figures as SVG and PNG, and a bibliography of all they use.

Belongs here: files for papers and other programs. The same leaderboard gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from uss_dagster.report.html import Html, join, packed, slug, table, tag, title_of, write
from uss_dagster.report.leaderboard import COLUMNS, GROUP, Facts, Published, convention, entry_order, half_width, to_csv, to_markdown
from uss_dagster.report.leaderboard_plot import dataset_figures
from uss_dagster.report.references import bibtex, keys_of

FOLDER = "exports"
WIDEST = 6
"""Metrics side by side in one LaTeX table; more make another table."""


def write_exports(target: Path, frame: pd.DataFrame, entries: Facts, datasets: Facts, metrics: Facts) -> Html:
    """Write all files into ``exports/`` of the site; returns the table of links to them."""
    published = {name: list(facts.get("published") or []) for name, facts in datasets.items()}
    everything = {
        "leaderboard.csv": to_csv(frame),
        "leaderboard.json": as_json(frame, datasets, published),
        "leaderboard.md": to_markdown(frame, published),
        "references.bib": bibliography(frame, entries, datasets, metrics),
    }
    for name, text in everything.items():
        write(target, f"{FOLDER}/{name}", text)
    rows: list[list[Any]] = [["All datasets", _links(sorted(everything))]]
    for dataset in dict.fromkeys(frame["dataset"]):
        here = frame[frame["dataset"] == dataset]
        made = {f"{slug(dataset)}.csv": to_csv(here), f"{slug(dataset)}.md": to_markdown(here, published)}
        made[f"{slug(dataset)}.tex"] = to_latex(here, title_of(datasets, dataset), entries, datasets)
        for name, text in made.items():
            write(target, f"{FOLDER}/{name}", text)
        figures = {f"{slug(dataset)}.{kind}": data for kind, data in dataset_figures(here, title_of(datasets, dataset)).items()}
        for name, data in figures.items():
            (target / FOLDER / name).write_bytes(data)
        rows.append([title_of(datasets, dataset), _links([*made, *figures])])
    return table(["Of", "Files"], rows, "Files to take away")


def _links(names: Sequence[str]) -> Html:
    return join((tag("a", name, href=f"{FOLDER}/{name}", download=name) for name in names), " · ")


def as_json(frame: pd.DataFrame, datasets: Facts, published: Published) -> str:
    """One object a row with the columns of the CSV; published figures apart, since they were not measured here."""
    rows = [{column: None if pd.isna(v := row[column]) else v for column in COLUMNS} for row in frame[COLUMNS].to_dict("records")]
    about = {
        name: {k: datasets[name].get(k) for k in ("title", "licence", "citation", "images", "version")}
        for name in frame["dataset"].unique()
    }
    outside = {name: published[name] for name in about if published.get(name)}
    return packed({"rows": rows, "datasets": about, "published_not_measured": outside}, indent=1) + "\n"


def bibliography(frame: pd.DataFrame, entries: Facts, datasets: Facts, metrics: Facts) -> str:
    """BibTeX of every method, dataset and metric family on the leaderboard."""
    wanted: dict[tuple[str, str], str] = {}
    for entry in frame["entry"].unique():
        wanted["method", str(entries[entry].get("method", ""))] = str(entries[entry].get("paper") or "")
    for dataset in frame["dataset"].unique():
        facts = datasets[dataset]
        wanted["dataset", str(facts.get("kind") or dataset)] = str(facts.get("citation") or "")
    for metric in frame["metric"].unique():
        if family := metrics[metric].get("family"):
            wanted["metric", str(family)] = ""
    return bibtex(wanted)


def to_latex(frame: pd.DataFrame, title: str, entries: Facts, datasets: Facts) -> str:
    """Tables of one dataset for the package ``booktabs``: bold is the best of a column, a dagger what is tied with it.

    Metrics of one table may follow different protocols; the caption names each, and every column is ranked by itself.
    """
    if frame.empty:
        return "% No scores yet.\n"
    shown = frame[~frame["detail"]] if not frame["detail"].all() else frame
    groups = [group for _, group in shown.groupby(GROUP, sort=False)]
    name = str(frame["dataset"].iloc[0])
    cites = keys_of("dataset", str(datasets[name].get("kind") or name), str(datasets[name].get("citation") or ""))
    source = f"~\\cite{{{','.join(cites)}}}" if cites else ""
    order = entry_order(frame)
    about = {row["entry"]: row for row in frame.drop_duplicates("entry").to_dict("records")}
    tables = ["% Needs \\usepackage{booktabs}; the bibliography is references.bib."]
    for start in range(0, len(groups), WIDEST):
        part = groups[start : start + WIDEST]
        arrows = {True: r"$\uparrow$", False: r"$\downarrow$"}
        heads = [f"{_tex(g.iloc[0]['metric_title'])} {arrows[bool(g.iloc[0]['higher_is_better'])]}" for g in part]
        lines = []
        found = [{row["entry"]: row for row in g.to_dict("records")} for g in part]
        for entry in order:
            row = about[entry]
            keys = keys_of("method", str(row["method"]), str(entries[entry].get("paper") or ""))
            cite = f"~\\cite{{{','.join(keys)}}}" if keys else ""
            labels = " (uses labels)" if row["supervised"] else ""
            line = [_tex(row["title"]) + labels + cite, _tex(row["backbone"]) or "--", *(_tex_cell(cells.get(entry)) for cells in found)]
            lines.append("    " + " & ".join(line) + r" \\")
        ways = "; ".join(f"{_tex(g.iloc[0]['metric_title'])}: {_tex(convention(g.iloc[0]))}" for g in part)
        caption = (
            f"{_tex(title)}{source}. Value $\\pm$ half its 95\\,\\% bootstrap interval over images. Bold: best; $^\\dagger$: cannot be told "
            f"apart from it (paired). Each column is ranked by itself. {ways}."
        )
        tables.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"  \centering\small",
                    rf"  \caption{{{caption}}}",
                    rf"  \begin{{tabular}}{{ll{'r' * len(part)}}}",
                    r"    \toprule",
                    "    " + " & ".join(["Entry", "Backbone", *heads]) + r" \\",
                    r"    \midrule",
                    *lines,
                    r"    \bottomrule",
                    r"  \end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n".join(tables) + "\n"


def _tex_cell(row: dict[Hashable, Any] | None) -> str:
    if row is None:
        return "--"
    if pd.isna(row["value"]):
        return "n/a"
    value = rf"\textbf{{{row['value']:.3f}}}" if row["rank"] == 1 else f"{row['value']:.3f}"
    mark = r"$^\dagger$" if row["tied_with_best"] and row["rank"] != 1 else ""
    spread = "" if pd.isna(row["low"]) else rf" {{\scriptsize$\pm${half_width(row['low'], row['high']):.3f}}}"
    return value + mark + spread


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}


def _tex(text: Any) -> str:
    """Text that LaTeX sets as itself."""
    plain = " ".join(str(text).split()).replace("–", "--").replace("≥", "\0")
    return re.sub(
        r"[\\~^<>{}&%$#_|]", lambda m: _TEX.get(m.group(), "\\" + m.group() if m.group() != "|" else r"\textbar{}"), plain
    ).replace("\0", r"$\geq$")
