"""What a folder outside the project holds, as one hash: DVC does not see such folders, so a cell of the plan carries it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from uss_dagster.files import read_json, write_whole
from uss_dagster.hashing import sha256_of_file
from uss_dagster.planning.layout import Layout

_KNOWN = "content.json"


def content_of(root: Path, paths: Iterable[Path]) -> str | None:
    """A hash over the names and bytes of all files below ``paths`` (folders or files; relative ones are of ``root``); None where one is not
    on this machine. Hidden files do not count. What was read once is not read again while its size and time stay: see ``.uss/content.json``.
    """
    store = Layout(root).private / _KNOWN
    known: dict[str, list[object]] = read_json(store)
    fresh: dict[str, list[object]] = {}
    total = hashlib.sha256()
    for given in paths:
        top = root / given
        if not top.exists():
            return None
        for path in _files(top):
            state = path.stat()
            name = os.path.abspath(path)
            entry = known.get(name)
            if entry is None or entry[:2] != [state.st_size, state.st_mtime_ns]:
                entry = [state.st_size, state.st_mtime_ns, sha256_of_file(path)]
            fresh[name] = entry
            total.update(f"{path.relative_to(top).as_posix()}\0{entry[2]}\n".encode())
        total.update(b"\n")
    if any(known.get(name) != entry for name, entry in fresh.items()):
        merged = {name: entry for name, entry in {**known, **fresh}.items() if name in fresh or os.path.exists(name)}
        write_whole(store, json.dumps(merged, sort_keys=True) + "\n")
    return total.hexdigest()[:16]


def seen_at(root: Path, paths: Iterable[Path]) -> str:
    """A cheap stand-in for ``content_of``: names, sizes and times only; it may change where the content does not."""
    total = hashlib.sha256()
    for given in paths:
        for path in _files(root / given):
            state = path.stat()
            total.update(f"{path}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
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
