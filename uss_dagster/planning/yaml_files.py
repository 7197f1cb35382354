"""YAML read with the line of every key, so that an error can say where it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from uss_dagster.errors import UsageError

DEEPEST, MOST_VALUES = 32, 100_000
"""Levels, and values with those of expanded anchors, that a file may have."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml is ten times faster
    """Takes every name for text: an entry may be called 2."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


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
            node = yaml.compose(text, Loader=_Loader)
            self._check_size(node)
            data = yaml.load(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            raise UsageError(f"{self.shown}:{line}: not valid YAML: {error.problem or error.context}.") from None
        except RecursionError:
            raise UsageError(f"{self.shown}: nested deeper than {DEEPEST} levels.") from None
        except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
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

    def _check_size(self, node: yaml.Node | None) -> None:
        """Refuse what would not end, or not soon, once anchors are expanded."""
        count, waiting = 0, [(node, 0)] if node is not None else []
        while waiting:
            current, depth = waiting.pop()
            count += 1
            if depth > DEEPEST:
                at = f"{self.shown}:{current.start_mark.line + 1}"
                raise UsageError(f"{at}: nested deeper than {DEEPEST} levels; does an anchor (&) contain itself?")
            if count > MOST_VALUES:
                raise UsageError(f"{self.shown}: more than {MOST_VALUES:,} values once anchors (&) are expanded.")
            if isinstance(current, yaml.MappingNode):
                if strange := [key for key, _ in current.value if not isinstance(key, yaml.ScalarNode)]:
                    raise UsageError(f"{self.shown}:{strange[0].start_mark.line + 1}: a name is text, not a list or a mapping.")
                waiting += [(value, depth + 1) for _, value in current.value]
            elif isinstance(current, yaml.SequenceNode):
                waiting += [(value, depth + 1) for value in current.value]

    def _record(self, node: yaml.Node, path: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            here = (*path, str(key.value))
            if here in self._lines:
                raise UsageError(f"{self.shown}:{key.start_mark.line + 1}: '{key.value}' stands twice (first in line {self._lines[here]}).")
            self._lines[here] = key.start_mark.line + 1
            self._record(value, here)
