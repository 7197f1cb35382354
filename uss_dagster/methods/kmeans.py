"""k-means of one image's tokens, nested by Ward's criterion: a plain baseline.

References: MacQueen, "Some methods for classification and analysis of multivariate observations", 1967; Ward, "Hierarchical
grouping to optimize an objective function", JASA 58, 1963.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import PART, at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.merging import ward_tree
from uss_dagster.graphs.region_graph import region_means
from uss_dagster.graphs.superpixels import absorb_small, connected_parts
from uss_dagster.methods.base import MethodSpec
from uss_dagster.pixels import bilinear
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    k : int
        Clusters at the finest level. Default 16.
    position_weight : float
        Spread of the two position channels (y, x) relative to that of the tokens; 0 for none. Default 0.5.
    components : bool
        Each cluster is split into its connected parts. Default true.
    min_area : float
        Least area of a part, as a share of the image. Default 0.001.
    restarts : int
        Starts of k-means, of which the best counts. Default 3.
    seed : int
        Of k-means. Default 0.
    """

    k: int = 16
    position_weight: float = 0.5
    components: bool = True
    min_area: float = 0.001
    restarts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_bounds(self, k=at_least(1), position_weight=at_least(0), min_area=PART, restarts=at_least(1))


SPEC = MethodSpec(
    name="kmeans",
    title="k-means",
    params=Params,
    needs=("tokens",),
    paper="MacQueen 1967; Ward 1963",
    licence="MIT",
    reimplementation=False,
    summary="Tokens of one image in k clusters, agglomerated by Ward's criterion, each split into connected parts.",
)


def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """A tree: the image, coarser to finer groups of clusters, the k clusters, and their connected parts.

    Every number of clusters from 1 to k is a cut of the same tree, so levels are nested. ``level`` is Ward's distance. A cluster in several
    parts has the level at which Ward's criterion would join them, but not more than the level above it.
    """
    height, width = sample.image.shape[:2]
    points, grid = _points(sample.features["tokens"], params.position_weight), sample.features["tokens"].shape[:2]
    clusters = kmeans(points, params.k, seed=params.seed, restarts=params.restarts)
    # the distance to a centre, less what all centres share, is affine in the features, so upsampling it upsamples them
    score = (clusters.centres**2).sum(axis=1) - 2 * (points @ clusters.centres.T)
    cluster = np.argmin([bilinear(score[:, c].reshape(grid), height, width) for c in range(score.shape[1])], axis=0)
    part = absorb_small(connected_parts(cluster), params.min_area * height * width)
    # a part keeps the cluster that most of it has
    n_parts = int(part.max()) + 1
    votes = np.bincount(part.ravel() * score.shape[1] + cluster.ravel(), minlength=n_parts * score.shape[1])
    used, owner = np.unique(votes.reshape(n_parts, -1).argmax(axis=1), return_inverse=True)
    area = np.bincount(part.ravel())
    tree = ward_tree(np.bincount(owner, area), clusters.centres[used])
    if not params.components:
        return Regions.from_tree(tree.leaf[owner[part]], tree.parent, level=tree.height)
    return _with_parts(tree.parent, tree.height, tree.leaf[owner], part, area, region_means(part, n_parts, points.reshape(*grid, -1)))


def _points(tokens: np.ndarray, position_weight: float) -> np.ndarray:
    """Tokens (h, w, C) as points (h·w, C [+ 2]), centred, of mean squared norm 1; positions then of that times the squared weight."""
    h, w, channels = tokens.shape
    points = tokens.reshape(h * w, channels).astype(np.float64)
    points -= points.mean(axis=0)
    spread = np.sqrt((points**2).sum(axis=1).mean())
    if spread > 0:
        points /= spread
    if position_weight == 0:
        return points
    y, x = np.indices((h, w)).reshape(2, -1) / max(h, w)
    place = np.stack([y - y.mean(), x - x.mean()], axis=1)
    reach = np.sqrt((place**2).sum(axis=1).mean())
    return np.concatenate([points, position_weight * place / reach], axis=1) if reach > 0 else points


def _with_parts(parent: np.ndarray, level: np.ndarray, node: np.ndarray, part: np.ndarray, area: np.ndarray, means: np.ndarray) -> Regions:
    """The tree with parts hung below the nodes that own more than one; ``node``: the leaf node that owns each part."""
    parents, levels, place = parent.tolist(), level.tolist(), node.copy()
    owners, counts = np.unique(node, return_counts=True)
    for owner in owners[counts > 1].tolist():
        below = np.flatnonzero(node == owner)
        apart = means[below] - np.average(means[below], axis=0, weights=area[below])
        scatter = float(np.sqrt((area[below] @ (apart**2).sum(axis=1)) / area.sum()))
        levels[owner] = min(scatter, levels[parents[owner]]) if owner else scatter
        place[below] = len(parents) + np.arange(len(below))
        parents += [owner] * len(below)
        levels += [0.0] * len(below)
    return Regions.from_tree(place[part], parents, level=levels)
