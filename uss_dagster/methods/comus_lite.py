"""COMUS without its training: a saliency mask an image, the class token of its box, spectral clusters of these as classes.

Reference: Zadaianchuk et al., "Unsupervised semantic segmentation with self-supervised object-centric representations", ICLR 2023. Taken
from there: one object an image, the tight box, spectral clustering of class tokens on a graph of 30 neighbours. Left out: the saliency network
(DeepUSPS), in whose place stands the attention of the class token, cut where it holds 60 % of its mass as in Caron et al., "Emerging
properties in self-supervised vision transformers", ICCV 2021; and all self-training, which is most of the published score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.semantic_labels import LabelModel
from uss_dagster.graphs.streaming_kmeans import RowFile
from uss_dagster.methods._objects import (
    Clustering,
    Exemplars,
    ObjectRule,
    Parts,
    fit_classes,
    labelled_objects,
    object_masks,
    object_vectors,
)
from uss_dagster.methods._points import Samples
from uss_dagster.methods.base import MethodSpec
from uss_dagster.pixels import bilinear
from uss_dagster.refine.leaves import Refine, RefineMethod, refine_leaves
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """mass: share of the class token's attention that the salient patches hold. refine: how the mask's border is pulled to the image's.

    regions: one object an image, or the connected components. min_area, margin, crop: see ``ObjectRule``. classes: how many clusters.
    class_clustering, neighbours, restarts: of the class tokens.
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
        if not 0 < self.mass < 1 or self.classes < 1 or self.neighbours < 1 or self.restarts < 1:
            raise UsageError(
                f"comus_lite: mass {self.mass}, classes {self.classes}, neighbours {self.neighbours}, restarts {self.restarts}; "
                "expected a share between 0 and 1, and 1 or more of the others."
            )
        _ = self.objects  # its own bounds

    @property
    def objects(self) -> ObjectRule:
        return ObjectRule(regions=self.regions, min_area=self.min_area, margin=self.margin, crop=self.crop)


SPEC = MethodSpec(
    name="comus_lite",
    title="COMUS, untrained",
    params=Params,
    needs=("cls_attention",),
    encodes=("cls",),
    labels=True,
    paper="Zadaianchuk et al., ICLR 2023",
    licence="MIT (this project)",
    summary="What the class token attends to is the object; class tokens of the objects' boxes, clustered spectrally, are the classes.",
)


def fit(samples: Samples, params: Params) -> LabelModel | Exemplars | None:
    """Classes of the objects of all images."""
    from threadpoolctl import threadpool_limits

    vectors = RowFile(np.float32)
    with threadpool_limits(1):
        for sample in samples:
            masks = object_masks(salient(sample, params), params.objects)
            if masks:
                vectors.append(object_vectors(sample, masks, params.objects))
        return fit_classes(
            vectors, params.classes, params.class_clustering, restarts=params.restarts, neighbours=params.neighbours, seed=params.seed
        )


def segment(sample: Sample, params: Params, state: LabelModel | Exemplars | None) -> Regions:
    """The image (region 0), its background (1), and its object with its class as label."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        masks = object_masks(salient(sample, params), params.objects)
        labels = np.zeros(len(masks), np.int32)
        if masks and state is not None:
            labels = state.assign(object_vectors(sample, masks, params.objects))
        return labelled_objects(sample.image.shape, masks, labels, "attention")


def salient(sample: Sample, params: Params) -> np.ndarray:
    """Pixels as salient as the least of the patches that together hold ``mass``, bool (H, W)."""
    attention = sample.features["cls_attention"]
    height, width = sample.image.shape[:2]
    ranked = np.sort(attention.ravel())[::-1].astype(np.float64)
    held = np.cumsum(ranked)
    least = ranked[int(np.searchsorted(held, params.mass * held[-1]))]
    mask = bilinear(attention.astype(np.float64), height, width) >= least
    if params.refine != "none":
        mask = refine_leaves(mask.astype(np.int32), sample.image, Refine(method=params.refine)) > 0
    return mask
