"""Leaves of a contour map: one region for each regional minimum, grown by flooding.

Flooding is compiled here: scikit-image's watershed divides plateaus in another order.

References: Beucher & Lantuéjoul, "Use of watersheds in contour detection", 1979; Meyer, "Un algorithme optimal pour la ligne de partage
des eaux", RFIA 1991 (flooding from markers by ordered queues).
"""

from __future__ import annotations

import math

import numpy as np

from uss_dagster.pixels import bilinear, to_lab

LEVELS = 1000
"""Steps of strength that flooding tells apart; finer differences would make regions of rounding errors."""
SIDE_PER_SIGMA = 225
"""Sides of a square picture that ``colour_leaves`` smooths by one pixel."""
STEEPEST = 200.0
"""Colour step, in units of Lab over eight pixels, from which on all are alike; roots of smaller ones are flooded, which tells soft edges apart."""


def watershed(strength: np.ndarray) -> np.ndarray:
    """Regions of a strength map without line pixels, int64 (H, W), 4-connected, numbered 0.. by first marker pixel.

    Minima are tested with eight neighbours, so that a diagonal step down is no minimum, and grow over four.

    Parameters
    ----------
    strength : ndarray of float, shape (H, W)
        Boundary strength, 0..1.
    """
    from uss_dagster.graphs._watershed_kernel import flood

    levels = np.round(np.clip(strength, 0, 1).astype(np.float64) * LEVELS).astype(np.int32)
    labels = regional_minima(levels)
    flood(levels, labels, LEVELS)
    return labels.astype(np.int64) - 1


def regional_minima(levels: np.ndarray) -> np.ndarray:
    """The 4-connected parts of all minima of a map, int (H, W), as int32 (H, W): 0 for none, else 1.. in raster order.

    A minimum is an 8-connected set of pixels of one level without a lower 8-neighbour.
    """
    from skimage.measure import label
    from skimage.morphology import local_minima

    lowest = local_minima(levels, connectivity=2)
    if not lowest.any():  # scikit-image finds no minimum in a constant map; here it is one
        lowest[:] = True
    return label(lowest, connectivity=1).astype(np.int32)


def contour_leaves(strength: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    """Watershed regions, int64 (h, w), of a half-size contour map (h, w) smoothed with ``sigma`` full-size pixels at full size."""
    from scipy import ndimage

    from uss_dagster.graphs.contours import half_size

    h, w = strength.shape
    full = bilinear(strength.astype(np.float64), 2 * h, 2 * w)
    return watershed(half_size(ndimage.gaussian_filter(full, sigma)))


def colour_leaves(image: np.ndarray) -> np.ndarray:
    """Small pieces of even colour, int64 (H, W): watershed regions of the colour steps of an image at full size.

    The image is smoothed in proportion to its sides, so that there are a few thousand pieces for any size.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    """
    from scipy import ndimage

    sigma = max(1.0, math.sqrt(image.shape[0] * image.shape[1]) / SIDE_PER_SIGMA)
    lab = to_lab(image)
    steps = np.zeros(image.shape[:2], np.float32)
    for c in range(3):
        channel = ndimage.gaussian_filter(lab[..., c], sigma)
        steps += ndimage.sobel(channel, 0) ** 2 + ndimage.sobel(channel, 1) ** 2
    return watershed(np.sqrt(np.sqrt(steps) / STEEPEST))
