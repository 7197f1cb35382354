"""Metrics and plots of DVC: which files a stage declares as such, and what of them stands in a materialisation's metadata."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

MOST_NUMBERS = 100
"""Numbers of one stage's metrics that are reported; the rest stays in its files."""
MOST_ROWS = 20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_AT_TOP = re.compile(r"^(metrics|plots):", re.MULTILINE)


def declared_at_top(file: Path) -> tuple[list[str], list[str]]:
    """Metrics and plots that a dvc.yaml declares beside its stages, as paths from its folder. Those with a template are left out."""
    text = file.read_text(encoding="utf-8")
    if not _AT_TOP.search(text):
        return [], []
    content = yaml.load(text, Loader=_LOADER) or {}
    metrics = [str(item) for item in content.get("metrics") or ()]
    plots = [path for item in content.get("plots") or () for path in _plotted(item)]
    return [path for path in metrics if "${" not in path], [path for path in plots if "${" not in path]


def _plotted(item: object) -> Iterator[str]:
    """The files of one plot: its name, unless ``x`` or ``y`` name files with their columns."""
    if not isinstance(item, Mapping):
        yield str(item)
        return
    for name, options in item.items():
        axes = [options[axis] for axis in ("x", "y") if isinstance(options, Mapping) and isinstance(options.get(axis), Mapping)]
        yield from dict.fromkeys(str(path) for axis in axes for path in axis) if axes else (str(name),)


def numbers(files: Sequence[Path]) -> dict[str, float]:
    """The numbers in files of metrics (JSON, YAML, TOML), named by their keys joined with dots; a file that cannot be read has none.

    A name that stands in several files is followed by the file's name in brackets.
    """
    values: dict[str, float] = {}
    for path in files:
        for name, value in _numbers_in(_content(path), ""):
            values[f"{name} ({path.stem})" if name in values else name] = value
    return dict(list(values.items())[:MOST_NUMBERS])


def _numbers_in(content: object, prefix: str) -> Iterator[tuple[str, float]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            yield from _numbers_in(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(content, int | float) and not isinstance(content, bool) and math.isfinite(content) and prefix:
        yield prefix, content


def rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Columns of a plot's data (CSV, TSV, or JSON with a list of records), and at most ``MOST_ROWS`` rows of it, evenly spaced."""
    try:
        if path.suffix in (".csv", ".tsv"):
            with path.open(encoding="utf-8", newline="") as lines:
                head, *body = csv.reader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
        else:
            records = next(_records(_content(path)), [])
            head = list(dict.fromkeys(str(name) for record in records for name in record))
            body = [[str(record.get(name, "")) for name in head] for record in records]
    except (OSError, ValueError, csv.Error):
        return [], []
    step = max(1, (len(body) - 1) / (MOST_ROWS - 1)) if body else 1
    places = dict.fromkeys(round(number * step) for number in range(MOST_ROWS))
    return head, [body[place] for place in places if place < len(body)]


def _records(content: object) -> Iterator[list[Mapping[str, object]]]:
    """The first list of objects: the content itself, or a value in it."""
    if isinstance(content, list) and content and all(isinstance(record, Mapping) for record in content):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _records(value)


def _content(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix in (".yaml", ".yml"):
            return yaml.load(text, Loader=_LOADER)
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError):
        return None


def inside(path: str, outs: Sequence[str]) -> bool:
    """Whether an output is this path or a folder that holds it."""
    return any(path == out or path.startswith(f"{out}/") for out in outs)


def from_root(folder: str, path: str) -> str:
    """A path that starts from a folder, from the project's root."""
    return os.path.normpath(os.path.join(folder, path)).replace(os.sep, "/")
