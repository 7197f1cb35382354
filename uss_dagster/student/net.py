"""The student's network: an encoder, mask features, and a decoder whose queries each give a mask, an objectness and a quality.

Learned queries and clicks share all weights but the embeddings they start from. A query attends to the cells that the mask before it touched (masked
attention of Mask2Former: Cheng et al., CVPR 2022), then queries see one another: the learned ones all together, those of a click the others of that click
(Semantic-SAM: Li et al., ECCV 2024). Masks are products of query and pixel embeddings, to which the mean embedding of the mask before is added, at
first that of the clicked pixel (as k-means does: Yu et al., CMT-DeepLab and k-means Mask Transformer, 2022): what is like the click is a mask from the
first step. No deformable attention: plain torch operations only.

Pixel embeddings have mean 0 and deviation 1 over the image, in each channel, and a query says its threshold apart. So logits have a size that tells
inside from outside at once; products of small embeddings that share a mean have to grow first, which takes longer than a short training has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, grid_sample, instance_norm, interpolate, scaled_dot_product_attention

from uss_dagster.student.settings import Architecture

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PRIOR = 0.1
"""Objectness that an untrained query claims."""
THRESHOLD = 4.0
"""Logits that one unit of a query's threshold is worth: it has far to go, since most masks have one hundredth of the pixels."""


@dataclass
class Encoded:
    """What all queries of B images share. pixels: (B, d / 2, h, w), mask features with their places, of mean 0 and deviation 1 over
    (h, w). memories: (B, n, d), cells with their places, and
    the (height, width) of each. around: (B, d, h', w'), the coarser map that clicks are read from beside ``pixels``."""

    pixels: Tensor
    memories: list[Tensor]
    sizes: list[tuple[int, int]]
    around: Tensor


@dataclass
class Output:
    """Of one depth and N queries: masks (B, N, h, w) and objectness (B, N) as logits, quality (B, N) as logits of the IoU."""

    masks: Tensor
    objectness: Tensor
    quality: Tensor


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut, the first with a stride."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([group_norm(outside), group_norm(outside)])
        same = inside == outside and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, outside, stride, stride, bias=False)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shortcut(x) + self.norms[1](self.second(self.act(self.norms[0](self.first(x))))))


class ConvEncoder(nn.Module):
    """Four stages, each of half the resolution of the one before; the first has the given stride."""

    def __init__(self, channels: Sequence[int], stride: int, depth: int = 1) -> None:
        super().__init__()
        self.channels = list(channels)
        self.stem = nn.Sequential(
            nn.Conv2d(3, channels[0], stride + 1, stride, stride // 2, bias=False), group_norm(channels[0]), nn.SiLU(inplace=True)
        )
        stages, before = [], channels[0]
        for i, width in enumerate(channels):
            blocks = [Block(before if j == 0 else width, width, 2 if i and j == 0 else 1) for j in range(depth)]
            stages.append(nn.Sequential(*blocks))
            before = width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Mlp(nn.Sequential):
    def __init__(self, inside: int, hidden: int, outside: int, layers: int = 2) -> None:
        widths = [inside, *[hidden] * (layers - 1), outside]
        steps: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            steps += [nn.Linear(a, b), nn.SiLU(inplace=True)]
        super().__init__(*steps[:-1])


class Attention(nn.Module):
    """Plain attention with several heads; ``seen`` bool (B, N, M) says which keys a query may look at."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=None if seen is None else seen[:, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Queries look at the picture, then at one another, then each is changed by itself."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.cross, self.among = Attention(dim, heads), Attention(dim, heads)
        self.alone = Mlp(dim, 4 * dim, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor, place: Tensor, memory: Tensor, seen: Tensor, learned: int, grains: int) -> Tensor:
        """x, place: (B, N, d), of which the first ``learned`` are learned queries and the others clicks of ``grains`` each."""
        x = self.norms[0](x + self.cross(x + place, memory, memory, seen))
        parts = []
        if learned:
            own, at = x[:, :learned], place[:, :learned]
            parts.append(self.among(own + at, own + at, own))
        if x.shape[1] > learned:
            own, at = (t[:, learned:].unflatten(1, (-1, grains)).flatten(0, 1) for t in (x, place))
            parts.append(self.among(own + at, own + at, own).view(x.shape[0], -1, x.shape[2]))
        x = self.norms[1](x + torch.cat(parts, 1))
        return self.norms[2](x + self.alone(x))


class StudentNet(nn.Module):
    """encoder: any module with ``channels`` of its maps, from fine to coarse by halves, at least four; None builds the network's own."""

    frequencies: Tensor

    def __init__(self, shape: Architecture, encoder: nn.Module | None = None) -> None:
        super().__init__()
        d = shape.dim
        self.shape = shape
        self.encoder = encoder if encoder is not None else ConvEncoder(shape.channels, shape.stride, 1 if shape.layers <= 2 else 2)
        widths: list[int] = list(self.encoder.channels)  # type: ignore[union-attr,arg-type]
        outside = [d // 2, *[d] * (len(widths) - 1)]  # the finest map costs as much as all others
        self.lateral = nn.ModuleList(nn.Conv2d(width, to, 1) for width, to in zip(widths, outside, strict=True))
        self.narrow = nn.Conv2d(d, d // 2, 1)
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(to, to, 3, 1, 1, bias=False), group_norm(to), nn.SiLU(inplace=True)) for to in outside
        )
        self.pixel = nn.Conv2d(d // 2, d // 2, 1)
        self.pixel_place = nn.Linear(d, d // 2)
        self.memory = nn.ModuleList(nn.Linear(d, d) for _ in shape.memories)
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.linspace(0, 5, d // 4), persistent=False)
        self.place = nn.Linear(d, d)
        self.content = nn.Parameter(torch.randn(shape.queries, d) * 0.02)
        self.position = nn.Parameter(torch.randn(shape.queries, d) * 0.5)
        self.grain = nn.Parameter(torch.randn(shape.grains, d) * 0.5)
        self.read = nn.Linear(d + d // 2, d)
        self.looked = nn.Linear(d // 2, d)
        self.layers = nn.ModuleList(Layer(d, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(d)
        self.mask = Mlp(d, d, d // 2 + 1, 3)  # an embedding and a threshold
        self.objectness = nn.Linear(d, 1)
        self.quality = Mlp(d + 2, d, 1)
        nn.init.constant_(self.objectness.bias, math.log(PRIOR / (1 - PRIOR)))

    def fourier(self, xy: Tensor) -> Tensor:
        """Embedding (…, d) of points (…, 2) in 0..1."""
        turned = xy[..., None] * self.frequencies
        return self.place(torch.cat([turned.sin(), turned.cos()], -1).flatten(-2))

    def encode(self, images: Tensor) -> Encoded:
        """images: (B, 3, S, S) in 0..1."""
        mean, deviation = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
        maps = self.encoder((images - mean) / deviation)
        maps = [lateral(m) for lateral, m in zip(self.lateral, maps, strict=True)]
        x = self.smooth[-1](maps[-1])
        pyramid = [x]
        for i in range(len(maps) - 2, -1, -1):
            above = self.narrow(x) if i == 0 else x
            x = self.smooth[i](maps[i] + interpolate(above, scale_factor=2.0, mode="bilinear", align_corners=False))
            pyramid.insert(0, x)
        memories, sizes = [], []
        for linear, stage in zip(self.memory, self.shape.memories, strict=True):
            held = pyramid[stage]
            h, w = held.shape[-2:]
            memories.append(linear(held.flatten(2).transpose(1, 2)) + self.fourier(cells(h, w, images.device)))
            sizes.append((h, w))
        h, w = pyramid[0].shape[-2:]
        place = self.pixel_place(self.fourier(cells(h, w, images.device))).T.unflatten(1, (h, w))
        return Encoded(instance_norm(self.pixel(pyramid[0]) + place), memories, sizes, pyramid[self.shape.memories[-1]])

    def ask(self, encoded: Encoded, points: Tensor | None, learned: bool = True) -> tuple[Tensor, Tensor, Tensor, int]:
        """Content and position (B, N, d) and look (B, N, d / 2) of the queries to begin with, and how many of them are learned.

        points: (B, P, 2) in 0..1. A look is what the pixels of a query's mask are like: at first the clicked pixel, none for learned queries.
        """
        count = encoded.pixels.shape[0]
        content, place, look = [], [], []
        if learned:
            content.append(self.content.expand(count, -1, -1))
            place.append(self.position.expand(count, -1, -1))
            look.append(self.content.new_zeros(()).expand(count, len(self.content), encoded.pixels.shape[1]))
        if points is not None and points.shape[1]:
            grid = (points[:, :, None] * 2 - 1).to(encoded.pixels.dtype)
            around, here = (
                grid_sample(m, grid, align_corners=False, padding_mode="border")[..., 0].transpose(1, 2)
                for m in (encoded.around, encoded.pixels)
            )
            at = self.fourier(points)
            content.append(((self.read(torch.cat([around, here], -1)) + at)[:, :, None] + self.grain).flatten(1, 2))
            place.append((at[:, :, None] + self.grain).flatten(1, 2))
            look.append(here[:, :, None].expand(-1, -1, len(self.grain), -1).flatten(1, 2))
        return torch.cat(content, 1), torch.cat(place, 1), torch.cat(look, 1), len(self.content) if learned else 0

    def decode(self, encoded: Encoded, points: Tensor | None, learned: bool = True, deep: bool = True) -> list[Output]:
        """Outputs at every depth, the last one the best; or not ``deep``, of that alone, which spares judging masks that nobody sees."""
        x, place, look, count = self.ask(encoded, points, learned)
        flat = encoded.pixels.flatten(2).transpose(1, 2)
        asked, masks = self.draw(x, look, encoded.pixels)
        outputs = [self.judge(asked, masks)] if deep else []
        for i, layer in enumerate(self.layers):
            m = i % len(encoded.memories)
            with torch.no_grad():
                before = masks.detach()
                touched = adaptive_max_pool2d(before, encoded.sizes[m]).flatten(2) >= 0
                seen = touched | ~touched.any(-1, keepdim=True)  # a query with an empty mask looks everywhere
                share = self.shares(before.flatten(2))
            look = share.to(flat.dtype) @ flat
            x = layer(x + self.looked(look), place, encoded.memories[m], seen, count, self.shape.grains)
            asked, masks = self.draw(x, look, encoded.pixels)
            if deep or layer is self.layers[-1]:
                outputs.append(self.judge(asked, masks))
        return outputs

    @staticmethod
    def shares(logits: Tensor) -> Tensor:
        """What each pixel (B, N, pixels) has of a mask's whole probability."""
        share = logits.sigmoid()
        return share / share.sum(-1, keepdim=True)

    def draw(self, x: Tensor, look: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What queries ask for (B, N, d), and their masks (B, N, h, w): where pixels are like what a mask held before, changed by what is asked for."""
        x = self.norm(x)
        width = pixels.shape[1]
        asked = self.mask(x)
        wanted = asked[..., :width] + look / math.sqrt(width)
        return x, torch.einsum("bnd,bdhw->bnhw", wanted, pixels) + THRESHOLD * asked[..., width:, None]

    def judge(self, x: Tensor, masks: Tensor) -> Output:
        """How sure queries are that their masks are things, and how good."""
        seen = torch.cat([x, appearance(masks.detach()).to(x.dtype)], -1)
        return Output(masks, self.objectness(x)[..., 0], self.quality(seen)[..., 0])

    def forward(self, images: Tensor, points: Tensor | None = None) -> list[Output]:
        return self.decode(self.encode(images), points)


def appearance(logits: Tensor) -> Tensor:
    """(B, N, 2) of masks (B, N, h, w): the IoU that their own probabilities let expect of the mask cut at a half, and its share of the pixels."""
    share, held = logits.float().sigmoid(), logits > 0
    inside, count = (share * held).sum((-2, -1)), held.float().sum((-2, -1))
    expected = inside / (count + share.sum((-2, -1)) - inside).clamp(min=1e-6)
    return torch.stack([expected, count / logits.shape[-1] / logits.shape[-2]], -1)


def cells(height: int, width: int, device: torch.device) -> Tensor:
    """Centres of the cells of a grid as (x, y) in 0..1, float32 (height · width, 2)."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], -1)
