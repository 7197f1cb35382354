"""The pages of a curated set for people: its datasheet and the report of its checks. Equal numbers give equal bytes.

Reference for the questions that a datasheet answers: Gebru et al., "Datasheets for Datasets", Communications of the ACM 64(12), 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from uss_dagster.artifacts.gate import Report
from uss_dagster.curation.curate import STATUSES
from uss_dagster.curation.drift import HISTOGRAMS, DriftRow, SetSummary
from uss_dagster.curation.params import CurateParams, Description
from uss_dagster.templates import render

READS = ("templates",)
TITLES = {
    "area": "Area of masks, pixels",
    "quality": "Quality of found masks",
    "score": "Confidence of the method",
    "masks": "Masks an image",
    "coverage": "Share of an image in masks",
}
"""Of the histograms."""


def report_page(report: Report, title: str, drift: Sequence[DriftRow] | None = None) -> str:
    """The checks of a result as an HTML page, one row a check, the failed ones first.

    Parameters
    ----------
    report : Report
    title : str
    drift : sequence of DriftRow, optional
        Comparison with the previous version. It is not part of the artefact, so pages in the artefact have none.
    """
    passed = sum(check["success"] for check in report.checks)
    return _page("report.html.j2", title=title, report=report, passed=passed, drift=drift)


def datasheet(summary: SetSummary, description: Description, params: CurateParams, samples: str | None) -> tuple[str, str]:
    """The datasheet in Markdown and in HTML.

    Parameters
    ----------
    summary : SetSummary
    description : Description
    params : CurateParams
    samples : str or None
        Name of the file with sample images.
    """
    values = {
        "title": description.title,
        "introduction": f"{summary['kept']} images with {summary['masks']} masks ({summary['human_masks']} drawn by people), made from "
        f"{description.source}. Masks were found without labels by {description.methods}; what was set aside is listed, not deleted.",
        "samples": samples,
        "counts": _counts(summary),
        "dropped": list(summary["dropped"].items()) or [("none", 0)],
        "histograms": [(TITLES[name], _bins(HISTOGRAMS[name], counts)) for name, counts in summary["histograms"].items()],
        "parameters": [(name, _plain(value)) for name, value in sorted(asdict(params).items()) if value is not None],
        "licence": f"Images and human masks: {description.licence}. {description.citation} {description.homepage}".strip(),
        "notice": "Found masks were made by a program and may be wrong; they carry no classes. Read labels.json with any COCO reader, or "
        "masks.parquet and images.parquet with any Parquet reader.",
    }
    return _page("datasheet.md.j2", **values), _page("datasheet.html.j2", **values)


def _counts(summary: SetSummary) -> list[tuple[str, float]]:
    return [
        ("images", summary["images"]),
        *((f"{status}: {STATUSES[status]}", number) for status, number in summary["status"].items()),
        *((f"split {name}", number) for name, number in summary["splits"].items()),
        ("masks", summary["masks"]),
        *((f"masks of {name}", number) for name, number in summary["sources"].items()),
        ("masks an image", summary["masks_per_image"]),
        ("mean share of an image in masks", summary["coverage"]),
    ]


def _bins(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Labelled bins, from the first to the last that is not empty."""
    filled = [i for i, count in enumerate(counts) if count]
    if not filled:
        return []
    last = len(counts) - 1
    names = [f"{edges[i]:g} – {edges[i + 1]:g}" if i < last or edges[i + 1] < 1e8 else f"{edges[i]:g} and more" for i in range(len(counts))]
    return list(zip(names, counts, strict=True))[filled[0] : filled[-1] + 1]


def _page(template: str, **values: object) -> str:
    # jinja2 writes quotes as &#34; and &#39;. The names of html.escape keep the bytes of pages that were made before.
    return render("uss_dagster.curation", template, **values).replace("&#34;", "&quot;").replace("&#39;", "&#x27;")


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
