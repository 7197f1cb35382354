"""Reduced examples on disk, computed once: Parquet files of some examples each, for any number of runs and processes.

A file is named after a hash of all that its content depends on: the pictures, their masks, and the size. It appears only when whole. So two processes
that write the same file write the same bytes, and a file of another run serves this one. The folder has a greatest size: files that no run has used
for the longest time go first, and what finds no room is computed each time that it is needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.errors import BadData
from uss_dagster.files import make_folder, whole_file
from uss_dagster.hashing import sha256_of_json
from uss_dagster.student.data import Source
from uss_dagster.student.loader import ends_of_loaders, in_order
from uss_dagster.student.loading import Loading
from uss_dagster.student.reduced import SCHEMA, ReducedExample, from_row, read_reduced, to_row

FORMAT = 1
"""Another number where the same input gives another content."""
EXAMPLES = 32
"""In one file."""
OPEN = 64
"""Greatest number of files that a process has open."""
RESERVE = 10**9
"""Bytes that stay free on the disk."""
ABANDONED = 3600.0
"""Age in seconds from which an unfinished file is that of a process that ended."""


def stored_examples(
    source: Source, long: int, folder: Path, loading: Loading, advance: Callable[[int], None] = lambda count: None
) -> ExampleShards:
    """The examples of a source in a folder, computed where they are not there yet.

    The processes that ``torchrun`` started on a machine share the work.

    Parameters
    ----------
    source : Source
    long : int
        Greatest length of an image's longer side.
    folder : Path
    loading : Loading
    advance : callable, optional
        Called with the number of examples that were finished.
    """
    rank, world = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    shards = ExampleShards(source, long, folder, loading.most)
    make_folder(folder)
    remove_abandoned(folder)
    with ends_of_loaders():
        for name in in_order(lambda number: shards.write(number, number % world == rank), range(len(shards)), loading.processes):
            shards.names.append(name)
            advance(min(EXAMPLES, len(source) - EXAMPLES * (len(shards.names) - 1)))
    return shards


class ExampleShards:
    """The reduced examples of a source, in files of one folder.

    Parameters
    ----------
    source : Source
    long : int
        Greatest length of an image's longer side.
    folder : Path
    most : int
        Greatest size of the folder in bytes; processes that write at once may exceed it by a file each.
    """

    def __init__(self, source: Source, long: int, folder: Path, most: int) -> None:
        self.source, self.long, self.folder, self.most = source, long, folder, most
        self.names: list[str] = []
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._begun = time.time()

    def __len__(self) -> int:
        """Number of files."""
        return -(-len(self.source) // EXAMPLES)

    def __getitem__(self, index: int) -> ReducedExample:
        """The example at an index of the source. ``names`` says in which files examples are."""
        file = self._file(self.names[index // EXAMPLES])
        if file is None:
            return read_reduced(self.source, index, self.long)
        try:
            return from_row(file.read_row_group(index % EXAMPLES, use_threads=False))
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(self.names[index // EXAMPLES], error) from None

    def write(self, number: int, store: bool = True) -> str:
        """Write a file if it is not there and has room; returns its name. store: False only names it."""
        indices = range(number * EXAMPLES, min((number + 1) * EXAMPLES, len(self.source)))
        name = f"{sha256_of_json([FORMAT, self.long, [_content(self.source, index) for index in indices]], 32)}.parquet"
        if _used_now(self.folder / name) or not store or not self._has_room():
            return name
        with contextlib.suppress(_NoRoom), whole_file(self.folder / name) as partial:
            with pq.ParquetWriter(
                partial, SCHEMA, compression="zstd", use_dictionary=False, write_statistics=False, write_page_checksum=True
            ) as writer:
                for index in indices:
                    writer.write_table(to_row(read_reduced(self.source, index, self.long)))
            if not self._has_room(partial.stat().st_size):
                raise _NoRoom
        return name

    def _has_room(self, size: int | None = None) -> bool:
        """Whether a file of this size, by default of the mean one, has room; files that no present run uses are removed for it, oldest first."""
        files = []
        for path in self.folder.glob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):  # another process removed it
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        used_bytes = sum(length for _, length, _ in files)
        room = min(self.most - used_bytes, shutil.disk_usage(self.folder).free - RESERVE)
        needed = size if size is not None else used_bytes // max(1, len(files))
        for used, length, path in sorted(files):
            if needed <= room or used >= self._begun - 1:
                break
            path.unlink(missing_ok=True)
            room += length
        return needed <= room

    def _file(self, name: str) -> pq.ParquetFile | None:
        """The open file of a name; None if it is not there."""
        if name not in self._open:
            path = self.folder / name
            try:
                self._open[name] = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
            except FileNotFoundError:
                return None
            except (OSError, pa.ArrowException) as error:
                raise self._damaged(name, error) from None
            if len(self._open) > OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(name)
        return self._open[name]

    def _damaged(self, name: str, error: Exception) -> BadData:
        return BadData(f"{self.folder / name} is damaged ({str(error).splitlines()[0]}). Remove it; the next run writes it again.")


class _NoRoom(Exception):
    """A finished file has no room."""


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files of processes that ended long ago."""
    for path in folder.glob(".*.partial"):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - ABANDONED:
                path.unlink()


def _used_now(path: Path) -> bool:
    """Whether a file is there; its time of change is then now."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _content(source: Source, index: int) -> list[str]:
    """Hashes of the picture and of the masks of an example."""
    image_id = source.ids[index]
    codes, human = source.masks(image_id)
    masks = hashlib.sha256(b"\n".join([*codes, np.asarray(human, bool).tobytes()])).hexdigest()
    if source.pictures is not None:
        return [source.pictures.digest(image_id), masks]
    image = np.ascontiguousarray(source.pixels(image_id))
    return [hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest(), masks]
