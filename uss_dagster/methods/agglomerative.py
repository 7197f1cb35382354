"""Agglomerative clustering of one image's patches: what hierarchies from the top down are compared with.

The tokens of all patches, or the mean tokens of the leaves of a contour map, are merged two by two, wherever they lie, by Ward's criterion or by
average, complete or single linkage.

References: Ward, "Hierarchical grouping to optimize an objective function", JASA 58, 1963; Müllner, "Modern hierarchical, agglomerative
clustering algorithms", arXiv 1109.2378.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from uss_dagster.bounds import at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.merging import Linkage, linkage_tree
from uss_dagster.methods._points import Facet
from uss_dagster.methods._spectral import items_of, leaf_map, lone_root
from uss_dagster.methods.base import MethodSpec, one_thread
from uss_dagster.refine.leaves import RefineMethod
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    linkage : {'ward', 'average', 'complete', 'single'}
        See ``linkage_tree``. Default 'ward'.
    distance : {'cosine', 'l2'}
        Of tokens. Default 'cosine'.
    graph : {'dense', 'leaves'}
        Patches are clustered, or leaves of a contour map, each counting as one; see ``_spectral``. Default 'dense'.
    facet : {'tokens', 'keys', 'queries', 'values'}
        The features. Default 'tokens'.
    most : int
        Leaves of the tree. Default 200, as many as the parts of ``hierarchy_agnostic``.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none'.
    """

    linkage: Linkage = "ward"
    distance: Literal["cosine", "l2"] = "cosine"
    graph: Literal["dense", "leaves"] = "dense"
    facet: Facet = "tokens"
    most: int = 200
    refine: RefineMethod = "none"

    def __post_init__(self) -> None:
        check_bounds(self, most=at_least(1))


SPEC = MethodSpec(
    name="agglomerative",
    title="Agglomerative clustering",
    params=Params,
    needs=("tokens",),
    facet_parameter="facet",
    paper="Ward, JASA 1963; Müllner, arXiv 1109.2378",
    reimplementation=False,
    summary="Tokens of one image merged two by two, by Ward's criterion or average, complete or single linkage.",
)


@one_thread
def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """A binary tree from the image (region 0) down to ``most`` clusters; ``level`` is the distance at which a region forms, 0 at leaves."""
    items = items_of(sample, params.facet, params.graph)
    if items.plain:
        return lone_root(sample)
    tree = linkage_tree(items.features, params.linkage, params.distance, params.most)
    return Regions.from_tree(leaf_map(sample, items, tree.leaf, params.refine), tree.parent, level=tree.height)
