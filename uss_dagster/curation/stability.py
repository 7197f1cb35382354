"""Whether a method finds a mask again when the picture is mirrored or scaled."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from uss_dagster.errors import UsageError
from uss_dagster.regions import Regions
from uss_dagster.regions.regions import intersections

FLIP = "flip"


def check_views(views: Sequence[str]) -> None:
    """A view is 'flip' or a scale such as '0.75'."""
    for view in views:
        try:
            good = view == FLIP or 0.1 <= float(view) <= 4
        except ValueError:
            good = False
        if not good:
            raise UsageError(f"A view is '{FLIP}' (mirrored) or a scale from '0.1' to '4', such as '0.75'; got '{view}'.")


def stability(image: np.ndarray, regions: Regions, segment: Callable[[np.ndarray], Regions], views: Sequence[str]) -> np.ndarray:
    """For each region the IoU with the region most like it in each view of the picture, the least of all views; float32 (K,).

    image: uint8 (H, W, 3). segment: the method that made the regions, on a changed picture. Without views: NaN.
    """
    if not views:
        return np.full(len(regions), np.nan, np.float32)
    return np.min([_found_again(regions, _in_place(segment, image, view)) for view in views], axis=0).astype(np.float32)


def _in_place(segment: Callable[[np.ndarray], Regions], image: np.ndarray, view: str) -> Regions:
    """Regions of a changed picture, where they lie in the picture itself."""
    from PIL import Image

    if view == FLIP:
        found = segment(np.ascontiguousarray(image[:, ::-1]))
        return Regions(found.atoms[:, ::-1], found.members, found.parent)
    height, width = image.shape[:2]
    size = max(1, round(width * float(view))), max(1, round(height * float(view)))
    return segment(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))).resized(height, width)


def _found_again(regions: Regions, others: Regions) -> np.ndarray:
    """Float64 (K,): the best IoU of each region with any of the others."""
    shared = intersections(regions, others)
    union = regions.area[:, None] + others.area[None, :] - shared
    return np.max(shared / np.maximum(union, 1), axis=1, initial=0.0)
