"""YAML read with the line of every key, so that an error can say where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from uss_dagster.errors import UsageError


class YamlFile:
    """A mapping read from a file. ``data`` is plain Python; ``at(path)`` is 'file:line' of a key, or of the nearest one above it."""

    def __init__(self, path: Path, shown: str | None = None) -> None:
        self.path, self.shown = path, shown or path.name
        self._lines: dict[tuple[str, ...], int] = {}
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UsageError(f"{self.shown} is not there. Run this in the project's folder, or `git checkout {self.shown}`.") from None
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.shown} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
        try:
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster
            node, data = yaml.compose(text, Loader=loader), yaml.load(text, Loader=loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise UsageError(f"{self.shown}:{line}: not valid YAML: {error.problem or error.context}.") from None
        except yaml.YAMLError as error:
            raise UsageError(f"{self.shown}: not valid YAML: {error}.") from None
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise UsageError(f"{self.shown}:1: expected a mapping (name: value), got {type(data).__name__}.")
        self.data: dict[str, Any] = data
        if node is not None:
            self._record(node, ())

    def at(self, *keys: str) -> str:
        """'file:line' of a nested key."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self._lines:
                return f"{self.shown}:{self._lines[keys[:length]]}"
        return self.shown

    def _record(self, node: yaml.Node, path: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            here = (*path, str(key.value))
            if here in self._lines:
                raise UsageError(f"{self.shown}:{key.start_mark.line + 1}: '{key.value}' stands twice (first in line {self._lines[here]}).")
            self._lines[here] = key.start_mark.line + 1
            self._record(value, here)
