"""TokenCut: one object and its background, by one normalised cut of a binarised graph of tokens.

Keys whose cosine exceeds a threshold are joined with weight 1, all others with a weight near 0. The eigenvector of the second smallest
eigenvalue is cut at its mean. Its entry of greatest magnitude marks the object's side, since the object is the more compact group; of
that side the connected part that holds this entry is kept.

Reference: Wang et al., "Self-supervised transformers for unsupervised object discovery using normalized cut", CVPR 2022. On a local
graph (see ``_spectral``) the weights are those of its edges instead, which are not binarised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import PART, POSITIVE, SHARE, check_bounds, within
from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.affinity import TauMode, joining_cosine
from uss_dagster.graphs.eigen import smallest_eigenpairs
from uss_dagster.graphs.local_graph import edge_weights
from uss_dagster.graphs.vectors import unit
from uss_dagster.methods._points import Facet
from uss_dagster.methods._spectral import Graph, items_of, kind, leaf_map, lone_root
from uss_dagster.methods.base import MethodSpec, one_thread
from uss_dagster.refine.leaves import RefineMethod
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    graph : {'auto', 'dense', 'local'}
        See ``_spectral``. Default 'auto'.
    facet : {'keys', 'tokens', 'queries', 'values'}
        The features. Default 'keys', as in the paper.
    tau : float
        Cosine above which two items are joined, -1 to 1. Default 0.2, as in the paper.
    tau_mode : {'auto', 'absolute', 'relative'}
        What ``tau`` means, see ``joining_cosine``. Default 'auto'.
    joined : float
        Share of the pairs that 'relative' joins, 0 to 1. Default 0.6.
    eps : float
        Weight of those that are not. Default 1e-5, as in the paper.
    temperature : float
        Of the local graph, see ``edge_weights``. Default 0.06.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none'.
    """

    graph: Graph = "auto"
    facet: Facet = "keys"
    tau: float = 0.2
    tau_mode: TauMode = "auto"
    joined: float = 0.6
    eps: float = 1e-5
    temperature: float = 0.06
    refine: RefineMethod = "none"

    def __post_init__(self) -> None:
        check_bounds(self, tau=within(-1, 1), joined=SHARE, eps=PART, temperature=POSITIVE)


SPEC = MethodSpec(
    name="tokencut",
    title="TokenCut",
    params=Params,
    needs=("keys",),
    facet_parameter="facet",
    paper="Wang et al., CVPR 2022",
    summary="One object and its background: a normalised cut of keys that are alike or not. The graph follows the backbone.",
    segmentation=True,
)


@one_thread
def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """The image (region 0), the object (1, score 1) and the background (2, score 0); the image alone where all keys are alike."""
    items = items_of(sample, params.facet, params.graph)
    if items.plain:
        return lone_root(sample)
    affinity = edge_weights(items.local, params.temperature) if items.local else binarised(items.features, params)
    background = background_side(affinity, items.place)
    if background is None:
        return lone_root(sample)
    pixels = leaf_map(sample, items, 1 + background.astype(np.int64), params.refine)
    return Regions.from_tree(pixels, [-1, 0, 0], level=[1.0, 0.0, 0.0], score=[1.0, 1.0, 0.0], source=kind(items))


def binarised(features: np.ndarray, params: Params) -> np.ndarray:
    """Affinity float64 (n, n) of features (n, C): 1 where the cosine exceeds the threshold, else ``params.eps``."""
    units = unit(features)
    return np.where(units @ units.T > joining_cosine(units, params.tau, params.tau_mode, params.joined), 1.0, params.eps)


def background_side(affinity: np.ndarray, place: np.ndarray) -> np.ndarray | None:
    """Whether each item is background, bool (n,); None where all weights are one and there is nothing to cut.

    affinity: (n, n), n ≥ 2. place: int (h, w), the item at each cell; the cells of an item are connected.
    """
    from scipy import ndimage

    if affinity.min() == affinity.max():
        return None
    vector = smallest_eigenpairs(affinity, 2, laplacian="standard").vectors[:, 1]
    seed = int(np.argmax(np.abs(vector)))
    above = vector > vector.mean()
    side = above if above[seed] else ~above
    parts, _ = ndimage.label(side[place])
    background = np.ones(len(affinity), bool)
    background[place[parts == parts.ravel()[int(np.argmax(place.ravel() == seed))]]] = False
    return background if background.any() else None
