"""The formats by name: the modules in ``kinds``, and those that other packages name in the entry point group ``uss_dagster.formats``."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Collection
from pathlib import Path
from typing import Protocol, cast

from uss_dagster.errors import UsageError, check_choice
from uss_dagster.formats import kinds
from uss_dagster.formats.base import ASPECTS, FormatSpec, MaskSet

GROUP = "uss_dagster.formats"


class Format(Protocol):
    """A module of a format."""

    SPEC: FormatSpec

    def write(self, masks: MaskSet, folder: Path) -> None:
        """Write a set into a folder that is there."""

    def read(self, path: Path) -> MaskSet:
        """Open what ``write``, or another program, wrote."""


def names() -> list[str]:
    """All formats, sorted, without importing them."""
    return sorted(_modules())


def load(name: str) -> Format:
    """The module of a format.

    Raises
    ------
    UsageError
        There is no such format, or its module cannot be imported.
    """
    modules = _modules()
    check_choice("format", name, modules)
    try:
        return cast(Format, importlib.import_module(modules[name]))
    except ImportError as error:
        raise UsageError(f"The format '{name}' cannot be used: {error}. Install what is missing.") from error


def specs() -> list[FormatSpec]:
    """What all formats say of themselves, by name."""
    return [load(name).SPEC for name in names()]


def _modules() -> dict[str, str]:
    """Name → dotted module."""
    own = {module.name: f"{kinds.__name__}.{module.name}" for module in pkgutil.iter_modules(kinds.__path__) if module.name[0] != "_"}
    return {point.name: point.module for point in importlib.metadata.entry_points(group=GROUP)} | own


def table(rows: list[FormatSpec]) -> list[str]:
    """A Markdown table: a row a format, a column an aspect."""
    lines = [f"| format | {' | '.join(ASPECTS)} |", f"| --- | {' | '.join('---' for _ in ASPECTS)} |"]
    return lines + [f"| `{spec.name}` | {' | '.join(spec.keeps(aspect) for aspect in ASPECTS)} |" for spec in rows]


def remarks(spec: FormatSpec, present: Collection[str] = tuple(ASPECTS)) -> list[str]:
    """A sentence for each reason why a format does not keep something. present: the aspects that are asked for."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for verb, aspects in (("not kept", spec.loses), ("changed", spec.changes)):
        for aspect, why in aspects.items():
            if aspect in present:
                reasons.setdefault((verb, why), []).append(aspect)
    return [f"{verb}: {', '.join(aspects)}. {why}" for (verb, why), aspects in reasons.items()]
