"""Small files that other processes read: written so that each exists only when whole, and read whatever is in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

JsonObject = Mapping[str, object]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to beside ``path``, which takes its place when the block has ended well; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: JsonObject) -> None:
    """Write an object as JSON."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content), encoding="utf-8")


def read_json(path: Path) -> JsonObject:
    """The object in a JSON file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
