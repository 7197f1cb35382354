"""Windows of an image, and the way from mask logits in a window to run-length codes over the image and to a tree.

Masks are encoded few at a time: 300 masks of a megapixel take tens of megabytes, not gigabytes (``benchmarks/student.py --memory``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor
from torch.nn.functional import interpolate

from uss_dagster.graphs.watershed import colour_leaves
from uss_dagster.regions import rle
from uss_dagster.regions.coded import CodedRegions
from uss_dagster.regions.rle import CocoCode, coco_codes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

CHUNK_BYTES = 48 * 1024**2
"""Greatest size of the upsampled logits in memory."""
INSIDE = 0.9
"""Least share of a mask that lies in its parent."""
Window = tuple[int, int, int, int]
"""(y, x, height, width) in pixels of the image."""


@dataclass(frozen=True)
class ScoredMasks:
    """Masks of one image, best first.

    Parameters
    ----------
    shape : tuple of int
        (height, width) of the image.
    codes : list of K bytes
        COCO run-length codes.
    score : float32 array of shape (K,)
        In 0..1.
    source : list of K str
        'query' or 'click'.
    """

    shape: tuple[int, int]
    codes: list[bytes]
    score: np.ndarray
    source: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def select(self, keep: np.ndarray) -> ScoredMasks:
        """The masks at the indices ``keep``, in that order."""
        return ScoredMasks(self.shape, [self.codes[i] for i in keep], self.score[keep], [self.source[i] for i in keep])


class Leaves:
    """Superpixels of an image, to which masks are snapped: a mask takes each leaf whole or not at all, so its border follows the image.

    The network gives masks as a grid of cells; a cell has a fiftieth of the window's side. A mask takes a leaf if the mean of its probabilities over
    the leaf, interpolated between cells, exceeds one half. All means are one product with a sparse matrix (leaves, cells). So masks are never
    upsampled.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    """

    def __init__(self, image: np.ndarray) -> None:
        self.labels = colour_leaves(image).T  # columns first, as codes run
        self._area = np.bincount(self.labels.ravel())
        self._windows: dict[tuple[Window, tuple[int, int]], tuple[np.ndarray, csr_matrix, np.ndarray]] = {}

    def snap(self, probabilities: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Masks made of leaves.

        Parameters
        ----------
        probabilities : float32 array of shape (K, w, h)
            Of the masks, by cells of the window.
        window : Window

        Returns
        -------
        masks : bool array of shape (K, width, height)
            In the window. A leaf of which more than half lies outside the window belongs to no mask.
        empty : bool array of shape (K,)
            Masks that take no leaf.
        """
        leaves, mean, mostly_inside = self._in_window(window, (probabilities.shape[1], probabilities.shape[2]))
        taken = (mean @ probabilities.reshape(len(probabilities), -1).T > 0.5) & mostly_inside[:, None]
        return np.ascontiguousarray(taken.T).take(leaves, axis=1), ~taken.any(axis=0)

    def _in_window(self, window: Window, cells: tuple[int, int]) -> tuple[np.ndarray, csr_matrix, np.ndarray]:
        """The leaf of each pixel (width, height), the matrix of means (leaves, cells), and which leaves lie mostly inside the window."""
        if (window, cells) not in self._windows:
            from scipy.sparse import csr_matrix, kron

            y, x, height, width = window
            names, leaves = np.unique(self.labels[x : x + width, y : y + height], return_inverse=True)
            leaves = leaves.reshape(width, height)
            area = np.bincount(leaves.ravel(), minlength=len(names))
            weight = (1 / area[leaves.ravel()]).astype(np.float32)
            mean = csr_matrix((weight, (leaves.ravel(), np.arange(leaves.size))), shape=(len(names), leaves.size))
            between = kron(interpolation(width, cells[0]), interpolation(height, cells[1]), "csr")
            self._windows[window, cells] = leaves, (mean @ between).tocsr(), 2 * area >= self._area[names]
        return self._windows[window, cells]


def interpolation(pixels: int, cells: int) -> csr_matrix:
    """The matrix (pixels, cells) that interpolates values of cells along a side to its pixels, linearly between the centres of cells."""
    from scipy.sparse import csr_matrix

    place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    before = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    share = (place - before).astype(np.float32)
    rows = np.arange(pixels).repeat(2)
    columns = np.minimum(np.stack([before, before + 1], 1), cells - 1)
    return csr_matrix((np.stack([1 - share, share], 1).ravel(), (rows, columns.ravel())), shape=(pixels, cells))


def encode_masks(logits: Tensor, window: Window, shape: tuple[int, int], leaves: Leaves | None = None) -> list[bytes]:
    """Run-length codes over the image of masks in a window.

    Parameters
    ----------
    logits : Tensor of shape (K, h, w)
        By cells of the window. Pixels whose interpolated logit exceeds 0 belong to the mask.
    window : Window
    shape : tuple of int
        (height, width) of the image.
    leaves : Leaves, optional
        Snap masks to them; a mask that takes no leaf stays as it is.
    """
    y, x, height, width = window
    count = max(1, CHUNK_BYTES // (4 * height * width))
    codes: list[bytes] = []
    for start in range(0, len(logits), count):
        part = logits[start : start + count].transpose(1, 2).float()  # columns first, as codes run
        if leaves is None:
            masks = upsample(part, (width, height))
        else:
            masks, empty = leaves.snap(part.sigmoid().cpu().numpy(), window)
            if empty.any():
                masks[empty] = upsample(part[torch.from_numpy(empty).to(part.device)], (width, height))
        pixels = masks.view(np.uint8)
        if (height, width) != shape:
            whole = np.zeros((len(pixels), shape[1], shape[0]), np.uint8)
            whole[:, x : x + width, y : y + height] = pixels
            pixels = whole
        codes += [code["counts"] for code in coco.encode(pixels.transpose(2, 1, 0))]
    return codes


def upsample(logits: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Where logits (K, h, w), interpolated to ``size``, exceed 0: bool (K, *size)."""
    return (interpolate(logits[:, None], size, mode="bilinear", align_corners=False)[:, 0] > 0).cpu().numpy()


def suppress(logits: Tensor, score: Tensor, iou: float) -> Tensor:
    """Non-maximum suppression of masks at the resolution of their logits, (K, h, w).

    Returns the indices of the masks that stay, best first: not empty, and with no better one that stays and overlaps them by more than ``iou``.
    """
    order = torch.argsort(score, descending=True, stable=True)
    masks = (logits[order] > 0).flatten(1).float()
    area = masks.sum(1)
    shared = masks @ masks.T
    close = (shared / (area[:, None] + area - shared).clamp(min=1) > iou).cpu().numpy()
    gone = np.zeros(len(order), bool)
    for place in range(len(order)):
        if not gone[place]:
            gone[place + 1 :] |= close[place, place + 1 :]
    return order[torch.from_numpy(~gone & (area > 0).cpu().numpy()).to(order.device)]


def cut_by_window(logits: Tensor, window: Window, shape: tuple[int, int]) -> Tensor:
    """Which masks (K, h, w) touch a side of their window inside the image, so that the object may continue beyond it: bool (K,)."""
    y, x, height, width = window
    masks = logits > 0
    cut = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for beyond, border in (
        (y > 0, masks[:, 0]),
        (x > 0, masks[..., 0]),
        (y + height < shape[0], masks[:, -1]),
        (x + width < shape[1], masks[..., -1]),
    ):
        if beyond:
            cut |= border.any(-1)
    return cut


def stability(logits: Tensor, offset: float = 1.0) -> Tensor:
    """IoU of each mask thresholded at ``offset`` with the same mask thresholded at minus ``offset``, (K,)."""
    small, large = (logits > offset).flatten(1).sum(1), (logits > -offset).flatten(1).sum(1)
    return small / large.clamp(min=1)


def window_pixels(image: np.ndarray, window: tuple[float, float, float, float], side: int) -> np.ndarray:
    """The pixels of a window (y, x, height, width), stretched to a square: float32 (1, 3, side, side) in 0..1."""
    y, x, height, width = window
    square = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, (x, y, x + width, y + height))
    # The new axis comes before the division: torch takes the faster path for channels last only with these strides.
    return np.asarray(square, np.float32).transpose(2, 0, 1)[None] / 255


def tiles(shape: tuple[int, int], count: int, overlap: float = 0.25) -> list[Window]:
    """``count`` × ``count`` windows of an image. overlap: of neighbours, as a share of their side."""
    share = 1 / (count - (count - 1) * overlap)
    height, width = (min(side, int(np.ceil(side * share))) for side in shape)
    rows, columns = (np.linspace(0, side - part, count).round().astype(int) for side, part in zip(shape, (height, width), strict=True))
    return [(int(y), int(x), height, width) for y in rows for x in columns]


def pyramid(shape: tuple[int, int], split: int) -> list[list[Window]]:
    """Windows of an image by level, few first: the whole image, …, ``split / 2`` × ``split / 2`` windows, ``split`` × ``split`` windows."""
    counts: list[int] = []
    while split > 1:
        counts.append(split)
        split //= 2
    return [[(0, 0, *shape)], *(tiles(shape, count) for count in reversed(counts))]


def nest(masks: ScoredMasks) -> CodedRegions:
    """Masks as a tree of regions, from large to small; region 0 is the whole image.

    The parent of a mask is the smallest larger region that contains nine tenths of it (``INSIDE``). The mask is cut where it leaves its parent, and
    dropped if nothing is left or another region is equal.
    """
    height, width = masks.shape
    coded = coco_codes(masks.codes, masks.shape)
    area = rle.areas(masks.codes, height, width)
    order = np.lexsort((np.arange(len(area)), -area))
    order = order[(area[order] > 0) & (area[order] < height * width)]
    regions: list[CocoCode] = [coco.encode(np.ones((height, width, 1), np.uint8, order="F"))[0]]
    parent, score, source = [-1], [1.0], ["image"]
    taken = {regions[0]["counts"]}
    for i in order.tolist():
        mask = coded[i]
        share = np.asarray(coco.iou([mask], regions, [1] * len(regions)))[0]  # of the mask in each region
        above = max(j for j in range(len(regions)) if share[j] >= INSIDE)
        if share[above] < 1:
            mask = coco.merge([mask, regions[above]], intersect=True)
        if not coco.area(mask) or mask["counts"] in taken:
            continue
        taken.add(mask["counts"])
        regions.append(mask)
        parent.append(above)
        score.append(float(masks.score[i]))
        source.append(masks.source[i])
    return CodedRegions([region["counts"] for region in regions], masks.shape, parent, score=score, source=source)
