"""Prompts of one object each: positive and negative points, a box, a previous mask; and how the network reads them.

A prompt gives its queries three things. The *embedding* of what it points at: the mean over positive points and over the region (the previous mask,
or else the box). A *learned* part for negative points and for the corners of a box. And *cues*: maps over the pixels that are added to the logits of
the prompt's masks, each with a weight that the query predicts. The cues are the similarity of each pixel to the nearest positive and the nearest
negative point, the nearness to them, the box and the previous mask. So a negative point takes away what is like it, and a previous mask is the mask
to begin with; through masked attention both also decide to which cells the query attends.

A single positive point has the embedding of its pixel, as before there were other prompts.

Reference: Sofiiuk, Petrov & Konushin, "Reviving iterative training with mask guidance for interactive segmentation", ICIP 2022; Kirillov et al.,
"Segment anything", ICCV 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, grid_sample

if TYPE_CHECKING:
    from uss_dagster.student.net import Encoded

NEGATIVE, POSITIVE, NO_POINT = 0, 1, -1
"""Labels of points, as in SAM."""
NEAR = 0.05
"""Standard deviation of nearness, relative to the image's sides."""
STRENGTH = 4.0
"""Cues of nearness, box and mask lie in -4..4, about the range of similarities."""
FIRST_WEIGHTS = (0.0, -0.5, 0.0, 0.0, 0.5, 0.5)
"""Of the cues before training: similarity to positive and negative points, nearness to them, box, previous mask."""


@dataclass
class Prompts:
    """P prompts on each of B images, each of one object.

    Parameters
    ----------
    points : Tensor of shape (B, P, K, 2)
        (x, y) in 0..1.
    labels : int64 Tensor of shape (B, P, K)
        1 for a positive point, 0 for a negative one, -1 for none.
    boxes : Tensor of shape (B, P, 4)
        Left, top, right, bottom in 0..1; zeros for no box.
    masks : Tensor of shape (B, P, h, w), optional
        Share of each pixel of the network's masks in the previous mask; zeros for none.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor | None = None

    @classmethod
    def clicks(cls, points: Tensor) -> Prompts:
        """Prompts of one positive point each. points: (B, P, 2)."""
        labels = torch.full_like(points[..., :1], POSITIVE, dtype=torch.int64)
        return cls(points[:, :, None], labels, torch.zeros_like(points).repeat(1, 1, 2))

    def to(self, device: torch.device) -> Prompts:
        """The prompts on another device."""
        masks = None if self.masks is None else self.masks.to(device)
        return Prompts(self.points.to(device), self.labels.to(device), self.boxes.to(device), masks)

    def select(self, slots: slice) -> Prompts:
        """Some of each image's prompts."""
        masks = None if self.masks is None else self.masks[:, slots]
        return Prompts(self.points[:, slots], self.labels[:, slots], self.boxes[:, slots], masks)

    def after(self, points: Tensor, labels: Tensor, masks: Tensor) -> Prompts:
        """The prompts with one more point each, (B, P, 2) and (B, P), and with another previous mask."""
        return Prompts(torch.cat([self.points, points[:, :, None]], 2), torch.cat([self.labels, labels[:, :, None]], 2), self.boxes, masks)


@dataclass
class PromptFeatures:
    """What a network makes of P prompts on each of B images.

    Parameters
    ----------
    around : Tensor of shape (B, P, d)
        Mean of the coarser map under the prompt.
    pixel : Tensor of shape (B, P, d / 2)
        Mean pixel embedding under the prompt.
    place : Tensor of shape (B, P, d)
        Embedding of its middle.
    learned : Tensor of shape (B, P, d)
        Of negative points, boxes and masks; 0 without them.
    cues : Tensor of shape (B, P, 6, h, w)
    """

    around: Tensor
    pixel: Tensor
    place: Tensor
    learned: Tensor
    cues: Tensor


class PromptReader(nn.Module):
    """The part of the network that reads prompts. dim: d, the width of queries."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.negative = nn.Linear(2 * dim + dim // 2, dim)
        self.corners = nn.Linear(2 * dim, dim)
        self.kinds = nn.Parameter(torch.zeros(3, dim))
        self.weigh = nn.Linear(dim, len(FIRST_WEIGHTS))
        for linear in (self.negative, self.corners, self.weigh):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.weigh.bias.copy_(torch.tensor(FIRST_WEIGHTS))

    def forward(self, prompts: Prompts, encoded: Encoded, fourier: Callable[[Tensor], Tensor]) -> PromptFeatures:
        """Read prompts. fourier: position embedding (…, d) of points (…, 2)."""
        pixels, labels = encoded.pixels, prompts.labels
        around, pixel = (at_points(m, prompts.points) for m in (encoded.around, pixels))
        positive, negative = ((labels == label).to(pixel.dtype) for label in (POSITIVE, NEGATIVE))
        boxed = (prompts.boxes[..., 2] > prompts.boxes[..., 0]).to(pixel.dtype)
        has_mask = torch.zeros_like(boxed) if prompts.masks is None else (prompts.masks.amax((-2, -1)) > 0).to(pixel.dtype)
        inside = cover(prompts.boxes, pixels.shape[-2], pixels.shape[-1]).to(pixel.dtype)
        masks = torch.zeros_like(inside) if prompts.masks is None else prompts.masks.to(pixel.dtype)
        region = torch.where(has_mask[..., None, None] > 0, masks, inside)
        parts = [(mean_where(x, positive), whole) for x, whole in ((around, encoded.around), (pixel, pixels), (prompts.points, None))]
        has_point, has_region = (positive.sum(-1) > 0).to(pixel.dtype), torch.maximum(boxed, has_mask)
        total = (has_point + has_region).clamp(min=1)[..., None]
        around_all, pixel_all, middle = (
            (at * has_point[..., None] + mean_in(region, whole) * has_region[..., None]) / total for at, whole in parts
        )
        seen = torch.cat([around, pixel, fourier(prompts.points).to(pixel.dtype)], -1)
        kinds = torch.stack([(negative.sum(-1) > 0).to(pixel.dtype), boxed, has_mask], -1)
        corners = torch.cat([fourier(prompts.boxes[..., :2]), fourier(prompts.boxes[..., 2:])], -1)
        learned = self.negative(mean_where(seen, negative)) * kinds[..., :1] + self.corners(corners) * kinds[..., 1:2] + kinds @ self.kinds
        near = nearness(prompts.points, pixels.shape[-2], pixels.shape[-1])
        similar = torch.einsum("bpkd,bdhw->bpkhw", pixel, pixels) / math.sqrt(pixels.shape[1])
        regions = [STRENGTH * (2 * m - 1) * has[..., None, None] for m, has in ((inside, boxed), (masks, has_mask))]
        cues = [greatest_where(maps, labels == label) for maps in (similar, near) for label in (POSITIVE, NEGATIVE)]
        return PromptFeatures(around_all, pixel_all, fourier(middle), learned, torch.stack([*cues, *regions], 2))


def at_points(maps: Tensor, points: Tensor) -> Tensor:
    """The values (B, P, K, d) of maps (B, d, h, w) at points (B, P, K, 2) in 0..1, linear between the centres of cells."""
    grid = (points * 2 - 1).to(maps.dtype)
    return grid_sample(maps, grid, align_corners=False, padding_mode="border").permute(0, 2, 3, 1)


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """The mean (B, P, d) of the chosen of K values (B, P, K, d), 0 where none is. chosen: 0 or 1, (B, P, K)."""
    return (values * chosen[..., None]).sum(2) / chosen.sum(2).clamp(min=1)[..., None]


def greatest_where(maps: Tensor, chosen: Tensor) -> Tensor:
    """The greatest (B, P, h, w) of the chosen of K maps (B, P, K, h, w), 0 where none is chosen."""
    masked = maps.masked_fill(~chosen[..., None, None], -math.inf).amax(2)
    return masked.masked_fill(~chosen.any(2)[..., None, None], 0)


def mean_in(regions: Tensor, maps: Tensor | None) -> Tensor:
    """The mean (B, P, d) of maps (B, d, h, w) in regions (B, P, h', w') of shares; of the coordinates where ``maps`` is None."""
    if maps is None:
        h, w = regions.shape[-2:]
        x, y = ((torch.arange(n, device=regions.device, dtype=regions.dtype) + 0.5) / n for n in (w, h))
        total = regions.sum((-2, -1)).clamp(min=1e-6)
        return torch.stack([(regions.sum(-2) @ x) / total, (regions.sum(-1) @ y) / total], -1)
    area = regions if regions.shape[-2:] == maps.shape[-2:] else adaptive_avg_pool2d(regions, (maps.shape[-2], maps.shape[-1]))
    return torch.einsum("bphw,bdhw->bpd", area, maps) / area.sum((-2, -1)).clamp(min=1e-6)[..., None]


def nearness(points: Tensor, height: int, width: int) -> Tensor:
    """A bell of height ``STRENGTH`` around each point: (B, P, K, h, w)."""
    along = []
    for axis, count in ((1, height), (0, width)):
        centres = (torch.arange(count, device=points.device, dtype=points.dtype) + 0.5) / count
        along.append(torch.exp(-((points[..., axis, None] - centres) ** 2) / (2 * NEAR**2)))
    return STRENGTH * along[0][..., None] * along[1][..., None, :]


def cover(boxes: Tensor, height: int, width: int) -> Tensor:
    """The share of each cell that a box covers: (B, P, h, w). boxes: (B, P, 4)."""
    along = []
    for axis, count in ((1, height), (0, width)):
        edges = torch.arange(count + 1, device=boxes.device, dtype=boxes.dtype) / count
        low, high = boxes[..., axis, None], boxes[..., axis + 2, None]
        along.append((torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])).clamp(min=0) * count)
    return along[0][..., None] * along[1][..., None, :]
