"""What a method knows of an image beside its regions: thresholds, eigenvalues, stop reasons.

A method, or what it calls, records facts with ``note``; the stage ``segments`` collects them where an entry says ``explain: true``, and elsewhere they
are dropped. Regions do not depend on them.
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
    """Record facts of the present image; a later one replaces an earlier one of the same name. Does nothing outside ``collecting``."""
    if (collected := _collected.get()) is not None:
        collected.update(facts)


@contextmanager
def collecting(wanted: bool = True) -> Iterator[dict[str, Fact]]:
    """Collect the facts that are recorded inside the block. wanted: if false, they are dropped."""
    facts: dict[str, Fact] = {}
    token = _collected.set(facts if wanted else None)
    try:
        yield facts
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
