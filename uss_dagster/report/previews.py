"""Small pictures of an artefact for the orchestrator's page: side files, not artefacts, so that how they are drawn makes nothing stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uss_dagster.artifacts.files import write_whole
from uss_dagster.artifacts.images import Images, evenly_spaced
from uss_dagster.artifacts.pictures import encode_png
from uss_dagster.artifacts.tables import iterate_regions
from uss_dagster.report.pictures import montage, overlay, shrunk

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
