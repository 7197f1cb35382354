"""Reading and writing Parquet by schema, deterministically; regions as rows and back."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pycocotools import mask as coco

from uss_dagster.artifacts.schemas import LABELS, REGIONS
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions, rle

GROUP_ROWS = 2**18
"""Rows in a row group of a table that has one row an image or more: what is read of it at once."""
LAST_TEXT = chr(0x10FFFF)
"""No image id comes after it."""


def write_table(path: Path, table: pa.Table, schema: pa.Schema, group_rows: int = 2**31 - 1) -> None:
    """Write one table; columns and types must be the schema's. group_rows: rows in a row group, by default all."""
    check_schema(table.schema, schema, path.name)
    pq.write_table(table.cast(schema), path, compression="zstd", compression_level=3, row_group_size=group_rows, store_schema=False)


def write_batches(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Write tables that follow each other as one, ``GROUP_ROWS`` rows in memory at a time; the bytes are those of ``write_table``."""
    with pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, store_schema=False) as file:
        for rows in batches(tables, GROUP_ROWS):
            file.write_table(rows.cast(schema), row_group_size=GROUP_ROWS)


def batches(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of tables in order, cut anew into tables of so many rows; the last has fewer, and there is at least one where there is a table."""
    waiting: list[pa.Table] = []
    count, cut = 0, False
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= rows:
            together = pa.concat_tables(waiting)
            yield together.slice(0, rows).combine_chunks()
            waiting, count, cut = [together.slice(rows)], count - rows, True
    if waiting and (count or not cut):
        yield pa.concat_tables(waiting).combine_chunks()


@contextmanager
def readable(path: Path, advice: str = "") -> Iterator[None]:
    """Turns what pyarrow raises on a missing or damaged file (its own errors, or a bare OSError) into one sentence.

    advice: what to do about a file that no stage can make again; by default what helps with a file of an artefact.
    """
    missing = f". {advice}" if advice else ": an artefact is incomplete. Run its stage again, or `dvc checkout`."
    try:
        yield
    except FileNotFoundError:
        raise BadData(f"{path} is missing{missing}") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadData(
            f"{path} cannot be read as Parquet ({reason}). {advice or 'Run its stage again, or `dvc checkout --force`.'}"
        ) from error


def read_table(path: Path, schema: pa.Schema, **options: object) -> pa.Table:
    """Read one table and hold it against its schema."""
    with readable(path):
        table = pq.read_table(path, **options)
    if not options.get("columns"):
        check_schema(table.schema, schema, str(path))
    return table


def read_images(path: Path, schema: pa.Schema, image_ids: Iterable[str]) -> pa.Table:
    """The rows of some images, perhaps of none; only row groups that may hold one of them are read."""
    wanted = sorted(image_ids)
    groups = [number for number, (first, last) in enumerate(image_bounds(path)) if bisect_left(wanted, first) < bisect_right(wanted, last)]
    rows = read_group(path, schema, *groups)
    return rows.filter(pc.is_in(rows["image_id"], pa.array(wanted, pa.string())))


def read_group(path: Path, schema: pa.Schema, *numbers: int) -> pa.Table:
    """Some row groups of a file."""
    with readable(path), pq.ParquetFile(path, metadata=_metadata(path, file_state(path))) as file:
        check_schema(file.schema_arrow, schema, str(path))
        rows: pa.Table = file.read_row_groups(numbers)
        return rows


FileState = tuple[int, int]
"""Size and time of change of a file: what tells its versions apart."""


def file_state(path: Path) -> FileState:
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def image_bounds(path: Path) -> tuple[tuple[str, str], ...]:
    """(first, last) of the image ids in each row group of a file, by text."""
    with readable(path):
        bounds: tuple[tuple[str, str], ...] = _bounds(path, file_state(path))
    return bounds


@lru_cache(maxsize=4)
def _metadata(path: Path, state: FileState) -> pq.FileMetaData:
    """What a file says of its row groups, read once as long as it is the same: one of all images is opened for every shard."""
    metadata: pq.FileMetaData = pq.read_metadata(path)
    return metadata


@lru_cache(maxsize=4)
def _bounds(path: Path, state: FileState) -> tuple[tuple[str, str], ...]:
    metadata = _metadata(path, state)
    column = next((c for c in range(metadata.num_columns) if metadata.schema.column(c).path == "image_id"), None)
    if column is None:
        return (("", LAST_TEXT),) * int(metadata.num_row_groups)
    statistics = [metadata.row_group(group).column(column).statistics for group in range(metadata.num_row_groups)]
    return tuple((str(of.min), str(of.max)) if of is not None and of.has_min_max else ("", LAST_TEXT) for of in statistics)


def check_schema(found: pa.Schema, expected: pa.Schema, what: str) -> None:
    """Refuse other columns or types, naming the first that differs."""
    if found.names != expected.names:
        missing, extra = [n for n in expected.names if n not in found.names], [n for n in found.names if n not in expected.names]
        raise BadData(
            f"{what} has columns {found.names}, expected {expected.names} (missing: {missing or 'none'}, unknown: {extra or 'none'})."
        )
    for field in expected:
        got = found.field(field.name).type
        if not _same_type(got, field.type):
            raise BadData(f"{what}: column '{field.name}' is {got}, expected {field.type}.")


def _same_type(got: pa.DataType, expected: pa.DataType) -> bool:
    """Equal, but for the fixed length of a list, which Parquet does not keep."""
    if pa.types.is_fixed_size_list(expected) or pa.types.is_list(expected):
        return bool((pa.types.is_list(got) or pa.types.is_fixed_size_list(got)) and got.value_type == expected.value_type)
    return bool(got == expected)


def regions_to_table(image_id: str, regions: Regions) -> pa.Table:
    """The rows of one image."""
    k, (height, width) = len(regions), regions.shape
    codes = regions.rles()
    boxes = coco.toBbox(rle.coco_codes(codes, regions.shape)) if k else np.zeros((0, 4))
    columns = {
        "image_id": pa.array([image_id] * k, pa.string()),
        "region": pa.array(np.arange(k, dtype=np.int32)),
        "parent": pa.array(regions.parent),
        "depth": pa.array(regions.depth),
        "area": pa.array(regions.area.astype(np.int64)),
        "bbox": pa.FixedSizeListArray.from_arrays(pa.array(boxes.astype(np.int32).ravel()), 4),
        "rle": pa.array(codes, pa.binary()),
        "height": pa.array(np.full(k, height, np.int32)),
        "width": pa.array(np.full(k, width, np.int32)),
        "level": pa.array(regions.level, from_pandas=False),
        "score": pa.array(regions.score, from_pandas=False),
        "label": pa.array(regions.label),
        "source": pa.array(list(regions.source), pa.string()),
    }
    return pa.table(columns, schema=REGIONS)


NO_MASK = "no mask"
"""Source of the region that stands for an image in which an entry has no mask: every image of a table has a row."""


def no_mask(shape: tuple[int, int]) -> Regions:
    """What stands for an image of ``shape`` (height, width) without a mask: the whole image."""
    return Regions.from_tree(np.zeros(shape, np.int32), [0], source=NO_MASK)


def has_no_mask(regions: Regions | Hierarchy) -> bool:
    """Whether the regions only stand for an image without a mask."""
    return regions.source == (NO_MASK,)


def regions_from_table(rows: pa.Table) -> Regions:
    """The regions of one image, from its rows in order."""
    if not rows.num_rows:
        raise BadData("Regions cannot be read from no rows: the image size is unknown.")
    height, width = rows["height"][0].as_py(), rows["width"][0].as_py()
    codes = rows["rle"].to_pylist()
    columns: dict[str, Any] = {name: rows[name].to_numpy() for name in ("level", "score", "label")}
    columns["source"] = rows["source"].to_pylist()
    regions = Regions.from_codes(codes, (height, width), rows["parent"].to_numpy(), **columns)
    return regions.with_atoms_in_order() if regions.is_tree else regions


class RowsWriter:
    """Writes rows of one schema, image by image, into one file; a row group holds whole images, about ``group_rows`` rows."""

    def __init__(self, path: Path, schema: pa.Schema = REGIONS, group_rows: int = 16384) -> None:
        self._file = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3, store_schema=False)
        self._schema, self._group_rows = schema, group_rows
        self._waiting: list[pa.Table] = []
        self._rows_waiting = 0
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Append the rows of one image; ids must come in ascending order."""
        self._waiting.append(table.cast(self._schema))
        self._rows_waiting += table.num_rows
        self.rows += table.num_rows
        if self._rows_waiting >= self._group_rows:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._waiting:
            self._file.write_table(pa.concat_tables(self._waiting).combine_chunks(), row_group_size=2**31 - 1)
            self._waiting, self._rows_waiting = [], 0


def row_groups(paths: Sequence[Path], schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of files of one schema in order, one row group (whole images) in memory at a time; all columns, or some."""
    for path in paths:
        with readable(path):
            file = pq.ParquetFile(path)
        with file:
            check_schema(file.schema_arrow, schema, path.name)
            for group in range(file.num_row_groups):
                with readable(path):
                    rows = file.read_row_group(group, columns=None if columns is None else list(columns))
                yield rows


def region_tables(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """The rows of region files in order, one row group (whole images) in memory at a time."""
    return row_groups(paths, REGIONS)


def iterate_regions(paths: Sequence[Path], only: set[str] | None = None) -> Iterator[tuple[str, Regions]]:
    """(image id, regions) over region files in order, one file (of ``only``: what holds those images) in memory at a time."""
    for path in paths:
        table = read_table(path, REGIONS) if only is None else read_images(path, REGIONS, only)
        for image_id, rows in rows_by_image(table):
            yield image_id, regions_from_table(rows)


@dataclass(frozen=True)
class Hierarchy:
    """How the regions of one image nest, without their pixels; the fields are those of ``Regions``."""

    parent: np.ndarray
    depth: np.ndarray
    area: np.ndarray
    level: np.ndarray
    source: tuple[str, ...]


def iterate_hierarchies(paths: Sequence[Path]) -> Iterator[Hierarchy]:
    """The hierarchy of each image over region files in order, one file in memory at a time: what a first look at a dataset needs."""
    columns = ["image_id", "parent", "depth", "area", "level", "source"]
    for path in paths:
        for _, rows in rows_by_image(read_table(path, REGIONS, columns=columns)):
            numbers = {name: rows[name].to_numpy() for name in columns[1:5]}
            yield Hierarchy(**numbers, source=tuple(rows["source"].to_pylist()))


SHARED_CUT, OWN_SEGMENTS = "labels", "own"
"""Tables of an artefact of labels: of one cut of all images, and of the method's own segments."""


def read_labels(folder: Path, only: set[str], cut: str = SHARED_CUT) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Image id → (region indices, their labels), for images of ``only``; those without a labelled region have empty arrays."""
    none = np.zeros(0, np.int32)
    table = read_images(folder / f"{cut}.parquet", LABELS, only)
    labels = {image_id: (rows["region"].to_numpy(), rows["label"].to_numpy()) for image_id, rows in rows_by_image(table)}
    return {image_id: labels.get(image_id, (none, none)) for image_id in sorted(only)}


def image_ids(*paths: Path) -> list[str]:
    """The images that region files hold, each once, in order."""
    columns = (rows["image_id"] for rows in row_groups(paths, REGIONS, ["image_id"]))
    return list(dict.fromkeys(image_id for column in columns for image_id in pc.unique(column).to_pylist()))


def rows_by_image(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """(image id, its rows) of a table whose images lie together."""
    for image_id, start, stop in runs_of_images(table):
        yield image_id, table.slice(start, stop - start)


def runs_of_images(table: pa.Table) -> Iterator[tuple[str, int, int]]:
    """(image id, its first row, the row after its last) of a table whose images lie together."""
    ids = table["image_id"].to_numpy(zero_copy_only=False)
    edges = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(ids)] if len(ids) else []
    for start, stop in pairwise(edges):
        yield str(ids[start]), start, stop
