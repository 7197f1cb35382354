"""Small pictures of an artefact for the orchestrator's page: side files, not artefacts, so that how they are drawn makes nothing stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uss_dagster.artifacts.image_files import decode, encode_png
from uss_dagster.artifacts.images import Images, evenly_spaced
from uss_dagster.artifacts.tables import iterate_regions, regions_from_table
from uss_dagster.curation.tables import PoolFolder
from uss_dagster.drawing import montage, overlay, shrunk
from uss_dagster.files import write_whole

SHOWN = 4
LONGEST = 240


def write_segments_preview(root: Path, cell: dict[str, Any], path: Path) -> None:
    """A montage of evenly spaced pictures with their regions."""
    regions = sorted((root / "data" / "segments" / cell["entry"] / cell["dataset"]).glob("shard-*.parquet"))
    images = Images(root / "data" / "datasets" / cell["dataset"] / "images")
    shown = evenly_spaced(images.ids, SHOWN)
    found = dict(iterate_regions(regions, set(shown)))
    pictures = [shrunk(overlay(images.pixels(i), found[i]), LONGEST) for i in shown]
    write_whole(path, encode_png(montage(pictures, shown, columns=SHOWN)))


def write_pool_preview(root: Path, cell: dict[str, Any], path: Path) -> None:
    """A montage of evenly spaced pictures with the masks of their pool."""
    images = Images(root / "data" / "datasets" / cell["dataset"] / "images")
    shown = set(evenly_spaced(images.ids, SHOWN))
    pool = PoolFolder(root / "data" / "pool" / cell["name"])
    found = {i: regions_from_table(rows) for i, rows in pool.masks() if i in shown}
    pictures = [shrunk(overlay(images.pixels(i), found[i], n_regions=24), LONGEST) for i in sorted(found)]
    if pictures:
        write_whole(path, encode_png(montage(pictures, sorted(found), columns=SHOWN)))


def write_curated_preview(root: Path, cell: dict[str, Any], path: Path) -> None:
    """The samples that the set itself shows, small enough for a page of the orchestrator."""
    samples = root / "data" / "curated" / cell["name"] / "samples.png"
    write_whole(path, encode_png(shrunk(decode(samples.read_bytes(), str(samples)), 3 * LONGEST)))
