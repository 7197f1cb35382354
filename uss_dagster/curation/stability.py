"""Stability of masks: whether a method finds a mask again in a mirrored or scaled image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from uss_dagster.errors import UsageError
from uss_dagster.regions import Regions
from uss_dagster.regions.regions import intersections

FLIP = "flip"


def check_views(views: Sequence[str]) -> None:
    """Refuse a view that is neither 'flip' nor a scale such as '0.75'.

    Raises
    ------
    UsageError
    """
    for view in views:
        try:
            valid = view == FLIP or 0.1 <= float(view) <= 4
        except ValueError:
            valid = False
        if not valid:
            raise UsageError(f"A view is '{FLIP}' (mirrored) or a scale from '0.1' to '4', such as '0.75'; got '{view}'.")


def stability(image: np.ndarray, regions: Regions, segment: Callable[[np.ndarray], Regions], views: Sequence[str]) -> np.ndarray:
    """Over all views, the least of the best IoU of each region with a region of the view.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    regions : Regions
        K regions of the image.
    segment : callable
        The method that found the regions; called with the changed images.
    views : sequence of str
        'flip', or scales such as '0.75'.

    Returns
    -------
    float32 array of shape (K,)
        In 0..1; NaN if there are no views.
    """
    if not views:
        return np.full(len(regions), np.nan, np.float32)
    return np.min([_best_ious(regions, _segment_view(segment, image, view)) for view in views], axis=0).astype(np.float32)


def _segment_view(segment: Callable[[np.ndarray], Regions], image: np.ndarray, view: str) -> Regions:
    """The regions of a changed image, mapped back to the image."""
    from PIL import Image

    if view == FLIP:
        mirrored = segment(np.ascontiguousarray(image[:, ::-1]))
        return Regions(mirrored.atoms[:, ::-1], mirrored.members, mirrored.parent)
    height, width = image.shape[:2]
    size = max(1, round(width * float(view))), max(1, round(height * float(view)))
    return segment(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))).resized(height, width)


def _best_ious(regions: Regions, others: Regions) -> np.ndarray:
    """Float64 (K,): the best IoU of each region with any of the others."""
    shared = intersections(regions, others)
    union = regions.area[:, None] + others.area[None, :] - shared
    return np.max(shared / np.maximum(union, 1), axis=1, initial=0.0)
