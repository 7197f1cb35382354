"""Encoded pictures at a reduced size."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from uss_dagster.artifacts.image_files import open_picture, to_rgb, upright_size

GAP = 2.0
"""What is reduced coarsely first stays at least so many times as large as the result."""


def reduced_size(shape: tuple[int, int], long: int) -> tuple[int, int]:
    """(height, width) whose longer side has at most ``long`` pixels, in the proportions of ``shape``."""
    scale = min(1.0, long / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def reduce_picture(image: np.ndarray, long: int) -> np.ndarray:
    """uint8 (h, w, 3) of ``reduced_size``; the image itself if it is not larger."""
    height, width = reduced_size((image.shape[0], image.shape[1]), long)
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=GAP))


def decode_reduced(data: bytes, name: str, long: int) -> tuple[np.ndarray, tuple[int, int]]:
    """``reduce_picture`` of an encoded picture, and the (height, width) that it has in full.

    A JPEG is decoded at an eighth, a quarter or half of its size where that is at least ``GAP`` times the result: for a large photograph several
    times faster.
    """
    with open_picture(data, name) as picture:
        shape = upright_size(picture)
        height, width = reduced_size(shape, long)
        turned = shape != picture.size[::-1]
        most = (int(GAP * width), int(GAP * height))
        picture.draft(None, most[::-1] if turned else most)
        picture.load()
        image = np.asarray(to_rgb(ImageOps.exif_transpose(picture)))
    if image.shape[:2] != (height, width):
        image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=GAP))
    return np.ascontiguousarray(image), shape
