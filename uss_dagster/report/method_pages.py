"""One page an entry: what it is, how to reproduce it, its scores, its best, median and worst images, its failures and parameters.

Belongs here: everything about one row of the leaderboard. What it cost comes from ``costs.js`` when the page is opened.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from uss_dagster.report import site_pictures as _pictures
from uss_dagster.report.evidence import Evidence
from uss_dagster.report.explorer import link
from uss_dagster.report.html import (
    LABELS_CHIP,
    Html,
    command,
    definitions,
    escaped,
    frame_page,
    join,
    linked,
    slug,
    table,
    tag,
    title_of,
)
from uss_dagster.report.leaderboard import GROUP, Facts, convention, half_width
from uss_dagster.report.site_pictures import Drawn

FAILURES = 10
"""Images in a list of failures."""
UP = "../"


def method_page(
    entry: str,
    entries: Facts,
    datasets: Facts,
    metrics: Facts,
    mine: pd.DataFrame,
    ranked: Mapping[Any, int],
    notes: Mapping[str, Note],
    cites: Sequence[str],
) -> str:
    """The page of one entry. mine: its rows of the leaderboard. ranked: ranking → how many have a rank there. notes: dataset → what it
    tells about the entry. cites: keys in ``references.bib``."""
    facts = entries[entry]
    title = title_of(entries, entry)
    shown = list(dict.fromkeys(mine["dataset"]))
    body = [
        tag("h1", Html(escaped(title) + (LABELS_CHIP if facts.get("supervised") else ""))),
        tag("p", facts.get("summary") or "", class_="lede"),
        _about(facts, cites),
        tag("h2", "Reproduce it"),
        tag("p", "In a checkout of this project, with its environment installed. What is already up to date is not computed again."),
        join(command("uss repro " + shlex.quote(f"scores@{entry}__{d}")) for d in shown),
        tag("p", "The same method on your own pictures:"),
        command(_own_images(facts)),
        tag("h2", "Scores"),
        _scores(mine, ranked, shown, datasets),
        *(_on_dataset(entry, title, d, datasets, metrics, notes.get(d)) for d in shown),
        tag("h2", "Parameters and ablations"),
        _parameters(entry, facts, entries),
        tag("h2", "Versions"),
        _versions(datasets, mine),
    ]
    article = tag("div", join(Html(part) for part in body if part), class_="article", data_entry=entry)
    return frame_page(title, article, UP, costs=True)


class Note:
    """What one dataset tells about one entry. chosen: (place, score, image). lowest: (image id, score), worst first; listed: image ids
    that the explorer has for this entry."""

    def __init__(self, entry: str, evidence: Evidence, images: Sequence[Drawn], higher: Mapping[str, bool]) -> None:
        self.gallery = evidence.gallery.get(entry) or {}
        self.skipped = evidence.skipped.get(entry, [])
        drawn = {image.image_id: image for image in images if entry in image.entries}
        self.chosen = [(p, float(v), drawn[i]) for p, i, v in self.gallery.get("images", []) if i in drawn]
        self.listed = frozenset(drawn)
        self.lowest: list[tuple[str, float]] = []
        self.count = 0
        key = tuple(str(self.gallery.get(k, "")) for k in GROUP[1:])
        for group, table_ in evidence.images.items():
            if group[1:] == key and entry in table_:
                column = table_[entry].dropna()
                ranked = column.sort_index().sort_values(ascending=higher.get(key[0], True), kind="stable")
                self.count = len(column)
                self.lowest = [(str(i), float(v)) for i, v in ranked.head(FAILURES).items()]


def _about(facts: Mapping[str, Any], cites: Sequence[str]) -> Html:
    again = "re-implemented from its published description; its numbers may differ from the authors’"
    return definitions(
        {
            "Paper": linked(facts.get("paper")),
            "Cite as": Html(
                ", ".join(f"<code>{escaped(c)}</code>" for c in cites) + f' in <a href="{UP}exports/references.bib">references.bib</a>'
            )
            if cites
            else None,
            "Method": facts.get("method"),
            "Backbone": facts.get("backbone") or "none",
            "Labels": "it has seen ground truth" if facts.get("supervised") else "none",
            "Code": again if facts.get("reimplementation") else "the textbook algorithm, or files its authors ship",
            "Licence": facts.get("licence"),
        }
    )


def _own_images(facts: Mapping[str, Any]) -> str:
    words = ["uss", "segment", "PICTURES", "--method", str(facts.get("method") or "")]
    words += ["--backbone", str(facts["backbone"])] if facts.get("backbone") else []
    for name, value in (facts.get("params") or {}).items():
        words += ["--param", f"{name}={_text(value)}"]
    return shlex.join(words)


def _text(value: Any) -> str:
    """A value as a profile writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list | tuple) else str(value)


def _scores(mine: pd.DataFrame, ranked: Mapping[Any, int], shown: Sequence[str], datasets: Facts) -> Html:
    rows: list[list[Any]] = []
    more: list[list[Any]] = []
    for row in mine.to_dict("records"):
        line = [
            Html(f'{escaped(row["metric_title"])}<span class="sub">{escaped(convention(row))}</span>'),
            tag("a", title_of(datasets, row["dataset"]), href=f"{UP}datasets/{slug(row['dataset'])}.html"),
            _value(row),
            _place(row, ranked.get(tuple(row[c] for c in GROUP), 0)),
            row["n"],
        ]
        (more if row["detail"] else rows).append(line)
    heads = ["Metric", "Dataset", "Score ± half its 95 % interval", "Rank", "Images"]
    costs = [
        [
            title_of(datasets, dataset),
            *(tag("span", "–", data_dataset=dataset, data_cost=c) for c in ("seconds_per_image", "peak_memory_mb", "device")),
        ]
        for dataset in shown
    ]
    parts = [table(heads, rows or more, "Scores")]
    if rows and more:
        parts.append(Html(f"<details><summary>{len(more)} detailed metrics</summary>{table(heads, more, 'Detailed scores')}</details>"))
    parts.append(tag("h3", "What a run took"))
    parts.append(table(["Dataset", "Seconds an image", "Peak memory, MB", "Device"], costs, "What a run took"))
    parts.append(tag("p", "As measured on the machine this copy of the page stands on; – where it was not run there.", class_="facts"))
    return join(parts)


def _value(row: Any) -> str:
    if math.isnan(row["value"]):
        return "n/a"
    spread = "" if math.isnan(row["low"]) else f" ± {half_width(row['low'], row['high']):.3f}"
    return f"{row['value']:.3f}{spread}"


def _place(row: Any, ranked: int) -> Html:
    if math.isnan(row["value"]):
        return Html("–")
    chip = (
        ' <span class="chip best">best</span>'
        if row["rank"] == 1
        else ' <span class="chip tied">≈ best</span>'
        if row["tied_with_best"]
        else ""
    )
    return Html(f"{int(row['rank'])} of {ranked}{chip}")


def _on_dataset(entry: str, title: str, dataset: str, datasets: Facts, metrics: Facts, note: Note | None) -> Html:
    if note is None or not (note.chosen or note.lowest or note.skipped):
        return Html("")
    metric = title_of(metrics, str(note.gallery.get("metric", "")))
    parts = [tag("h2", f"On {title_of(datasets, dataset)}")]
    if note.chosen:
        rule = f"Best, median and worst of {note.count} images by {metric}: a rule, nobody picked them."
        parts += [tag("p", rule, class_="facts"), _pictures.gallery(dataset, entry, title, note.chosen, metric, UP)]
    if note.lowest:
        rows = []
        for image, value in note.lowest:
            opened = tag("a", "explorer", href=UP + link(dataset, image, [entry])) if image in note.listed else Html("")
            rows.append([image, f"{value:.3f}", opened])
        parts += [tag("h3", "Where it fails"), table(["Image", metric, "See it"], rows, f"Images with the worst {metric}")]
    skipped = (
        f"{len(note.skipped)} images have no score in some metric: {', '.join(note.skipped[:50])}{', …' if len(note.skipped) > 50 else ''}."
    )
    parts.append(tag("p", skipped if note.skipped else "Every image has a score in every metric that applies.", class_="facts"))
    return join(Html(p) for p in parts)


def _parameters(entry: str, facts: Mapping[str, Any], entries: Facts) -> Html:
    parts = []
    rows = []
    for p in facts.get("parameters") or []:
        changed = p["value"] != p["default"]
        here = Html(f"<b>{escaped(_text(p['value']))}</b>") if changed else _text(p["value"])
        rows.append(
            [Html(f"<code>{escaped(p['name'])}</code>"), here, _text(p["default"]), ", ".join(map(_text, p["choices"])) or p["kind"]]
        )
    if rows:
        parts.append(tag("p", "Each of these can be ablated. Bold: differs from the method’s default."))
        parts.append(table(["Parameter", "Here", "Default", "Can be"], rows, "Parameters"))
    others = [n for n, other in entries.items() if n != entry and other.get("method") == facts.get("method")]
    if others:
        said = [[tag("a", title_of(entries, n), href=f"{slug(n)}.html"), _difference(facts, entries[n])] for n in others]
        parts += [tag("h3", "Variants on this leaderboard"), table(["Entry", "How it differs"], said, "Variants of this method")]
    if (example := next((p for p in facts.get("parameters") or [] if p["choices"]), None)) is not None:
        other = next(c for c in example["choices"] if c != example["value"])
        backbone = f"backbone: {facts['backbone']}, " if facts.get("backbone") else ""
        params = ", ".join(f"{k}: {_text(v)}" for k, v in {**(facts.get("params") or {}), example["name"]: other}.items())
        text = f"entries:\n  {entry}_{example['name']}: {{method: {facts.get('method')}, {backbone}params: {{{params}}}}}"
        parts += [tag("p", Html("To add one, put such lines into <code>params.yaml</code> and run <code>uss repro</code>:")), command(text)]
    return join(parts) if parts else Html("<p>It has no parameters.</p>")


def _difference(mine: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    said = [f"backbone {other.get('backbone') or 'none'}"] if mine.get("backbone") != other.get("backbone") else []
    ours, theirs = mine.get("params") or {}, other.get("params") or {}
    said += [
        f"{k} = {_text(theirs[k]) if k in theirs else 'its default'}" for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)
    ]
    return ", ".join(said) or "by name only"


def _versions(datasets: Facts, mine: pd.DataFrame) -> Html:
    rows = []
    for here in mine.drop_duplicates("dataset").to_dict("records"):
        found = [here["data_version"], here["segments_version"]]
        rows.append([title_of(datasets, here["dataset"]), *(Html(f"<code>{escaped(v)}</code>") if v else "–" for v in found)])
    text = "Hashes of what the scores above were computed from; equal hashes mean equal bytes."
    return join([tag("p", text, class_="facts"), table(["Dataset", "Version of the data", "Version of its segments"], rows, "Versions")])
