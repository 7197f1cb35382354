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
from uss_dagster.graphs.affinity import joining_cosine
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.graphs.maskcut import corners, maskcut_rounds
from uss_dagster.graphs.patch_merging import MergeRecord, merge_record
from uss_dagster.graphs.vectors import unit
from uss_dagster.methods._maps import components
from uss_dagster.methods._unsam_params import Cuts
from uss_dagster.methods.base import is_grid
from uss_dagster.pixels import iou, resize_image
from uss_dagster.refine.crf import crf_mask
from uss_dagster.regions import Regions, rle

Encode = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Images → their features (h, w, C)."""

TILES_FROM = 512
"""Images whose shorter side is at least this are also divided in a 2 × 2 grid of tiles."""
TILE_SHARE = 0.625
"""Side of a tile as a share of the image's; two tiles a side then overlap by a quarter of the image."""
BATCH = 32
"""Crops encoded at a time."""


@dataclass(frozen=True)
class Piece:
    """A mask of the pool. top, left: where ``crop``, bool (h, w), lies in the image. level: index of the coarsest
    threshold at which it stands, their number for divide masks. score: 0..1. history: where it comes from, see ``Pool.history``.
    """

    top: int
    left: int
    crop: np.ndarray
    level: float
    score: float
    source: str
    history: str = ""

    @classmethod
    def of(cls, mask: np.ndarray, level: float, score: float, source: str, top: int = 0, left: int = 0) -> Piece:
        """The box of a mask that is not empty. top, left: where the mask lies in the image."""
        y0, y1, x0, x1 = bounds(mask)
        return cls(top + y0, left + x0, mask[y0:y1, x0:x1], level, score, source)

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
    """Pieces as full masks, of which only one is in memory at a time."""

    pieces: Sequence[Piece]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, index: Any) -> Any:
        return self.pieces[index].drawn(self.shape)


def regions_of(pieces: Sequence[Piece], shape: tuple[int, int]) -> Regions:
    """Pieces as regions of an image of this size, without a hierarchy."""
    return Regions.from_masks(
        DrawnPieces(pieces, shape),
        shape=shape,
        level=[piece.level for piece in pieces],
        score=[piece.score for piece in pieces],
        source=[piece.history or piece.source for piece in pieces],
    )


# -- divide ---------------------------------------------------------------------------------------


def divide(
    image: np.ndarray,
    grid: np.ndarray,
    encode: Encode | None,
    cuts: Cuts,
    confidence: float = 0.1,
    level: int = 6,
    full: np.ndarray | None = None,
) -> list[Piece]:
    """Divide masks of an image, highest score first.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
    grid : array (h, w, C)
        Its features.
    encode : callable or None
        For the tiles; None leaves them out.
    cuts : Cuts
        See there.
    confidence : float
        Parts must exceed it.
    level : int
        Of the pieces.
    full : uint8 array (H', W', 3) or None
        The image at the size at which tiles are cut from it; None is ``image``.
    """
    full = image if full is None else full
    height, width = image.shape[:2]
    views = [(0, 0, height, width)]
    grids = [grid]
    if cuts.tiles and encode is not None and min(full.shape[:2]) >= TILES_FROM:
        h, w = round(height * TILE_SHARE), round(width * TILE_SHARE)
        views += [(top, left, h, w) for top in (0, height - h) for left in (0, width - w)]
        grids += encode([cut_out(full, (height, width), top, left, h, w) for top, left, h, w in views[1:]])
    pieces: list[Piece] = []
    for (top, left, h, w), features in zip(views, grids, strict=True):
        small = at_most(features, cuts.cells)
        units = unit(small)
        tau = joining_cosine(units.reshape(-1, units.shape[2]), cuts.tau, cuts.tau_mode, cuts.joined)
        for part in divided(small, cuts.rounds, tau, cuts.eps, cuts.min_part):
            score = contrast(part, small, units)
            if score <= confidence:
                continue
            mask = resize_mask(part, h, w)
            if cuts.crf:
                before, mask = mask, crf_mask(mask, np.ascontiguousarray(image[top : top + h, left : left + w]))
                mask &= iou(before, mask) >= cuts.crf_iou
            if mask.any():
                pieces.append(Piece.of(mask, level, score, "divide", top, left))
    distinct = mask_nms([piece.code((height, width)) for piece in pieces], np.array([piece.score for piece in pieces]), cuts.iou)
    return [pieces[i] for i in distinct]


def as_pieces(masks: Regions, iou: float, level: int) -> list[Piece]:
    """Masks from elsewhere as divide masks, highest score first. iou: of suppression among them. level: of the pieces."""
    distinct = mask_nms(masks, masks.score, iou).tolist()
    return [Piece.of(masks.mask(region), level, float(masks.score[region]), "divide") for region in distinct]


def divided(features: np.ndarray, rounds: int, tau: float, eps: float, min_part: float) -> list[np.ndarray]:
    """Connected parts, bool (h, w), that MaskCut finds on features (h, w, C): all of the object's side in every round, and in the
    first those of the other side that hold less than three corners.
    """
    parts: list[np.ndarray] = []
    painted = np.zeros(features.shape[:2], bool)
    for turn, step in enumerate(maskcut_rounds(features, rounds, tau, eps)):
        parts += connected(step.cut.side & ~painted, min_part)
        if turn == 0:
            parts += [part for part in connected(~step.cut.side, min_part) if corners(part) < 3]
        painted |= step.mask
    return parts


def connected(mask: np.ndarray, min_part: float) -> list[np.ndarray]:
    """The 4-connected parts of a mask with at least this share of the grid."""
    parts, sizes = components(mask, corners=False)
    return [parts == part for part in range(1, len(sizes)) if sizes[part] >= min_part * mask.size]


def contrast(mask: np.ndarray, features: np.ndarray, units: np.ndarray) -> float:
    """How alike the patches of a mask are to its mean, less how alike those around it are: mean cosines, clipped to 0..1.

    mask: bool (h, w). features: (h, w, C). units: ``unit`` of them. 0 for a mask without patches or with nothing around it.
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
    masks, units = record.masks(clusters), unit(features)
    for index, crop in lying_inside(masks, whole.crop, inside):
        crop = crop & whole.crop
        score = whole.score * contrast(masks[index], features, units)
        if crop.any():
            level, merge = level_of[int(clusters[index])], int(record.death[clusters[index]])
            merged = f", merged at {record.weight[merge]:.3f}" if merge < len(record.weight) else ""
            history = f"conquer, {whole.history}, theta {thetas[level]:.4g}{merged}" if whole.history else ""
            yield Piece(whole.top, whole.left, crop, level, score, "conquer", history)


def lying_inside(masks: np.ndarray, within: np.ndarray, share: float = 0.9) -> Iterator[tuple[int, np.ndarray]]:
    """(index, mask at the size of ``within``, bool (H, W)) of those masks, bool (k, h, w), of which more than this share lies within."""
    for index, mask in enumerate(masks):
        crop = resize_mask(mask, *within.shape)
        size = np.count_nonzero(crop)
        if size and np.count_nonzero(crop & within) > share * size:
            yield index, crop


def box_images(image: np.ndarray, pieces: Sequence[Piece], side: int, shape: tuple[int, int] | None = None) -> list[np.ndarray]:
    """What lies in the boxes of pieces, with all that surrounds these, stretched to side × side. shape: as for ``cut_out``."""
    size = shape or (image.shape[0], image.shape[1])
    boxes = [cut_out(image, size, piece.top, piece.left, *piece.crop.shape) for piece in pieces]
    return [resize_image(np.ascontiguousarray(box), (side, side)) for box in boxes]


def cut_out(image: np.ndarray, shape: tuple[int, int], top: int, left: int, height: int, width: int) -> np.ndarray:
    """The part of an image that lies in a box of the image at the size ``shape``."""
    spans = []
    for start, length, size, pixels in ((top, height, shape[0], image.shape[0]), (left, width, shape[1], image.shape[1])):
        low = start * pixels // size
        spans.append(slice(low, max(low + 1, -(-(start + length) * pixels // size))))
    return image[tuple(spans)]


# -- grids ----------------------------------------------------------------------------------------


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask bool (h, w) at (height, width): bicubic, antialiased where it shrinks, then all above half of the maximum."""
    from PIL import Image

    soft = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BICUBIC))
    return soft > soft.max(initial=0) / 2


def at_most(features: np.ndarray, cells: int) -> np.ndarray:
    """Features (h, w, C) averaged over blocks where the grid has more than ``cells`` a side."""
    if not is_grid(features):
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


def records_of(crops: Sequence[np.ndarray], encode: Encode, grid: int, least: float) -> Iterator[tuple[MergeRecord, np.ndarray]]:
    """The merges and the features (h, w, C) of cut-out images, encoded in batches; grids of at most ``grid`` patches a side.

    least: cosine down to which they are merged.
    """
    for start in range(0, len(crops), BATCH):
        for features in encode(list(crops[start : start + BATCH])):
            small = at_most(features, grid)
            yield merge_record(small, least), small
