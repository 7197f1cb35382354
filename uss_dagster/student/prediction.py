"""From the network's masks to codes at the size of the image, few at a time: 300 masks of a megapixel take tens of megabytes, not gigabytes.

Belongs here: windows of an image, upsampling, suppression and nesting of what was found. Does not belong here: loading and asking (``model``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor
from torch.nn.functional import interpolate

from uss_dagster.regions.coded import CodedRegions

CHUNK_BYTES = 48 * 1024**2
"""Of upsampled logits in memory at a time."""
INSIDE = 0.9
"""Share of a mask that its parent must hold."""
Window = tuple[int, int, int, int]
"""(y, x, height, width) in pixels of the image."""


@dataclass(frozen=True)
class Found:
    """Masks of one image of ``shape`` (height, width), best first: COCO codes, score float32 (K,) in 0..1, source of each."""

    shape: tuple[int, int]
    codes: list[bytes]
    score: np.ndarray
    source: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def select(self, keep: np.ndarray) -> Found:
        """Those at the indices ``keep``, in that order."""
        return Found(self.shape, [self.codes[i] for i in keep], self.score[keep], [self.source[i] for i in keep])


def encode_masks(logits: Tensor, window: Window, shape: tuple[int, int]) -> list[bytes]:
    """COCO codes at the size ``shape`` of masks that are logits (K, h, w) over a window of the image; the mask is where they exceed 0."""
    y, x, height, width = window
    count = max(1, CHUNK_BYTES // (4 * height * width))
    codes: list[bytes] = []
    for start in range(0, len(logits), count):
        part = logits[start : start + count].transpose(1, 2)[:, None].float()  # columns first, as codes run
        inside = (interpolate(part, (width, height), mode="bilinear", align_corners=False)[:, 0] > 0).to(torch.uint8).cpu().numpy()
        if (height, width) != shape:
            whole = np.zeros((len(inside), shape[1], shape[0]), np.uint8)
            whole[:, x : x + width, y : y + height] = inside
            inside = whole
        codes += [code["counts"] for code in coco.encode(inside.transpose(2, 1, 0))]
    return codes


def suppressed(logits: Tensor, score: Tensor, iou: float) -> Tensor:
    """Indices, best first, of the masks (K, h, w) that stay where one that overlaps a better one by more than ``iou`` goes, at their own resolution."""
    order = torch.argsort(score, descending=True, stable=True)
    held = (logits[order] > 0).flatten(1).float()
    area = held.sum(1)
    shared = held @ held.T
    close = (shared / (area[:, None] + area - shared).clamp(min=1) > iou).cpu().numpy()
    gone = np.zeros(len(order), bool)
    for place in range(len(order)):
        if not gone[place]:
            gone[place + 1 :] |= close[place, place + 1 :]
    some = (area > 0).cpu().numpy()
    return order[torch.from_numpy(~gone & some).to(order.device)]


def stability(logits: Tensor, offset: float = 1.0) -> Tensor:
    """IoU (K,) of each mask cut at ``offset`` and at minus ``offset``."""
    small, large = (logits > offset).flatten(1).sum(1), (logits > -offset).flatten(1).sum(1)
    return small / large.clamp(min=1)


def tiles(shape: tuple[int, int], count: int, overlap: float = 0.25) -> list[Window]:
    """``count`` × ``count`` windows of an image that overlap by a share of their side."""
    share = 1 / (count - (count - 1) * overlap)
    height, width = (min(side, int(np.ceil(side * share))) for side in shape)
    rows, columns = (np.linspace(0, side - part, count).round().astype(int) for side, part in zip(shape, (height, width), strict=True))
    return [(int(y), int(x), height, width) for y in rows for x in columns]


def nested(found: Found) -> CodedRegions:
    """The whole image (region 0) and what was found, larger masks first. The parent of a mask is the smallest larger one that holds nine tenths of it;
    the mask is cut where it leaves its parent, and gone where nothing new is left."""
    shape = found.shape
    height, width = shape
    coded = [{"size": list(shape), "counts": code} for code in found.codes]
    area = coco.area(coded).astype(np.int64) if coded else np.zeros(0, np.int64)
    order = np.lexsort((np.arange(len(area)), -area))
    order = order[(area[order] > 0) & (area[order] < height * width)]
    whole = coco.encode(np.ones((height, width, 1), np.uint8, order="F"))[0]
    kept, parent, score, source, sizes = [whole], [-1], [1.0], ["image"], [height * width]
    seen = {whole["counts"]}
    for i in order.tolist():
        mask = coded[i]
        share = np.asarray(coco.iou([mask], kept, [1] * len(kept)))[0]  # of the mask in each
        above = max(j for j in range(len(kept)) if share[j] >= INSIDE)
        if share[above] < 1:
            mask = coco.merge([mask, kept[above]], intersect=True)
        size = int(coco.area(mask))
        if not size or mask["counts"] in seen:
            continue
        seen.add(mask["counts"])
        kept.append(mask)
        parent.append(above)
        score.append(float(found.score[i]))
        source.append(found.source[i])
        sizes.append(size)
    return CodedRegions([mask["counts"] for mask in kept], shape, parent, score=score, source=source)
