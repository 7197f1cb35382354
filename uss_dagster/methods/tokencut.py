"""TokenCut: one object and its background, by one normalised cut of a binarised graph of tokens.

Keys whose cosine exceeds ``tau`` are joined with weight 1, all others with a weight near 0. The eigenvector of the second smallest
eigenvalue is cut at its mean. Its entry of greatest magnitude marks the object's side, since the object is the more compact group; of
that side the connected part that holds this entry is kept.

Reference: Wang et al., "Self-supervised transformers for unsupervised object discovery using normalized cut", CVPR 2022. On a local
graph (see ``_spectral``) the weights are those of its edges instead, which are not binarised.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.eigen import smallest_eigenpairs
from uss_dagster.graphs.local_graph import edge_weights
from uss_dagster.methods._spectral import Graph, items_of, kind, leaf_map, lone_root
from uss_dagster.methods.base import PART, POSITIVE, MethodSpec, check_bounds, one_thread, unit, within
from uss_dagster.refine.leaves import RefineMethod
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    graph : {'auto', 'dense', 'local'}
        See ``_spectral``. Default 'auto'.
    tau : float
        Cosine above which two keys are joined, -1 to 1. Default 0.2, as in the paper.
    eps : float
        Weight of keys that are not. Default 1e-5, as in the paper.
    temperature : float
        Of the local graph, see ``edge_weights``. Default 0.06.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none'.
    """

    graph: Graph = "auto"
    tau: float = 0.2
    eps: float = 1e-5
    temperature: float = 0.06
    refine: RefineMethod = "none"

    def __post_init__(self) -> None:
        check_bounds(self, tau=within(-1, 1), eps=PART, temperature=POSITIVE)


SPEC = MethodSpec(
    name="tokencut",
    title="TokenCut",
    params=Params,
    needs=("keys",),
    paper="Wang et al., CVPR 2022",
    summary="One object and its background: a normalised cut of keys that are alike or not. The graph follows the backbone.",
)


@one_thread
def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """The image (region 0), the object (1, score 1) and the background (2, score 0); the image alone where all keys are alike."""
    items = items_of(sample, "keys", params.graph)
    if items.plain:
        return lone_root(sample)
    affinity = edge_weights(items.local, params.temperature) if items.local else binarised(items.features, params.tau, params.eps)
    background = background_side(affinity, items.place)
    if background is None:
        return lone_root(sample)
    pixels = leaf_map(sample, items, 1 + background.astype(np.int64), params.refine)
    return Regions.from_tree(pixels, [-1, 0, 0], level=[1.0, 0.0, 0.0], score=[1.0, 1.0, 0.0], source=kind(items))


def binarised(keys: np.ndarray, tau: float, eps: float) -> np.ndarray:
    """Affinity float64 (n, n) of keys (n, C): 1 where the cosine exceeds ``tau``, else ``eps``."""
    units = unit(keys)
    return np.where(units @ units.T > tau, 1.0, eps)


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
