"""The student's network: an encoder, mask features, and a decoder whose queries each give a mask, an objectness and a quality.

Learned queries and prompts share all weights except the embeddings they start from (``prompts``). In each decoder layer, a query attends to the cells
that its previous mask touches (masked attention of Mask2Former: Cheng et al., CVPR 2022). Then queries attend to one another: learned queries to all
learned queries, the queries of a prompt to those of the same prompt (Semantic-SAM: Li et al., ECCV 2024).

A mask is the product of a query's embedding and the pixel embeddings. The mean pixel embedding of the query's previous mask is added to the query's
embedding; for a prompt, the first one is the mean over its points and its region, so for a click that of the clicked pixel (as in k-means: Yu et al.,
CMT-DeepLab and k-means Mask Transformer, 2022). So pixels similar to the clicked one form a mask from the first step.

Pixel embeddings have mean 0 and standard deviation 1 over the image in each channel, and a query predicts its threshold separately. So logits
separate inside from outside from the start. Products of small embeddings with a common mean would have to grow first, which takes longer than a short
training.

Only plain torch operations are used; there is no deformable attention. Attribute names of modules are tensor names in weights files.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_max_pool2d, instance_norm, interpolate, scaled_dot_product_attention

from uss_dagster.student.prompts import PromptReader, Prompts
from uss_dagster.student.settings import Architecture

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PRIOR = 0.1
"""Objectness of an untrained query."""
THRESHOLD = 4.0
"""Factor on a query's threshold. It is large because the threshold has to move far: most masks cover one hundredth of the pixels."""


@dataclass
class Encoded:
    """What all queries of B images share.

    Parameters
    ----------
    pixels : Tensor of shape (B, d / 2, h, w)
        Pixel embeddings, with their positions; mean 0 and standard deviation 1 over (h, w).
    memories : list of Tensor of shape (B, n, d)
        Cells that queries attend to, with their positions.
    sizes : list of tuple of int
        (height, width) of each memory.
    around : Tensor of shape (B, d, h', w')
        The coarser map that prompts read beside ``pixels``.
    """

    pixels: Tensor
    memories: list[Tensor]
    sizes: list[tuple[int, int]]
    around: Tensor


@dataclass
class Output:
    """The predictions of N queries at one depth.

    Parameters
    ----------
    masks : Tensor of shape (B, N, h, w)
        Logits.
    objectness : Tensor of shape (B, N)
        Logits.
    quality : Tensor of shape (B, N)
        Logits of the expected IoU.
    """

    masks: Tensor
    objectness: Tensor
    quality: Tensor

    def by_prompt(self, grains: int) -> Output:
        """The same with each prompt as an image of its own, where no query is a learned one."""
        return Output(*(t.unflatten(1, (-1, grains)).flatten(0, 1) for t in (self.masks, self.objectness, self.quality)))


@dataclass
class Queries:
    """N queries of each of B images before the first layer.

    Parameters
    ----------
    content, position : Tensor of shape (B, N, d)
    mean_pixel : Tensor of shape (B, N, d / 2)
        The mean pixel embedding of each query's mask: at first that under its prompt, and 0 for learned queries.
    learned : int
        Number of learned queries, which come first.
    cues : Tensor of shape (B, P, 6, h, w), optional
        Of the prompts, see ``prompts``.
    """

    content: Tensor
    position: Tensor
    mean_pixel: Tensor
    learned: int
    cues: Tensor | None


Corrections = Callable[[Prompts, Output], Prompts]
"""What a person asks next: (prompts, answers to them) → the prompts with one more point each, and the mask that they saw."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with 8 groups, or as many as divide the channels."""
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
    """A residual encoder of four stages; each has half the resolution of the one before. stride: of the first. depth: blocks a stage."""

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
    """Linear layers with SiLU between them."""

    def __init__(self, inside: int, hidden: int, outside: int, layers: int = 2) -> None:
        widths = [inside, *[hidden] * (layers - 1), outside]
        steps: list[nn.Module] = []
        for a, b in itertools.pairwise(widths):
            steps += [nn.Linear(a, b), nn.SiLU(inplace=True)]
        super().__init__(*steps[:-1])


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """query: (B, N, d). key, value: (B, M, d). allowed: bool (B, N, M), which keys a query may attend to; all by default."""
        q, k, v = (
            linear(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=None if allowed is None else allowed[:, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A decoder layer: cross-attention to the image, self-attention among queries, and a feed-forward network."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.cross, self.among = Attention(dim, heads), Attention(dim, heads)
        self.alone = Mlp(dim, 4 * dim, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(self, x: Tensor, position: Tensor, memory: Tensor, allowed: Tensor, learned: int, grains: int) -> Tensor:
        """x, position: (B, N, d). The first ``learned`` queries are learned ones, the others belong to prompts, ``grains`` to each."""
        x = self.norms[0](x + self.cross(x + position, memory, memory, allowed))
        parts = []
        if learned:
            own, at = x[:, :learned], position[:, :learned]
            parts.append(self.among(own + at, own + at, own))
        if x.shape[1] > learned:
            own, at = (t[:, learned:].unflatten(1, (-1, grains)).flatten(0, 1) for t in (x, position))
            parts.append(self.among(own + at, own + at, own).view(x.shape[0], -1, x.shape[2]))
        x = self.norms[1](x + torch.cat(parts, 1))
        return self.norms[2](x + self.alone(x))


class StudentNet(nn.Module):
    """The whole network.

    Parameters
    ----------
    shape : Architecture
    encoder : torch.nn.Module, optional
        Gives four feature maps, each of half the resolution of the one before, and has the attribute ``channels``. The default is
        ``ConvEncoder``.
    """

    frequencies: Tensor

    def __init__(self, shape: Architecture, encoder: nn.Module | None = None) -> None:
        super().__init__()
        d = shape.dim
        self.shape = shape
        self.encoder = encoder if encoder is not None else ConvEncoder(shape.channels, shape.stride, shape.depth)
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
        self.prompt = PromptReader(d)
        nn.init.constant_(self.objectness.bias, math.log(PRIOR / (1 - PRIOR)))

    def fourier(self, xy: Tensor) -> Tensor:
        """Position embedding (…, d) of points (…, 2) in 0..1."""
        angle = xy[..., None] * self.frequencies
        return self.place(torch.cat([angle.sin(), angle.cos()], -1).flatten(-2))

    def encode(self, images: Tensor, features: Sequence[Tensor] = ()) -> Encoded:
        """Encode images, (B, 3, S, S) in 0..1. features: see ``features``, if they were computed before."""
        maps = self.encoder(normalised(images), features) if features else self.encoder(normalised(images))
        maps = [lateral(m) for lateral, m in zip(self.lateral, maps, strict=True)]
        x = self.smooth[-1](maps[-1])
        pyramid = [x]
        for i in range(len(maps) - 2, -1, -1):
            above = self.narrow(x) if i == 0 else x
            x = self.smooth[i](maps[i] + interpolate(above, scale_factor=2.0, mode="bilinear", align_corners=False))
            pyramid.insert(0, x)
        memories, sizes = [], []
        for linear, stage in zip(self.memory, self.shape.memories, strict=True):
            level = pyramid[stage]
            h, w = level.shape[-2:]
            memories.append(linear(level.flatten(2).transpose(1, 2)) + self.fourier(cells(h, w, images.device)))
            sizes.append((h, w))
        h, w = pyramid[0].shape[-2:]
        position = self.pixel_place(self.fourier(cells(h, w, images.device))).T.unflatten(1, (h, w))
        return Encoded(instance_norm(self.pixel(pyramid[0]) + position), memories, sizes, pyramid[self.shape.memories[-1]])

    def features(self, images: Tensor) -> list[Tensor]:
        """The maps of the part of the encoder that can be frozen (``TimmEncoder.features``). images: (B, 3, S, S) in 0..1."""
        return self.encoder.features(normalised(images))  # type: ignore[operator,union-attr]

    def queries(self, encoded: Encoded, prompts: Prompts | None, learned: bool = True) -> Queries:
        """The queries before the first layer; parameters as in ``decode``."""
        count = encoded.pixels.shape[0]
        content, position, mean_pixel, cues = [], [], [], None
        if learned:
            content.append(self.content.expand(count, -1, -1))
            position.append(self.position.expand(count, -1, -1))
            mean_pixel.append(self.content.new_zeros(()).expand(count, len(self.content), encoded.pixels.shape[1]))
        if prompts is not None and prompts.points.shape[1]:
            read = self.prompt(prompts, encoded, self.fourier)
            start = self.read(torch.cat([read.around, read.pixel], -1)) + read.place + read.learned
            content.append((start[:, :, None] + self.grain).flatten(1, 2))
            position.append((read.place[:, :, None] + self.grain).flatten(1, 2))
            mean_pixel.append(read.pixel[:, :, None].expand(-1, -1, len(self.grain), -1).flatten(1, 2))
            cues = read.cues
        return Queries(torch.cat(content, 1), torch.cat(position, 1), torch.cat(mean_pixel, 1), len(self.content) if learned else 0, cues)

    def decode(self, encoded: Encoded, prompts: Prompts | None, learned: bool = True, deep: bool = True) -> list[Output]:
        """Predictions at every depth; the last ones are the best.

        Parameters
        ----------
        encoded : Encoded
        prompts : Prompts or None
        learned : bool, default True
            Include the learned queries, which come first.
        deep : bool, default True
            False gives the last depth only.
        """
        queries = self.queries(encoded, prompts, learned)
        x, position, mean_pixel, cues = queries.content, queries.position, queries.mean_pixel, queries.cues
        flat = encoded.pixels.flatten(2).transpose(1, 2)
        embedding, masks = self.draw(x, mean_pixel, encoded.pixels, cues)
        outputs = [self.judge(embedding, masks)] if deep else []
        for i, layer in enumerate(self.layers):
            m = i % len(encoded.memories)
            with torch.no_grad():
                before = masks.detach()
                touched = adaptive_max_pool2d(before, encoded.sizes[m]).flatten(2) >= 0
                allowed = touched | ~touched.any(-1, keepdim=True)  # a query with an empty mask attends to all cells
                share = self.shares(before.flatten(2))
            mean_pixel = share.to(flat.dtype) @ flat
            x = layer(x + self.looked(mean_pixel), position, encoded.memories[m], allowed, queries.learned, self.shape.grains)
            embedding, masks = self.draw(x, mean_pixel, encoded.pixels, cues)
            if deep or layer is self.layers[-1]:
                outputs.append(self.judge(embedding, masks))
        return outputs

    @staticmethod
    def shares(logits: Tensor) -> Tensor:
        """The share of each pixel in the sum of a mask's probabilities. logits: (B, N, pixels)."""
        share = logits.sigmoid()
        total = share.sum(-1, keepdim=True)
        present = total > 1e-30  # probabilities of logits below -88 are 0 in float32; their shares are those of the exponentials
        return torch.where(present, share / torch.where(present, total, 1), logits.softmax(-1))

    def draw(self, x: Tensor, mean_pixel: Tensor, pixels: Tensor, cues: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalised queries (B, N, d), and the logits of their masks (B, N, h, w). cues: of the prompts, whose queries come last."""
        x = self.norm(x)
        width = pixels.shape[1]
        embedding = self.mask(x)
        direction = embedding[..., :width] + mean_pixel / math.sqrt(width)
        masks = torch.einsum("bnd,bdhw->bnhw", direction, pixels) + THRESHOLD * embedding[..., width:, None]
        if cues is None:
            return x, masks
        count = x.shape[1] - cues.shape[1] * self.shape.grains
        weight = self.prompt.weigh(x[:, count:]).unflatten(1, (-1, self.shape.grains))
        added = torch.einsum("bpgc,bpchw->bpghw", weight, cues).flatten(1, 2)
        return x, torch.cat([masks[:, :count], masks[:, count:] + added], 1)

    def judge(self, x: Tensor, masks: Tensor) -> Output:
        """Objectness and quality of masks (B, N, h, w) of normalised queries (B, N, d)."""
        described = torch.cat([x, appearance(masks.detach()).to(x.dtype)], -1)
        return Output(masks, self.objectness(x)[..., 0], self.quality(described)[..., 0])

    def forward(
        self, images: Tensor, prompts: Prompts | None = None, features: Sequence[Tensor] = (), corrections: Sequence[Corrections] = ()
    ) -> list[list[Output]]:
        """The outputs by depth, of each round: to all queries, and then to the prompts that are corrected, as often as they are."""
        encoded = self.encode(images, features)
        rounds = [self.decode(encoded, prompts)]
        for correct in corrections:
            assert prompts is not None
            prompts = correct(prompts, rounds[-1][-1])
            rounds.append(self.decode(encoded, prompts, learned=False))
        return rounds


def normalised(images: Tensor) -> Tensor:
    """Images in 0..1 with the mean and deviation of ImageNet as 0 and 1."""
    mean, deviation = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (images - mean) / deviation


def appearance(logits: Tensor) -> Tensor:
    """Two numbers a mask, (B, N, 2): its IoU expected from its own probabilities, and its share of the pixels. logits: (B, N, h, w)."""
    share, mask = logits.float().sigmoid(), logits > 0
    inside, count = (share * mask).sum((-2, -1)), mask.float().sum((-2, -1))
    expected = inside / (count + share.sum((-2, -1)) - inside).clamp(min=1e-6)
    return torch.stack([expected, count / logits.shape[-1] / logits.shape[-2]], -1)


def cells(height: int, width: int, device: torch.device) -> Tensor:
    """Centres of the cells of a grid as (x, y) in 0..1, float32 (height · width, 2)."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], -1)
