"""What can be said of a region without labels: its size and shape, how even it is inside, and how it stands out."""

from __future__ import annotations

import numpy as np

from uss_dagster.metrics.unlabelled.picture import PictureGrid

NAMES = (
    "log_share", "feature_spread", "feature_contrast_near", "feature_contrast_far", "colour_spread", "colour_contrast_near",
    "edge_strength", "edge_share", "edges_inside", "border_share", "roughness",
)  # fmt: skip
"""The columns of ``describe``, see there."""
RING = 8
"""Cells around a region that count as near it."""


def describe(picture: PictureGrid, masks: np.ndarray) -> np.ndarray:
    """Describe regions.

    Parameters
    ----------
    picture : PictureGrid
    masks : ndarray
        bool (n, h, w), none of them empty or the whole picture.

    Returns
    -------
    ndarray
        float64 (n, len(NAMES)):
        log_share, log of the share of the picture; feature_spread and colour_spread, mean squared distance from the region's mean;
        feature_contrast_near and colour_contrast_near, squared distance from the mean of cells at most ``RING`` away; feature_contrast_far,
        from that of all other cells; edge_strength, mean of the edges on the boundary; edge_share, share of the boundary with more than
        the picture's mean edge; edges_inside, mean of the edges away from the boundary; border_share, share of the picture's border that
        the region touches; roughness, cells on the boundary by the root of the area.
    """
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    stack = masks.astype(np.uint8)

    def widened(reach: int) -> np.ndarray:
        across = maximum_filter1d(stack, 2 * reach + 1, axis=1)
        return maximum_filter1d(across, 2 * reach + 1, axis=2).astype(bool)

    def narrowed(reach: int) -> np.ndarray:
        across = minimum_filter1d(stack, 2 * reach + 1, axis=1)
        return minimum_filter1d(across, 2 * reach + 1, axis=2).astype(bool)

    boundary, inside, ring = masks & ~narrowed(1), narrowed(2), widened(RING) & ~masks
    area = masks.sum(axis=(1, 2)).astype(np.float64)
    features, colours = _Means.of(picture.features, masks), _Means.of(picture.colours, masks)
    touched = masks[:, 0].mean(1) + masks[:, -1].mean(1) + masks[:, :, 0].mean(1) + masks[:, :, -1].mean(1)
    strong = picture.edges > 1
    columns = (
        np.log(area / masks[0].size),
        features.spread,
        _contrast(features.mean, picture.features, ring),
        _contrast(features.mean, picture.features, ~masks),
        colours.spread,
        _contrast(colours.mean, picture.colours, ring),
        _mean_over(boundary, picture.edges),
        _mean_over(boundary, strong.astype(np.float64)),
        _mean_over(inside, picture.edges),
        touched / 4,
        boundary.sum(axis=(1, 2)) / np.sqrt(area),
    )
    return np.stack(columns, axis=1)


class _Means:
    """Mean of cells in each mask, (n, C), and their mean squared distance from it, (n,)."""

    def __init__(self, mean: np.ndarray, spread: np.ndarray) -> None:
        self.mean, self.spread = mean, spread

    @classmethod
    def of(cls, cells: np.ndarray, masks: np.ndarray) -> _Means:
        mean = _sums(masks, cells) / _counts(masks)[:, None]
        squares = _sums(masks, (cells**2).sum(axis=2, keepdims=True))[:, 0] / _counts(masks)
        return cls(mean, np.maximum(squares - (mean**2).sum(axis=1), 0))


def _contrast(mean: np.ndarray, cells: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Squared distance of each mean from that of the cells in a mask; 0 where the mask is empty."""
    other = _sums(masks, cells) / _counts(masks)[:, None]
    return np.where(masks.any(axis=(1, 2)), ((mean - other) ** 2).sum(axis=1), 0)


def _mean_over(masks: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(_sums(masks, values[:, :, None])[:, 0] / _counts(masks))


def _sums(masks: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """(n, C): the sum of cells (h, w, C) in each mask."""
    return np.asarray(masks.reshape(len(masks), -1).astype(np.float32) @ cells.reshape(-1, cells.shape[2]).astype(np.float32), np.float64)


def _counts(masks: np.ndarray) -> np.ndarray:
    """Cells in each mask, at least 1."""
    return np.maximum(masks.sum(axis=(1, 2)), 1).astype(np.float64)
