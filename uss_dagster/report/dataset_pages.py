"""One page a dataset: counts, the class tree with areas, what validation said, samples, licence and citation.

Belongs here: everything about one dataset that its artefact tells. Does not belong here: reading it (the site stage does).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import pandas as pd

from uss_dagster.report import site_pictures as _pictures
from uss_dagster.report.html import Html, command, definitions, escaped, frame_page, join, linked, table, tag, title_of
from uss_dagster.report.leaderboard import Facts, entry_order
from uss_dagster.report.site_pictures import Drawn

TRUTHS = {
    "classes": "a tree of labelled regions an image",
    "annotators": "several people’s segmentations an image",
    "instances": "masks of objects, with classes",
    "none": "none",
}
UP = "../"


def dataset_page(name: str, datasets: Facts, entries: Facts, frame: pd.DataFrame, images: Sequence[Drawn], cites: Sequence[str]) -> str:
    """The page of one dataset. frame: its rows of the leaderboard. cites: keys in ``references.bib``."""
    facts = datasets[name]
    stated = {
        "Images": f"{facts['images']:,}" if facts.get("images") else None,
        "By split": ", ".join(f"{k} {v:,}" for k, v in (facts.get("splits") or {}).items()),
        "Regions of ground truth": f"{facts['regions']:,}" if facts.get("regions") else None,
        "Ground truth": TRUTHS.get(str(facts.get("truth")), facts.get("truth")),
        "Licence": facts.get("licence") or "not stated",
        "Cite": linked(facts.get("citation")),
        "Cite as": Html(
            ", ".join(f"<code>{escaped(c)}</code>" for c in cites) + f' in <a href="{UP}exports/references.bib">references.bib</a>'
        )
        if cites
        else None,
        "Home": linked(facts.get("homepage")),
        "Data version": Html(f"<code>{escaped(str(facts['version'])[:16])}</code>") if facts.get("version") else None,
    }
    body = [
        tag("h1", title_of(datasets, name)),
        definitions(stated),
        tag("p", tag("a", "Its leaderboard", href=f"{UP}index.html#d={quote(name, safe='')}")),
        command("uss repro " + shlex.quote(f"datasets@{name}")),
        *_samples(name, entries, frame, images),
        *_classes(facts.get("classes") or []),
        *_validation(facts.get("validation") or {}),
    ]
    return frame_page(title_of(datasets, name), tag("div", join(Html(b) for b in body), class_="article"), UP)


def _samples(name: str, entries: Facts, frame: pd.DataFrame, images: Sequence[Drawn]) -> list[Html]:
    shown = [i for i in images if i.sample]
    if not shown:
        return []
    drawn = {e for i in shown for e in i.entries}
    order = entry_order(frame)
    rows = []
    for entry in [*(e for e in order if e in drawn), *sorted(drawn - set(order))]:
        score = frame[(frame["entry"] == entry) & frame["value"].notna()].head(1)
        said = [str(entries[entry].get("backbone") or ""), *(f"{r.metric_title} {r.value:.3f}" for r in score.itertuples())]
        rows.append((entry, title_of(entries, entry), " · ".join(s for s in said if s)))
    rule = f"The {len(shown)} images are evenly spaced in the sorted image ids; nobody picked them. Numbers are over the whole dataset."
    return [tag("h2", "Samples"), tag("p", rule, class_="facts"), _pictures.samples(shown, rows, name, UP)]


def _classes(classes: Sequence[Mapping[str, Any]]) -> list[Html]:
    """The class tree as nested lists; a bar is as long as the class's share of all pixels."""
    if not classes:
        return []
    children: dict[int, list[int]] = {}
    for node, about in enumerate(classes):
        children.setdefault(about["parent"], []).append(node)
    widest = max((c["share"] for c in classes[1:]), default=0) or 1

    def line(node: int) -> Html:
        about = classes[node]
        kind = "" if about["kind"] in ("inner", "foreground") else f' <span class="chip kind">{escaped(about["kind"])}</span>'
        share = f'<i class="share"><i style="width:{min(about["share"] / widest, 1):.1%}"></i></i>'
        images = f"{about['images']} image{'' if about['images'] == 1 else 's'}" if about["images"] else "in no image"
        numbers = f'<span class="numbers">{about["share"]:.2%} · {images}</span>'
        return Html(f'<span class="class"><span>{escaped(about["name"])}{kind}</span>{share}{numbers}</span>')

    def branch(node: int, depth: int) -> Html:
        below = children.get(node, [])
        if not below:
            return Html(f"<li>{line(node)}</li>")
        inner = join((branch(c, depth + 1) for c in below), "")
        return Html(f"<li><details{' open' if depth < 1 else ''}><summary>{line(node)}</summary><ul>{inner}</ul></details></li>")

    leaves = len(classes) - sum(1 for node in range(len(classes)) if node in children)
    text = f"{leaves} classes without children. Share: of all pixels of the dataset; a class holds what is below it."
    return [
        tag("h2", "Classes"),
        tag("p", text, class_="facts"),
        Html(f'<ul class="tree">{join((branch(n, 0) for n in children[-1]), "")}</ul>'),
    ]


def _validation(report: Mapping[str, Any]) -> list[Html]:
    checks = report.get("checks") or []
    if not checks:
        return []
    passed = sum(bool(c["success"]) for c in checks)
    remarks = [[c["check"], c["message"]] for c in checks if c["message"]]
    parts = [tag("h2", "Validation"), tag("p", f"{passed} of {len(checks)} checks passed before this dataset was published.")]
    if remarks:
        parts.append(table(["What", "Found"], remarks, "What validation found"))
    every = join(tag("li", f"{'passed' if c['success'] else 'failed'}: {c['check']}") for c in checks)
    return [*parts, Html(f"<details><summary>All checks</summary><ul>{every}</ul></details>")]
