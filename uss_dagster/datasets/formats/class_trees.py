"""Class trees as YAML files beside the adapters: how a dataset's classes nest, and which official label is which class.

A file is a nested mapping; its top level is what lies directly in the scene. A leaf says its kind (foreground, background or ignore) and
after it the official label ids that mean it, none where no label does::

    animal:
      bird: foreground 3
      cat: foreground 8
    sky: background 0
    void: ignore 254 255

An adapter with one set of labels has ``<name>.yaml``; one with several has ``<name>_<set>.yaml`` for each, and a function
``classes(params) -> Classes`` that says which of them it yields (``SPEC.classes`` is then that of the default parameters). In the same
way ``truth(params) -> str`` says which kind of ground truth it yields, and ``class_set(params) -> str`` the name of the classes, where
parameters decide that. ``<name>_about.yaml`` is no class tree: it holds the facts of a dataset, see ``base.dataset_spec``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import yaml

from uss_dagster.datasets.base import DatasetSpec
from uss_dagster.errors import UsageError
from uss_dagster.regions import ClassTree
from uss_dagster.regions.classes import FOREGROUND, INNER

_FOLDER = Path(__file__).parent.parent
_KINDS = ("foreground", "background", "ignore")
Nested = dict[str, "str | Nested"]
"""Class → its kind, or the classes below it."""
_Row = tuple[tuple[str, ...], str, str, tuple[int, ...], int]
"""(names above, name, kind or '' for a class with children, label ids, line)."""


@dataclass(frozen=True)
class Classes:
    """tree: the classes. node: official label → node of the tree; labels are ids, unless the adapter says otherwise."""

    tree: ClassTree
    node: Mapping[Any, int]


@cache
def load_classes(name: str) -> Classes:
    """The class tree of ``<name>.yaml`` beside the adapters."""
    return read_classes(_FOLDER / f"{name}.yaml")


def read_classes(path: Path) -> Classes:
    """Read the class tree of one YAML file.

    Raises
    ------
    UsageError
        The file is missing or has a mistake, which is named with its line.
    """
    nested: Nested = {}
    ids: list[tuple[int, ...]] = []  # of the root and every class after it, in the order of the file, which is the tree's
    lines: dict[int, int] = {}
    for above, name, kind, labels, line in _rows(path):
        siblings = nested
        for part in above:
            siblings = cast(Nested, siblings[part])
        if name in siblings:
            raise UsageError(f"{path.name}:{line}: class '{name}' stands twice below '{above[-1] if above else 'the scene'}'.")
        for label in labels:
            if label in lines:
                raise UsageError(f"{path.name}:{line}: label {label} stands twice (first in line {lines[label]}).")
            lines[label] = line
        siblings[name] = kind or {}
        ids.append(labels)
    node = {label: number for number, labels in enumerate(ids, start=1) for label in labels}
    return Classes(ClassTree.from_nested(nested), MappingProxyType(node))


def classes_in_groups(groups: Mapping[str, Sequence[tuple[int, str]]]) -> Classes:
    """The tree of foreground classes in groups.

    Parameters
    ----------
    groups : mapping
        Name of each group → (label id, name) of its classes. Those of the group '' lie directly in the scene.
    """
    names, parent, kind, node = ["scene"], [-1], [INNER], {}
    for group, members in groups.items():
        above = 0
        if group:
            above = len(names)
            names.append(group)
            parent.append(0)
            kind.append(INNER)
        for label, name in members:
            node[label] = len(names)
            names.append(name)
            parent.append(above)
            kind.append(FOREGROUND)
    return Classes(ClassTree(tuple(names), tuple(parent), tuple(kind)), MappingProxyType(node))


def classes_of(module: Any, params: Any) -> ClassTree | None:
    """The class tree that an adapter (its module) yields with these parameters, or None where it knows no classes."""
    if not hasattr(module, "classes"):
        return module.SPEC.classes
    classes = module.classes(params)
    return classes.tree if classes else None


def class_set_of(module: Any, params: Any) -> str:
    """The name of the classes that an adapter (its module) yields with these parameters: what its ``class_set`` says, else its own name.

    Figures of papers on one class set say nothing of another. No file of the dataset is read.
    """
    return str(module.class_set(params)) if hasattr(module, "class_set") else str(module.SPEC.name)


def truth_of(module: Any, params: Any) -> str:
    """The kind of ground truth that an adapter (its module) yields: what its ``truth`` says, else its parameter of that name, or its SPEC."""
    return module.truth(params) if hasattr(module, "truth") else getattr(params, "truth", module.SPEC.truth)


def spec_of(module: Any, params: Any) -> DatasetSpec:
    """The spec of an adapter (its module) with the truth and classes that it yields with these parameters."""
    return replace(module.SPEC, truth=truth_of(module, params), classes=classes_of(module, params))


def _rows(path: Path) -> Iterator[_Row]:
    """A row for every class, parents first."""
    try:
        text = path.read_text(encoding="utf-8")
        # Nodes, not values: they know their line, and a class named 'no' or '3' stays the text it is.
        root = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise UsageError(f"{path} is not there: a dataset with classes has its class tree in a YAML file beside it.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UsageError(f"{path.name}:{mark.line + 1 if mark else 1}: not valid YAML: {error.problem or error.context}.") from None
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise UsageError(f"{path.name}:1: expected a mapping from class names to kinds or to more classes.")
    yield from _children(path.name, root, ())


def _children(file: str, mapping: yaml.MappingNode, above: tuple[str, ...]) -> Iterator[_Row]:
    for key, value in mapping.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{file}:{line}: the name of a class is text, not a list or a mapping.")
        if isinstance(value, yaml.MappingNode) and value.value:
            yield above, key.value, "", (), line
            yield from _children(file, value, (*above, key.value))
            continue
        kind, *labels = value.value.split() if isinstance(value, yaml.ScalarNode) and value.value.split() else [""]
        if kind not in _KINDS or not all(label.isdecimal() for label in labels):
            raise UsageError(
                f"{file}:{line}: class '{key.value}' must have classes below it, or be one of {', '.join(_KINDS)} followed by its "
                "label ids, such as 'foreground 15'."
            )
        yield above, key.value, kind, tuple(map(int, labels)), line
