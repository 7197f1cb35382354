"""Files for papers and other programs: tables as CSV, JSON, Markdown and LaTeX, figures as SVG and PNG, and a bibliography.

The same leaderboard gives the same bytes.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from uss_dagster.files import write_whole
from uss_dagster.report import mean_ranks, published_and_ours
from uss_dagster.report.facts import Datasets, Entries, Metrics, title_of
from uss_dagster.report.html import packed, slug
from uss_dagster.report.leaderboard import Row, rows_of, to_csv
from uss_dagster.report.leaderboard_plot import dataset_figures
from uss_dagster.report.references import bibtex
from uss_dagster.report.text_tables import to_latex, to_markdown

FOLDER = "exports"


class ExportedFiles(NamedTuple):
    """Files of one dataset, or of all. title: whose. names: within ``exports/``."""

    title: str
    names: list[str]


def write_exports(
    target: Path,
    frame: pd.DataFrame,
    entries: Entries,
    datasets: Datasets,
    metrics: Metrics,
    ranks: pd.DataFrame | None = None,
    repeated: pd.DataFrame | None = None,
) -> list[ExportedFiles]:
    """Write all files into ``exports/`` of the site; returns what the page of exports lists. Arguments as of ``site.build``."""
    rows = rows_of(frame)
    files: dict[str, str | bytes] = {
        "leaderboard.csv": to_csv(frame),
        "leaderboard.json": as_json(rows, datasets),
        "leaderboard.md": to_markdown(rows, datasets, ranks, repeated),
        "references.bib": bibliography(rows, entries, datasets, metrics),
    }
    if ranks is not None and len(ranks):
        files["mean_ranks.csv"] = mean_ranks.to_csv(ranks)
    if repeated is not None and len(repeated):
        files["published.csv"] = published_and_ours.to_csv(repeated)
    exported = [ExportedFiles("All datasets", sorted(files))]
    for dataset in dict.fromkeys(frame["dataset"]):
        of_dataset = [row for row in rows if row.dataset == dataset]
        stem, title = slug(dataset), title_of(datasets, dataset)
        of_kind: dict[str, str | bytes] = {
            "csv": to_csv(frame[frame["dataset"] == dataset]),
            "md": to_markdown(of_dataset, datasets),
            "tex": to_latex(of_dataset, entries, datasets),
            **dataset_figures(of_dataset, title),
        }
        exported.append(ExportedFiles(title, [f"{stem}.{kind}" for kind in of_kind]))
        files |= {f"{stem}.{kind}": content for kind, content in of_kind.items()}
    for name, content in files.items():
        write_whole(target / FOLDER / name, content)
    return exported


def as_json(rows: list[Row], datasets: Datasets) -> str:
    """One object a row with the columns of the CSV; published figures apart, since they were not measured here."""
    names = dict.fromkeys(row.dataset for row in rows)
    facts = {name: {k: getattr(datasets[name], k) for k in ("title", "licence", "citation", "images", "version")} for name in names}
    published = {name: [dataclasses.asdict(work) for work in datasets[name].published] for name in names if datasets[name].published}
    return packed({"rows": rows, "datasets": facts, "published_not_measured": published}, indent=1) + "\n"


def bibliography(rows: list[Row], entries: Entries, datasets: Datasets, metrics: Metrics) -> str:
    """BibTeX of every method, dataset and metric family on the leaderboard."""
    citations: dict[tuple[str, str], str] = {}
    for row in rows:
        dataset = datasets[row.dataset]
        citations["method", row.method] = entries[row.entry].paper
        citations["dataset", dataset.kind or row.dataset] = dataset.citation
        citations["metric", metrics[row.metric].family] = ""
    return bibtex(citations)
