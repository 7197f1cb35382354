"""Images of a dataset: encoded files in a few tar shards, with an index that says where each one lies."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.reads import Piece
from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.tables import read_table
from uss_dagster.errors import BadData
from uss_dagster.hashing import sha256_of, sha256_of_file

SHARD_BYTES = 512 * 1024**2
INDEX = "images.parquet"
_BLOCK = 512
_LONGEST_NAME = 100
"""Bytes of a file's name in a tar header."""
T = TypeVar("T")


class ImageShards:
    """Writes encoded images to ``shard-00000.tar`` …, each about ``SHARD_BYTES``; the tar headers hold no times and no owners.

    keep: write the shards; without them there is only the index of what they would hold.
    """

    def __init__(self, folder: Path, limit: int = SHARD_BYTES, keep: bool = True) -> None:
        self.folder, self.limit, self.keep = folder, limit, keep
        self._columns: dict[str, list[object]] = {name: [] for name in IMAGES.names}
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
        row = (image_id, shard, member.name, offset, len(data), height, width, split, sha256 or sha256_of(data))
        for column, value in zip(self._columns.values(), row, strict=True):
            column.append(value)

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def table(self) -> pa.Table:
        """The index of everything added."""
        return pa.table(self._columns, schema=IMAGES)


class Images:
    """Reads the images of a dataset artefact (its ``images/`` folder), by id, in any order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = read_table(self.index, IMAGES)
        self.ids: list[str] = self.table["image_id"].to_pylist()
        self._row = {image_id: row for row, image_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def identity(self) -> str:
        """A hash that changes exactly when an image, its id or its order does (the index holds every file's own hash)."""
        return sha256_of_file(self.index)

    def contents(self, ids: Sequence[str]) -> list[list[str]]:
        """[id, sha256 of the file] of some images: what anything computed from them alone depends on."""
        digests = self.table["sha256"]
        return [[image_id, digests[self._row[image_id]].as_py()] for image_id in ids]

    def encoded(self, image_id: str) -> bytes:
        """The file as it came."""
        row = self.table.slice(self._row[image_id], 1).to_pylist()[0]
        try:
            with open(self.folder / row["shard"], "rb") as shard:
                shard.seek(row["offset"])
                data = shard.read(row["size"])
        except FileNotFoundError:
            raise BadData(f"{self.folder / row['shard']} is missing. Run `dvc checkout --force` or its stage again.") from None
        if sha256_of(data) != row["sha256"]:
            raise BadData(
                f"Image '{image_id}' in {self.folder / row['shard']} is not what was written. Run `dvc checkout --force` or its stage again."
            )
        return data

    @property
    def index(self) -> Path:
        """The file that says where each image lies."""
        return self.folder / INDEX

    def pieces(self, ids: Sequence[str]) -> list[Piece]:
        """What is read for some images, beside the index."""
        rows = self.table.select(["shard", "offset", "size"]).take([self._row[image_id] for image_id in ids]).to_pylist()
        return [Piece(self.folder / row["shard"], row["offset"], row["size"]) for row in rows]

    def shape(self, image_id: str) -> tuple[int, int]:
        """(height, width) after decoding."""
        row = self._row[image_id]
        return self.table["height"][row].as_py(), self.table["width"][row].as_py()

    def pixels(self, image_id: str) -> np.ndarray:
        """Uint8 (H, W, 3), RGB."""
        from uss_dagster.artifacts.image_files import decode

        return decode(self.encoded(image_id), image_id)

    def shards(self, size: int) -> list[list[str]]:
        """The ids in order, cut into groups of ``size``: the unit of work, of resuming and of parallel runs."""
        return [self.ids[i : i + size] for i in range(0, len(self.ids), size)]


def evenly_spaced(ids: Sequence[T], count: int) -> list[T]:
    """``count`` ids spread evenly over the sorted list (all of them where there are fewer): the rule by which samples are shown."""
    if len(ids) <= count:
        return list(ids)
    return [ids[(2 * i + 1) * len(ids) // (2 * count)] for i in range(count)]
