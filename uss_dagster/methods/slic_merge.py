"""SLIC superpixels merged by feature distance and boundary strength into one tree.

References: Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel methods", TPAMI 34(11), 2012; Arbeláez,
"Boundary extraction in natural images using ultrametric contour maps", CVPRW 2006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import POSITIVE, at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.merging import merge_tree
from uss_dagster.graphs.region_graph import region_graph, region_means
from uss_dagster.graphs.superpixels import slic
from uss_dagster.graphs.vectors import scaled_tokens
from uss_dagster.methods.base import MethodSpec
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    superpixels : int
        About how many. Default 400.
    compactness : float
        Of SLIC; greater is squarer. Default 20.
    feature_weight, size_exponent : float
        See ``merge_tree``. Default 0.3 and 0.2.
    gradient_scale : float
        Lab gradient of a full boundary, in units a pixel after smoothing with sigma 1. Default 10.
    feature_power : float
        Mean squared norm to which centred tokens are scaled, so that one ``feature_weight`` serves every backbone. Default 15.
    """

    superpixels: int = 400
    compactness: float = 20.0
    feature_weight: float = 0.3
    size_exponent: float = 0.2
    gradient_scale: float = 10.0
    feature_power: float = 15.0

    def __post_init__(self) -> None:
        check_bounds(self, superpixels=at_least(1), compactness=POSITIVE, gradient_scale=POSITIVE, feature_power=POSITIVE)
        check_bounds(self, feature_weight=at_least(0), size_exponent=at_least(0))


SPEC = MethodSpec(
    name="slic_merge",
    title="SLIC + merging",
    params=Params,
    needs=("tokens",),
    paper="Achanta et al., TPAMI 2012; Arbeláez, CVPRW 2006",
    licence="MIT",
    reimplementation=False,
    summary="Superpixels, merged greedily by token distance and colour gradient into a binary tree.",
)


def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """A binary tree of regions from the image (region 0) down to superpixels; ``level`` is the merge height, 0 at superpixels."""
    labels = slic(sample.image, params.superpixels, params.compactness)
    area = np.bincount(labels.ravel())
    features = region_means(labels, len(area), scaled_tokens(sample.features["tokens"], params.feature_power))
    graph = region_graph(labels, _boundary(sample.image, params.gradient_scale))
    tree = merge_tree(graph, area, features, feature_weight=params.feature_weight, size_exponent=params.size_exponent)
    return Regions.from_tree(tree.leaf[labels], tree.parent, level=tree.height)


def _boundary(image: np.ndarray, scale: float) -> np.ndarray:
    """Boundary strength (H, W) in 0..1: magnitude of the Lab gradient over all three channels, full at ``scale``."""
    from scipy.ndimage import gaussian_filter1d
    from skimage.color import rgb2lab

    lab = rgb2lab(image).astype(np.float32)
    square = np.zeros(image.shape[:2], np.float32)
    for axis in (0, 1):
        slope = gaussian_filter1d(gaussian_filter1d(lab, 1.0, axis=axis, order=1), 1.0, axis=1 - axis)
        square += (slope**2).sum(axis=2)
    return np.minimum(np.sqrt(square) / scale, 1.0)
