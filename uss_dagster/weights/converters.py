"""Weight files of other programs as tensors with timm's names."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.weights.onnx_tensors import OnnxGraph, read_graph

Tensors = dict[str, np.ndarray]

_LAYER = "backbone.encoder.layer"
_PROJECTIONS = {"attention/output/dense": "attn.proj", "mlp/fc1": "mlp.fc1", "mlp/fc2": "mlp.fc2"}


def dinov2_of_onnx(data: bytes) -> Tensors:
    """The encoder of an ONNX graph of Hugging Face's ``Dinov2Model``, with timm's names of ``vit_small_patch14_dinov2``.

    Exporters fold the weights of linear layers into anonymous tensors, transposed; they are identified by the node that uses them. The
    positions are two folded constants: one of the class token, one of the patches.
    """
    graph = read_graph(data)
    tensors = graph.tensors
    used_by = {node.name.removeprefix("/"): node.inputs for node in graph.nodes if node.operation == "MatMul"}

    def linear(path: str) -> np.ndarray:
        inputs = used_by.get(f"{path}/MatMul", ())
        weight = next((tensors[name] for name in inputs if name in tensors), None)
        if weight is None:
            raise BadData(f"The ONNX graph has no weight of '{path}'.")
        return np.ascontiguousarray(weight.T)

    width = tensors["backbone.embeddings.cls_token"].shape[-1]
    result: Tensors = {
        "cls_token": tensors["backbone.embeddings.cls_token"],
        "pos_embed": _positions(graph, width),
        "patch_embed.proj.weight": tensors["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": tensors["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": tensors["backbone.layernorm.weight"],
        "norm.bias": tensors["backbone.layernorm.bias"],
    }
    layers = {int(match[1]) for name in tensors if (match := re.match(rf"{re.escape(_LAYER)}\.(\d+)\.", name))}
    for layer in sorted(layers):
        source, path, target = f"{_LAYER}.{layer}", f"backbone/encoder/layer.{layer}", f"blocks.{layer}"
        for norm in ("norm1", "norm2"):
            for part in ("weight", "bias"):
                result[f"{target}.{norm}.{part}"] = tensors[f"{source}.{norm}.{part}"]
        attention = [f"attention/attention/{name}" for name in ("query", "key", "value")]
        result[f"{target}.attn.qkv.weight"] = np.concatenate([linear(f"{path}/{name}") for name in attention])
        result[f"{target}.attn.qkv.bias"] = np.concatenate([tensors[f"{source}.{name.replace('/', '.')}.bias"] for name in attention])
        for name, other in _PROJECTIONS.items():
            result[f"{target}.{other}.weight"] = linear(f"{path}/{name}")
            result[f"{target}.{other}.bias"] = tensors[f"{source}.{name.replace('/', '.')}.bias"]
        for number in (1, 2):
            result[f"{target}.ls{number}.gamma"] = tensors[f"{source}.layer_scale{number}.lambda1"]
    return result


def _positions(graph: OnnxGraph, width: int) -> np.ndarray:
    """(1, 1 + patches, width): the positions of the class token and of the patches."""
    folded = [
        tensor for name, tensor in graph.tensors.items() if name.startswith("onnx::") and tensor.ndim == 3 and tensor.shape[-1] == width
    ]
    first = [tensor for tensor in folded if tensor.shape[1] == 1]
    patches = [tensor for tensor in folded if tensor.shape[1] > 1]
    if len(first) != 1 or len(patches) != 1:
        raise BadData("The ONNX graph does not hold the positions where they are expected.")
    return np.concatenate([first[0], patches[0]], axis=1)


def efficientnet_lite_of_pth(data: bytes) -> Tensors:
    """EfficientNet-Lite0 as a PyTorch file, with timm's names of ``tf_efficientnet_lite0``.

    Both list the same tensors in the same order; shapes are compared. The file is a pickle, of which only tensors are read.
    """
    import torch

    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import timm

    state: Mapping[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    expected = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if [tuple(v.shape) for v in state.values()] != [tuple(v.shape) for v in expected.values()]:
        raise BadData("The file does not hold the tensors of EfficientNet-Lite0.")
    # safetensors writes the memory of an array as it lies, so views must become plain arrays first.
    return {name: np.ascontiguousarray(value.numpy()) for name, value in zip(expected, state.values(), strict=True)}
