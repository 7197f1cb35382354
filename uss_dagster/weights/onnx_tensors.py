"""Reads tensors and nodes of an ONNX file without an ONNX runtime.

An ONNX file is a Protocol Buffers message. Only the fields that weights need are read: the initializers and the nodes of the graph. The
package `onnx` would read the same, but it is 40 MB and needed nowhere else here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from uss_dagster.errors import BadData

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5
_TYPES: dict[int, np.dtype] = {1: np.dtype("<f4"), 7: np.dtype("<i8"), 10: np.dtype("<f2"), 11: np.dtype("<f8")}


@dataclass(frozen=True)
class Node:
    """One operation of the graph."""

    name: str
    operation: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """Initializers by name, and all nodes in order."""

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)


def read_graph(data: bytes) -> OnnxGraph:
    """The graph of an ONNX file.

    Raises
    ------
    BadData
        The bytes are no ONNX file, or a tensor has a type or size that does not fit.
    """
    graph = OnnxGraph()
    try:
        view = memoryview(data)
        for number, value in _fields(view):
            if number == _GRAPH and isinstance(value, memoryview):
                for part, content in _fields(value):
                    if part == _INITIALIZER and isinstance(content, memoryview):
                        name, tensor = _tensor(content)
                        graph.tensors[name] = tensor
                    elif part == _NODE and isinstance(content, memoryview):
                        graph.nodes.append(_node(content))
    except (IndexError, ValueError, KeyError, UnicodeDecodeError) as error:
        raise BadData(f"This is no ONNX file that can be read ({type(error).__name__}: {error}).") from error
    return graph


def _fields(view: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of one message: integers as such, everything else as bytes."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(view, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = _varint(view, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(view):
            raise ValueError("a field reaches beyond the end")
        yield tag >> 3, view[at : at + size]
        at += size


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("an integer is too long")


def _tensor(view: memoryview) -> tuple[str, np.ndarray]:
    shape: list[int] = []
    name, kind = "", 0
    raw: memoryview | None = None
    floats: np.ndarray | None = None
    for number, value in _fields(view):
        if number == 1:  # dims: one a field, or packed
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 4 and isinstance(value, memoryview):
            floats = np.frombuffer(value, "<f4")
        elif number == 8 and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif number == 9 and isinstance(value, memoryview):
            raw = value
    if kind not in _TYPES:
        return name, np.zeros(0, np.float32)  # shapes and flags of other types hold no weights
    values = np.frombuffer(raw, _TYPES[kind]) if raw is not None else floats
    if values is None:
        values = np.zeros(0, _TYPES[kind])
    return name, values.reshape(shape)


def _packed(view: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(view):
        value, at = _varint(view, at)
        values.append(value)
    return values


def _node(view: memoryview) -> Node:
    inputs, name, operation = [], "", ""
    for number, value in _fields(view):
        if isinstance(value, memoryview) and number in (1, 3, 4):
            text = bytes(value).decode()
            if number == 1:
                inputs.append(text)
            elif number == 3:
                name = text
            else:
                operation = text
    return Node(name, operation, tuple(inputs))
