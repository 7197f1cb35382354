"""Models of timm with images of another size than the one they were made for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from timm.models.eva import Eva
from timm.models.hiera import Hiera, Reroll, Unroll
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn.functional import interpolate


def any_size(model: Any) -> Any:
    """The model. The positions of a Hiera are interpolated to the size that ``resize`` sets."""
    if isinstance(model, Hiera):
        model._pos_embed = partial(_add_positions, model, model._pos_embed)  # type: ignore[method-assign]
    return model


def resize(model: Any, side: int) -> None:
    """Set a Hiera to square images with this side, a multiple of 32, in pixels; other models take each size as it is."""
    if not isinstance(model, Hiera):
        return
    tokens = [side // stride for stride in model.patch_stride]
    if model.unroll.size == tokens:
        return
    unroll = Unroll((side, side), model.patch_stride, model.unroll.schedule)
    reroll = Reroll((side, side), model.patch_stride, unroll.schedule, model.stage_ends, model.q_pool)
    model.mask_spatial_shape = [count // unit for count, unit in zip(tokens, model.mask_unit_size, strict=True)]
    model.unroll.size, model.reroll.size, model.reroll.schedule = unroll.size, reroll.size, reroll.schedule


def fix(model: Any, side: int) -> None:
    """Compute what depends on the size of images for this side once and for all, since ONNX cannot express how it is computed."""
    if isinstance(model, SwinTransformer):
        layers: Any = model.layers  # of a pruned model, without the last ones
        for info, layer in zip(model.feature_info, layers, strict=False):
            for block in layer.blocks:
                block.input_resolution = (side // info["reduction"],) * 2
                block.register_buffer("attn_mask", block.get_attn_mask(), persistent=False)
                block.dynamic_mask = False
    elif isinstance(model, Eva | VisionTransformer):
        model.set_input_size((side, side))


def _add_positions(model: Hiera, add: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Tokens (B, N, C) with their positions. add: what the model does at its own size."""
    if model.pos_embed is None or model.pos_embed_win is not None or model.pos_embed.shape[1] == x.shape[1]:
        return add(x)
    side = math.isqrt(model.pos_embed.shape[1])
    grid = model.pos_embed.transpose(1, 2).unflatten(2, (side, side))
    return x + interpolate(grid, tuple(model.unroll.size), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
