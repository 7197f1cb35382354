"""The one optional step between the leaf map of a method and its regions: move the borders of the leaves to those of the image.

References: the CRF on leaves follows the hierarchical spectral method (soft leaves from token similarity, DenseCRF constants of
Krähenbühl & Koltun); see ``crf.py``, ``pamr.py`` and ``upsampling.py`` for the three refinements.

Leaves keep their numbers and the tree above them does not change. A leaf may lose all its pixels, none is added. Only the image, the
leaves and the tokens are used: no human labels (``Refine.supervised``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np

from uss_dagster.bounds import POSITIVE, check_bounds, within
from uss_dagster.errors import BadData, UsageError, check_choice
from uss_dagster.pixels import bilinear, nearest, nearest_cells, shrink_to_pixels
from uss_dagster.refine._lanes import LANES, best_label, from_blocks
from uss_dagster.refine.crf import Crf, mean_field, to_energies
from uss_dagster.refine.pamr import Pamr, pamr_blocks
from uss_dagster.refine.upsampling import bicubic, cubic_taps, guided_labels

RefineMethod = Literal["none", "crf", "pamr", "guided"]


@dataclass(frozen=True)
class Refine:
    """How to refine a leaf map.

    Parameters
    ----------
    method : {"none", "crf", "pamr", "guided"}, default "none"
        "none" is nearest-neighbour upsampling; for the others see ``crf.py``, ``pamr.py`` and ``upsampling.guided_filter``.
    temperature : float, default 0.1
        Of the softmax over cosine similarities, where tokens are given.
    certainty : float, default 0.7
        Probability of a pixel's own leaf for the CRF, where no tokens are given; 0.5..1.
    crf : Crf, optional
    pamr : Pamr, optional
    radius : int, default 8
        Of the guided filter, in pixels.
    eps : float, default 1e-4
        Ridge of the guided filter, for colours of 0..1.
    max_pixels : int, default 400000
        A larger image is refined at about this size and the result upsampled, so that memory stays bounded.
    """

    method: RefineMethod = "none"
    temperature: float = 0.1
    certainty: float = 0.7
    crf: Crf = field(default_factory=Crf)
    pamr: Pamr = field(default_factory=Pamr)
    radius: int = 8
    eps: float = 1e-4
    max_pixels: int = 400_000

    supervised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("refinement", self.method, get_args(RefineMethod))
        check_bounds(self, certainty=within(0.5, 1), temperature=POSITIVE, max_pixels=POSITIVE)


def refine_leaves(leaf_map: np.ndarray, image: np.ndarray, how: Refine, tokens: np.ndarray | None = None) -> np.ndarray:
    """The leaf map at the size of the image, (H, W), in the type of the one given.

    Parameters
    ----------
    leaf_map : ndarray of int, shape (h, w)
        On a patch grid or at any other size; values do not change.
    image : ndarray of uint8, shape (H, W, 3)
    how : Refine
    tokens : ndarray of float, shape (h', w', C), optional
        They make leaves soft: each pixel's cosine similarity to the mean tokens of the leaves. Without tokens a pixel belongs to the leaf
        it lies in, softly where the grid is coarser than the image.
    """
    if leaf_map.ndim != 2 or 0 in leaf_map.shape or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        raise UsageError(
            f"refine_leaves was given a leaf map of shape {leaf_map.shape} and a {image.dtype} image of shape {image.shape}: "
            "expected (h, w) and a uint8 image (H, W, 3), none of them empty."
        )
    height, width = image.shape[:2]
    leaves, leaf = np.unique(leaf_map, return_inverse=True)
    if how.method == "none" or len(leaves) == 1:
        return nearest(leaf_map, height, width)
    reduced = shrink_to_pixels(image, how.max_pixels)
    best = _best_leaf(leaf.reshape(leaf_map.shape), len(leaves), reduced, how, tokens)
    return nearest(leaves[best.reshape(reduced.shape[:2])], height, width)


def prototypes(leaf_map: np.ndarray, tokens: np.ndarray, leaves: int) -> np.ndarray:
    """Mean token of each leaf, of length 1, float64 (leaves, C); zero for a leaf without pixels.

    Parameters
    ----------
    leaf_map : ndarray of int, shape (h, w)
        0..leaves-1.
    tokens : ndarray of float, shape (h', w', C)
        On another grid a cell counts by the part of it that a leaf covers.
    leaves : int
    """
    rows, columns = (max(a, b) for a, b in zip(leaf_map.shape, tokens.shape[:2], strict=True))
    h, w, channels = tokens.shape
    cell = nearest_cells(rows, h)[:, None] * w + nearest_cells(columns, w)
    pairs = nearest(leaf_map, rows, columns).astype(np.int64) * (h * w) + cell
    held = np.bincount(pairs.ravel(), minlength=leaves * h * w).reshape(leaves, h * w)
    means = held.astype(np.float64) @ tokens.reshape(h * w, channels).astype(np.float64)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def _best_leaf(leaf: np.ndarray, leaves: int, image: np.ndarray, how: Refine, tokens: np.ndarray | None) -> np.ndarray:
    """The refined leaf of each pixel of the image, int64, flat or (H, W)."""
    height, width = image.shape[:2]
    if tokens is None:
        soft = _soft_from_map(leaf, leaves, height, width)
    else:
        soft = _soft_from_tokens(leaf, leaves, tokens, height, width, how.temperature)
    if how.method == "guided":
        return guided_labels(from_blocks(soft, leaves, height, width), image, radius=how.radius, eps=how.eps)
    if how.method == "pamr":
        return best_label(pamr_blocks(soft, image, how.pamr))
    if tokens is None:
        other = (1 - how.certainty) / (leaves - 1)
        soft *= how.certainty - other
        soft += other
    to_energies(soft, leaves)
    return best_label(mean_field(soft, image, how.crf))


def _soft_from_map(leaf: np.ndarray, leaves: int, height: int, width: int) -> np.ndarray:
    """Bilinear memberships in blocks, float32 (blocks, H·W, 4), zero in lanes without a leaf."""
    soft = np.zeros((-(-leaves // LANES), height * width, LANES), np.float32)
    for number in range(leaves):
        soft[number // LANES, :, number % LANES] = bilinear((leaf == number).astype(np.float32), height, width).ravel()
    return soft


def _soft_from_tokens(leaf: np.ndarray, leaves: int, tokens: np.ndarray, height: int, width: int, temperature: float) -> np.ndarray:
    """Softmax over leaves of the cosine between a pixel's token, interpolated bicubically, and the leaf's prototype; in blocks."""
    if tokens.ndim != 3 or 0 in tokens.shape or not np.isfinite(tokens).all():
        raise BadData(f"refine_leaves: tokens of shape {tokens.shape} are not a grid (h, w, C) of finite numbers; extract them again.")
    h, w, channels = tokens.shape
    # interpolation is linear, so the products are interpolated in place of the tokens
    products = (prototypes(leaf, tokens, leaves) @ tokens.reshape(h * w, channels).T.astype(np.float64)).reshape(leaves, h, w)
    scale = 1 / (temperature * np.maximum(_interpolated_norms(tokens, height, width), 1e-12))
    logits = np.full((-(-leaves // LANES), height * width, LANES), -np.inf, np.float32)
    for number in range(leaves):
        logits[number // LANES, :, number % LANES] = (bicubic(products[number], height, width) * scale).ravel()
    logits -= logits.max(axis=(0, 2))[:, None]
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=(0, 2))[:, None]
    return logits


def _interpolated_norms(tokens: np.ndarray, height: int, width: int) -> np.ndarray:
    """Lengths of the tokens interpolated bicubically, float64 (H, W), from products of cells that lie within three of each other."""
    columns = cubic_taps(width, tokens.shape[1])
    tall = sum(tokens[cell] * weight.astype(np.float32)[:, None, None] for cell, weight in cubic_taps(height, tokens.shape[0]))
    tall = np.asarray(tall, np.float32)
    apart = [np.einsum("ywc,ywc->yw", tall[:, : tall.shape[1] - s], tall[:, s:]).astype(np.float64) for s in range(min(4, tall.shape[1]))]
    squared = np.zeros((height, width))
    for one, weight in columns:
        for other, weight2 in columns:
            low, gap = np.minimum(one, other), np.abs(one - other)
            for s in np.unique(gap).tolist():
                columns_apart = gap == s
                squared[:, columns_apart] += apart[s][:, low[columns_apart]] * (weight * weight2)[columns_apart]
    return np.sqrt(np.maximum(squared, 0))
