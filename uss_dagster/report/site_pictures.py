"""Pictures of the site: one image and its segmentations, drawn into files.

Belongs here: the files of pictures and what pages say of them. Does not belong here: how regions become pixels (``drawing``), and
choosing the images, which the stages do by rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from uss_dagster import drawing
from uss_dagster.artifacts.images import Images, evenly_spaced
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import iterate_regions, read_images, read_table, regions_from_table, rows_by_image
from uss_dagster.planning.layout import Layout
from uss_dagster.regions import Regions
from uss_dagster.report.best_matches import BestMatches
from uss_dagster.report.html import slug
from uss_dagster.report.jpeg import save_jpeg

N_REGIONS = 8
"""Regions in a flat picture."""
LONGEST = 480
"""Longer side of a picture in pixels."""


@dataclass(frozen=True)
class Picture:
    """One image and its segmentations.

    Parameters
    ----------
    dataset, image_id : str
        Names.
    pixels : numpy.ndarray
        uint8 (H, W, 3).
    truth : Regions or None
        Ground truth.
    regions : mapping of str to Regions
        Entry to its regions.
    sample : bool
        Whether it is shown for every entry; else it stands in the gallery of those entries whose regions it has.
    """

    dataset: str
    image_id: str
    pixels: np.ndarray
    truth: Regions | None
    regions: Mapping[str, Regions]
    sample: bool = True


class Files(NamedTuple):
    """Paths from the site's folder: a flat cut, the boundaries of the whole hierarchy (empty for a photo), and the best matches of the ground
    truth (empty where there is none)."""

    flat: str
    lines: str = ""
    match: str = ""


class RegionCounts(NamedTuple):
    """How many regions an entry has in an image, and how many of them the picture of the best matches shows."""

    regions: int
    matched: int


@dataclass(frozen=True)
class Drawn:
    """Files of one picture, and its size in them."""

    image_id: str
    height: int
    width: int
    photo: Files
    truth: Files | None
    entries: Mapping[str, Files]
    counts: Mapping[str, RegionCounts]
    sample: bool

    @property
    def aspect(self) -> str:
        """Width by height: columns as wide as their images make all pictures of a row equally high."""
        return f"{self.width / self.height:.3f}"


class Band(NamedTuple):
    """A kind of boundary in the picture of a hierarchy: colour (CSS), width in pixels, and what it means."""

    colour: str
    width: int
    words: str


BANDS = [
    Band(f"rgb{colour}", width, words.format(limit))
    for words, (limit, width, colour) in zip(("within the first {} regions", "{}", "{}", "more"), drawing.BANDS, strict=True)
]


def read_pictures(layout: Layout, dataset: str, scores: Iterable[Path]) -> Iterator[Picture]:
    """The samples and galleries that the scores stage stored, image by image with the regions of all entries that have it.

    scores: folders of the scores on this dataset.
    """
    by_image: dict[str, dict[str, pa.Table]] = {}  # rows: the regions of many large pictures would fill memory
    samples: set[str] = set()
    for folder in sorted(scores):
        for name in ("samples.parquet", "gallery.parquet"):
            for image_id, rows in rows_by_image(read_table(folder / name, REGIONS)):
                by_image.setdefault(image_id, {})[folder.parent.name] = rows
                samples |= {image_id} if name == "samples.parquet" else set()
    images = Images(layout.images(dataset))
    truths = dict(rows_by_image(read_images(layout.truth(dataset) / "regions.parquet", REGIONS, set(by_image))))
    for image_id in sorted(by_image, key=lambda i: (i not in samples, i)):  # those of all entries first
        truth = regions_from_table(truths[image_id]) if image_id in truths else None
        regions = {entry: regions_from_table(rows) for entry, rows in by_image[image_id].items()}
        yield Picture(dataset, image_id, images.pixels(image_id), truth, regions, image_id in samples)


def read_unscored_pictures(layout: Layout, dataset: str, entries: Iterable[str], count: int) -> Iterator[Picture]:
    """At most ``count`` evenly spaced images of a dataset without scores, each with the regions of these entries and its ground truth, if any."""
    images = Images(layout.images(dataset))
    shards = {e: sorted(layout.segments(e, dataset).glob("shard-*.parquet")) for e in sorted(entries)}
    for image_id in evenly_spaced(images.ids, count) if shards else ():
        regions = {entry: family for entry, files in shards.items() for _, family in iterate_regions(files, {image_id})}
        truth = dict(iterate_regions([layout.truth(dataset) / "regions.parquet"], {image_id}))
        yield Picture(dataset, image_id, images.pixels(image_id), truth.get(image_id), regions)


def draw_picture(target: Path, number: int, picture: Picture) -> Drawn:
    """Draw one image and all its segmentations into files below the site's folder; ``number`` is in their names."""
    folder = Path("pictures") / slug(picture.dataset)
    (target / folder).mkdir(parents=True, exist_ok=True)
    small = drawing.shrunk(picture.pixels, LONGEST)
    height, width = small.shape[:2]

    def save(name: str, image: np.ndarray) -> str:
        path = folder / f"{number:03d}-{name}.jpg"
        save_jpeg(target / path, image, 84)
        return path.as_posix()

    photo, truth, reference, matcher = Files(save("photo", small)), None, None, None
    if picture.truth is not None:
        matcher = BestMatches.of(picture.truth, (height, width))
        reference = matcher.colours
        flat = save("truth-flat", drawing.paint(small, reference))
        lines = save("truth-lines", drawing.truth_contours(small, picture.truth.resized(height, width)))
        truth = Files(flat, lines, flat)
    entries: dict[str, Files] = {}
    counts: dict[str, RegionCounts] = {}
    for entry in sorted(picture.regions):
        regions = picture.regions[entry].resized(height, width)
        flat_map = drawing.colour_map(drawing.flat_cut(regions, N_REGIONS), reference)
        reference = flat_map if reference is None else reference
        flat = save(f"{slug(entry)}-flat", drawing.paint(small, flat_map))
        lines = save(f"{slug(entry)}-lines", drawing.contours(small, regions))
        matches, matched = matcher.drawn(picture.regions[entry], regions) if matcher else (None, 0)
        match = "" if matches is None else save(f"{slug(entry)}-match", drawing.paint(small, matches))
        entries[entry] = Files(flat, lines, match)
        counts[entry] = RegionCounts(int((~picture.regions[entry].is_root).sum()), matched)
    return Drawn(picture.image_id, height, width, photo, truth, entries, counts, picture.sample)


def colour_guide(images: Iterable[Drawn]) -> str:
    """What the colours of some pictures follow, in words."""
    return "ground truth" if any(image.truth for image in images) else "first entry by name"
