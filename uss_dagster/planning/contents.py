"""What a folder outside the project holds, as one hash: DVC does not see such folders, so a cell of the plan carries it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from uss_dagster.files import read_json, write_whole
from uss_dagster.hashing import sha256_of_file
from uss_dagster.planning.layout import Layout

_KNOWN = "content.json"


class FileHashes:
    """Hashes of files, read again only when size or time changed; stored in ``.uss/content.json``.

    Parameters
    ----------
    root
        The project folder.
    """

    def __init__(self, root: Path) -> None:
        self._store = Layout(root).private / _KNOWN
        self._known: dict[str, list[object]] = read_json(self._store)
        self._changed = False

    def hash_of(self, path: Path, compute: Callable[[Path], str] = sha256_of_file, kind: str = "") -> str:
        """``compute`` of a file. kind: tells hashes of the same file by other functions apart."""
        state, name = path.stat(), f"{os.path.abspath(path)}{kind and ':' + kind}"
        entry = self._known.get(name)
        if entry is None or entry[:2] != [state.st_size, state.st_mtime_ns]:
            entry = self._known[name] = [state.st_size, state.st_mtime_ns, compute(path)]
            self._changed = True
        return str(entry[2])

    def save(self) -> None:
        """Write what changed; files that are gone are forgotten."""
        if self._changed:
            present = {name: entry for name, entry in self._known.items() if os.path.exists(name.rpartition(":")[0] or name)}
            write_whole(self._store, json.dumps(present, sort_keys=True) + "\n")


def content_of(root: Path, paths: Iterable[Path]) -> str | None:
    """A hash over the names and bytes of all files below ``paths`` (folders or files; relative ones are of ``root``); None where one is not
    on this machine. Hidden files do not count.
    """
    hashes, total = FileHashes(root), hashlib.sha256()
    for path in paths:
        top = root / path
        if not top.exists():
            return None
        for file in _files(top):
            total.update(os.fsencode(file.relative_to(top).as_posix()) + f"\0{hashes.hash_of(file)}\n".encode())
        total.update(b"\n")
    hashes.save()
    return total.hexdigest()[:16]


def seen_at(root: Path, paths: Iterable[Path]) -> str:
    """A cheap stand-in for ``content_of``: names, sizes and times only; it may change where the content does not."""
    total = hashlib.sha256()
    for given in paths:
        for path in _files(root / given):
            state = path.stat()
            total.update(os.fsencode(path) + f"\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return total.hexdigest()[:16]


def _files(top: Path) -> Iterator[Path]:
    """The files below a folder by path, or the file itself; hidden ones are left out."""
    if top.is_file():
        yield top
        return
    for folder, folders, names in os.walk(top, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and (path := Path(folder, name)).is_file():
                yield path
