"""Captures the self-attention of a diffusers UNet while it runs, without holding a large map and without changing its output.

Belongs here: the attention processor, its sums, and resampling maps and tokens of several resolutions to one grid. Does not belong
here: loading models, noise, images (``diffusion``). Imports torch: import it lazily. ``benchmarks/attention_capture.py`` measures its cost.

A self-attention layer of N = h·w positions has, per head, a row-stochastic map softmax(q kᵀ scale) of N×N. Two resamplings bring
it to a grid of n cells:

- *down* (h, w multiples of the grid): add the columns inside each block, average the rows inside each block. Row sums stay 1: it
  is the Markov chain lumped under a uniform distribution inside a block (Kemeny and Snell, Finite Markov Chains, 1960).
- *up*: each row's h×w map bilinearly upsampled to the grid and rescaled to sum to 1; the fine cells of a coarse one share its row
  (Tian et al., Diffuse, Attend, and Segment, CVPR 2024).

Lumping goes by blocks of rows, so a 64×64 layer costs a 4 MiB sum at a grid of 32×32 and never its 64 MiB map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from uss_dagster.errors import BadData, UsageError

CPU_BLOCK = 2 * 1024**2
"""Bytes of one block of scores on a CPU: half a second-level cache or so; larger ones were slower (measured at N = 4096)."""
GPU_BLOCK = 256 * 1024**2
SMALLEST_BLOCK = 1024**2


def self_attention_layers(unet: Any) -> list[Any]:
    """The UNet's plain self-attention modules (an ``Attention`` whose keys come from its own input), in the order they are registered."""
    from diffusers.models.attention_processor import Attention

    return [m for m in unet.modules() if isinstance(m, Attention) and not m.is_cross_attention and m.added_kv_proj_dim is None]


def check_layers(unet: Any, layers: Sequence[int]) -> None:
    """Refuses a UNet without self-attention, and layer numbers that it does not have."""
    count = len(self_attention_layers(unet))
    if count == 0:
        raise UsageError(f"This {type(unet).__name__} has no self-attention layer, so there is nothing to read. Choose another model.")
    for layer in layers:
        if -count <= layer < count:
            continue
        raise UsageError(f"layer is {layer}, but this UNet has {count} self-attention layers: choose {-count} to {count - 1}.")


@contextmanager
def observed(unet: Any, see: Callable[[Any, Tensor, Tensor], None]) -> Iterator[None]:
    """Calls ``see(layer, input, output)`` after each self-attention layer inside the context. Afterwards the UNet is as before.

    The layer's own processor does the work, so the UNet's output is the same to the last bit.
    """
    layers = self_attention_layers(unet)
    before = [layer.get_processor() for layer in layers]
    try:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(_Observed(processor, see))
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.set_processor(processor)


class _Observed:
    """A diffusers attention processor that delegates to another one and then passes its input and output on."""

    def __init__(self, processor: Any, see: Callable[[Any, Tensor, Tensor], None]) -> None:
        self.processor = processor
        self.see = see

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        output: Tensor = self.processor(attn, hidden_states, encoder_hidden_states, attention_mask, temb, *args, **kwargs)
        self.see(attn, hidden_states, output)
        return output


def queries_and_keys(attn: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of a layer, (B, heads, N, d) in float32. hidden: (B, N, C) or (B, C, h, w), the input of the layer."""
    hidden = _normalised(attn, hidden)
    query, key = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (attn.to_q(hidden), attn.to_k(hidden)))
    if attn.norm_q is not None:
        query = attn.norm_q(query)
    if attn.norm_k is not None:
        key = attn.norm_k(key)
    return query.float(), key.float()


def _normalised(attn: Any, hidden: Tensor) -> Tensor:
    """What the layer projects, (B, N, C)."""
    hidden = _in_rows(hidden)
    return hidden if attn.group_norm is None else attn.group_norm(hidden.transpose(1, 2)).transpose(1, 2)


def _in_rows(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2) if maps.ndim == 4 else maps


LayerFacet = Literal["outputs", "keys", "queries", "values", "hidden"]
"""What is read of one layer: its output, what it projects its input to (heads side by side), or its input, the hidden states."""


def layer_facet(facet: LayerFacet, attn: Any, hidden: Tensor, output: Tensor) -> Tensor:
    """One of these, (B, N, C) in float32. hidden, output: input and output of the layer."""
    if facet == "outputs":
        return _in_rows(output).float()
    if facet == "hidden":
        return _in_rows(hidden).float()
    if facet == "values":
        return attn.to_v(_normalised(attn, hidden)).float()  # type: ignore[no-any-return]
    query, key = queries_and_keys(attn, hidden)
    return (key if facet == "keys" else query).transpose(1, 2).flatten(2)


def lumped_attention(query: Tensor, key: Tensor, scale: float, size: tuple[int, int], grid: tuple[int, int], block_bytes: int) -> Tensor:
    """Head-mean of softmax(q kᵀ scale) of one image, lumped to the grid: (n, n), rows summing to 1. query, key: (heads, N, d) float32.

    size: (h, w) of the N positions, a multiple of ``grid`` (the same: nothing is lumped). Besides the result, scores of one block of
    rows exist at a time, twice, in about ``block_bytes`` each.
    """
    heads, positions, _ = query.shape
    members = _members(size, grid, query.device)
    cells, inside = members.shape
    # Rows go cell by cell, columns member by member: columns then add as whole contiguous slices.
    query = query[:, members.flatten()]
    columns = (key[:, members.T.flatten()] * scale).transpose(1, 2).contiguous()
    cells_a_block = min(cells, max(1, block_bytes // (4 * positions * inside)))
    heads_a_block = min(heads, max(1, block_bytes // (4 * positions * inside * cells_a_block)))
    total = query.new_zeros(cells, cells)
    average = query.new_full((cells_a_block, 1, inside), 1 / (inside * heads))
    for first in range(0, heads, heads_a_block):
        some = slice(first, first + heads_a_block)
        for cell in range(0, cells, cells_a_block):
            rows = torch.bmm(query[some, cell * inside : (cell + cells_a_block) * inside], columns[some]).softmax(-1)
            summed = rows[:, :, :cells]
            for member in range(1, inside):
                part = rows[:, :, member * cells : (member + 1) * cells]
                summed = summed + part if member == 1 else summed.add_(part)
            blocks = summed.sum(0).view(-1, inside, cells)
            total[cell : cell + cells_a_block] += torch.bmm(average[: len(blocks)], blocks)[:, 0]
    return total


def _members(size: tuple[int, int], grid: tuple[int, int], device: Any) -> Tensor:
    """Positions of an h×w layer inside each cell of the grid, (cells, members)."""
    (h, w), (rows, columns) = size, grid
    positions = torch.arange(h * w, device=device).view(rows, h // rows, columns, w // columns)
    return positions.permute(0, 2, 1, 3).reshape(rows * columns, -1)


def spread_attention(attention: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Row-stochastic maps (B, h·w, h·w) of a layer coarser than the grid, on the grid: (B, n, n), rows summing to 1."""
    batch, positions, _ = attention.shape
    maps = interpolate(attention.view(batch, positions, *size), grid, mode="bilinear", align_corners=False).flatten(2)
    maps = maps / maps.sum(-1, keepdim=True)
    coarse = torch.arange(positions, device=attention.device).view(size)
    coarse = coarse.repeat_interleave(grid[0] // size[0], 0).repeat_interleave(grid[1] // size[1], 1)
    return maps[:, coarse.flatten()]


Weights = Literal["proportional", "uniform"] | tuple[float, ...]
"""Of the resolutions of attention: as their short sides, all alike, or one each, the finest first."""


def aggregate(maps: Mapping[tuple[int, int], Tensor], grid: tuple[int, int], weights: Weights) -> Tensor:
    """Weighted sum over resolutions of row-stochastic maps, (B, n, n) float32, rows summing to 1.

    maps: resolution → (B, n, n) where it was lumped to the grid, (B, h·w, h·w) where it is coarser.
    """
    weight = {size: float(min(size)) if weights == "proportional" else 1.0 for size in sorted(maps)}
    if isinstance(weights, tuple):
        sizes = sorted(maps, reverse=True)
        if len(weights) != len(sizes):
            names = ", ".join(f"{h}×{w}" for h, w in sizes)
            raise UsageError(f"weights has {len(weights)} values, but attention has {len(sizes)} resolutions ({names}): give one each.")
        given = dict(zip(sizes, weights, strict=True))
        weight = {size: given[size] for size in sorted(maps) if given[size] > 0}
    total: Any = 0
    for size in weight:
        on_grid = maps[size] if _finer(size, grid) else spread_attention(maps[size], size, grid)
        total = total + on_grid * (weight[size] / math.fsum(weight.values()))
    return total / total.sum(-1, keepdim=True)  # type: ignore[no-any-return]


def _finer(size: tuple[int, int], grid: tuple[int, int]) -> bool:
    return size[0] >= grid[0] and size[1] >= grid[1]


def tokens_on_grid(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, h, w, C) averaged over blocks down to the grid, or bilinearly brought up to it: (B, rows, columns, C)."""
    if tokens.shape[1:3] == grid:
        return tokens
    channels_first = tokens.permute(0, 3, 1, 2)
    if _finer((tokens.shape[1], tokens.shape[2]), grid):
        return adaptive_avg_pool2d(channels_first, grid).permute(0, 2, 3, 1)
    return interpolate(channels_first, grid, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


def scales(size: tuple[int, int], blocks: int) -> list[tuple[int, int]]:
    """Sizes of a UNet's feature maps, finest first: halved between its ``blocks`` resolutions."""
    return [(-(-size[0] // 2**i), -(-size[1] // 2**i)) for i in range(blocks)]


class Recorder:
    """Sums over layers and passes of one batch: attention per resolution, and facets of one layer.

    Run the UNet inside ``recording()`` once per step that counts; then read ``attention()`` and ``of_layer()``, (B, …) float32 means over the
    passes. The resolution of a layer is known from the shape of its input.

    Parameters
    ----------
    unet : UNet2DModel or UNet2DConditionModel
    size : (int, int)
        Height and width of the UNet's input.
    grid : (int, int)
        One of its ``scales``.
    maps : bool, default True
        Record attention.
    layers : tuple of int or None, default None
        Layers whose attention counts, in running order as in a list; None counts all.
    layer : int or None, default None
        Layer of the facets, counted likewise. None: of the layers nearest the resolution of the grid the last one on the way down, or the
        last one if the way down has none.
    facets : collection of str, default ('outputs', 'keys')
        What is read of it, see ``LayerFacet``.
    block_bytes : int
        Memory of one block of scores.
    """

    def __init__(
        self,
        unet: Any,
        size: tuple[int, int],
        grid: tuple[int, int],
        maps: bool = True,
        layers: Sequence[int] | None = None,
        layer: int | None = None,
        facets: Collection[LayerFacet] = ("outputs", "keys"),
        block_bytes: int = CPU_BLOCK,
    ) -> None:
        self.unet = unet
        self.grid = grid
        count = len(self_attention_layers(unet))
        self._layers = {number % count for number in (range(count) if layers is None else layers)} if maps else set()
        self._layer = None if layer is None else layer % count
        self._block_bytes = block_bytes
        self._sizes = {h * w: (h, w) for h, w in scales(size, len(unet.config.block_out_channels))}
        self._down = {id(module) for module in unet.down_blocks.modules()}
        self._sums: dict[tuple[int, int], Tensor] = {}
        self._counts: dict[tuple[int, int], int] = {}
        self._facets: dict[LayerFacet, Any] = dict.fromkeys(facets, 0)
        self._passes = 0
        self._running = 0
        self._best: tuple[tuple[float, ...], Any, Tensor, Tensor] | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Around one forward pass of the UNet."""
        self._running, self._best = 0, None
        with observed(self.unet, self._see):
            yield
        assert self._best is not None, "the UNet did not run"
        _, attn, hidden, output = self._best
        for facet in self._facets:
            self._facets[facet] = self._facets[facet] + layer_facet(facet, attn, hidden, output).unflatten(1, self._size(hidden))
        self._passes += 1
        self._best = None

    def attention(self, weights: Weights) -> Tensor:
        """(B, n, n), see ``aggregate``."""
        return aggregate({size: self._sums[size] / self._counts[size] for size in self._sums}, self.grid, weights)

    def of_layer(self, facet: LayerFacet) -> Tensor:
        """A facet of the chosen layer, (B, rows, columns, C). Outputs: before the residual is added where the layer leaves that to its block."""
        return tokens_on_grid(self._facets[facet] / self._passes, self.grid)

    def _see(self, attn: Any, hidden: Tensor, output: Tensor) -> None:
        size = self._size(hidden)
        number, self._running = self._running, self._running + 1
        self._consider(number, attn, size, hidden, output)
        if number not in self._layers:
            return
        query, key = queries_and_keys(attn, hidden)
        grid = self.grid if _finer(size, self.grid) else size
        maps = [lumped_attention(q, k, attn.scale, size, grid, self._block_bytes) for q, k in zip(query, key, strict=True)]
        self._counts[size] = self._counts.get(size, 0) + 1
        if size not in self._sums:
            self._sums[size] = torch.stack(maps)
        else:
            for total, one in zip(self._sums[size], maps, strict=True):
                total += one

    def _size(self, hidden: Tensor) -> tuple[int, int]:
        if hidden.ndim == 4:
            return hidden.shape[2], hidden.shape[3]
        if hidden.shape[1] not in self._sizes:
            sizes = ", ".join(f"{h}×{w}" for h, w in self._sizes.values())
            raise BadData(f"A self-attention layer has {hidden.shape[1]} positions, which is none of the UNet's scales ({sizes}).")
        return self._sizes[hidden.shape[1]]

    def _consider(self, number: int, attn: Any, size: tuple[int, int], hidden: Tensor, output: Tensor) -> None:
        """Keeps input and output of this layer where it is the one chosen so far."""
        if self._layer is None:
            distance = abs(math.log2(size[0] / self.grid[0]))
            rank: tuple[float, ...] = (-distance, float(id(attn) in self._down), float(number))
        else:
            rank = (float(number == self._layer),)
        if self._best is not None and rank <= self._best[0]:
            return
        self._best = (rank, attn, hidden, output)
