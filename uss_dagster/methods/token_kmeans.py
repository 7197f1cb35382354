"""k-means of the tokens of a whole dataset: what frozen features are worth by themselves, before anything is trained on top of them.

The baseline of works that train a head on frozen features: STEGO and its successors report it as the clustering of the plain backbone.

Reference: Hamilton et al., "Unsupervised semantic segmentation by distilling feature correspondences", ICLR 2022. There the centres are
learnt by stochastic gradients of the cosine; here they are those of k-means on tokens of length 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.streaming_kmeans import Projection, RowFile
from uss_dagster.methods._maps import winners
from uss_dagster.methods._points import Facet, KMeansRule, PatchRule, drawn, reduce_rows, reduced
from uss_dagster.methods.base import MethodSpec, Samples, one_thread
from uss_dagster.refine.leaves import Refine, RefineMethod, refine_leaves
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params(PatchRule, KMeansRule):
    """All parameters.

    Parameters
    ----------
    batch, epochs, tolerance, restarts
        Of the k-means, see ``KMeansRule``.
    facet, pca, outlier_mads, sample_per_image, sample_limit
        Of the patches, see ``PatchRule``; ``facet`` is 'tokens' by default.
    k : int
        Clusters over the dataset, one a class. Default 27, the classes of COCO-Stuff in Hamilton et al.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none': each pixel takes the nearest centre of its
        interpolated token.
    seed : int
        Of the sample and the clustering. Default 0.
    """

    facet: Facet = "tokens"
    k: int = 27
    refine: RefineMethod = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        PatchRule.__post_init__(self)
        KMeansRule.__post_init__(self)
        check_bounds(self, k=at_least(1))


SPEC = MethodSpec(
    name="token_kmeans",
    title="Dataset k-means of tokens",
    params=Params,
    needs=("tokens",),
    facet_parameter="facet",
    labels=True,
    segmentation=True,
    paper="Hamilton et al., ICLR 2022 (as a baseline)",
    reimplementation=False,
    summary="Tokens of all images in k clusters, which are the classes: the plain baseline of trained semantic methods.",
)


@dataclass(frozen=True)
class State:
    """centres: float32 (k, C)."""

    projection: Projection | None
    centres: np.ndarray


@one_thread
def fit(samples: Samples, params: Params) -> State:
    """Centres on a sample of every image's tokens."""
    rows, count = RowFile(), params.per_image(len(samples))
    for sample in samples:
        rows.append(drawn(*params.grid(sample), count, params.seed, sample.image_id))
    rows, projection = reduce_rows(rows, params.pca, params.seed)
    return State(projection, params.centres(rows, params.k, params.seed).centres)


@one_thread
def segment(sample: Sample, params: Params, state: State) -> Regions:
    """The image (region 0) and one region for each cluster that occurs in it, with the cluster as label."""
    units, _ = params.grid(sample)
    centres = state.centres
    # distance to a centre, less what all centres share, is linear in the point, so interpolating it interpolates the points
    score = 2 * reduced(units, state.projection) @ centres.T - np.einsum("kc,kc->k", centres, centres)
    if params.refine == "none":
        label = winners(((cluster, score[:, :, cluster]) for cluster in range(len(centres))), *sample.image.shape[:2])
    else:
        label = refine_leaves(score.argmax(axis=2), sample.image, Refine(method=params.refine), units)
    labels, leaf = np.unique(label, return_inverse=True)
    n = len(labels)
    return Regions.from_tree(1 + leaf.reshape(label.shape), [-1] + [0] * n, level=[1.0] + [0.0] * n, label=[-1, *labels.tolist()])
