"""RGB images and grids laid over them: checks, resizing, Lab colours and linear interpolation.

Belongs here: small functions on pixels that graphs, backbones, refinement and methods share. Does not belong here: features,
regions, and files on disk.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.errors import BadData

_SHRINK_ABOVE = 4 / 3
"""An image is resized only where its long side exceeds the requested one by this factor: a slight reduction would only blur it."""


def check_image(image: np.ndarray) -> np.ndarray:
    """The image itself if it is uint8 (H, W, 3) with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise BadData(
            f"A backbone got an image of type {image.dtype} and shape {image.shape}, expected uint8 (height, width, 3) RGB. "
            f"Convert it before, for example with PIL's image.convert('RGB')."
        )
    return image


def resize_image(image: np.ndarray, size: tuple[int, int], area: bool = False) -> np.ndarray:
    """A uint8 image at another size, bicubic or area-averaged.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    size : (int, int)
        Height and width of the result. An image of this size is returned as it is.
    area : bool, default False
        Average over the area of each new pixel; otherwise bicubic.
    """
    if image.shape[:2] == size:
        return image
    from PIL import Image

    filter_ = Image.Resampling.BOX if area else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), filter_))


def shrink_long_side(image: np.ndarray, long_side: int | None) -> np.ndarray:
    """The image area-averaged down to a long side, or as it is where its long side is at most 4/3 of that.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    long_side : int or None
        Pixels of the longer side of the result. None never resizes.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    if long_side is None or longest <= long_side * _SHRINK_ABOVE:
        return image
    return resize_image(image, (max(1, round(height * long_side / longest)), max(1, round(width * long_side / longest))), area=True)


def shrink_to_pixels(image: np.ndarray, most: int) -> np.ndarray:
    """The image area-averaged to about ``most`` pixels, or as it is where it has no more."""
    height, width = image.shape[:2]
    share = (most / (height * width)) ** 0.5
    return image if share >= 1 else resize_image(image, (max(1, round(height * share)), max(1, round(width * share))), area=True)


def to_lab(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a uint8 RGB image, float32 (H, W, 3), L in 0..100."""
    from skimage.color import rgb2lab

    return rgb2lab(image.astype(np.float32) / 255).astype(np.float32)


PART = 2**20
"""Pixels counted at once: NumPy counts and looks up in copies of 8 bytes a pixel."""


def count_of_each(numbers: np.ndarray, size: int, lowest: int = 0) -> np.ndarray:
    """How often each of ``size`` whole numbers from ``lowest`` on stands in an array that holds no others, int64 (size,)."""
    flat = numbers.ravel()
    counts = np.zeros(size, np.int64)
    for begin in range(0, flat.size, PART):
        counts += np.bincount(flat[begin : begin + PART].astype(np.int64) - lowest, minlength=size)
    return counts


def distinct_values(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different values of an array, ascending, and how often each stands there; whole numbers that lie close together are not sorted for it."""
    if values.dtype.kind not in "iu" or not values.size:
        return np.unique(values, return_counts=True)
    lowest, range_ = int(values.min()), int(values.max()) - int(values.min()) + 1
    if range_ > PART:
        return np.unique(values, return_counts=True)
    counts = count_of_each(values, range_, lowest)
    present = np.flatnonzero(counts)
    return (present + lowest).astype(values.dtype), counts[present]


def places_among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Index of each value of an array among different ascending values, which hold all of them; int32, in the shape of ``values``."""
    flat = values.ravel()
    places = np.empty(flat.size, np.int32)
    for begin in range(0, flat.size, PART):
        places[begin : begin + PART] = np.searchsorted(ascending, flat[begin : begin + PART])
    return places.reshape(values.shape)


def numbered_by_first(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number distinct values 0.. by where they first stand in the flat array.

    Returns
    -------
    numbers : ndarray of int64
        Number of each value, in the shape of ``values``.
    first : ndarray of int64
        Flat index of the first entry of each number, ascending.
    """
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse.reshape(values.shape)], first[order]


Taps = list[tuple[np.ndarray, np.ndarray]]
"""For each tap of an interpolation along one axis, the cell of each pixel, int64 (size,), and its weight, float64 (size,)."""


def linear_taps(size: int, cells: int) -> Taps:
    """The two nearest of ``cells`` cells around each of ``size`` pixels, and their weights, which sum to 1.

    Cells are aligned as areas: pixel p lies at (p + 1/2) · cells / size - 1/2 among the cells. Beyond the first and last cell
    centre the value of that cell is held.
    """
    place = np.clip((np.arange(size) + 0.5) * cells / size - 0.5, 0, cells - 1)
    low = np.floor(place).astype(np.int64)
    return [(low, 1 - (place - low)), (np.minimum(low + 1, cells - 1), place - low)]


def interpolate(maps: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """Separable weighted sums of the cells of maps (..., h, w), in their precision; integers are interpolated in float64."""
    kind = maps.dtype if np.issubdtype(maps.dtype, np.floating) else np.float64
    tall = sum(maps[..., cell, :] * weight.astype(kind)[:, None] for cell, weight in rows)
    return np.asarray(sum(tall[..., cell] * weight.astype(kind) for cell, weight in columns))


def bilinear(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Maps (..., h, w) at (..., height, width); see ``linear_taps`` and ``interpolate``."""
    return interpolate(maps, linear_taps(height, maps.shape[-2]), linear_taps(width, maps.shape[-1]))


def nearest_cells(size: int, cells: int) -> np.ndarray:
    """The cell that the centre of each of ``size`` pixels lies in, int64 (size,)."""
    return ((np.arange(size) + 0.5) * cells / size).astype(np.int64)


def nearest(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A label map (h, w) at (height, width), each pixel with the label of the cell that its centre lies in; also to a smaller size."""
    return np.asarray(labels[nearest_cells(height, labels.shape[0])[:, None], nearest_cells(width, labels.shape[1])])


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks, bool (H, W); 0 where both are empty."""
    union = int((first | second).sum())
    return int((first & second).sum()) / union if union else 0.0
