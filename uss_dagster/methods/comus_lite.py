"""COMUS without its training: a saliency mask an image, the class token of its box, spectral clusters of these as classes.

Reference: Zadaianchuk et al., "Unsupervised semantic segmentation with self-supervised object-centric representations", ICLR 2023. Taken
from there: one object an image, the tight box, spectral clustering of class tokens on a graph of 30 neighbours. Left out: the saliency network
(DeepUSPS), in whose place stands the attention of the class token, cut where it holds 60 % of its mass as in Caron et al., "Emerging
properties in self-supervised vision transformers", ICCV 2021; and all self-training, which is most of the published score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import Bounds, at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.methods._objects import ClassRule, Clustering, ObjectClasses, ObjectRule, Parts, classified_objects, fit_classes
from uss_dagster.methods.base import MethodSpec, Samples, one_thread
from uss_dagster.pixels import bilinear
from uss_dagster.refine.leaves import Refine, RefineMethod, refine_leaves
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    mass : float
        Share of the class token's attention in the salient patches. Default 0.6, as in Caron et al., ICCV 2021.
    refine : {'none', ...}
        How the mask's border is moved to the image's, see ``refine.leaves``. Default 'none'.
    regions : {'whole', 'components'}
        One object an image, or its connected components. Default 'whole', as in the paper.
    min_area, margin, crop
        See ``ObjectRule``. Default 0.01, 0, 224 pixels.
    classes, class_clustering, neighbours, restarts
        See ``ClassRule``. Default 20, 'spectral', 30, 10.
    seed : int
        Of the clustering. Default 0.
    """

    mass: float = 0.6
    refine: RefineMethod = "none"
    regions: Parts = "whole"
    min_area: float = 0.01
    margin: float = 0.0
    crop: int = 224
    classes: int = 20
    class_clustering: Clustering = "spectral"
    neighbours: int = 30
    restarts: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        check_bounds(self, mass=Bounds("above 0 and below 1", lambda mass: 0 < mass < 1), classes=at_least(1))
        _ = self.objects, self.class_rule  # their own bounds

    @property
    def objects(self) -> ObjectRule:
        return ObjectRule(regions=self.regions, min_area=self.min_area, margin=self.margin, crop=self.crop)

    @property
    def class_rule(self) -> ClassRule:
        return ClassRule(self.classes, self.class_clustering, self.restarts, self.neighbours)


SPEC = MethodSpec(
    name="comus_lite",
    title="COMUS, untrained",
    params=Params,
    needs=("cls_attention",),
    encodes=("cls",),
    labels=True,
    paper="Zadaianchuk et al., ICLR 2023",
    summary="What the class token attends to is the object; class tokens of the objects' boxes, clustered spectrally, are the classes.",
)


@one_thread
def fit(samples: Samples, params: Params) -> ObjectClasses | None:
    """Classes of the objects of all images."""
    return fit_classes(((sample, salient(sample, params)) for sample in samples), params.objects, params.class_rule, params.seed)


@one_thread
def segment(sample: Sample, params: Params, state: ObjectClasses | None) -> Regions:
    """The image (region 0), its background (1), and its object with its class as label."""
    return classified_objects(sample, salient(sample, params), params.objects, state, "attention")


def salient(sample: Sample, params: Params) -> np.ndarray:
    """Pixels as salient as the least of the patches that together hold ``mass``, bool (H, W)."""
    attention = sample.features["cls_attention"]
    height, width = sample.image.shape[:2]
    ranked = np.sort(attention.ravel())[::-1].astype(np.float64)
    cumulative = np.cumsum(ranked)
    least = ranked[int(np.searchsorted(cumulative, params.mass * cumulative[-1]))]
    mask = bilinear(attention.astype(np.float64), height, width) >= least
    if params.refine != "none":
        mask = refine_leaves(mask.astype(np.int32), sample.image, Refine(method=params.refine)) > 0
    return mask
