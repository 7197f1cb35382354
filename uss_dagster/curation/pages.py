"""What people read about a curated set: the report of its checks, and its datasheet. The same numbers give the same bytes.

Reference for the questions a datasheet answers: Gebru et al., "Datasheets for Datasets", Communications of the ACM 64(12), 2021.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from uss_dagster.artifacts.gate import Report
from uss_dagster.curation.curate import STATUSES
from uss_dagster.curation.drift import HISTOGRAMS

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c22}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.25rem .75rem;border-bottom:1px solid #ddd;text-align:left;"
    "vertical-align:top}.ok{color:#1a7f37}.bad{color:#b42318;font-weight:600}"
    "code{font-size:.9em}img{max-width:100%}.bar{display:inline-block;height:.7rem;background:#4c6fff}"
)


def report_page(report: Report, title: str, drift: Sequence[Mapping[str, Any]] | None = None) -> str:
    """The verdict on a result as a page: one row a check. drift: rows of ``drift.compare``, for a page that is no part of the artefact."""
    passed = sum(check["success"] for check in report.checks)
    rows = [
        [_mark(check["success"]), f"<code>{_esc(check['check'])}</code>", _esc(check["message"])]
        for check in sorted(report.checks, key=lambda check: check["success"])
    ]
    body = [
        f"<h1>{_esc(title)}</h1>",
        f"<p>{_mark(report.success)} {passed} of {len(report.checks)} checks passed.</p>",
        _table(("verdict", "check", "what was found"), rows),
    ]
    if drift is not None:
        body += ["<h2>Against the previous version</h2>", drift_table(drift)]
    return _page(title, body)


def drift_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of ``drift.compare`` as an HTML table."""
    cells = [
        [_mark(row["within"]), _esc(row["measure"]), *(_number(row[name]) for name in ("before", "now", "moved", "limit"))] for row in rows
    ]
    return _table(("verdict", "measure", "before", "now", "moved", "limit"), cells)


def datasheet(summary: Mapping[str, Any], info: Mapping[str, Any], params: Mapping[str, Any], samples: str | None) -> tuple[str, str]:
    """(Markdown, HTML) of the datasheet. info: title, source, licence, citation, homepage, methods. samples: name of the picture of samples."""
    parts: list[tuple[str, Any]] = [("h1", info["title"])]
    parts.append(
        (
            "p",
            f"{summary['kept']} images with {summary['masks']} masks ({summary['human_masks']} drawn by people), made from "
            f"{info['source']}. Masks were found without labels by {info['methods']}; what was set aside is listed, not deleted.",
        )
    )
    if samples:
        parts += [("h2", "Samples"), ("img", samples)]
    parts += [
        ("h2", "Counts"),
        (
            "table",
            (
                ("what", "number"),
                [
                    ["images", summary["images"]],
                    *([f"{word}: {STATUSES[word]}", number] for word, number in summary["status"].items()),
                    *([f"split {name}", number] for name, number in summary["splits"].items()),
                    ["masks", summary["masks"]],
                    *([f"masks of {name}", number] for name, number in summary["sources"].items()),
                    ["masks an image", summary["masks_per_image"]],
                    ["mean share of an image in masks", summary["coverage"]],
                ],
            ),
        ),
        ("h2", "Masks dropped"),
        ("table", (("why", "masks"), [[why, number] for why, number in summary["dropped"].items()] or [["none", 0]])),
        ("h2", "Distributions"),
    ]
    titles = {
        "area": "Area of masks, pixels",
        "quality": "Quality of found masks",
        "score": "Confidence of the method",
        "masks": "Masks an image",
        "coverage": "Share of an image in masks",
    }
    for name, counts in summary["histograms"].items():
        parts += [("h3", titles[name]), ("histogram", (_bins(HISTOGRAMS[name], counts)))]
    parts += [
        ("h2", "How it was made"),
        ("table", (("parameter", "value"), [[name, _plain(value)] for name, value in sorted(params.items()) if value is not None])),
        ("h2", "Licence and citation"),
        ("p", f"Images and human masks: {info['licence']}. {info.get('citation', '')} {info.get('homepage', '')}".strip()),
        (
            "p",
            "Found masks were made by a program and may be wrong; they carry no classes. Read labels.json with any COCO reader, or "
            "masks.parquet and images.parquet with any Parquet reader.",
        ),
    ]
    return _markdown(parts), _page(str(info["title"]), _html(parts))


def _bins(edges: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Labelled bins from the first to the last that holds something."""
    held = [i for i, count in enumerate(counts) if count]
    if not held:
        return []
    last = len(counts) - 1
    named = [f"{edges[i]:g} – {edges[i + 1]:g}" if i < last or edges[i + 1] < 1e8 else f"{edges[i]:g} and more" for i in range(len(counts))]
    return list(zip(named, counts, strict=True))[held[0] : held[-1] + 1]


def _markdown(parts: Iterable[tuple[str, Any]]) -> str:
    lines: list[str] = []
    for kind, value in parts:
        if kind in ("h1", "h2", "h3"):
            lines += [f"{'#' * int(kind[1])} {value}", ""]
        elif kind == "p":
            lines += [value, ""]
        elif kind == "img":
            lines += [f"![samples]({value})", ""]
        else:
            head, rows = (("from – to", "number"), value) if kind == "histogram" else value
            lines += [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
            lines += [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _html(parts: Iterable[tuple[str, Any]]) -> list[str]:
    found = []
    for kind, value in parts:
        if kind == "img":
            found.append(f'<p><img src="{_esc(value)}" alt="samples"></p>')
        elif kind == "table":
            found.append(_table(value[0], [[_esc(cell) for cell in row] for row in value[1]]))
        elif kind == "histogram":
            most = max((count for _, count in value), default=1)
            bars = [[_esc(n), _esc(count), f'<span class="bar" style="width:{240 * count / most:.0f}px"></span>'] for n, count in value]
            found.append(_table(("from – to", "number", ""), bars))
        else:
            found.append(f"<{kind}>{_esc(value)}</{kind}>")
    return found


def _page(title: str, body: Iterable[str]) -> str:
    opening = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_esc(title)}</title><style>{STYLE}</style></head><body>'
    )
    return "\n".join([opening, *body, "</body></html>"]) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["<table><thead><tr>" + "".join(f"<th>{_esc(name)}</th>" for name in head) + "</tr></thead><tbody>"]
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</tbody></table>"])


def _mark(good: bool) -> str:
    return '<span class="ok">passed</span>' if good else '<span class="bad">failed</span>'


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _esc(value: Any) -> str:
    return html.escape(str(value))
