"""Masks made elsewhere, read one image at a time: tables of regions, COCO JSON, folders of label pictures.

What cannot be meant is refused with a sentence that names image and region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.artifacts.coco_masks import CocoMasks
from uss_dagster.artifacts.gate import valid_regions
from uss_dagster.artifacts.label_pictures import LabelPictures
from uss_dagster.artifacts.mask_base import Masks, Shape, empty, files_below
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import check_schema, readable, regions_from_table, runs_of_images
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import Regions

Format = Literal["coco", "labels", "parquet"]
FORMATS = "a regions.parquet (or a folder of shard-*.parquet), a COCO .json, or a folder of label .png pictures"
COPY = "Copy or make it again."
MOST_BYTES = 256 * 1024**2
"""Of row groups of one table in memory."""


def format_of(path: Path, stated: Format | None = None) -> Format:
    """The format of the masks in a file or folder, by what is there. stated: the only one that will do.

    Raises
    ------
    UsageError
        There is nothing that could be masks, or not of that format.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist. Pass {FORMATS}.")
    endings: dict[str, Format] = {".parquet": "parquet", ".json": "coco"}
    if path.is_dir():
        present: list[Format] = ["parquet"] if _tables_in(path) else []
        present += ["labels"] if files_below(path, ".png") else []
        nothing = f"Folder {path} holds no masks"
    else:
        present = [endings[path.suffix.lower()]] if path.suffix.lower() in endings else []
        nothing = f"{path} is not a file of masks by its ending"
    if not present:
        raise UsageError(f"{nothing}. Pass {FORMATS}.")
    if stated is not None and stated not in present:
        raise UsageError(f"{path} holds masks in the format '{present[0]}', not '{stated}'. Correct one of them.")
    return stated or present[0]


def open_masks(path: Path, void: frozenset[int] | None = None, stated: Format | None = None) -> Masks:
    """The reader of a file or folder, chosen by what is there. void: see ``LabelPictures``. stated: see ``format_of``.

    Raises
    ------
    UsageError
        There is nothing that could be masks.
    BadData
        The file is damaged.
    """
    form = format_of(path, stated)
    if form == "coco":
        return CocoMasks(path)
    if form == "parquet":
        return RegionTables(path, _tables_in(path) if path.is_dir() else [path])
    return LabelPictures(path, files_below(path, ".png"), void)


def _tables_in(folder: Path) -> list[Path]:
    """The tables of regions in a folder."""
    one = folder / "regions.parquet"
    return [one] if one.is_file() else sorted(folder.glob("shard-*.parquet")) or sorted(folder.glob("*.parquet"))


class RegionTables(Masks):
    """Regions as rows (schema ``REGIONS``) in one file or several; some row groups are in memory at a time."""

    def __init__(self, path: Path, files: Sequence[Path], listed: Mapping[str, Shape] | None = None) -> None:
        """listed: image id → (height, width) of images that are there even if no region is."""
        self._listed = dict(listed or {})
        self._places: dict[str, tuple[Path, int, int, int]] = {}
        self._groups: dict[tuple[Path, int], pa.Table] = {}
        labelled = False
        for file in files:
            with readable(file, COPY):
                opened = pq.ParquetFile(file)
            with opened:
                check_schema(opened.schema_arrow, REGIONS, str(file))
                for group in range(opened.num_row_groups):
                    with readable(file, COPY):
                        rows = opened.read_row_group(group, columns=["image_id", "label"])
                    labelled |= bool((rows["label"].to_numpy() >= 0).any())
                    for image_id, start, stop in runs_of_images(rows):
                        if image_id in self._places:
                            raise BadData(
                                f"{file}: image '{image_id}' stands twice; the rows of an image lie together, in one file and row group."
                            )
                        self._places[image_id] = (file, group, start, stop)
        super().__init__(path, {*self._places, *self._listed}, labelled=labelled)

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        if image_id not in self._places:
            return empty(self._listed.get(image_id) or shape, image_id)
        file, group, start, stop = self._places[image_id]
        rows = self._row_group(file, group).slice(start, stop - start)
        for column in rows.column_names:
            if rows[column].null_count:
                raise BadData(f"{file}: image '{image_id}' has an empty cell in column '{column}'; every region needs a value there.")
        numbers = rows["region"].to_numpy()
        values, counts = np.unique(numbers, return_counts=True)
        if (counts > 1).any():
            raise BadData(f"{file}: image '{image_id}', region {values[counts > 1][0]} stands twice.")
        for problem in valid_regions([rows], overlap=True):
            raise BadData(f"{file}: {problem}")
        regions = regions_from_table(rows)
        bad = np.flatnonzero(~np.isfinite(regions.score))
        if len(bad):
            raise BadData(f"Image '{image_id}', region {numbers[bad[0]]}: its score is {regions.score[bad[0]]}; a number is expected.")
        return regions

    def _row_group(self, file: Path, group: int) -> pa.Table:
        """A row group; the latest ones stay in memory, since images may be asked for in another order than that of the file."""
        table = self._groups.pop((file, group), None)
        if table is None:
            with readable(file, COPY), pq.ParquetFile(file) as opened:
                table = opened.read_row_group(group)
        self._groups[file, group] = table  # the last one is the latest
        while len(self._groups) > 1 and sum(kept.nbytes for kept in self._groups.values()) > MOST_BYTES:
            del self._groups[next(iter(self._groups))]
        return table
