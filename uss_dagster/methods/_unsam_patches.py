"""UnSAM on grids of patches: what follows the paper, for backbones whose tokens are comparable across images.

Divide: MaskCut on views of the image, from which all connected parts of the object's side are kept, and of the other side in the first
round. Conquer: the box of every divide mask is cut out, stretched and encoded, and its patches are merged; of the clusters at six
thresholds those that lie inside the mask are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.graphs.maskcut import corners, maskcut_rounds
from uss_dagster.graphs.patch_merging import MergeRecord, merge_record
from uss_dagster.pixels import resize_image
from uss_dagster.regions import Regions, rle

TILES_FROM = 512
"""Images whose shorter side is at least this are also divided in a 2 × 2 grid of tiles."""
TILE_SHARE = 0.625
"""Side of a tile as a share of the image's; two tiles a side then overlap by a quarter of the image."""
BATCH = 32
"""Crops encoded at a time."""


@dataclass(frozen=True)
class Piece:
    """A mask of the pool. top, left: where ``crop``, bool (h, w), lies in the image. level: index of the coarsest
    threshold at which it stands, their number for divide masks. score: 0..1.
    """

    top: int
    left: int
    crop: np.ndarray
    level: int
    score: float
    source: str

    @property
    def window(self) -> tuple[slice, slice]:
        return np.s_[self.top : self.top + self.crop.shape[0], self.left : self.left + self.crop.shape[1]]

    def drawn(self, shape: tuple[int, int]) -> np.ndarray:
        mask = np.zeros(shape, bool)
        mask[self.window] = self.crop
        return mask

    def code(self, shape: tuple[int, int]) -> bytes:
        return rle.encode(self.drawn(shape)[None])[0]


@dataclass(frozen=True)
class DrawnPieces(Sequence[np.ndarray]):
    """Pieces as full masks, each drawn when asked for."""

    pieces: Sequence[Piece]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: Any) -> Any:
        return self.pieces[index].drawn(self.shape)


# -- divide ---------------------------------------------------------------------------------------


def divide(
    image: np.ndarray,
    grid: np.ndarray,
    encode: Callable[[list[np.ndarray]], list[np.ndarray]] | None,
    *,
    cells: int = 48,
    tiles: bool = True,
    rounds: int = 6,
    tau: float = 0.15,
    eps: float = 1e-5,
    min_part: float = 0.01,
    confidence: float = 0.1,
    iou: float = 0.8,
    level: int = 6,
) -> list[Piece]:
    """Divide masks of an image, uint8 (H, W, 3), highest score first; grid: its features (h, w, C).

    encode: images → features, for the tiles; None leaves them out. cells: larger grids are averaged to this many a side. min_part: share
    of a view that a part must have. confidence: parts must exceed it. level: what pieces are given as theirs.
    """
    height, width = image.shape[:2]
    views = [(0, 0, height, width)]
    if tiles and encode is not None and min(height, width) >= TILES_FROM:
        h, w = round(height * TILE_SHARE), round(width * TILE_SHARE)
        views += [(top, left, h, w) for top in (0, height - h) for left in (0, width - w)]
    grids = [grid]
    if len(views) > 1 and encode is not None:
        grids += encode([image[top : top + h, left : left + w] for top, left, h, w in views[1:]])
    found: list[Piece] = []
    for (top, left, h, w), features in zip(views, grids, strict=True):
        small = at_most(features, cells)
        units = of_length_one(small)
        for part in divided(small, rounds, tau, eps, min_part):
            score = contrast(part, small, units)
            if score <= confidence:
                continue
            crop = resize_mask(part, h, w)
            if crop.any():
                y0, y1, x0, x1 = bounds(crop)
                found.append(Piece(top + y0, left + x0, crop[y0:y1, x0:x1], level, score, "divide"))
    kept = mask_nms([piece.code((height, width)) for piece in found], np.array([piece.score for piece in found]), iou)
    return [found[i] for i in kept]


def as_pieces(masks: Regions, iou: float, level: int) -> list[Piece]:
    """Masks found elsewhere as divide masks, highest score first. iou: of suppression among them. level: what they are given as theirs."""
    pieces = []
    for region in mask_nms(masks, masks.score, iou).tolist():
        mask = masks.mask(region)
        y0, y1, x0, x1 = bounds(mask)
        pieces.append(Piece(y0, x0, mask[y0:y1, x0:x1], level, float(masks.score[region]), "divide"))
    return pieces


def divided(features: np.ndarray, rounds: int, tau: float, eps: float, min_part: float) -> list[np.ndarray]:
    """Connected parts, bool (h, w), that MaskCut finds on features (h, w, C): all of the object's side in every round, and in the
    first those of the other side that hold less than three corners.
    """
    parts: list[np.ndarray] = []
    painted = np.zeros(features.shape[:2], bool)
    for turn, found in enumerate(maskcut_rounds(features, rounds, tau, eps)):
        side = found.cut.side & ~painted
        parts += connected(side, min_part)
        if turn == 0:
            parts += [part for part in connected(~found.cut.side, min_part) if corners(part) < 3]
        painted |= found.mask
    return parts


def connected(mask: np.ndarray, min_part: float) -> list[np.ndarray]:
    """The 4-connected parts of a mask with at least this share of the grid."""
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    return [parts == part for part in range(1, count + 1) if sizes[part] >= min_part * mask.size]


def of_length_one(features: np.ndarray) -> np.ndarray:
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=2, keepdims=True), 1e-12))


def contrast(mask: np.ndarray, features: np.ndarray, units: np.ndarray) -> float:
    """How alike the patches of a mask are to its mean, less how alike those around it are: mean cosines, clipped to 0..1.

    mask: bool (h, w). features: (h, w, C). units: ``of_length_one`` of them. 0 for a mask without patches or with nothing around it.
    """
    from scipy import ndimage

    ring = ndimage.binary_dilation(mask) & ~mask
    if not mask.any() or not ring.any():
        return 0.0
    mean = features[mask].mean(axis=0, dtype=np.float64)
    mean /= max(float(np.linalg.norm(mean)), 1e-12)
    return float(np.clip((units[mask] @ mean).mean() - (units[ring] @ mean).mean(), 0, 1))


# -- conquer --------------------------------------------------------------------------------------


def conquer(
    whole: Piece,
    record: MergeRecord,
    features: np.ndarray,
    thetas: Sequence[float],
    *,
    min_patches: int = 4,
    inside: float = 0.9,
) -> Iterator[Piece]:
    """The clusters of one divide mask, each once, clipped to it. record, features (h, w, C): of its box.

    A cluster that stands at several thresholds has the level of the coarsest. inside: share of it that must lie in the mask, before it is clipped.
    """
    level_of: dict[int, int] = {}
    for level, theta in enumerate(thetas):
        for cluster in record.clusters_at(theta, min_patches).tolist():
            level_of[cluster] = level
    clusters = np.array(sorted(level_of), np.int64)
    masks, units = record.masks(clusters), of_length_one(features)
    for index, crop in lying_inside(masks, whole.crop, inside):
        crop = crop & whole.crop
        score = whole.score * contrast(masks[index], features, units)
        if crop.any():
            yield Piece(whole.top, whole.left, crop, level_of[int(clusters[index])], score, "conquer")


def lying_inside(masks: np.ndarray, within: np.ndarray, share: float = 0.9) -> Iterator[tuple[int, np.ndarray]]:
    """(index, mask at the size of ``within``, bool (H, W)) of those masks, bool (k, h, w), of which more than this share lies within."""
    for index, mask in enumerate(masks):
        crop = resize_mask(mask, *within.shape)
        size = np.count_nonzero(crop)
        if size and np.count_nonzero(crop & within) > share * size:
            yield index, crop


def box_images(image: np.ndarray, pieces: Sequence[Piece], side: int) -> list[np.ndarray]:
    """What lies in the boxes of pieces, with all that surrounds these, stretched to side × side."""
    return [resize_image(np.ascontiguousarray(image[piece.window]), (side, side)) for piece in pieces]


# -- grids ----------------------------------------------------------------------------------------


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask bool (h, w) at (height, width): bicubic, antialiased where it shrinks, then all above half of the maximum."""
    from PIL import Image

    soft = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BICUBIC))
    return soft > soft.max(initial=0) / 2


def at_most(features: np.ndarray, cells: int) -> np.ndarray:
    """Features (h, w, C) averaged over blocks where the grid has more than ``cells`` a side."""
    if features.ndim != 3 or 0 in features.shape or not np.isfinite(features).all():
        raise BadData(f"Features of shape {features.shape} are no grid of finite features (h, w, C); extract them again.")
    for axis in (0, 1):
        size = features.shape[axis]
        if size > cells:
            starts = np.arange(cells) * size // cells
            counts = np.diff(np.append(starts, size)).astype(features.dtype)
            features = np.add.reduceat(features, starts, axis=axis) / np.expand_dims(counts, (1, 2) if axis == 0 else (0, 2))
    return features


def bounds(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(first row, row after the last, first column, column after the last) of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def records_of(
    crops: Sequence[np.ndarray], encode: Callable[[list[np.ndarray]], list[np.ndarray]], grid: int, least: float
) -> Iterator[tuple[MergeRecord, np.ndarray]]:
    """The merges and the features (h, w, C) of cut-out images, encoded in batches; grids of at most ``grid`` patches a side.

    least: cosine down to which they are merged.
    """
    for start in range(0, len(crops), BATCH):
        for features in encode(list(crops[start : start + BATCH])):
            small = at_most(features, grid)
            yield merge_record(small, least), small
