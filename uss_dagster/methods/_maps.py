"""Label maps and masks: the highest of several scores at every pixel, connected components."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from uss_dagster.pixels import bilinear


def winners(scores: Iterable[tuple[int, np.ndarray]], height: int, width: int) -> np.ndarray:
    """The label with the highest interpolated score at each pixel, int32 (H, W), the first of equals; one full-size map in memory at a time.

    scores: each label with its map (h, w).
    """
    top = np.full((height, width), -np.inf)
    labels = np.zeros((height, width), np.int32)
    for label, score in scores:
        upsampled = bilinear(score, height, width)
        better = upsampled > top
        labels[better], top[better] = label, upsampled[better]
    return labels


def components(mask: np.ndarray, corners: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """(number of the connected component at each place of a mask, 0 outside; places of each number). corners: they connect, too."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3)) if corners else None)
    return parts, np.bincount(parts.ravel(), minlength=count + 1)
