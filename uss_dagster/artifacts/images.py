"""Images of a dataset: encoded files in a few tar shards, with an index that says where each one lies."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.schemas import IMAGES
from uss_dagster.artifacts.tables import read_table
from uss_dagster.errors import BadData

SHARD_BYTES = 512 * 1024**2
_BLOCK = 512


class ImageShards:
    """Writes encoded images to ``shard-00000.tar`` …, each about ``SHARD_BYTES``; the tar headers hold no times and no owners."""

    def __init__(self, folder: Path, limit: int = SHARD_BYTES) -> None:
        self.folder, self.limit = folder, limit
        self.rows: list[dict[str, object]] = []
        self._tar: tarfile.TarFile | None = None
        self._number = -1

    def add(self, image_id: str, data: bytes, suffix: str, height: int, width: int, split: str) -> None:
        """Append one encoded image; ids must come in ascending order."""
        if self._tar is None or self._tar.offset > self.limit:
            self.close()
            self._number += 1
            self._tar = tarfile.open(self.folder / f"shard-{self._number:05d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        member = tarfile.TarInfo(f"{image_id}{suffix}")
        member.size, member.mode = len(data), 0o644
        offset = self._tar.offset + _BLOCK
        self._tar.addfile(member, io.BytesIO(data))
        self.rows.append(
            {
                "image_id": image_id,
                "shard": f"shard-{self._number:05d}.tar",
                "member": member.name,
                "offset": offset,
                "size": len(data),
                "height": height,
                "width": width,
                "split": split,
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        )

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def table(self) -> pa.Table:
        """The index of everything added."""
        return pa.Table.from_pylist(self.rows, schema=IMAGES)


class Images:
    """Reads the images of a dataset artefact (its ``images/`` folder), by id, in any order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = read_table(folder / "images.parquet", IMAGES)
        self.ids: list[str] = self.table["image_id"].to_pylist()
        self._row = {image_id: row for row, image_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def identity(self) -> str:
        """A hash that changes exactly when an image, its id or its order does (the index holds every file's own hash)."""
        return hashlib.sha256((self.folder / "images.parquet").read_bytes()).hexdigest()

    def encoded(self, image_id: str) -> bytes:
        """The file as it came."""
        row = self.table.slice(self._row[image_id], 1).to_pylist()[0]
        try:
            with open(self.folder / row["shard"], "rb") as shard:
                shard.seek(row["offset"])
                data = shard.read(row["size"])
        except FileNotFoundError:
            raise BadData(f"{self.folder / row['shard']} is missing. Run `dvc checkout --force` or its stage again.") from None
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise BadData(
                f"Image '{image_id}' in {self.folder / row['shard']} is not what was written. Run `dvc checkout --force` or its stage again."
            )
        return data

    def shape(self, image_id: str) -> tuple[int, int]:
        """(height, width) after decoding."""
        row = self._row[image_id]
        return self.table["height"][row].as_py(), self.table["width"][row].as_py()

    def pixels(self, image_id: str) -> np.ndarray:
        """Uint8 (H, W, 3), RGB."""
        from uss_dagster.artifacts.pictures import decode

        return decode(self.encoded(image_id), image_id)

    def shards(self, size: int) -> list[list[str]]:
        """The ids in order, cut into groups of ``size``: the unit of work, of resuming and of parallel runs."""
        return [self.ids[i : i + size] for i in range(0, len(self.ids), size)]


def evenly_spaced(ids: Sequence[str], count: int) -> list[str]:
    """``count`` ids spread evenly over the sorted list (all of them where there are fewer): the rule by which samples are shown."""
    if len(ids) <= count:
        return list(ids)
    return [ids[(2 * i + 1) * len(ids) // (2 * count)] for i in range(count)]
