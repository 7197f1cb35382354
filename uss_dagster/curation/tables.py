"""The tables of a mask pool and of a curated set: one row a mask with its measures, one row an image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.schemas import REGIONS, read_schemas
from uss_dagster.artifacts.tables import read_table, regions_to_table, row_groups, rows_by_image
from uss_dagster.regions import Regions

HUMAN = "human"
"""The value of the column ``entry`` that marks a mask drawn by a person."""
MEASURES = ("edge", "separation", "quality", "refined_iou", "stability")
"""See ``measures`` and ``stability``. Each lies in 0..1, or is NaN where it was not or could not be measured."""


_MEASURED = [pa.field(name, pa.float32(), nullable=False) for name in MEASURES]
MASKS = pa.schema([*REGIONS, pa.field("entry", pa.string(), nullable=False), *_MEASURED])
"""One row a mask: a region, the entry that found it, and its measures."""

_SCHEMAS = read_schemas(__file__)
SOURCE_IMAGES, IMAGES = _SCHEMAS["SOURCE_IMAGES"], _SCHEMAS["IMAGES"]
"""One row an image of a mask pool, and one of the source of a curated set; ``tables.yaml`` says what the columns hold."""


class SourceImage(TypedDict):
    """A row of ``SOURCE_IMAGES``."""

    image_id: str
    file_name: str
    sha256: str
    height: int
    width: int
    hash: int
    mirrored: int
    colours: bytes
    problem: str


class MaskPool(Protocol):
    """The masks of many images, image by image."""

    @property
    def images(self) -> pa.Table:
        """Every image, also those that cannot be used. Schema ``SOURCE_IMAGES``, ascending by id."""

    def masks(self) -> Iterator[tuple[str, pa.Table]]:
        """(image id, its rows of schema ``MASKS``), ascending by id; images without masks are left out."""


class MaskPoolFolder:
    """A published mask pool: ``shard-*.parquet`` holds its masks, ``looks-*.parquet`` its images."""

    def __init__(self, folder: Path) -> None:
        self.shards = sorted(folder.glob("shard-*.parquet"))
        self.images = pa.concat_tables(read_table(path, SOURCE_IMAGES) for path in sorted(folder.glob("looks-*.parquet")))

    def masks(self) -> Iterator[tuple[str, pa.Table]]:
        for path in self.shards:
            for table in mask_tables(path):
                yield from rows_by_image(table)


def mask_tables(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of a file of masks; one row group, which holds whole images, is in memory at a time."""
    return row_groups([path], MASKS, columns)


def mask_rows(image_id: str, regions: Regions, entries: Sequence[str], measures: Mapping[str, np.ndarray]) -> pa.Table:
    """The masks of one image as rows of schema ``MASKS``.

    Parameters
    ----------
    image_id : str
    regions : Regions
        K masks.
    entries : sequence of K str
        The entry that found each mask, or ``HUMAN``.
    measures : mapping of str to float array of shape (K,)
        By the names in ``MEASURES``; a missing one becomes NaN.
    """
    unknown = np.full(len(regions), np.nan)
    columns = [pa.array(measures.get(name, unknown).astype(np.float32), from_pandas=False) for name in MEASURES]
    return pa.table([*regions_to_table(image_id, regions).columns, pa.array(list(entries), pa.string()), *columns], schema=MASKS)
