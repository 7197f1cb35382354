"""Square examples: what protocols that score at one size do to images and ground truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from uss_dagster.artifacts.image_files import decode, encode_png
from uss_dagster.datasets.base import Example
from uss_dagster.regions import Regions


def centre_crop(example: Example, side: int) -> Example:
    """The square in the centre, ``side`` pixels wide: the image bilinear, its ground truth nearest, as a PNG."""
    from PIL import Image

    image, truth = decode(example.image, example.image_id), example.truth
    if truth.shape != image.shape[:2]:  # refused where the two are compared
        return example
    short = min(truth.shape)
    top, left = ((length - short) // 2 for length in truth.shape)
    square = (slice(top, top + short), slice(left, left + short))
    pixels = np.asarray(Image.fromarray(image[square]).resize((side, side), Image.Resampling.BILINEAR))
    cut = Regions(truth.atoms[square], truth.members, truth.parent, **truth.columns).resized(side, side).pruned()
    return replace(example, image=encode_png(pixels), suffix=".png", truth=cut)
