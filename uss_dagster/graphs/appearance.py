"""Colour and texture of pixels and regions, without learning: a filter bank, soft colour histograms, one vector a region.

The embedded backbone ``patches`` whitens the filter bank image by image, so its tokens cannot be compared between images. The
vectors of ``region_appearance`` can: they are to a region what ``patches.image_vector`` is to an image.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.pixels import check_image, nearest, shrink_long_side, to_lab

BANK_CHANNELS = 18
USUAL_BANK = np.array([2.5, 0.0, 0.0] + [1.0] * (BANK_CHANNELS - 3))
"""Mid-grey, and texture of usual strength: moments of the bank are taken relative to it, so that their direction tells images apart."""
_LONG_SIDE = 480
"""Pixels: the size that the filter scales were chosen for."""
_BINS = 4
_LOW, _HIGH = np.array([0.0, -50.0, -60.0]), np.array([100.0, 60.0, 70.0])
APPEARANCE_CHANNELS = 2 * BANK_CHANNELS + _BINS**3 + 3


def bank_features(lab: np.ndarray) -> np.ndarray:
    """The unwhitened filter bank (H, W, 18): Lab / 20, then at sigma 1, 2, 4 four directional derivatives and a blob response of L,
    rectified, averaged by a Gaussian of sigma 5 and square-rooted.
    """
    from scipy import ndimage

    L = lab[:, :, 0] / np.float32(100)
    channels = [lab[:, :, c] / np.float32(20) for c in range(3)]
    for sigma in (1.0, 2.0, 4.0):
        smooth = ndimage.gaussian_filter(L, sigma)
        across, down = ndimage.sobel(smooth, axis=1) / 8, ndimage.sobel(smooth, axis=0) / 8
        diagonal = np.float32(np.sqrt(0.5))
        slopes = (across, diagonal * (across + down), down, diagonal * (down - across))  # 0, 45, 90, 135 degrees
        responses = [np.abs(slope) * np.float32(sigma) for slope in slopes]
        responses.append(np.abs(smooth - ndimage.gaussian_filter(L, 1.6 * sigma)))
        for response in responses:
            pooled = ndimage.gaussian_filter(response, 5.0)
            channels.append(np.sqrt(pooled + np.float32(1e-6)) / np.float32(0.12))
    return np.stack(channels, axis=2)


def region_appearance(image: np.ndarray, flat: np.ndarray, n: int) -> np.ndarray:
    """Colour, texture and place of each region, float64 (n, 103).

    Means and deviations of the unwhitened filter bank (36), the square root of a soft 4×4×4 Lab histogram (64), and the place (3): the
    first two parts of length 1 before they are joined and again together; the place is the height of the centre, its distance from the
    middle column, and the square root of the area, as shares of the image. A large image is reduced as the backbone does. A region that
    vanishes then is described by the pixel nearest to its first.

    On 40 drawn scenes the place raised the Hungarian mIoU of 66 labels from about 13 to 17 % for true regions and from 9 to 11 %
    for merged superpixels; weighting regions by area lowered both.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    flat : ndarray of int, shape (H, W)
        Region of each pixel, 0..n-1, each present, or -1 for none.
    n : int
        Number of regions.
    """
    from scipy import sparse

    if flat.shape != image.shape[:2]:
        raise BadData(f"The map of regions is {flat.shape}, the image {image.shape[:2]} (height, width); resize one to the other.")
    lab = to_lab(shrink_long_side(check_image(image), _LONG_SIDE))
    pixel, region = _pixels_of_regions(flat, n, lab.shape[:2])
    area = np.bincount(region, minlength=n).astype(np.float64)[:, None]
    sums = sparse.csr_array((np.ones(len(region)), (region, pixel)), shape=(n, lab.shape[0] * lab.shape[1]))

    bank = bank_features(lab).reshape(-1, BANK_CHANNELS).astype(np.float64)
    mean = sums @ bank / area
    deviation = np.sqrt(np.maximum(sums @ bank**2 / area - mean**2, 0))
    moments = np.concatenate([mean - USUAL_BANK, deviation], axis=1)
    colours = np.sqrt(colour_histograms(lab.reshape(-1, 3)[pixel], region, n) / area)
    joined = np.concatenate([moments / np.maximum(np.linalg.norm(moments, axis=1, keepdims=True), 1e-9), colours], axis=1)
    joined /= np.linalg.norm(joined, axis=1, keepdims=True)

    y, x = np.divmod(pixel, lab.shape[1])
    centre = [np.bincount(region, (at + 0.5) / size, n) / area[:, 0] for at, size in ((y, lab.shape[0]), (x, lab.shape[1]))]
    place = np.stack([centre[0], np.abs(centre[1] - 0.5), np.sqrt(area[:, 0] / (lab.shape[0] * lab.shape[1]))], axis=1)
    return np.concatenate([joined, place], axis=1)


def _pixels_of_regions(flat: np.ndarray, n: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(pixel, region) of all pixels of a reduced image that lie in a region, with at least one for each region."""
    height, width = flat.shape
    reduced = nearest(flat, *shape).ravel()
    pixel = np.flatnonzero(reduced >= 0)
    region = reduced[pixel].astype(np.int64)
    lost = np.flatnonzero(np.bincount(region, minlength=n) == 0)
    if not len(lost):
        return pixel, region
    values, first = np.unique(flat, return_index=True)
    y, x = np.divmod(first[np.searchsorted(values, lost)], width)
    return np.append(pixel, (y * shape[0] // height) * shape[1] + x * shape[1] // width), np.append(region, lost)


def colour_histograms(lab: np.ndarray, region: np.ndarray | int = 0, n: int = 1) -> np.ndarray:
    """Soft 4×4×4 Lab histograms of regions, float64 (n, 64): pixels, each shared linearly between the two nearest bins of a channel.

    Parameters
    ----------
    lab : ndarray of float, shape (P, 3)
        Lab colours of pixels.
    region : ndarray of int, shape (P,), or int, default 0
        Region of each pixel, 0..n-1.
    n : int, default 1
        Number of regions.
    """
    place = (_BINS - 1) * np.clip((lab - _LOW) / (_HIGH - _LOW), 0, 1)
    base = np.minimum(place.astype(np.int64), _BINS - 2)
    share = place - base
    cell = region * _BINS**3 + base @ np.array([_BINS**2, _BINS, 1])
    counts = np.zeros(n * _BINS**3)
    for up in np.ndindex(2, 2, 2):
        weight = np.ones(len(lab))
        for channel in range(3):
            weight *= share[:, channel] if up[channel] else 1 - share[:, channel]
        counts += np.bincount(cell + (up[0] * _BINS + up[1]) * _BINS + up[2], weight, n * _BINS**3)
    return counts.reshape(n, -1)
