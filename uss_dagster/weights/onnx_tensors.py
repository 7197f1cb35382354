"""Reads tensors and nodes of an ONNX file without an ONNX runtime.

An ONNX file is a Protocol Buffers message. Only the fields that weights need are declared here: the initializers and the nodes of the
graph. The package `onnx` would read the same, but it is 40 MB and needed nowhere else here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uss_dagster.errors import BadData

_TYPES = {1: "<f4", 7: "<i8", 10: "<f2", 11: "<f8"}
_MESSAGES = {
    "Model": "graph 7 Graph",
    "Graph": "node 1 Node*, initializer 5 Tensor*",
    "Node": "input 1 STRING*, name 3 STRING, op_type 4 STRING",
    "Tensor": "dims 1 INT64*, data_type 2 INT32, float_data 4 FLOAT*, name 8 STRING, raw_data 9 BYTES",
}
"""Message → its fields, each with its number and type, and * where it is repeated; from onnx.proto."""


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
    from google.protobuf.message import DecodeError

    try:
        graph = _model_class().FromString(data).graph
        nodes = [Node(node.name, node.op_type, tuple(node.input)) for node in graph.node]
        return OnnxGraph({tensor.name: _values(tensor) for tensor in graph.initializer}, nodes)
    except (DecodeError, ValueError) as error:
        raise BadData(f"This is no ONNX file that can be read ({type(error).__name__}: {error}).") from error


def _values(tensor: Any) -> np.ndarray:
    if tensor.data_type not in _TYPES:
        return np.zeros(0, np.float32)  # shapes and flags of other types hold no weights
    values = np.frombuffer(tensor.raw_data, _TYPES[tensor.data_type]) if tensor.raw_data else np.array(tensor.float_data, np.float32)
    return values.reshape(tensor.dims)


def _model_class() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

    def declared(text: str) -> dict[str, object]:
        name, number, kind = text.rstrip("*").split()
        of = {"typeName": f".{kind}"} if kind in _MESSAGES else {"type": f"TYPE_{kind}"}
        return {"name": name, "number": int(number), "label": "LABEL_REPEATED" if text.endswith("*") else "LABEL_OPTIONAL", **of}

    messages = [{"name": name, "field": list(map(declared, fields.split(", ")))} for name, fields in _MESSAGES.items()]
    file = json_format.ParseDict({"name": "onnx", "syntax": "proto3", "messageType": messages}, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Model"))
