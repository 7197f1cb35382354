"""k-means of the tokens of a whole dataset: what frozen features are worth by themselves, before anything is trained on top of them.

The baseline of works that train a head on frozen features: STEGO and its successors report it as the clustering of the plain backbone.

Reference: Hamilton et al., "Unsupervised semantic segmentation by distilling feature correspondences", ICLR 2022. There the centres are
learnt by stochastic gradients of the cosine; here they are those of k-means on tokens of length 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.streaming_kmeans import Projection, RowFile, fit_centres, principal
from uss_dagster.methods._points import Facet, Samples, drawn, per_image, projected, unit_grid
from uss_dagster.methods.base import MethodSpec
from uss_dagster.pixels import bilinear
from uss_dagster.refine.leaves import Refine, RefineMethod, refine_leaves
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """k: clusters over the dataset, one a class. facet: of the patches. pca: channels kept, None for all. outlier_mads: see ``unit_grid``.

    sample_per_image, sample_limit: patches that centres are fitted on, of an image and in all. batch, epochs, tolerance, restarts: of the
    k-means. refine: how borders are pulled to the image's; 'none': each pixel takes the nearest centre of its interpolated token.
    """

    k: int = 27
    facet: Facet = "tokens"
    pca: int | None = None
    outlier_mads: float | None = None
    sample_per_image: int = 256
    sample_limit: int = 2_000_000
    batch: int = 16_384
    epochs: int = 100
    tolerance: float = 1e-4
    restarts: int = 5
    refine: RefineMethod = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.k < 1 or self.sample_per_image < 1 or self.sample_limit < 1 or (self.pca is not None and self.pca < 1):
            raise UsageError(
                f"token_kmeans: k {self.k}, sample_per_image {self.sample_per_image}, sample_limit {self.sample_limit}, pca {self.pca}; "
                "expected 1 or more of each, or null for pca."
            )


SPEC = MethodSpec(
    name="token_kmeans",
    title="Dataset k-means of tokens",
    params=Params,
    needs=("tokens",),
    labels=True,
    paper="Hamilton et al., ICLR 2022 (as a baseline)",
    licence="MIT (this project)",
    reimplementation=False,
    summary="Tokens of all images in k clusters, which are the classes: the plain baseline of trained semantic methods.",
)


@dataclass(frozen=True)
class State:
    """centres: float32 (k, C)."""

    projection: Projection | None
    centres: np.ndarray


def fit(samples: Samples, params: Params) -> State:
    """Centres on a sample of every image's tokens."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        rows = RowFile()
        count = per_image(len(samples), params.sample_per_image, params.sample_limit)
        for sample in samples:
            rows.append(drawn(*unit_grid(sample, params.facet, params.outlier_mads), count, params.seed, sample.image_id))
        projection = principal(rows, params.pca, seed=params.seed) if params.pca and rows.rows else None
        found = fit_centres(
            rows if projection is None else projected(rows, projection),
            params.k,
            seed=params.seed,
            restarts=params.restarts,
            batch=params.batch,
            epochs=params.epochs,
            tolerance=params.tolerance,
        )
        return State(projection, found.centres)


def segment(sample: Sample, params: Params, state: State) -> Regions:
    """The image (region 0) and one region for each cluster that occurs in it, with the cluster as label."""
    from threadpoolctl import threadpool_limits

    height, width = sample.image.shape[:2]
    with threadpool_limits(1):
        units, _ = unit_grid(sample, params.facet, params.outlier_mads)
        points = units if state.projection is None else state.projection(units)
        # distance to a centre, less what all centres share, is linear in the point, so interpolating it interpolates the points
        score = 2 * points @ state.centres.T - np.einsum("kc,kc->k", state.centres, state.centres)
        if params.refine == "none":
            label = _best(score, height, width)
        else:
            label = refine_leaves(score.argmax(axis=2), sample.image, Refine(method=params.refine), units)
    shown, leaf = np.unique(label, return_inverse=True)
    n = len(shown)
    return Regions.from_tree(1 + leaf.reshape(label.shape), [-1] + [0] * n, level=[1.0] + [0.0] * n, label=[-1, *shown.tolist()])


def _best(score: np.ndarray, height: int, width: int) -> np.ndarray:
    """The cluster of highest interpolated score (h, w, k) at each pixel, int32 (H, W), the first of equals; one map in memory at a time."""
    top = np.full((height, width), -np.inf, np.float32)
    best = np.zeros((height, width), np.int32)
    for cluster in range(score.shape[2]):
        here = bilinear(score[:, :, cluster], height, width)
        better = here > top
        best[better] = cluster
        top[better] = here[better]
    return best
