"""Pictures of the site: one image with its segmentations drawn into files, and the rows that show them.

Belongs here: files of pictures, their alternative texts, the switch between two drawings. Does not belong here: how regions become
pixels (``pictures``), and choosing the images, which the stages do by rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from uss_dagster import drawing
from uss_dagster.regions import Regions
from uss_dagster.report.explorer import link
from uss_dagster.report.html import Html, escaped, fill, join, slug, tag
from uss_dagster.report.jpeg import save_jpeg

N_REGIONS = 8
"""Regions in a flat picture."""
LONGEST = 480
"""Longer side of a picture in pixels."""


@dataclass(frozen=True)
class Picture:
    """One image and what was found in it. pixels: uint8 (H, W, 3). regions: entry → regions. sample: one of those that are shown for
    every entry; else it stands in the gallery of those entries whose regions it has."""

    dataset: str
    image_id: str
    pixels: np.ndarray
    truth: Regions | None
    regions: Mapping[str, Regions]
    sample: bool = True


@dataclass(frozen=True)
class Drawn:
    """Files of one picture, as paths from the site's folder; pairs are (flat, lines). size: (height, width)."""

    image_id: str
    size: tuple[int, int]
    photo: str
    truth: tuple[str, str] | None
    entries: Mapping[str, tuple[str, str]]
    sample: bool
    number: int = field(default=0)


def draw_picture(target: Path, number: int, picture: Picture) -> Drawn:
    """Draw one image and all its segmentations into files."""
    folder = Path("pictures") / slug(picture.dataset)
    (target / folder).mkdir(parents=True, exist_ok=True)
    small = drawing.shrunk(picture.pixels, LONGEST)
    height, width = small.shape[:2]

    def save(what: str, image: np.ndarray) -> str:
        path = folder / f"{number:03d}-{what}.jpg"
        save_jpeg(target / path, image, 84)
        return path.as_posix()

    photo, truth, reference = save("photo", small), None, None
    if picture.truth is not None:
        regions = picture.truth.resized(height, width)
        reference = drawing.colour_map(drawing.truth_map(regions))
        truth = save("truth-flat", drawing.paint(small, reference)), save("truth-lines", drawing.truth_contours(small, regions))
    entries: dict[str, tuple[str, str]] = {}
    for entry in sorted(picture.regions):
        regions = picture.regions[entry].resized(height, width)
        flat = drawing.colour_map(drawing.flat_cut(regions, N_REGIONS), reference)
        reference = flat if reference is None else reference
        entries[entry] = (
            save(f"{slug(entry)}-flat", drawing.paint(small, flat)),
            save(f"{slug(entry)}-lines", drawing.contours(small, regions)),
        )
    return Drawn(picture.image_id, (height, width), photo, truth, entries, picture.sample, number)


def switch(name: str, images: Sequence[Drawn]) -> Html:
    """The choice between the two drawings, and what their colours mean."""
    words = ["within the first {} regions", "{}", "{}", "more"]
    bands = (
        f'<i class="swatch" style="border-color:rgb{colour};border-top-width:{width}px"></i>{word.format(limit)}'
        for word, (limit, width, colour) in zip(words, drawing.BANDS, strict=True)
    )
    guide = "ground truth" if any(i.truth for i in images) else "first entry by name"
    return fill("views.html", name=name, n_regions=N_REGIONS, guide=guide, bands=Html(", ".join(bands)))


def samples(images: Sequence[Drawn], rows: Sequence[tuple[str, str, str]], dataset: str, up: str) -> Html:
    """Photos, ground truth and entries below each other. rows: (entry, title, what to say below it)."""
    lines = [_row("Photo", "", [(i, (i.photo, "")) for i in images], up, captions=True)]
    if any(i.truth for i in images):
        lines.append(_row("Ground truth", "", [(i, i.truth) for i in images], up))
    for entry, title, below in rows:
        links = [up + link(dataset, i.image_id, [entry]) if entry in i.entries else None for i in images]
        lines.append(_row(title, below, [(i, i.entries.get(entry)) for i in images], up, links=links))
    columns = Html(" ".join(_column(i) for i in images))
    return fill("pictures.html", switch=switch("samples", images), columns=columns, rows=join(lines))


def gallery(dataset: str, entry: str, title: str, chosen: Sequence[tuple[str, float, Drawn]], metric: str, up: str) -> Html:
    """The images that an entry does best, middling and worst on: photo, ground truth, its regions. chosen: (place, score, image)."""
    parts = []
    for place, value, image in chosen:
        cells = [(f"Photo {image.image_id}", (image.photo, "")), ("Ground truth", image.truth), (title, image.entries[entry])]
        shown = [(name, pair) for name, pair in cells if pair]
        figures = [_figure(image, pair, f"{name}, image {image.image_id}", up, caption=name) for name, pair in shown]
        opened = tag("a", "Open in the explorer", href=up + link(dataset, image.image_id, [entry]))
        said = Html(f"<b>{escaped(place)}</b> <span>{escaped(metric)} {value:.3f}</span> <span>{opened}</span>")
        parts.append(Html(f'<div class="gallery-row"><p>{said}</p><div class="triple">{join(figures, "")}</div></div>'))
    return fill("gallery.html", switch=switch(f"gallery-{slug(dataset)}", [i for _, _, i in chosen]), rows=join(parts))


def _row(
    title: str,
    below: str,
    cells: Sequence[tuple[Drawn, tuple[str, str] | None]],
    up: str,
    captions: bool = False,
    links: Sequence[str | None] = (),
) -> Html:
    head = tag("h3", Html(f'{escaped(title)}<span class="sub">{escaped(below)}</span>'))
    parts = [head]
    for number, (image, paths) in enumerate(cells):
        if paths is None:
            parts.append(Html('<figure><div class="none">–</div></figure>'))
            continue
        alt = f"{title}, image {image.image_id}"
        parts.append(_figure(image, paths, alt, up, image.image_id if captions else "", links[number] if links else None))
    return Html(f'<div class="picture-row">{join(parts, "")}</div>')


def _figure(image: Drawn, paths: tuple[str, str], alt: str, up: str, caption: str = "", address: str | None = None) -> Html:
    height, width = image.size
    views = f' data-flat="{up}{paths[0]}" data-lines="{up}{paths[1]}"' if paths[1] else ""
    picture = Html(f'<img src="{up}{paths[0]}"{views} width="{width}" height="{height}" loading="lazy" alt="{escaped(alt)}">')
    if address:
        picture = tag("a", picture, href=address)
    below = tag("figcaption", caption) if caption else ""
    return Html(f"<figure>{picture}{below}</figure>")


def _column(image: Drawn) -> str:
    """As wide as the image is, so that all pictures of a row are equally high."""
    share = image.size[1] / image.size[0]
    return f"minmax(calc(var(--share) * {share:.3f}), {share:.3f}fr)"


def as_data(image: Drawn) -> dict[str, Any]:
    """For the pages that scripts build."""
    return {"id": image.image_id, "size": list(image.size), "photo": image.photo, "truth": image.truth, "entries": dict(image.entries)}
