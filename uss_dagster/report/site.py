"""The static page: leaderboards with intervals and ties, pictures, how to reproduce each row, licences.

Belongs here: turning the leaderboard and a stream of segmented images into a folder that any browser opens from disk. Does not
belong here: ranking (``leaderboard``), drawing regions (``pictures``), choosing what to run.

The page and its pictures are byte-equal on all machines. What a run cost is not, so the page reads it from ``../costs.js``, a file
beside its own folder: the site stage always writes it (``costs_js({})`` where nothing is known). A page moved elsewhere
without it works and shows "–"; the browser then logs one missing file. Templates are in ``assets``; whatever is filled in is
escaped unless it is ``Html``.
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from uss_dagster.regions import Regions
from uss_dagster.report import pictures as draw
from uss_dagster.report.leaderboard import GROUP, Facts, convention, entry_order, half_width, published_columns

TITLE = "Unsupervised segmentation leaderboard"
"""Images shown a dataset."""
N_REGIONS = 8
LONGEST = 480
"""Longer side of a picture in pixels."""
TRUTHS = {
    "classes": "a tree of labelled regions an image",
    "annotators": "several people’s segmentations an image",
    "none": "none",
}

Costs = Mapping[str, Mapping[str, Mapping[str, Any]]]
Picture = tuple[str, str, np.ndarray, Regions | None, Mapping[str, Regions]]


class Html(str):
    """Text that is markup already and is not escaped again."""


LABELS_CHIP = Html(' <span class="chip labels">uses labels</span>')


def build(
    target_dir: Path | str, frame: pd.DataFrame, entries: Facts, datasets: Facts, metrics: Facts, pictures: Iterable[Picture] = ()
) -> Path:
    """Write ``index.html`` and ``pictures/`` into a folder; returns the page's path.

    frame: of ``leaderboard.build``. pictures: (dataset, image id, uint8 (H, W, 3), ground truth or None, entry → Regions), read one
    by one; choose them with ``artifacts.images.evenly_spaced``.
    """
    target = Path(target_dir)
    target.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, list[dict[str, Any]]] = {}
    for picture in pictures:
        drawn.setdefault(picture[0], []).append(_draw(target, len(drawn.get(picture[0], [])), *picture))

    shown = [d for d in datasets if d in drawn or d in set(frame["dataset"])]
    used = sorted(set(frame["entry"]) | {e for images in drawn.values() for i in images for e in i["entries"]}, key=list(entries).index)
    links = [(f"data-{_slug(d)}", _title(datasets, d)) for d in shown] + [("entries", "Entries"), ("sources", "Licences and citations")]
    page = _fill(
        "page.html",
        title=TITLE,
        lede=_lede(len(used), len(shown)),
        nav=_join(Html(f'<a href="#{a}">{html.escape(t)}</a>') for a, t in links),
        datasets=_join(_dataset(d, frame[frame["dataset"] == d], entries, datasets, metrics, used, drawn.get(d, [])) for d in shown)
        if shown
        else Html("<p>No scores yet.</p>"),
        entries=_join(_entry_card(e, entries[e], frame[frame["entry"] == e]) for e in used),
        sources=_join(_dataset_card(d, datasets[d]) for d in shown),
        css=Html(_asset("page.css").strip()),
        js=Html(_asset("page.js").strip()),
    )
    index = target / "index.html"
    index.write_text(page, encoding="utf-8", newline="\n")
    return index


def costs_js(costs: Costs) -> str:
    """The text of ``costs.js``, from entry → dataset → {seconds_per_image, peak_memory_mb, device, images}."""
    text = json.dumps(_finite(costs), sort_keys=True, indent=1, allow_nan=False).replace("<", "\\u003c")
    return f"window.USS_COSTS = {text};\n"


def costs_table(costs: Costs) -> str:
    """The same facts as CSV, one row an entry and dataset."""
    keys = ["seconds_per_image", "peak_memory_mb", "device", "images"]
    rows = [[e, d, *(costs[e][d].get(k) for k in keys)] for e in sorted(costs) for d in sorted(costs[e])]
    return pd.DataFrame(rows, columns=["entry", "dataset", *keys]).to_csv(index=False, lineterminator="\n")


# -- a dataset ------------------------------------------------------------------------------------------


def _dataset(
    name: str, frame: pd.DataFrame, entries: Facts, datasets: Facts, metrics: Facts, used: Sequence[str], images: list[dict[str, Any]]
) -> Html:
    facts, anchor = datasets[name], f"data-{_slug(name)}"
    shown = frame[~frame["detail"]] if not frame["detail"].all() else frame
    groups = [(str(key[1]), group) for key, group in shown.groupby(GROUP, sort=False)]  # type: ignore[index]
    ways = shown.drop_duplicates(GROUP)["metric"].value_counts()
    titles = [_title(metrics, m) if ways[m] == 1 else f"{_title(metrics, m)} ({_way(g.iloc[0])})" for m, g in groups]
    anchors = [f"{anchor}-{i}" for i in range(len(groups))]
    order = entry_order(frame)
    panels = [_panel(a, t, _title(datasets, name), g, order, entries) for a, t, (_, g) in zip(anchors, titles, groups, strict=True)]
    if len(groups) > 1:
        panels.append(_overview(f"{anchor}-all", _title(datasets, name), groups, titles, order, entries))
        anchors, titles = [*anchors, f"{anchor}-all"], [*titles, "All metrics"]
    tab = '<button type="button" role="tab" id="{0}-tab" aria-controls="{0}">{1}</button>'
    absent = [_entry_title(e, entries[e]) for e in used if e not in order]
    known = [
        f"{facts['images']} images" if facts.get("images") else "",
        f"ground truth: {TRUTHS.get(str(facts.get('truth')), facts.get('truth'))}",
    ]
    return _fill(
        "dataset.html",
        name=name,
        anchor=anchor,
        title=_title(datasets, name),
        facts=" · ".join(k for k in [*known, f"licence: {facts.get('licence') or 'not stated'}"] if k),
        tabs=_join((Html(tab.format(a, html.escape(t))) for a, t in zip(anchors, titles, strict=True)), ""),
        panels=_join(panels) if panels else Html('<p class="panel">No scores yet.</p>'),
        absent=Html(f'<p class="facts">Not run on this dataset: {html.escape(", ".join(absent))}.</p>') if absent and order else "",
        published=_published(frame, facts.get("published") or []),
        pictures=_pictures(anchor, images, order, entries, frame),
    )


def _panel(anchor: str, title: str, dataset: str, group: pd.DataFrame, order: Sequence[str], entries: Facts) -> Html:
    """One metric: its ranking with intervals."""
    first = group.iloc[0]
    low, high, ticks = _axis(group)
    rows: dict[str, Any] = {str(row.entry): row for row in group.itertuples()}
    same_n = group["n"].nunique() == 1
    listed = [*rows, *(e for e in order if e not in rows)]
    images = (
        f"{int(first['n'])} images"
        if same_n
        else f"{group['n'].min()} to {group['n'].max()} images, as not every entry has a score on each"
    )
    return _fill(
        "panel.html",
        anchor=anchor,
        title=title,
        dataset=dataset,
        oracle=Html('<span class="chip oracle">oracle</span>') if first["oracle"] else "",
        finding=_finding(group),
        facts=" · ".join(
            s
            for s in (
                "higher is better" if first["higher_is_better"] else "lower is better",
                convention(first),
                images,
            )
            if s
        ),
        first="descending" if first["higher_is_better"] else "ascending",
        arrow="(higher is better)" if first["higher_is_better"] else "(lower is better)",
        axis=_join((Html(f'<span style="left:{_percent(t, low, high)}">{t:g}</span>') for t in ticks), ""),
        rows=_join(_row(e, entries[e], rows.get(e), low, high, ticks, not same_n) for e in listed),
    )


def _published(frame: pd.DataFrame, rows: list[dict[str, Any]]) -> Html:
    """Figures of papers, folded away and unlike what was measured."""
    columns = published_columns(frame, rows)
    if not columns:
        return Html("")
    heads = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in columns.values())
    body = ""
    for row in rows:
        cells = "".join(f"<td>{row['values'][m]:.3f}</td>" if m in row["values"] else "<td>–</td>" for m in columns)
        chip = LABELS_CHIP if row["supervised"] else ""
        source = f"<td>{html.escape(row['source'])}; {html.escape(row['setting'])}</td>"
        body += f'<tr><th scope="row"><i>{html.escape(row["title"])}</i>{chip}</th>{cells}{source}</tr>\n'
    return Html(
        '<details class="published"><summary>Published figures, not measured here</summary>\n'
        "<p>As their papers report them. Other images, sizes or post-processing may lie behind them, so they rank nothing.</p>\n"
        f'<div class="scroller"><table><thead><tr><th scope="col">Published</th>{heads}<th scope="col">Source</th></tr></thead>\n'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _way(row: Any) -> str:
    """What tells two columns of one metric apart, in a tab's few words."""
    return ", ".join([str(row["protocol"]), *([str(row["grid"])] if row["grid"] != "full" else [])])


def _row(entry: str, facts: Mapping[str, Any], row: Any, low: float, high: float, ticks: Sequence[float], show_n: bool) -> Html:
    ranked = row is not None and not math.isnan(row.value)
    best, tied = ranked and row.rank == 1, ranked and bool(row.tied_with_best)
    marks = "".join(f'<i class="grid" style="left:{_percent(t, low, high)}"></i>' for t in ticks)
    number = "–" if row is None else "n/a"
    chips = LABELS_CHIP if facts.get("supervised") else Html("")
    if ranked:
        number = f"<b>{row.value:.3f}</b>"
        if not math.isnan(row.low):
            at, width = _percent(row.low, low, high), (row.high - row.low) / (high - low)
            marks += f'<i class="whisker" style="left:{at};width:{width:.2%}"></i>'
            number += f"<small>[{row.low:.3f}, {row.high:.3f}]</small>"
        marks += f'<i class="dot" style="left:{_percent(row.value, low, high)}"></i>'
        chips = Html(chips + (' <span class="chip best">best</span>' if best else ' <span class="chip tied">≈ best</span>' if tied else ""))
    if show_n and row is not None:
        number += f"<small>n={int(row.n)}</small>"
    return _fill(
        "row.html",
        state="best" if best else "tied" if tied else "ranked" if ranked else "absent",
        rank=int(row.rank) if ranked else "",
        rank_text=int(row.rank) if ranked else "–",
        title=_entry_title(entry, facts),
        anchor=f"entry-{_slug(entry)}",
        dagger=Html('<abbr title="re-implemented from its description">†</abbr>') if facts.get("reimplementation") else "",
        chips=chips,
        backbone=facts.get("backbone") or "",
        entry=entry,
        value=f"{row.value:.9g}" if ranked else "",
        number=Html(number),
        marks=Html(marks),
    )


def _finding(group: pd.DataFrame) -> str:
    """What the ranking says, in a sentence or two."""
    best = group[group["rank"] == 1]
    if best.empty:
        return "No entry has a defined score here."
    if len(group) == 1:
        return f"Only {best.iloc[0]['title']} was run."
    said = f"Best: {', '.join(best['title'])}."
    others = int(group["tied_with_best"].sum()) - len(best)
    if others:
        said += f" {others} other{'s' if others > 1 else ''} cannot be told apart from it on these images."
    elif group["low"].notna().all():  # without intervals nothing can be said about chance
        said += " Its lead over every other entry is clear at 95 %."
    without = group[~group["supervised"] & group["rank"].notna()]
    if best["supervised"].all() and len(without):
        said += f" Best without labels: {', '.join(without['title'][without['rank'] == without['rank'].min()])}."
    return said


def _overview(
    anchor: str, dataset: str, groups: list[tuple[Any, pd.DataFrame]], titles: Sequence[str], order: Sequence[str], entries: Facts
) -> Html:
    heads = []
    for title, (_, group) in zip(titles, groups, strict=True):
        first = group.iloc[0]
        better, arrow = ("descending", "higher is better") if first["higher_is_better"] else ("ascending", "lower is better")
        label = f"{html.escape(title)}<br><small>{'oracle, ' if first['oracle'] else ''}{arrow}</small>"
        heads.append(Html(f'<th scope="col"><button type="button" data-first="{better}">{label}</button></th>'))
    cells = [{row.entry: row for row in group.itertuples()} for _, group in groups]
    rows = []
    for entry in order:
        name, backbone = _entry_title(entry, entries[entry]), html.escape(str(entries[entry].get("backbone") or ""))
        chip = LABELS_CHIP if entries[entry].get("supervised") else ""
        label = f'{html.escape(name)}{chip}<span class="sub">{backbone}</span>'
        head = f'<th scope="row" class="entry" data-value="{html.escape(name)}">{label}</th>'
        rows.append(Html("<tr>" + head + "".join(_overview_cell(column.get(entry)) for column in cells) + "</tr>"))
    return _fill("overview.html", anchor=anchor, dataset=dataset, heads=_join(heads, ""), rows=_join(rows))


def _overview_cell(row: Any) -> str:
    if row is None or math.isnan(row.value):
        return f'<td data-value="">{"–" if row is None else "n/a"}</td>'
    state = "best" if row.rank == 1 else "tied" if row.tied_with_best else ""
    spread = "" if math.isnan(row.low) else f" <small>±{half_width(row.low, row.high):.3f}</small>"
    return f'<td class="{state}" data-value="{row.value:.9g}">{"≈ " if state == "tied" else ""}{row.value:.3f}{spread}</td>'


def _axis(group: pd.DataFrame) -> tuple[float, float, list[float]]:
    """(low, high, ticks) of the axis that holds all intervals of a metric."""
    bounds = group[["value", "low", "high"]].to_numpy(float)
    bounds = bounds[np.isfinite(bounds)]
    if not len(bounds):
        return 0.0, 1.0, []
    low, high = float(bounds.min()), float(bounds.max())
    pad = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    low, high = low - pad, high + pad
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 4.5)
    ticks = [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return low, high, ticks


def _percent(value: float, low: float, high: float) -> str:
    return f"{(value - low) / (high - low):.2%}"


# -- pictures -------------------------------------------------------------------------------------------


def _draw(
    target: Path, number: int, dataset: str, image_id: str, image: np.ndarray, truth: Regions | None, found: Mapping[str, Regions]
) -> dict[str, Any]:
    """Draw one image and all its segmentations into files; returns their paths relative to the page."""
    folder = Path("pictures") / _slug(dataset)
    (target / folder).mkdir(parents=True, exist_ok=True)
    small = draw.shrunk(image, LONGEST)
    size = small.shape[:2]

    def save(what: str, picture: np.ndarray) -> str:
        path = folder / f"{number:02d}-{what}.jpg"
        Image.fromarray(picture).save(target / path, quality=86, subsampling=0, optimize=True)
        return path.as_posix()

    made: dict[str, Any] = {"id": image_id, "size": size, "photo": (save("photo", small), ""), "truth": None, "entries": {}}
    reference = None
    if truth is not None:
        truth = truth.resized(*size)
        reference = draw.colour_map(draw.truth_map(truth))
        made["truth"] = save("truth-flat", draw.paint(small, reference)), save("truth-lines", draw.truth_contours(small, truth))
    for entry in sorted(found):
        regions = found[entry].resized(*size)
        flat = draw.colour_map(draw.flat_cut(regions, N_REGIONS), reference)
        reference = flat if reference is None else reference
        pair = save(f"{_slug(entry)}-flat", draw.paint(small, flat)), save(f"{_slug(entry)}-lines", draw.contours(small, regions))
        made["entries"][entry] = pair
    return made


def _pictures(anchor: str, images: list[dict[str, Any]], order: Sequence[str], entries: Facts, frame: pd.DataFrame) -> Html:
    """A row of pictures for the photos, the ground truth and each entry."""
    if not images:
        return Html("")
    rows = [_picture_row("Photo", "", [(i, i["photo"]) for i in images], with_ids=True)]
    if any(i["truth"] for i in images):
        rows.append(_picture_row("Ground truth", "", [(i, i["truth"]) for i in images]))
    drawn = {e for i in images for e in i["entries"]}
    for entry in [*(e for e in order if e in drawn), *sorted(drawn - set(order))]:
        score = frame[(frame["entry"] == entry) & frame["value"].notna()].head(1)
        sub = [str(entries[entry].get("backbone") or ""), *(f"{r.metric_title} {r.value:.3f}" for r in score.itertuples())]
        rows.append(
            _picture_row(
                _entry_title(entry, entries[entry]), " · ".join(s for s in sub if s), [(i, i["entries"].get(entry)) for i in images]
            )
        )
    words = ["within the first {} regions", "{}", "{}", "more"]
    bands = (
        f'<i class="swatch" style="border-color:rgb{colour};border-top-width:{width}px"></i>{word.format(limit)}'
        for word, (limit, width, colour) in zip(words, draw.BANDS, strict=True)
    )
    return _fill(
        "pictures.html",
        anchor=anchor,
        rule=f"The {len(images)} images are evenly spaced in the sorted image ids; nobody picked them. Numbers are over the whole dataset.",
        n_regions=N_REGIONS,
        guide="ground truth" if any(i["truth"] for i in images) else "first entry by name",
        bands=Html(", ".join(bands)),
        columns=Html(" ".join(f"minmax(calc(var(--share) * {w / h:.3f}), {w / h:.3f}fr)" for h, w in (i["size"] for i in images))),
        rows=_join(rows),
    )


def _picture_row(title: str, sub: str, cells: Sequence[tuple[dict[str, Any], tuple[str, str] | None]], with_ids: bool = False) -> Html:
    parts = [f'<h4>{html.escape(title)}<span class="sub">{html.escape(sub)}</span></h4>']
    for image, paths in cells:
        caption = f"<figcaption>{html.escape(image['id'])}</figcaption>" if with_ids else ""
        if paths is None:
            parts.append('<figure><div class="none">–</div></figure>')
            continue
        height, width = image["size"]
        views = f' data-flat="{paths[0]}" data-lines="{paths[1]}"' if paths[1] else ""
        alt = html.escape(f"{title}, image {image['id']}")
        parts.append(
            f'<figure><img src="{paths[0]}"{views} width="{width}" height="{height}" loading="lazy" alt="{alt}">{caption}</figure>'
        )
    return Html(f'<div class="picture-row">{"".join(parts)}</div>')


# -- cards ----------------------------------------------------------------------------------------------


def _entry_card(name: str, facts: Mapping[str, Any], frame: pd.DataFrame) -> Html:
    params = facts.get("params") or {}
    stated = {
        "Method": facts.get("method"),
        "Backbone": facts.get("backbone"),
        "Parameters": Html(", ".join(f"<code>{html.escape(f'{k}={v}')}</code>" for k, v in params.items())) if params else "defaults",
        "Labels": "sees ground truth" if facts.get("supervised") else "none",
        "Code": "re-implemented from the published description"
        if facts.get("reimplementation")
        else "the authors’, or the textbook algorithm",
        "Paper": _linked(facts.get("paper")),
        "Licence": facts.get("licence"),
    }
    cells = frame[["dataset", "segments_version"]].drop_duplicates()
    versions = sorted(set(cells["segments_version"]) - {""})
    if versions:
        stated["Version of its segments"] = Html(", ".join(f"<code>{html.escape(v[:16])}</code>" for v in versions))
    commands = "\n".join("dvc repro " + shlex.quote(f"scores@{name}__{d}") for d in dict.fromkeys(cells["dataset"]))
    return _fill(
        "card.html",
        anchor=f"entry-{_slug(name)}",
        title=_entry_title(name, facts),
        summary=facts.get("summary") or "",
        facts=_definitions(stated),
        commands=Html(f'<pre tabindex="0"><code>{html.escape(commands)}</code></pre>') if commands else "",
    )


def _dataset_card(name: str, facts: Mapping[str, Any]) -> Html:
    stated = {
        "Licence": facts.get("licence") or "not stated",
        "Cite": _linked(facts.get("citation")),
        "Images here": facts.get("images"),
        "Data version": Html(f"<code>{html.escape(str(facts['version'])[:16])}</code>") if facts.get("version") else None,
    }
    commands = Html(f'<pre tabindex="0"><code>dvc repro {html.escape(shlex.quote(f"datasets@{name}"))}</code></pre>')
    return _fill(
        "card.html",
        anchor=f"source-{_slug(name)}",
        title=_title({name: facts}, name),
        summary="",
        facts=_definitions(stated),
        commands=commands,
    )


def _definitions(stated: Mapping[str, Any]) -> Html:
    return _join((Html(f"<dt>{html.escape(k)}</dt><dd>{_escaped(v)}</dd>") for k, v in stated.items() if v not in (None, "")), "")


def _linked(text: Any) -> Html | None:
    """Escaped text whose http(s) addresses are links."""
    if not text:
        return None
    parts = re.split(r"(https?://[^\s<>\"']+[^\s<>\"'.,;)])", str(text))
    link = '<a href="{0}" rel="noopener noreferrer">{0}</a>'
    return Html("".join(link.format(html.escape(p)) if i % 2 else html.escape(p) for i, p in enumerate(parts)))


# -- small helpers --------------------------------------------------------------------------------------


def _asset(name: str) -> str:
    return (resources.files("uss_dagster.report") / "assets" / name).read_text(encoding="utf-8")


def _fill(template: str, **values: Any) -> Html:
    """A template with its ``$names`` filled in, each escaped unless it is ``Html``."""
    return Html(Template(_asset(template)).substitute({k: _escaped(v) for k, v in values.items()}))


def _escaped(value: Any) -> str:
    return value if isinstance(value, Html) else html.escape(str(value))


def _join(parts: Iterable[Html], between: str = "\n") -> Html:
    return Html(between.join(parts))


def _slug(name: str) -> str:
    """A name that is safe in a path and an anchor; one that had to be changed gets a few digits of its hash, so none collide."""
    safe = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-")
    return safe if safe == name else f"{safe[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _title(facts: Facts, name: str) -> str:
    return str(facts.get(name, {}).get("title") or name)


def _entry_title(name: str, facts: Mapping[str, Any]) -> str:
    return str(facts.get("title") or name)


def _lede(n_entries: int, n_datasets: int) -> str:
    def count(n: int, word: str, words: str) -> str:
        return f"{n} {word if n == 1 else words}"

    return (
        f"How well do methods that learn without labels cut images into regions, and how sure can we be? "
        f"{count(n_entries, 'entry', 'entries')} on {count(n_datasets, 'dataset', 'datasets')}, scored by one pipeline on the same images, "
        f"each with the command that reproduces it."
    )


def _finite(value: Any) -> Any:
    """Plain JSON values; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
