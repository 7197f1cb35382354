"""Class trees: the names of a dataset's regions and how they nest (scene → object → part)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.regions.regions import ancestor_matrix

INNER, FOREGROUND, BACKGROUND, IGNORE = -1, 0, 1, 2
KIND_NAMES = {INNER: "inner", FOREGROUND: "foreground", BACKGROUND: "background", IGNORE: "ignore"}
_KIND_IDS = {name: kind for kind, name in KIND_NAMES.items()}

Nested = Mapping[str, "Nested | str"]
"""Name → children, or 'foreground', 'background' or 'ignore' for a leaf."""


@dataclass(frozen=True)
class ClassTree:
    """Classes in preorder: node 0 is the root (parent -1); a leaf is foreground, background or ignore.

    Parameters
    ----------
    names : tuple of str
        Name of each class.
    parent : tuple of int
        Index of the parent of each class, smaller than its own; -1 for the root.
    kind : tuple of int
        ``INNER`` for the root and inner nodes, else ``FOREGROUND``, ``BACKGROUND`` or ``IGNORE``.
    """

    names: tuple[str, ...]
    parent: tuple[int, ...]
    kind: tuple[int, ...]

    def __post_init__(self) -> None:
        n = len(self.names)
        if not (n == len(self.parent) == len(self.kind)) or n < 2:
            raise BadData(f"A class tree needs names, parents and kinds of one length ≥ 2, got {n}, {len(self.parent)}, {len(self.kind)}.")
        if self.parent[0] != -1:
            raise BadData(f"The root of a class tree has parent -1, got {self.parent[0]}.")
        for node in range(1, n):
            if not 0 <= self.parent[node] < node:
                raise BadData(
                    f"Class '{self.names[node]}' (node {node}) has parent {self.parent[node]}; parents come before their children."
                )
        inner = set(self.parent) - {-1}
        for node in range(n):
            if (node in inner or node == 0) != (self.kind[node] == INNER):
                raise BadData(
                    f"Class '{self.names[node]}' (node {node}) is of kind {self.kind[node]}, but "
                    + ("has children." if node in inner else "has no children.")
                )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_nested(cls, nested: Nested, root: str = "scene") -> ClassTree:
        """From a mapping name → children; a leaf's value is 'foreground', 'background' or 'ignore'."""
        names, parent, kind = [root], [-1], [INNER]

        def add(children: Nested, above: int) -> None:
            for name, value in children.items():
                node = len(names)
                names.append(name)
                parent.append(above)
                if isinstance(value, Mapping):
                    kind.append(INNER)
                    add(value, node)
                elif value in ("foreground", "background", "ignore"):
                    kind.append(_KIND_IDS[value])
                else:
                    raise BadData(f"Class '{name}' is {value!r}, expected children or one of foreground, background, ignore.")

        add(nested, 0)
        return cls(tuple(names), tuple(parent), tuple(kind))

    @classmethod
    def from_arrays(cls, parent: Sequence[int], kind: Sequence[int], names: Sequence[str] | None = None) -> ClassTree:
        """From the pair (parent array, kind array) that fixtures and other programs use."""
        labels = tuple(names) if names is not None else tuple(f"node{i}" for i in range(len(parent)))
        return cls(labels, tuple(int(p) for p in parent), tuple(int(k) for k in kind))

    @cached_property
    def ancestors(self) -> np.ndarray:
        """Bool (n, n): ``ancestors[a, b]`` where a is b or lies above b. The row of the root is all true."""
        return ancestor_matrix(self.parent)

    @cached_property
    def depth(self) -> np.ndarray:
        """Depth of each node, the root 0."""
        return np.asarray(self.ancestors.sum(axis=0) - 1)

    def at_depth(self, depth: int) -> np.ndarray:
        """For each node, its ancestor at this depth (itself where it is not deeper)."""
        result = np.arange(len(self))
        for node in range(1, len(self)):
            if self.depth[node] > depth:
                result[node] = result[self.parent[node]]
        return result

    def to_json(self) -> str:
        rows = [{"id": i, "name": self.names[i], "parent": self.parent[i], "kind": KIND_NAMES[self.kind[i]]} for i in range(len(self))]
        return json.dumps({"classes": rows}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ClassTree:
        rows = json.loads(text)["classes"]
        if [r["id"] for r in rows] != list(range(len(rows))):
            raise BadData("Class ids must be 0, 1, 2, … in order.")
        return cls(tuple(r["name"] for r in rows), tuple(r["parent"] for r in rows), tuple(_KIND_IDS[r["kind"]] for r in rows))
