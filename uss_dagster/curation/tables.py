"""The two tables of a pool: one row a mask with its measures, one row an image with what tells it from others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import read_table, row_groups, rows_by_image

MEASURES = ("edge", "separation", "quality", "refined_iou", "stability")
"""See ``measures`` and ``stability``; each in 0..1, NaN where it was not or could not be measured."""

POOL = pa.schema([*REGIONS, pa.field("entry", pa.string(), nullable=False), *(pa.field(m, pa.float32(), nullable=False) for m in MEASURES)])
"""A region, which entry found it, and its measures. ``HUMAN`` in ``entry`` marks a human mask."""

HUMAN = "human"

LOOKS = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("hash", pa.uint64(), nullable=False),
        pa.field("mirrored", pa.uint64(), nullable=False),
        pa.field("colours", pa.binary(), nullable=False),
        pa.field("problem", pa.string(), nullable=False),
    ]
)
"""hash, mirrored, colours: see ``duplicates``. problem: why the image cannot be used, empty where it can."""

IMAGES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("masks", pa.int32(), nullable=False),
        pa.field("human_masks", pa.int32(), nullable=False),
        pa.field("dropped", pa.int32(), nullable=False),
        pa.field("coverage", pa.float32(), nullable=False),
    ]
)
"""Every image of the source, kept or set aside. status: 'kept' or why not (``curate.STATUSES``), with the reason in words. group: the
image id that stands for its near-duplicates, itself where it has none. split: empty where set aside. masks: in the set, those of people
included; dropped: by the filters. coverage: share of pixels that a mask holds."""


class Pool(Protocol):
    """Where the masks of many images come from, image by image."""

    @property
    def looks(self) -> pa.Table:
        """Every image, those that cannot be used too, schema ``LOOKS``, ascending by id."""

    def masks(self) -> Iterator[tuple[str, pa.Table]]:
        """(image id, its rows of schema ``POOL``), ascending by id; images without masks are left out."""


class PoolFolder:
    """A published pool: shards of masks, and of looks, beside each other."""

    def __init__(self, folder: Path) -> None:
        self.shards = sorted(folder.glob("shard-*.parquet"))
        self.looks = pa.concat_tables(read_table(path, LOOKS) for path in sorted(folder.glob("looks-*.parquet")))

    def masks(self) -> Iterator[tuple[str, pa.Table]]:
        for path in self.shards:
            for table in mask_tables(path):
                yield from rows_by_image(table)


def mask_tables(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a file of masks, one row group (whole images) in memory at a time."""
    return row_groups([path], POOL, columns)
