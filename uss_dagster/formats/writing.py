"""JSON files that grow while images are read, so that memory does not grow with masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from uss_dagster.files import whole_file

Add = Callable[[object], None]
"""Appends a value to a list in a file."""


@contextmanager
def json_list(path: Path, before: str = "[", after: Callable[[], str] = lambda: "]") -> Iterator[Add]:
    """A JSON list, one value a line; the file exists only when whole. before, after: the text around the values."""
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as text:
        text.write(before)
        first = True

        def add(value: object) -> None:
            nonlocal first
            text.write(("\n" if first else ",\n") + packed(value))
            first = False

        yield add
        text.write(f"\n{after()}\n")


def packed(value: object) -> str:
    """JSON on one line, without numbers that JSON does not have."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
