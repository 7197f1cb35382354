"""Small pictures of an artefact for the orchestrator's page: side files, not artefacts, so that how they are drawn makes nothing stale."""

from __future__ import annotations

from uss_dagster.artifacts.image_files import decode, encode_png
from uss_dagster.artifacts.images import Images, evenly_spaced
from uss_dagster.artifacts.tables import iterate_regions, regions_from_table
from uss_dagster.curation.tables import MaskPoolFolder
from uss_dagster.drawing import montage, shrunk, thumbnail
from uss_dagster.planning.cells import DatasetCell
from uss_dagster.planning.layout import Layout

SAMPLES = 4
LONGEST = 240


def segments_preview(cell: DatasetCell, layout: Layout) -> bytes | None:
    """A montage of evenly spaced images with their regions."""
    images = Images(layout.images(cell.dataset))
    ids = evenly_spaced(images.ids, SAMPLES)
    shards = sorted(cell.artefact(layout).glob("shard-*.parquet"))
    pictures = [thumbnail(images.pixels(i), regions, LONGEST) for i, regions in iterate_regions(shards, set(ids))]
    return encode_png(montage(pictures, ids, columns=SAMPLES))


def mask_pool_preview(cell: DatasetCell, layout: Layout) -> bytes | None:
    """A montage of evenly spaced images with the masks of their pool; None where these have no mask."""
    images = Images(layout.images(cell.dataset))
    ids = set(evenly_spaced(images.ids, SAMPLES))
    masks = {i: rows for i, rows in MaskPoolFolder(cell.artefact(layout)).masks() if i in ids}
    pictures = [thumbnail(images.pixels(i), regions_from_table(masks[i]), LONGEST, n_regions=24) for i in sorted(masks)]
    return encode_png(montage(pictures, sorted(masks), columns=SAMPLES)) if pictures else None


def curated_preview(cell: DatasetCell, layout: Layout) -> bytes | None:
    """The samples that the set itself shows, small enough for a page of the orchestrator."""
    samples = cell.artefact(layout) / "samples.png"
    return encode_png(shrunk(decode(samples.read_bytes(), str(samples)), 3 * LONGEST)) if samples.exists() else None
