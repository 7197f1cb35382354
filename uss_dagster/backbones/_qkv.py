"""Queries, keys and values of an attention layer of timm, read during a forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Qkv:
    """What one layer computes from its input, each (images, tokens, heads, d) in float32.

    Parameters
    ----------
    queries, keys, values
        Before positions are added.
    rotated_queries, rotated_keys
        What the attention compares: with rotary positions where the model has them, otherwise the same.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    rotated_queries: Tensor
    rotated_keys: Tensor


class QkvReader:
    """Hooks into a layer; ``take`` gives what the last pass computed, once.

    A layer with one qkv projection is read where that gives its output. Layers with rotary positions (DINOv3, Perception Encoder) may add
    biases later or have three projections, so there the projections run again on the layer's input.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self._qkv: Qkv | None = None
        if rotary(layer):
            layer.register_forward_pre_hook(self._read_input, with_kwargs=True)
        else:
            layer.qkv.register_forward_hook(self._read_output)

    def take(self) -> Qkv | None:
        qkv, self._qkv = self._qkv, None
        return qkv

    def _read_output(self, module: Any, inputs: Any, output: Tensor) -> None:
        q, k, v = output.float().unflatten(2, (3, self.layer.num_heads, self.layer.head_dim)).unbind(2)
        q, k = self.layer.q_norm(q), self.layer.k_norm(k)
        self._qkv = Qkv(q, k, v, q, k)

    def _read_input(self, module: Any, inputs: Any, named: dict[str, Any]) -> None:
        from timm.layers import apply_rot_embed_cat

        layer, x, rope = self.layer, inputs[0], named.get("rope")
        if layer.qkv is not None:
            joined = layer.qkv(x)
            if getattr(layer, "q_bias", None) is not None:  # kept apart: that of the keys is zero
                import torch

                joined = joined + torch.cat((layer.q_bias, layer.k_bias, layer.v_bias))
            q, k, v = joined.unflatten(2, (3, layer.num_heads, -1)).unbind(2)
        else:
            q, k, v = (project(x).unflatten(2, (layer.num_heads, -1)) for project in (layer.q_proj, layer.k_proj, layer.v_proj))
        q, k, v = layer.q_norm(q).float(), layer.k_norm(k).float(), v.float()

        def rotated(tokens: Tensor) -> Tensor:
            prefix = layer.num_prefix_tokens
            turned = tokens.transpose(1, 2).clone()
            if rope is not None:
                turned[:, :, prefix:] = apply_rot_embed_cat(turned[:, :, prefix:], rope, half=getattr(layer, "rotate_half", False))
            return turned.transpose(1, 2)

        self._qkv = Qkv(q, k, v, rotated(q), rotated(k))


def rotary(layer: Any) -> bool:
    """Whether a layer is of timm's models with rotary positions, with as many heads of keys as of queries."""
    from timm.layers import AttentionRope
    from timm.models.eva import EvaAttention

    return isinstance(layer, EvaAttention | AttentionRope) and getattr(layer, "num_kv_groups", 1) == 1
