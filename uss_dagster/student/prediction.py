"""From the network's masks to codes at the size of the image, few at a time: 300 masks of a megapixel take tens of megabytes, not gigabytes.

Belongs here: windows of an image, upsampling, suppression and nesting of what was found. Does not belong here: loading and asking (``model``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from pycocotools import mask as coco
from torch import Tensor
from torch.nn.functional import interpolate

from uss_dagster.graphs.watershed import colour_leaves
from uss_dagster.regions import rle
from uss_dagster.regions.coded import CodedRegions

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

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


class Leaves:
    """The small pieces of an image that masks take whole or not at all, so that their borders lie where the picture's do.

    Masks have cells of a fiftieth of a window's side; the mean over a piece of their probabilities, interpolated between cells, says which pieces a mask
    holds. All means are one product with a sparse matrix (pieces, cells), so masks are never upsampled.
    """

    def __init__(self, image: np.ndarray) -> None:
        self.labels = colour_leaves(image).T  # columns first, as codes run
        self._area = np.bincount(self.labels.ravel())
        self._of: dict[tuple[Window, tuple[int, int]], tuple[np.ndarray, csr_matrix, np.ndarray]] = {}

    def held(self, inside: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Masks, bool (K, width, height) in a window, of the probabilities of their cells, float32 (K, w, h); and which have the better part of no piece.
        A piece more than half of which lies outside the window is not held."""
        pieces, mean, allowed = self._pieces(window, (inside.shape[1], inside.shape[2]))
        chosen = (mean @ inside.reshape(len(inside), -1).T > 0.5) & allowed[:, None]
        return np.ascontiguousarray(chosen.T).take(pieces, axis=1), ~chosen.any(axis=0)

    def _pieces(self, window: Window, cells: tuple[int, int]) -> tuple[np.ndarray, csr_matrix, np.ndarray]:
        """Of a window: the piece of each pixel (width, height), the matrix (pieces, cells), and which pieces lie mostly inside."""
        if (window, cells) not in self._of:
            from scipy.sparse import csr_matrix, kron

            y, x, height, width = window
            names, pieces = np.unique(self.labels[x : x + width, y : y + height], return_inverse=True)
            pieces = pieces.reshape(width, height)
            seen = np.bincount(pieces.ravel(), minlength=len(names))
            weight = (1 / seen[pieces.ravel()]).astype(np.float32)
            mean = csr_matrix((weight, (pieces.ravel(), np.arange(pieces.size))), shape=(len(names), pieces.size))
            between = kron(interpolation(width, cells[0]), interpolation(height, cells[1]), "csr")
            self._of[window, cells] = pieces, (mean @ between).tocsr(), 2 * seen >= self._area[names]
        return self._of[window, cells]


def interpolation(pixels: int, cells: int) -> csr_matrix:
    """(pixels, cells): weights by which values of cells along a side become values of its pixels, linearly between the middles of cells."""
    from scipy.sparse import csr_matrix

    place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    before = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    share = (place - before).astype(np.float32)
    rows = np.arange(pixels).repeat(2)
    columns = np.minimum(np.stack([before, before + 1], 1), cells - 1)
    return csr_matrix((np.stack([1 - share, share], 1).ravel(), (rows, columns.ravel())), shape=(pixels, cells))


def encode_masks(logits: Tensor, window: Window, shape: tuple[int, int], leaves: Leaves | None = None) -> list[bytes]:
    """COCO codes at the size ``shape`` of masks that are logits (K, h, w) over a window of the image; the mask is where they exceed 0, or the leaves
    in which they do on the whole."""
    y, x, height, width = window
    count = max(1, CHUNK_BYTES // (4 * height * width))
    codes: list[bytes] = []
    for start in range(0, len(logits), count):
        part = logits[start : start + count].transpose(1, 2).float()  # columns first, as codes run
        if leaves is None:
            held = upsampled(part, (width, height))
        else:
            held, lost = leaves.held(part.sigmoid().cpu().numpy(), window)
            if lost.any():
                held[lost] = upsampled(part[torch.from_numpy(lost).to(part.device)], (width, height))
        inside = held.view(np.uint8)
        if (height, width) != shape:
            whole = np.zeros((len(inside), shape[1], shape[0]), np.uint8)
            whole[:, x : x + width, y : y + height] = inside
            inside = whole
        codes += [code["counts"] for code in coco.encode(inside.transpose(2, 1, 0))]
    return codes


def upsampled(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Bool (K, *size): where logits (K, h, w) exceed 0."""
    return (interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0] > 0).cpu().numpy()


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


def cut_off(logits: Tensor, window: Window, shape: tuple[int, int]) -> Tensor:
    """Bool (K,): masks (K, h, w) that touch a side of their window which is no side of the image, so that more of the thing may lie beyond."""
    y, x, height, width = window
    held = logits > 0
    cut = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for beyond, border in (
        (y > 0, held[:, 0]),
        (x > 0, held[..., 0]),
        (y + height < shape[0], held[:, -1]),
        (x + width < shape[1], held[..., -1]),
    ):
        if beyond:
            cut |= border.any(-1)
    return cut


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


def pyramid(shape: tuple[int, int], split: int) -> list[list[Window]]:
    """Windows of an image by level: the whole, then ``split`` × ``split`` of them and, where that is large, half as many a side and so on, few first."""
    counts: list[int] = []
    while split > 1:
        counts.append(split)
        split //= 2
    return [[(0, 0, *shape)], *(tiles(shape, count) for count in reversed(counts))]


def nested(found: Found) -> CodedRegions:
    """The whole image (region 0) and what was found, larger masks first. The parent of a mask is the smallest larger one that holds nine tenths of it;
    the mask is cut where it leaves its parent, and gone where nothing new is left."""
    shape = found.shape
    height, width = shape
    coded = [{"size": list(shape), "counts": code} for code in found.codes]
    area = rle.areas(found.codes, *shape)
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
