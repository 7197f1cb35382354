"""Boundary strength of a colour image from differences of local histograms.

At every pixel and orientation two boxes lie side by side, and the histograms of lightness, colour and texture inside them are compared.
A boundary is where they differ in some orientation. Boxes come from integral images on rotated grids, whose counts are integers. The
loops are compiled; ``benchmarks/contour_merge.py`` times whole segmentations with them beside scikit-image's Felzenszwalb.

References: Martin, Fowlkes & Malik, "Learning to detect natural image boundaries using local brightness, color, and texture cues", TPAMI
26(5), 2004; Arbeláez et al., "Contour detection and hierarchical image segmentation", TPAMI 33(5), 2011; Malik et al., "Contour and
texture analysis for image segmentation", IJCV 43(1), 2001 (textons).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLOUR_BINS = 16
COLOUR_RANGES = ((0.0, 100.0), (-50.0, 60.0), (-60.0, 70.0))
"""Lowest and highest value of L, a, b in their histograms; what lies beyond counts at the end."""
BIN_REACH = 1.6
"""A value counts in all bins nearer than this, less with distance."""
UNIT = 255
"""Counts that one pixel adds to one histogram."""
TEXTON_SCALES = (1.0, 1.6, 2.5)
ODD_SCALES = (1.0, 1.6)
TEXTON_ORIENTATIONS = 6


def histogram_planes(lab: np.ndarray, *, textons: int = 24, seed: int = 0) -> np.ndarray:
    """Counts of each half-size pixel in the bins of L, a, b and texture; each of the four sums to about 255.

    Parameters
    ----------
    lab : ndarray of float32, shape (H, W, 3)
        L in 0..100.
    textons : int, default 24
        Clusters of filter responses.
    seed : int, default 0
        Of these clusters.

    Returns
    -------
    ndarray of uint8, shape (48 + textons, ceil(H / 2), ceil(W / 2))
    """
    half = half_size(lab)
    planes = [_soft_bins(half[:, :, c], *COLOUR_RANGES[c]) for c in range(3)]
    words = texton_map(lab, textons, seed)
    one_hot = (words == np.arange(textons, dtype=np.uint8)[:, None, None]).astype(np.float32)
    share = half_size(one_hot.transpose(1, 2, 0)).transpose(2, 0, 1)
    planes.append((share * UNIT).astype(np.uint8))
    return np.concatenate(planes)


def contour_strength(
    planes: np.ndarray,
    *,
    orientations: int = 8,
    colour_radii: Sequence[float] = (3, 6, 12),
    texture_radii: Sequence[float] = (5, 10, 20),
    lightness_weight: float = 6.0,
    other_weight: float = 4.5,
    bias: float = -4.1,
) -> np.ndarray:
    """Boundary strength at half size, 0..1, float32 (h, w).

    At each orientation the strength is ``bias`` plus the weighted chi-squared differences, 0..1, of L, a, b and texture, averaged over
    the scales. The greatest over the orientations goes through a sigmoid.

    Parameters
    ----------
    planes : ndarray of uint8, shape (b, h, w)
        Of ``histogram_planes``.
    orientations : int, default 8
    colour_radii, texture_radii : sequence of float, default (3, 6, 12) and (5, 10, 20)
        One radius a scale, in pixels of the full-size image. A box reaches half the radius of half-size pixels from the boundary and is
        1.7 times as long along it.
    lightness_weight : float, default 6
        Weight of L.
    other_weight : float, default 4.5
        Weight of each of a, b and texture.
    bias : float, default -4.1
    """
    height, width = planes.shape[1:]
    scales = len(colour_radii)
    boxes = [[_box(r) for r in colour_radii]] * 3 + [[_box(r) for r in texture_radii]]
    weights = [lightness_weight / scales] + [other_weight / scales] * 3
    first_plane = [0, COLOUR_BINS, 2 * COLOUR_BINS, 3 * COLOUR_BINS, len(planes)]
    flat = [planes[first_plane[c] : first_plane[c + 1]].reshape(-1, height * width) for c in range(4)]
    cues = [(bins[bins.any(axis=1)], boxes[c], weights[c]) for c, bins in enumerate(flat)]  # an empty bin makes no difference
    best = np.full((height, width), -np.inf, np.float32)
    for turn in range(orientations):
        _add_orientation(cues, np.pi * turn / orientations, best)
    return (1 / (1 + np.exp(-(best + np.float32(bias)).astype(np.float64)))).astype(np.float32)


def half_size(image: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels, (ceil(H / 2), ceil(W / 2), ...); an odd last row or column is counted twice."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, height % 2), (0, width % 2), *((0, 0),) * (image.ndim - 2)), mode="edge")
    return (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4


def _box(radius: float) -> tuple[int, int]:
    """(width across, odd length along) in half-size pixels of a box with this radius in full-size pixels."""
    half = radius / 2
    tall = round(1.7 * half)
    return max(1, round(half)), tall + 1 - tall % 2


def _add_orientation(cues: list[tuple[np.ndarray, list[tuple[int, int]], float]], angle: float, best: np.ndarray) -> None:
    """Raise ``best`` to the weighted differences across boundaries that run at this angle."""
    from uss_dagster.graphs._contour_kernel import add_difference, integral, keep_largest

    margin = 2 + max(max(wide, tall) for _, boxes, _ in cues for wide, tall in boxes)
    index, first, last, ys, xs = _rotated_grid(best.shape, angle, margin)
    response = np.zeros(index.shape, np.float32)
    table = np.zeros((index.shape[0] + 1, index.shape[1] + 1), np.int32)
    for planes, boxes, weight in cues:
        for plane in planes:
            integral(plane, index, table)
            for wide, tall in boxes:
                # 0.5 (p - q)² / (p + q) of histograms that sum to 1, from their counts
                add_difference(table, first, last, wide, tall, 0.5 * weight / (UNIT * wide * tall), response)
    keep_largest(response, ys, xs, best)


def _rotated_grid(shape: tuple[int, int], angle: float, margin: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A pixel grid whose rows run at ``angle`` to those of the image, with the mirrored image ``margin`` pixels around.

    index: int32 (h, w), the nearest image pixel of each grid pixel. first, last: int64 (h,), the grid pixels of each row from which
    image pixels are read back. ys, xs: float32 (H, W), where each image pixel lies among the *upper edges* of the grid's pixels.
    """
    height, width = shape
    cos, sin = np.cos(angle), np.sin(angle)
    middle_y, middle_x = height // 2, width // 2  # a pixel, so that grid and image coincide at right angles
    y, x = np.arange(height)[:, None] - middle_y, np.arange(width) - middle_x
    across, along = np.round(cos * y - sin * x, 9), np.round(sin * y + cos * x, 9)
    h, w = (2 * int(np.ceil(np.abs(c).max())) + 1 + 2 * margin for c in (across, along))
    v, u = np.arange(h)[:, None] - h // 2, np.arange(w) - w // 2
    rows = _mirrored(np.round(cos * v + sin * u, 9) + middle_y, height)
    columns = _mirrored(np.round(cos * u - sin * v, 9) + middle_x, width)
    index = (rows * width + columns).astype(np.int32)
    ys, xs = (across + h // 2 + 0.5).astype(np.float32), (along + w // 2).astype(np.float32)
    first, last = np.full(h, w), np.zeros(h, np.int64)
    for offset in (0, 1):
        line = ys.astype(np.int64) + offset
        np.minimum.at(first, line, xs.astype(np.int64))
        np.maximum.at(last, line, xs.astype(np.int64) + 2)
    return index, first, last, ys, xs


def _mirrored(place: np.ndarray, size: int) -> np.ndarray:
    """The nearest of ``size`` pixels, continued by mirroring at the image border."""
    inside = np.floor(place + 0.5).astype(np.int64) % (2 * size)
    return np.minimum(inside, 2 * size - 1 - inside)


def _soft_bins(channel: np.ndarray, low: float, high: float) -> np.ndarray:
    """Counts (16, h, w) of a channel; a table over 4096 values serves for the value itself."""
    values = np.linspace(0, COLOUR_BINS - 1, 4096)
    weight = np.maximum(0, 1 - np.abs(values[:, None] - np.arange(COLOUR_BINS)) / BIN_REACH)
    table = np.round(UNIT * weight / weight.sum(axis=1, keepdims=True)).astype(np.uint8)
    place = np.round(np.clip((channel.astype(np.float64) - low) / (high - low), 0, 1) * 4095).astype(np.int64)
    return np.ascontiguousarray(table.T)[:, place]


def texton_map(lab: np.ndarray, textons: int, seed: int) -> np.ndarray:
    """The texton (cluster of filter responses of this image) of each pixel, uint8 (H, W)."""
    from uss_dagster.graphs._contour_kernel import nearest_word
    from uss_dagster.graphs.kmeans import kmeans

    responses = texture_responses(lab[:, :, 0] / np.float32(100))
    channels = responses.reshape(len(responses), -1)
    rng = np.random.default_rng(seed)
    sample = channels[:, np.sort(rng.permutation(channels.shape[1])[:6000])].T
    words = kmeans(sample, textons, seed=seed, restarts=1, iterations=15).centres
    nearest = np.empty(channels.shape[1], np.uint8)
    nearest_word(channels, words.astype(np.float32), nearest)
    return nearest.reshape(lab.shape[:2])


def texture_responses(lightness: np.ndarray) -> np.ndarray:
    """Responses of 33 filters, float32 (33, H, W), each divided by its deviation, each pixel's vector then compressed in length."""
    from scipy import ndimage

    from uss_dagster.graphs._contour_kernel import correlate

    height, width = lightness.shape
    filters = texture_filters()
    margin = max(len(taps) for taps in filters) // 2
    padded = np.pad(lightness, margin, mode="symmetric")
    responses = np.empty((len(filters) + len(TEXTON_SCALES), height, width), np.float32)
    for taps, out in zip(filters, responses, strict=False):
        correlate(padded, taps, margin, out)
    for sigma, out in zip(TEXTON_SCALES, responses[len(filters) :], strict=True):
        np.subtract(ndimage.gaussian_filter(lightness, sigma), ndimage.gaussian_filter(lightness, 1.6 * sigma), out=out)
    for channel in responses:
        deviation = channel.std(dtype=np.float64)
        channel *= np.float32(1 / deviation if deviation > 1e-6 else 0)
    length = np.sqrt(np.einsum("cyx,cyx->yx", responses, responses))
    usual = np.float32(0.9 * np.sqrt(len(responses)))
    responses *= np.log1p(length / usual) / np.maximum(length, np.float32(1e-6))
    return responses


def texture_filters() -> list[np.ndarray]:
    """30 oriented filters (k, k), float32: second derivatives of an elongated Gaussian at three scales, first ones at the two finer."""
    filters = []
    for sigma in TEXTON_SCALES:
        reach = int(3 * sigma)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        for turn in range(TEXTON_ORIENTATIONS):
            angle = np.pi * turn / TEXTON_ORIENTATIONS
            u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
            envelope = np.exp(-(u**2) / (2 * sigma**2) - v**2 / (8 * sigma**2))
            even = envelope * (u**2 / sigma**4 - 1 / sigma**2)
            kinds = [even - even.mean()]
            if sigma in ODD_SCALES:
                kinds.append(-envelope * u / sigma**2)
            filters += [(kind / np.abs(kind).sum()).astype(np.float32) for kind in kinds]
    return filters
