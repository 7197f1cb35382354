"""From a patch grid to pixels: bicubic interpolation, and the guided filter that moves borders to those of the image.

References: He, Sun & Tang, "Guided image filtering", PAMI 35, 2013 (colour guide); Keys, "Cubic convolution interpolation for digital
image processing", IEEE TASSP 29, 1981 (here with a = -0.75). Cells are aligned as in ``pixels.linear_taps``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from uss_dagster.errors import BadData, UsageError
from uss_dagster.pixels import Taps, interpolate


def bicubic(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (..., h, w) at (..., height, width) by cubic convolution; values may overshoot."""
    return interpolate(maps, cubic_taps(height, maps.shape[-2]), cubic_taps(width, maps.shape[-1]))


def cubic_taps(size: int, cells: int) -> Taps:
    """For each of ``size`` pixels four cells and their weights, which sum to 1; beyond the border the last cell counts again."""
    place = (np.arange(size) + 0.5) * cells / size - 0.5
    low = np.floor(place).astype(np.int64)
    taps = []
    for step in (-1, 0, 1, 2):
        t, a = np.abs(place - low - step), -0.75
        near, far = ((a + 2) * t - (a + 3)) * t * t + 1, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        taps.append((np.clip(low + step, 0, cells - 1), np.where(t <= 1, near, far)))
    return taps


def guided_filter(maps: np.ndarray, image: np.ndarray, *, radius: int = 8, eps: float = 1e-4) -> np.ndarray:
    """Soft maps smoothed so that they follow the colours of an image, float64 (L, H, W).

    Each window of 2 · radius + 1 pixels fits the map as a linear function of the colour (0..1). A pixel takes the mean of the windows over
    it. At the border windows hold only pixels that exist.

    Parameters
    ----------
    maps : ndarray of float, shape (L, H, W)
    image : ndarray of uint8, shape (H, W, 3)
    radius : int, default 8
        Of a window, in pixels.
    eps : float, default 1e-4
        Ridge on the slope of the fit.
    """
    out = np.zeros(maps.shape)
    for label, (rows, columns, part) in enumerate(guided_parts(maps, image, radius, eps)):
        out[label, rows, columns] = part
    return out


def guided_labels(maps: np.ndarray, image: np.ndarray, *, radius: int = 8, eps: float = 1e-4) -> np.ndarray:
    """The label of the greatest filtered value at each pixel, int64 (H, W), the first of equals; without all filtered maps at once."""
    top = np.full(image.shape[:2], -np.inf)
    best = np.zeros(image.shape[:2], np.int64)
    for label, (rows, columns, part) in enumerate(guided_parts(maps, image, radius, eps)):
        better = part > top[rows, columns]
        best[rows, columns][better] = label
        top[rows, columns][better] = part[better]
    return best


def guided_parts(maps: np.ndarray, image: np.ndarray, radius: int, eps: float) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """For each map the rows and columns outside which its filtered values are zero, and the values inside."""
    if maps.ndim != 3 or image.shape != (*maps.shape[1:], 3) or image.dtype != np.uint8:
        raise UsageError(
            f"The guided filter was given a {image.dtype} image of shape {image.shape} and maps of shape {maps.shape}: "
            "expected a uint8 image (height, width, 3) and maps (labels, height, width)."
        )
    if radius < 1 or not eps > 0:
        raise UsageError(f"The guided filter was given radius {radius} and eps {eps}, expected 1 or more, and more than 0.")
    if not np.isfinite(maps).all():
        raise BadData("The guided filter was given maps with NaN or infinite values; repair what made them.")
    guide = image.astype(np.float64) / 255
    mean, inverse = _guide_statistics(guide, radius, eps)
    for soft in maps:
        # a map that is zero all over a window fits to zero there, so a frame of two radii around its support holds the rest
        rows, columns = _support(soft.any(axis=1), 2 * radius), _support(soft.any(axis=0), 2 * radius)
        # windows cut short reach two radii inwards
        outer = _widen(rows, 2 * radius, soft.shape[0]), _widen(columns, 2 * radius, soft.shape[1])
        filtered = _guided(soft[outer].astype(np.float64), guide[outer], mean[outer], inverse[outer], radius)
        yield rows, columns, filtered[rows.start - outer[0].start :, columns.start - outer[1].start :][: _size(rows), : _size(columns)]


def _size(span: slice) -> int:
    return int(span.stop - span.start)


def _support(held: np.ndarray, margin: int) -> slice:
    """The span of the true values, widened; empty where there are none."""
    places = np.flatnonzero(held)
    return _widen(slice(int(places[0]), int(places[-1]) + 1), margin, len(held)) if len(places) else slice(0, 0)


def _widen(span: slice, margin: int, size: int) -> slice:
    return slice(max(span.start - margin, 0), min(span.stop + margin, size))


def _guide_statistics(guide: np.ndarray, radius: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of each window (H, W, 3), and the inverse of its covariance plus eps (H, W, 3, 3)."""
    mean = np.stack([_box(guide[..., c], radius) for c in range(3)], axis=-1)
    covariance = np.empty((*guide.shape, 3))
    for c in range(3):
        for d in range(c, 3):
            covariance[..., c, d] = covariance[..., d, c] = _box(guide[..., c] * guide[..., d], radius) - mean[..., c] * mean[..., d]
    return mean, np.linalg.inv(covariance + eps * np.eye(3))


def _guided(soft: np.ndarray, guide: np.ndarray, mean: np.ndarray, inverse: np.ndarray, radius: int) -> np.ndarray:
    mean_soft = _box(soft, radius)
    cross = np.stack([_box(guide[..., c] * soft, radius) - mean[..., c] * mean_soft for c in range(3)], axis=-1)
    slope = np.einsum("yxcd,yxd->yxc", inverse, cross)
    level = mean_soft - (slope * mean).sum(axis=-1)
    return np.asarray(_box(level, radius) + sum(_box(slope[..., c], radius) * guide[..., c] for c in range(3)))


def _box(values: np.ndarray, radius: int) -> np.ndarray:
    """Mean over the pixels within ``radius`` rows and columns that exist."""
    for axis in (0, 1):
        size = values.shape[axis]
        total = np.concatenate([np.zeros_like(values.take([0], axis)), np.cumsum(values, axis=axis)], axis=axis)
        first, last = np.maximum(np.arange(size) - radius, 0), np.minimum(np.arange(size) + radius + 1, size)
        count = (last - first).reshape((-1, 1) if axis == 0 else (1, -1))
        values = (total.take(last, axis) - total.take(first, axis)) / count
    return values
