"""Deep spectral segmentation: eigenvectors of a graph Laplacian, clustered; the number of segments follows from the widest eigengap.

On deep features the graph is the positive part of the tokens' cosines plus, weighted, a sparse one of colour: cells are joined with
their nearest neighbours in hue, saturation, value and place. On a local graph (see ``_spectral``) the weights are those of its edges.

Reference: Melas-Kyriazi et al., "Deep spectral methods: a surprisingly strong baseline for unsupervised semantic segmentation and
localization", CVPR 2022. They cluster by all eigenvectors looked at, here only those before the gap count: beyond it they tell
segments apart no better than noise. The tree above the segments, by Ward's criterion on the same eigenvectors, is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import POSITIVE, at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.eigen import smallest_eigenpairs
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.local_graph import edge_weights
from uss_dagster.graphs.merging import ward_tree
from uss_dagster.graphs.region_graph import region_means
from uss_dagster.graphs.vectors import unit
from uss_dagster.methods._spectral import Graph, Items, items_of, kind, leaf_map, lone_root
from uss_dagster.methods.base import MethodSpec, one_thread
from uss_dagster.notes import note
from uss_dagster.pixels import resize_image
from uss_dagster.refine.leaves import RefineMethod
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    graph : {'auto', 'dense', 'local'}
        See ``_spectral``. Default 'auto'.
    eigenvectors : int
        How many are looked at, the constant one included; 3 or more. Default 15.
    segments : int or None
        How many. Default None, as many as there are eigenvalues before the widest gap, the first gap not counted.
    colour_weight : float
        Of the colour graph that is added to a dense one. Default 10.
    colour_neighbours : int
        Of a cell in the colour graph. Default 10.
    temperature : float
        Of the local graph, see ``edge_weights``. Default 0.06.
    restarts : int
        Starts of the k-means of eigenvectors. Default 10.
    seed : int
        Of that k-means. Default 0.
    refine : {'none', ...}
        How borders are moved to the image's, see ``refine.leaves``. Default 'none'.
    """

    graph: Graph = "auto"
    eigenvectors: int = 15
    segments: int | None = None
    colour_weight: float = 10.0
    colour_neighbours: int = 10
    temperature: float = 0.06
    restarts: int = 10
    seed: int = 0
    refine: RefineMethod = "none"

    def __post_init__(self) -> None:
        check_bounds(self, eigenvectors=at_least(3), segments=at_least(1), restarts=at_least(1))
        check_bounds(self, colour_weight=at_least(0), colour_neighbours=at_least(1), temperature=POSITIVE)


SPEC = MethodSpec(
    name="deep_spectral",
    title="Deep spectral",
    params=Params,
    needs=("tokens",),
    paper="Melas-Kyriazi et al., CVPR 2022",
    summary="Laplacian eigenvectors clustered into as many segments as the eigengap says, nested by Ward. The graph follows the backbone.",
    segmentation=True,
)


@one_thread
def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """A binary tree from the image (region 0) down to the segments; ``level`` is Ward's distance, 0 at segments."""
    items = items_of(sample, "tokens", params.graph)
    if items.plain:
        return lone_root(sample)
    affinity = edge_weights(items.local, params.temperature) if items.local else _with_colour(sample, items, params)
    pairs = smallest_eigenpairs(affinity, min(params.eigenvectors, len(affinity)), laplacian="randomwalk")
    k = params.segments or segments_of(pairs.values)
    note(segments=k, eigenvalues=pairs.values)
    clusters = kmeans(pairs.vectors[:, 1 : max(k, 2)], k, seed=params.seed, restarts=params.restarts)
    tree = ward_tree(np.bincount(clusters.labels, items.area), clusters.centres)
    pixels = leaf_map(sample, items, tree.leaf[clusters.labels], params.refine)
    return Regions.from_tree(pixels, tree.parent, level=tree.height, source=kind(items))


def segments_of(values: np.ndarray) -> int:
    """How many of ascending eigenvalues (q,) lie before the widest gap, the gap after the first one not counted; 2 where there is no other."""
    gaps = np.diff(values)[1:]
    return 2 + int(np.argmax(gaps)) if len(gaps) else 2


def _with_colour(sample: Sample, items: Items, params: Params) -> np.ndarray:
    """Positive cosines of the features plus the weighted colour graph, float64 (n, n), diagonal 0."""
    units = unit(items.features)
    affinity = np.maximum(units @ units.T, 0)
    if params.colour_weight > 0:
        first, second, weight = colour_graph(sample.image, items.place, params.colour_neighbours)
        affinity[first, second] += params.colour_weight * weight
    np.fill_diagonal(affinity, 0)
    return affinity


def colour_graph(image: np.ndarray, place: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both directions of each edge of the nearest-neighbour graph of items in colour and place: two int64 (E,), and weights float64 (E,).

    A weight is 1 - the distance in (cos h, sin h, s, v, y, x), h the hue as an angle, all else from 0 to 1; farther ones are left out.
    """
    from scipy.spatial import cKDTree
    from skimage.color import rgb2hsv

    h, w = place.shape
    n = int(place.max()) + 1
    hue, saturation, value = np.moveaxis(rgb2hsv(resize_image(image, (h, w), area=True)), 2, 0)
    y, x = np.indices((h, w)) / np.array([max(h - 1, 1), max(w - 1, 1)])[:, None, None]
    cells = np.stack([np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue), saturation, value, y, x], axis=2)
    points = region_means(place, n, cells)
    distance, nearest = cKDTree(points).query(points, k=min(neighbours + 1, n))
    first, second = np.repeat(np.arange(n), nearest.shape[1]), nearest.ravel()
    near = (distance.ravel() < 1) & (first != second)
    keys = np.concatenate([first * n + second, second * n + first])[np.tile(near, 2)]
    edges, at = np.unique(keys, return_index=True)
    return edges // n, edges % n, 1 - np.tile(distance.ravel()[near], 2)[at]
