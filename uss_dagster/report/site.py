"""The static site: leaderboard, hierarchy explorer, a page for each entry and dataset, history, exports.

Belongs here: what pages there are and where they lie. Does not belong here: ranking (``leaderboard``), drawing regions
(``pictures``), what a page says (``_board``, ``_methods``, ``_datasets``), what can be taken away (``_exports``).

The site opens from disk, loads nothing from a network, and is byte-equal on all machines. What a run cost is not, and what earlier
leaderboards said grows with every commit; so pages read these from ``costs.js`` and ``history.js`` beside the site's folder, which
the site stage always writes. A copy of the folder without them works: it shows "–" for costs and no history, and the browser
logs a missing file. Whatever comes from data is escaped in Python or set as text in scripts, never as markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from uss_dagster.report import board as _board
from uss_dagster.report import explorer
from uss_dagster.report.dataset_pages import dataset_page
from uss_dagster.report.evidence import Behind, nothing
from uss_dagster.report.exports import write_exports
from uss_dagster.report.html import Html, asset, fill, frame_page, packed, slug, title_of, write
from uss_dagster.report.leaderboard import GROUP, Facts, entry_order
from uss_dagster.report.method_pages import Note, method_page
from uss_dagster.report.references import keys_of
from uss_dagster.report.site_pictures import Drawn, Picture, draw_picture

TITLE = "Unsupervised segmentation leaderboard"
ASSETS = ("page.css", "page.js", "leaderboard.js", "history.js")
COSTS = ("seconds_per_image", "peak_memory_mb", "device", "images")

Costs = Mapping[str, Mapping[str, Mapping[str, Any]]]


def build(
    target_dir: Path | str,
    frame: pd.DataFrame,
    entries: Facts,
    datasets: Facts,
    metrics: Facts,
    pictures: Iterable[Picture] = (),
    behind: Behind = nothing,
) -> Path:
    """Write the site into a folder; returns the path of its first page.

    frame: of ``leaderboard.build``. entries, datasets, metrics: as it takes them, with more facts where they are known (see the site
    stage). pictures: read one by one, sorted by dataset and image. behind: see ``_evidence``.
    """
    target = Path(target_dir)
    target.mkdir(parents=True, exist_ok=True)
    behind = lru_cache(maxsize=1)(behind)
    drawn: dict[str, list[Drawn]] = {}
    titles = {name: title_of(facts, name) for facts in (metrics, datasets, entries) for name in facts}
    explorer.write(target, _explored(target, frame, pictures, datasets, metrics, behind, drawn), titles, _explorer_page)

    shown = [d for d in datasets if d in drawn or d in set(frame["dataset"])]
    used = [e for e in entries if e in set(frame["entry"])]
    for name in ASSETS:
        write(target, f"assets/{name}", asset(name))
    notes: dict[str, dict[str, Note]] = {e: {} for e in used}
    higher = {m: bool(facts["higher_is_better"]) for m, facts in metrics.items()}
    for dataset in shown:
        here, evidence, images = frame[frame["dataset"] == dataset], behind(dataset), drawn.get(dataset, [])
        published = list(datasets[dataset].get("published") or [])
        write(target, _board.board_name(dataset), _board.board_script(dataset, here, evidence, images, published))
        for path, text in _board.pairs_scripts(dataset, here, evidence):
            write(target, path, text)
        for entry in dict.fromkeys(here["entry"]):
            notes[entry][dataset] = Note(entry, evidence, images, higher)
        cites = keys_of("dataset", str(datasets[dataset].get("kind", "")), str(datasets[dataset].get("citation") or ""))
        write(target, f"datasets/{slug(dataset)}.html", dataset_page(dataset, datasets, entries, here, images, cites))
    ranked = frame[frame["rank"].notna()].groupby(GROUP, sort=False).size().to_dict()
    for entry, rows in frame.groupby("entry", sort=False):
        entry = str(entry)
        cites = keys_of("method", str(entries[entry].get("method", "")), str(entries[entry].get("paper") or ""))
        write(target, f"methods/{slug(entry)}.html", method_page(entry, entries, datasets, metrics, rows, ranked, notes[entry], cites))
    write(target, "data/facts.js", _board.facts_script(frame, entries, datasets, shown))
    exported = write_exports(target, frame, entries, datasets, metrics)
    write(target, "exports.html", frame_page("Exports", fill("exports.html", tables=exported), here="exports.html"))
    history = frame_page("History", Html(asset("history.html")), here="history.html", scripts=["../history.js", "assets/history.js"])
    write(target, "history.html", history)
    return write(target, "index.html", _index(shown, len(used), datasets))


def costs_js(costs: Costs) -> str:
    """The text of ``costs.js``, from entry → dataset → {seconds_per_image, peak_memory_mb, device, images}."""
    return f"window.USS_COSTS = {packed(costs, indent=1)};\n"


def costs_table(costs: Costs) -> str:
    """The same facts as CSV, one row an entry and dataset."""
    rows = [[e, d, *(costs[e][d].get(k) for k in COSTS)] for e in sorted(costs) for d in sorted(costs[e])]
    return pd.DataFrame(rows, columns=["entry", "dataset", *COSTS]).to_csv(index=False, lineterminator="\n")


def _index(shown: list[str], entries: int, datasets: Facts) -> str:
    def count(n: int, word: str, words: str) -> str:
        return f"{n} {word if n == 1 else words}"

    lede = (
        f"How well do methods that learn without labels cut images into regions, at what cost, and how sure can we be? "
        f"{count(entries, 'entry', 'entries')} on {count(len(shown), 'dataset', 'datasets')}, scored by one pipeline on the same images, "
        f"each with the command that reproduces it."
    )
    body = fill("leaderboard.html", title=TITLE, lede=lede)
    first = [_board.board_name(shown[0])] if shown else []
    return frame_page(TITLE, body, here="index.html", scripts=["data/facts.js", *first, "assets/leaderboard.js"], costs=True)


def _explorer_page(title: str, body: str) -> str:
    return frame_page(title, Html(body), here="explorer.html")


def _explored(
    target: Path,
    frame: pd.DataFrame,
    pictures: Iterable[Picture],
    datasets: Facts,
    metrics: Facts,
    behind: Behind,
    drawn: dict[str, list[Drawn]],
) -> Iterator[explorer.Shown]:
    """Draw each picture for the pages and pass it on to the explorer, best entries first, so that one is in memory at a time."""
    order = {dataset: entry_order(here) for dataset, here in frame.groupby("dataset", sort=False)}
    detail = {name: bool(facts.get("detail")) for name, facts in metrics.items()}
    for picture in pictures:
        before = drawn.setdefault(picture.dataset, [])
        before.append(draw_picture(target, len(before), picture))
        scores: dict[str, dict[str, float]] = {}
        images = behind(picture.dataset).images
        for group in sorted(images, key=lambda g: list(metrics).index(g[1])):
            table = images[group]
            if picture.image_id in table.index and group[4] == "full" and not detail[group[1]]:
                values: dict[Any, float] = table.loc[picture.image_id].dropna().to_dict()
                for entry, value in values.items():
                    scores.setdefault(str(entry), {})[group[1]] = value
        names = [str(c["name"]) for c in datasets[picture.dataset].get("classes") or []]
        best_first = [e for e in order.get(picture.dataset, []) if e in picture.regions]
        regions = {e: picture.regions[e] for e in dict.fromkeys([*best_first, *picture.regions])}
        yield explorer.Shown(picture.dataset, picture.image_id, picture.pixels, explorer.truths_of(picture.truth), regions, scores, names)
