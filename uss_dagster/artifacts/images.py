"""Images of a dataset: encoded files in a few tar shards, with an index that says where each one lies."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.reads import Piece
from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.tables import FileState, file_state, image_bounds, read_group, read_table
from uss_dagster.errors import BadData, UsageError
from uss_dagster.hashing import sha256_of, sha256_of_file

SHARD_BYTES = 512 * 1024**2
MOST_SHARDS = 100_000
"""Their files have numbers of five digits, in whose order they are read."""
_BLOCK = 512
_LONGEST_NAME = 100
"""Bytes of a file's name in a tar header."""
T = TypeVar("T")
_ROWS = 2**13
"""Rows of an index as Python objects while it is made."""


class ImageShards:
    """Writes encoded images to ``shard-00000.tar`` …, each about ``SHARD_BYTES``; the tar headers hold no times and no owners.

    keep: write the shards; without them there is only the index of what they would hold.
    """

    def __init__(self, folder: Path, limit: int = SHARD_BYTES, keep: bool = True) -> None:
        self.folder, self.limit, self.keep = folder, limit, keep
        self._rows: list[tuple[object, ...]] = []
        self._tables: list[pa.Table] = []
        self._tar: tarfile.TarFile | None = None
        self._number = -1

    def add(self, image_id: str, data: bytes, suffix: str, height: int, width: int, split: str, sha256: str = "") -> None:
        """Append one encoded image; ids must come in ascending order. sha256: its hash, where it is known."""
        if self._tar is None or self._tar.offset > self.limit:
            self.close()
            self._number += 1
            place = self.folder / f"shard-{self._number:05d}.tar" if self.keep else os.devnull
            self._tar = tarfile.open(place, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        member = tarfile.TarInfo(f"{image_id}{suffix}")
        member.size, member.mode = len(data), 0o644
        # Only the newer format holds long names. It writes headers of other bytes, so short names stay in the older one.
        self._tar.format = tarfile.USTAR_FORMAT if len(os.fsencode(member.name)) <= _LONGEST_NAME else tarfile.PAX_FORMAT
        self._tar.addfile(member, io.BytesIO(data))
        offset = self._tar.offset - -(-len(data) // _BLOCK) * _BLOCK
        self._tar.members = []  # type: ignore[attr-defined]  # the index knows them; they would fill memory
        shard = f"shard-{self._number:05d}.tar"
        self._rows.append((image_id, shard, member.name, offset, len(data), height, width, split, sha256 or sha256_of(data)))
        if len(self._rows) == _ROWS:
            self._pack()

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def table(self) -> pa.Table:
        """The index of everything added."""
        self._pack()
        return pa.concat_tables(self._tables).combine_chunks()

    def _pack(self) -> None:
        """Rows as a table, a fifth of their size as Python objects."""
        columns = zip(*self._rows, strict=True) if self._rows else ((),) * len(IMAGES)
        self._tables.append(pa.table(dict(zip(IMAGES.names, map(list, columns), strict=True)), schema=IMAGES))
        self._rows = []


class Images:
    """Reads the images of a dataset artefact (its ``images/`` folder), by id, in any order.

    Of the index it reads the row groups that hold what is asked for: a worker process opens it for every shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = folder / "images.parquet"
        image_bounds(self.index)  # refuses an index that is not there

    @property
    def table(self) -> pa.Table:
        """The whole index."""
        return read_table(self.index, IMAGES)

    @cached_property
    def ids(self) -> list[str]:
        """All images, in order."""
        ids: list[str] = read_table(self.index, IMAGES, columns=["image_id"])["image_id"].to_pylist()
        return ids

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def identity(self) -> str:
        """A hash that changes exactly when an image, its id or its order does (the index holds every file's own hash)."""
        return sha256_of_file(self.index)

    def contents(self, ids: Sequence[str]) -> list[list[str]]:
        """[id, sha256 of the file] of some images: what anything computed from them alone depends on."""
        return [[image_id, self._row(image_id, "sha256")[0]] for image_id in ids]

    def encoded(self, image_id: str) -> bytes:
        """The file as it came."""
        name, offset, size, sha256 = self._row(image_id, "shard", "offset", "size", "sha256")
        try:
            with open(self.folder / name, "rb") as shard:
                shard.seek(offset)
                data = shard.read(size)
        except FileNotFoundError:
            raise BadData(f"{self.folder / name} is missing. Run `dvc checkout --force` or its stage again.") from None
        if sha256_of(data) != sha256:
            raise BadData(
                f"Image '{image_id}' in {self.folder / name} is not what was written. Run `dvc checkout --force` or its stage again."
            )
        return data

    def pieces(self, ids: Sequence[str]) -> list[Piece]:
        """What is read for some images, beside the index."""
        rows = [self._row(image_id, "shard", "offset", "size") for image_id in ids]
        return [Piece(self.folder / shard, offset, size) for shard, offset, size in rows]

    def shape(self, image_id: str) -> tuple[int, int]:
        """(height, width) after decoding."""
        height, width = self._row(image_id, "height", "width")
        return height, width

    def member(self, image_id: str) -> str:
        """Name of its file in the shard."""
        return str(self._row(image_id, "member")[0])

    def _row(self, image_id: str, *columns: str) -> list[Any]:
        """What some columns of the index say of one image."""
        for number, (first, last) in enumerate(image_bounds(self.index)):
            if first <= image_id <= last:
                group = _group(self.index, number, file_state(self.index))
                if image_id in group.place:
                    return [group.rows[column][group.place[image_id]].as_py() for column in columns]
        raise KeyError(image_id)

    def pixels(self, image_id: str) -> np.ndarray:
        """Uint8 (H, W, 3), RGB."""
        from uss_dagster.artifacts.image_files import decode

        return decode(self.encoded(image_id), image_id)

    def shards(self, size: int) -> list[list[str]]:
        """The ids in order, cut into groups of ``size``: the unit of work, of resuming and of parallel runs."""
        if len(self.ids) > size * MOST_SHARDS:
            raise UsageError(
                f"{len(self.ids):,} images in shards of {size} are more than {MOST_SHARDS:,} shards. Set shard_images (section settings) to "
                f"{-(-len(self.ids) // MOST_SHARDS)} or more."
            )
        return [self.ids[i : i + size] for i in range(0, len(self.ids), size)]


class _Group(NamedTuple):
    """A row group of an index, and the row of each image in it."""

    rows: pa.Table
    place: dict[str, int]


@lru_cache(maxsize=2)
def _group(index: Path, number: int, state: FileState) -> _Group:
    """A row group, read once as long as the file is the same."""
    rows = read_group(index, IMAGES, number)
    return _Group(rows, {image_id: row for row, image_id in enumerate(rows["image_id"].to_pylist())})


def evenly_spaced(ids: Sequence[T], count: int) -> list[T]:
    """``count`` ids spread evenly over the sorted list (all of them where there are fewer): the rule by which samples are shown."""
    if len(ids) <= count:
        return list(ids)
    return [ids[(2 * i + 1) * len(ids) // (2 * count)] for i in range(count)]
