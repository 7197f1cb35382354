"""The hierarchy explorer: pictures, their ground truth and the regions of any entries side by side, from coarse to fine.

Belongs here: turning a stream of segmented pictures into ``explorer.html`` and the small files that it reads. Does not belong here:
how regions are coded (``_explorer_code``) and coloured (``_explorer_colour``), choosing pictures, other pages.

The page opens from disk, without a server or a network: each picture's data is a script of its own, loaded when it is asked for.
A link to a view of it is ``explorer.html#d=<dataset>&i=<image>&e=<entry>,<entry>&g=<regions in view>``, each part percent-encoded
and each optional (see ``link``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np

from uss_dagster.drawing import shrunk
from uss_dagster.regions import Regions
from uss_dagster.report import explorer_codes as code
from uss_dagster.report import explorer_colours as colour
from uss_dagster.report.html import asset
from uss_dagster.report.jpeg import save_jpeg

TITLE = "Hierarchy explorer"
LONGEST = 640
"""Longer side of what is drawn, in pixels. Areas and the IoU with the ground truth are those of the full size."""
PAGE, FOLDER = "explorer.html", "explorer"


@dataclass(frozen=True)
class Shown:
    """One picture and everything that cuts it into regions.

    pixels: uint8 (H, W, 3), of the regions' size. truths: (title, regions) of each ground truth, see ``truths_of``. regions: entry → its regions, in the
    order of the columns. scores: entry → metric → its score on this picture. classes: names of the ground truth's labels. size: the
    picture's own (height, width), where pixels and regions are reduced already.
    """

    dataset: str
    image_id: str
    pixels: np.ndarray
    truths: Sequence[tuple[str, Regions]]
    regions: Mapping[str, Regions]
    scores: Mapping[str, Mapping[str, float]] | None = None
    classes: Sequence[str] = ()
    size: tuple[int, int] | None = None


def write(folder: Path, shown: Iterable[Shown], titles: Mapping[str, str], page: Callable[[str, str], str] | None = None) -> list[Path]:
    """Write ``explorer.html`` and ``explorer/`` into a folder, one picture after the other; returns the paths written.

    titles: of datasets, entries and metrics, by their names; a name without one is its own title. page: (title, body) → the HTML
    of a page around it, which must bring the style sheet ``assets/page.css``; None for a page of its own.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    images: list[dict[str, Any]] = []
    for number, one in enumerate(shown):
        stem = f"{number:04d}"
        height, width = shrunk_size(one.pixels.shape[:2])
        photo, data = folder / FOLDER / f"{stem}.jpg", folder / FOLDER / f"{stem}.js"
        save_jpeg(photo, shrunk(one.pixels, LONGEST), 86)
        columns = _columns(one, (height, width), titles)
        _put(data, f"(window.USS = window.USS || {{}})[{_json('picture-' + stem)}] = {_json(columns)};\n")
        written += [photo, data]
        images.append(
            {
                "dataset": one.dataset,
                "id": one.image_id,
                "file": f"{FOLDER}/{stem}",
                "key": f"picture-{stem}",
                "size": [height, width],
                "full": list(one.size or one.pixels.shape[:2]),
                "columns": [c["id"] for c in columns],
            }
        )
    names = [n for i in images for n in (i["dataset"], *(c for c in i["columns"] if not c.startswith("~")))]
    index = {"images": images, "palette": colour.palette(), "shades": len(colour.SHADES), "titles": {n: titles.get(n, n) for n in names}}
    body = Template(asset("explorer.html")).substitute(
        css=asset("explorer.css").strip(), js=asset("explorer.js").strip(), index=_json(index)
    )
    place = folder / PAGE
    _put(place, (page or _own_page)(TITLE, body))
    return [place, *written]


def is_page(path: Path) -> bool:
    """Whether a file is an explorer's page."""
    try:
        return b'id="explorer-index"' in path.read_bytes()
    except OSError:
        return False


def link(dataset: str, image_id: str = "", entries: Iterable[str] = (), granularity: int | None = None) -> str:
    """The address of a view, relative to the folder of ``write``."""
    parts = {"d": quote(dataset, safe=""), "i": quote(image_id, safe=""), "e": ",".join(quote(e, safe="") for e in entries)}
    parts["g"] = "" if granularity is None else str(granularity)
    return f"{PAGE}#" + "&".join(f"{k}={v}" for k, v in parts.items() if v)


def truths_of(truth: Regions | None) -> list[tuple[str, Regions]]:
    """Ground truth as columns: one, or one an annotator where several drew the picture (told apart by ``source``).

    The annotator with the median number of regions comes first, as in ``pictures.truth_map``.
    """
    if truth is None or not len(truth):
        return []
    people = sorted(set(truth.source))
    if len(people) < 2:
        return [("Ground truth", truth)]
    source = np.asarray(truth.source)
    median = sorted(people, key=lambda person: (truth.source.count(person), person))[(len(people) - 1) // 2]
    people.sort(key=lambda person: (person != median, person))
    return [(f"Ground truth, {person}", code.compact(truth.select(source == person))) for person in people]


def shrunk_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of ``pictures.shrunk`` at ``LONGEST``."""
    scale = min(1.0, LONGEST / max(shape[:2]))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _columns(one: Shown, shape: tuple[int, int], titles: Mapping[str, str]) -> list[dict[str, Any]]:
    """What the script is told of one picture: a list of families, the ground truths first."""
    columns: list[dict[str, Any]] = []
    truths = [regions for _, regions in one.truths]
    named = [(f"~truth{i or ''}", title, regions) for i, (title, regions) in enumerate(one.truths)]
    named += [(entry, titles.get(entry, entry), regions) for entry, regions in one.regions.items()]
    reference: tuple[code.Nested, np.ndarray] | None = None
    for name, title, regions in named:
        nested = code.Nested.of(regions)
        colours = colour.assign(nested, reference)
        if reference is None and len(regions):
            reference = nested, colours
        is_truth = name.startswith("~")
        coded = code.family(nested, shape, () if is_truth else truths, one.classes if is_truth else ())
        scores = {} if is_truth or one.scores is None else one.scores.get(name, {})
        coded |= {"id": name, "title": title, "colour": code.encode_numbers(colours.tolist())}
        coded["scores"] = [[titles.get(m, m), round(float(v), 6)] for m, v in scores.items() if np.isfinite(v)]
        columns.append(coded)
    return columns


def _own_page(title: str, body: str) -> str:
    return Template(asset("explorer_page.html")).substitute(title=title, css=asset("page.css").strip(), body=body)


def _json(value: Any) -> str:
    """JSON that may stand in a script of a page."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
