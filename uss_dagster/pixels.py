"""What several backbones check before they compute: the facets asked for and the images given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uss_dagster.backbones.base import BackboneSpec
from uss_dagster.errors import BadData, UsageError, did_you_mean


def check_facets(spec: BackboneSpec, facets: Sequence[str]) -> frozenset[str]:
    """The facets asked for as a set; an unknown one, one the backbone has not, or none at all is refused."""
    if not facets:
        raise UsageError(f"backbone '{spec.name}': 'facets' is empty. Name at least one of {', '.join(spec.facets)}.")
    for facet in facets:
        if facet not in spec.facets:
            raise UsageError(f"backbone '{spec.name}' has no facet '{facet}'.{did_you_mean(facet, spec.facets)}")
    return frozenset(facets)


def check_image(image: np.ndarray) -> np.ndarray:
    """The image itself if it is uint8 (H, W, 3) with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise BadData(
            f"A backbone got an image of type {image.dtype} and shape {image.shape}, expected uint8 (height, width, 3) RGB. "
            f"Convert it before, for example with PIL's image.convert('RGB')."
        )
    return image


def resize_image(image: np.ndarray, size: tuple[int, int], area: bool = False) -> np.ndarray:
    """A uint8 image at ``size`` (height, width): bicubic, or area-averaged where ``area``. The same size comes back as it is."""
    if image.shape[:2] == size:
        return image
    from PIL import Image

    filter_ = Image.Resampling.BOX if area else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), filter_))
