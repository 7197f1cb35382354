"""Hiera of timm, which is made for one size of image, with images of any size that is a multiple of 32."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from timm.models.hiera import Hiera, Reroll, Unroll
from torch import Tensor
from torch.nn.functional import interpolate


def any_size(model: Hiera) -> Hiera:
    """The model, whose positions are interpolated to the size that ``resize`` sets."""
    model._pos_embed = partial(_add_positions, model, model._pos_embed)  # type: ignore[method-assign]
    return model


def resize(model: Hiera, side: int) -> None:
    """Set the model to square images with this side, in pixels."""
    tokens = [side // stride for stride in model.patch_stride]
    if model.unroll.size == tokens:
        return
    unroll = Unroll((side, side), model.patch_stride, model.unroll.schedule)
    reroll = Reroll((side, side), model.patch_stride, unroll.schedule, model.stage_ends, model.q_pool)
    model.mask_spatial_shape = [count // unit for count, unit in zip(tokens, model.mask_unit_size, strict=True)]
    model.unroll.size, model.reroll.size, model.reroll.schedule = unroll.size, reroll.size, reroll.schedule


def _add_positions(model: Hiera, add: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Tokens (B, N, C) with their positions. add: what the model does at its own size."""
    if model.pos_embed is None or model.pos_embed_win is not None or model.pos_embed.shape[1] == x.shape[1]:
        return add(x)
    side = math.isqrt(model.pos_embed.shape[1])
    grid = model.pos_embed.transpose(1, 2).unflatten(2, (side, side))
    return x + interpolate(grid, tuple(model.unroll.size), mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
