"""What a method knows of an image beside its regions: thresholds, eigenvalues, stop reasons. One channel, closed unless somebody collects.

A method, or what it calls, hands facts out with ``note``; the stage ``segments`` collects them where an entry says ``explain: true``. Nothing depends on
them: with the channel closed, results are the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

Fact = str | int | float | bool | None | Sequence["Fact"] | Mapping[str, "Fact"] | np.ndarray
"""What JSON can hold, and arrays."""
NOTES = "notes.json"
"""In a folder of scores: the facts of its gallery's images."""
DIGITS = 6
"""Significant digits of a number that is written."""
_collected: ContextVar[dict[str, Fact] | None] = ContextVar("collected", default=None)


def note(**facts: Fact) -> None:
    """Hand out facts of the image at hand; a later one of the same name replaces the earlier. Does nothing where nobody collects."""
    if (into := _collected.get()) is not None:
        into.update(facts)


@contextmanager
def collecting(wanted: bool = True) -> Iterator[dict[str, Fact]]:
    """Open the channel; gives the facts that are handed out inside. wanted: if false the channel is closed inside."""
    into: dict[str, Fact] = {}
    token = _collected.set(into if wanted else None)
    try:
        yield into
    finally:
        _collected.reset(token)


def to_json(images: Mapping[str, Mapping[str, Fact]]) -> str:
    """The facts of images as text, one image a line; the same facts give the same text. Numbers that are not finite become null."""
    lines = [f"{json.dumps(name)}: {json.dumps(_plain(facts), ensure_ascii=False, sort_keys=True)}" for name, facts in images.items()]
    return "{" + ",\n".join(lines) + "}\n"


def _plain(value: Fact) -> Fact:
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
