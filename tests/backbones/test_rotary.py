"""Facets of models with rotary positions, against what timm's attention gives from them, on random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from backbones.test_vit import extractor, noise, softmax

MODELS = [
    ("timm:vit_small_patch16_dinov3", (64, 96)),  # a class token and four registers; one projection, no bias
    ("timm:vit_pe_spatial_tiny_patch16_512", (64, 48)),
    ("timm:eva02_tiny_patch14_224", (56, 70)),  # three projections
]


@pytest.mark.parametrize(("model", "size"), MODELS)
def test_facets_of_a_model_with_rotary_positions(model: str, size: tuple[int, int]) -> None:
    extract = extractor(model=model)
    layer = extract.model.blocks[-1].attn
    seen: list[tuple[Any, Any]] = []
    layer.register_forward_hook(lambda module, inputs, named, output: seen.append((inputs[0], output)), with_kwargs=True)
    takes: list[Any] = []
    take = extract.qkv.take
    extract.qkv.take = lambda: takes.append(take()) or takes[-1]
    facets = extract([noise(*size)])[0]

    qkv, prefix = takes[0], extract.model.num_prefix_tokens
    grid = (size[0] // extract.cell[0], size[1] // extract.cell[1])
    for facet in ("queries", "keys", "values"):
        assert facets[facet].shape[:2] == grid
        assert np.allclose(facets[facet].reshape(np.prod(grid), -1), getattr(qkv, facet)[0, prefix:].flatten(1).numpy())
    q, k, v = (x[0].numpy().astype(np.float64).transpose(1, 0, 2) for x in (qkv.rotated_queries, qkv.rotated_keys, qkv.values))
    attention = softmax(q @ k.transpose(0, 2, 1) * layer.scale)
    import torch

    mixed = torch.from_numpy((attention @ v).transpose(1, 0, 2).reshape(q.shape[1], -1).astype(np.float32))
    with torch.inference_mode():
        output = layer.proj(layer.norm(mixed))
    assert np.allclose(output.numpy(), seen[0][1][0].numpy(), atol=1e-5), "the attention of these queries and keys is the model's own"
    patches = attention.mean(0)[prefix:, prefix:]
    assert np.allclose(facets["attention"], patches / patches.sum(1, keepdims=True), atol=1e-6)
    assert not np.allclose(qkv.keys[0, prefix:].numpy(), qkv.rotated_keys[0, prefix:].numpy()), "positions turn the keys"


def test_a_checkpoint_of_a_rotary_model_is_loaded(tmp_path: Any) -> None:
    from safetensors.torch import save_file

    model = "timm:vit_pe_spatial_tiny_patch16_512"
    image = noise(48, 64)
    first = extractor(model=model, seed=1, facets=("tokens",))
    save_file(first.model.state_dict(), tmp_path / "model.safetensors")
    again = extractor(model=model, checkpoint=str(tmp_path / "model.safetensors"), facets=("tokens",))
    assert np.array_equal(first([image])[0]["tokens"], again([image])[0]["tokens"])
