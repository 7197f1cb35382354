"""Contour map, watershed leaves and greedy merging into an ultrametric tree. It needs no backbone, and uses the tokens of one if given.

Boundaries come from differences of local histograms of colour and texture, leaves from a watershed on them; leaves then merge by
the contrast of their whitened colour and texture features and the mean boundary strength between them. No such tree is right at all
scales, so the default averages the ultrametric maps of several, which differ in contour scales, features and the pull of size, and
merges once more by this mean. With a backbone, the mean token of each leaf joins its features: regions keep the sharp borders of the contour
map and are grouped by what the network sees. The preset 'objects' groups by tokens alone and divides figure from ground first
(``graphs.figure``): for scenes of objects rather than for every detail. Pixel-exact: the same image gives the same bytes on any number of threads.

References: Arbeláez et al., "Contour detection and hierarchical image segmentation", TPAMI 33(5), 2011 (the lineage: local
differences, watershed, ultrametric map); Bell & Sejnowski, Vision Research 1997, and Coates, Lee & Ng, AISTATS 2011 (the region features).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from uss_dagster.backbones.patches import bank_features, dictionary_features, whiten
from uss_dagster.bounds import POSITIVE, SHARE, at_least, check_bounds, within, wrong_value
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.contours import contour_strength, half_size, histogram_planes
from uss_dagster.graphs.figure import border_pixels, figure_graph, figure_of
from uss_dagster.graphs.merging import border_heights, merge_tree, merged_down
from uss_dagster.graphs.region_graph import RegionGraph, region_graph, region_means
from uss_dagster.graphs.vectors import scaled_tokens
from uss_dagster.graphs.watershed import contour_leaves
from uss_dagster.methods.base import MethodSpec, of_preset, one_thread
from uss_dagster.pixels import check_image, shrink_long_side, to_lab
from uss_dagster.regions import Regions

OTHER_CONTOURS = (((2.0, 12.0), (5.0, 20.0)), ((3.0, 8.0, 24.0), (5.0, 14.0, 40.0)))
"""Colour and texture radii of the contour maps that join the preset's own in the average, each at OTHER_ORIENTATIONS."""
OTHER_ORIENTATIONS = 4
EXPONENT_STEPS = (0.5, 1.0, 1.5)
"""The averaged trees use these multiples of size_exponent."""


@dataclass(frozen=True)
class Cues:
    """What a preset sets: parameters of the same names."""

    orientations: int
    colour_radii: tuple[float, ...]
    texture_radii: tuple[float, ...]
    bank_weight: float
    dictionary_weight: float
    average: bool
    feature_weight: float = 0.3
    size_exponent: float = 0.2
    figure_first: bool = False


_R1 = Cues(8, (3.0, 6.0, 12.0), (5.0, 10.0, 20.0), bank_weight=0.8, dictionary_weight=0.6, average=True)
_R0 = replace(_R1, bank_weight=1.0, dictionary_weight=0.0, average=False)
PRESETS = {
    "r1": _R1,
    "r0": _R0,
    "r0_fast": replace(_R0, orientations=4, colour_radii=(3.0, 12.0), texture_radii=(5.0, 20.0)),
    "objects": replace(_R0, bank_weight=0.0, feature_weight=1.0, size_exponent=0.3, figure_first=True),
}


@dataclass(frozen=True)
class Params:
    """All parameters. Those with default None are the preset's unless they are given.

    Parameters
    ----------
    preset : {'r1', 'r0', 'r0_fast', 'objects'}
        'r1': all cues, averaged trees. 'r0': without the patch dictionary, one tree. 'r0_fast': also with half the orientations and without
        the middle scale. 'objects': one tree by the tokens of a backbone, which it needs, figure and ground first. Default 'r1'; with
        ``average`` false that is a single tree.
    orientations : int or None
        Of the boundary between two half discs. Default None.
    colour_radii, texture_radii : list of float or None
        In pixels of the full-size image, one a scale, equally many. Default None.
    bank_weight, dictionary_weight : float or None
        Of the filter bank and of the patch dictionary in the region features. Default None.
    average : bool or None
        Whether the ultrametric maps of several trees are averaged. Default None.
    lightness_weight, other_weight, bias : float
        Of the contour map, see ``contour_strength``. Default 6, 4.5, -4.1.
    textons : int
        Texture words of an image, 1 to 255. Default 24.
    smoothing : float
        Sigma before the watershed, in pixels at half size. Default 1.
    most_leaves : int
        More leaves are merged, by boundary strength and ``leaf_exponent`` alone. Default 600.
    leaf_exponent : float
        Size exponent of that. Default 0.25.
    feature_weight, size_exponent : float or None
        See ``merge_tree``. Default None: 0.3, 0.2; in 'objects' 1, 0.3.
    figure_first : bool or None
        Whether the first division is between figure and ground, see ``graphs.figure``. Default None: true in 'objects', else false.
    token_weight : float
        Of the backbone's tokens, where there are some, beside the other region features. Default 1.
    token_power : float
        Mean squared norm that centred tokens are scaled to, so that one weight serves every backbone. Default 15.
    height_power : float
        Heights are divided by the greatest one to this power, so that a threshold means more nearly the same in any image: 0 leaves them as
        they are, 1 makes the greatest 1. Default 0.5.
    long_side : int
        An image longer than 4/3 of it is reduced to it, in pixels; all lengths were chosen at that size. Default 480.
    seed : int
        Of the textons and the dictionary. Default 0.
    """

    preset: Literal["r1", "r0", "r0_fast", "objects"] = "r1"
    orientations: int | None = None
    colour_radii: tuple[float, ...] | None = None
    texture_radii: tuple[float, ...] | None = None
    bank_weight: float | None = None
    dictionary_weight: float | None = None
    average: bool | None = None
    lightness_weight: float = 6.0
    other_weight: float = 4.5
    bias: float = -4.1
    textons: int = 24
    smoothing: float = 1.0
    most_leaves: int = 600
    leaf_exponent: float = 0.25
    feature_weight: float | None = None
    size_exponent: float | None = None
    figure_first: bool | None = None
    token_weight: float = 1.0
    token_power: float = 15.0
    height_power: float = 0.5
    long_side: int = 480
    seed: int = 0

    def __post_init__(self) -> None:
        colour, texture = self.cues.colour_radii, self.cues.texture_radii
        if not colour or len(colour) != len(texture) or min(*colour, *texture) <= 0:
            raise wrong_value("colour_radii", f"{colour} and texture_radii {texture}", "equally many, 1 or more, above 0")
        check_bounds(self, orientations=at_least(1), textons=within(1, 255), most_leaves=at_least(1), long_side=at_least(16))
        check_bounds(self, token_power=POSITIVE, height_power=SHARE)
        weights = ("bank_weight", "dictionary_weight", "lightness_weight", "other_weight", "feature_weight", "token_weight")
        check_bounds(self, **dict.fromkeys((*weights, "smoothing", "leaf_exponent", "size_exponent"), at_least(0)))

    @property
    def cues(self) -> Cues:
        """The preset's, with what is given."""
        return of_preset(PRESETS[self.preset], self)


SPEC = MethodSpec(
    name="contour_merge",
    title="Contours + merging",
    params=Params,
    paper="Arbeláez et al., TPAMI 2011",
    licence="MIT",
    optional=("tokens",),
    reimplementation=False,
    summary="Local histogram contours, watershed leaves, merged greedily by colour, texture and boundary into a binary tree. No weights.",
)


@one_thread
def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """A binary tree of regions from the image (region 0) down to leaves; ``level`` is the merge height, 0 at leaves.

    With the default parameters ``Regions.cut(0.7)`` gives about a dozen regions of a photograph.
    """
    image = shrink_long_side(check_image(sample.image), params.long_side)
    maps = ContourMaps(image, params)
    leaves = maps.leaves()
    area, features = np.bincount(leaves.ravel()), maps.features(leaves)
    cues = params.cues
    if sample.features is not None and params.token_weight > 0:
        tokens = region_means(leaves, len(area), scaled_tokens(sample.features["tokens"], params.token_power))
        features = {name: np.concatenate([vectors, params.token_weight * tokens], axis=1) for name, vectors in features.items()}
    elif params.preset == "objects":
        raise UsageError(
            "contour_merge: preset 'objects' merges by the tokens of a backbone, and there is none. Name a backbone, or choose 'r1'."
        )
    vectors = features["joined"]
    if cues.average:
        graph, weight, exponent = averaged_graph(maps.graphs(leaves), area, list(features.values()), params), 0.0, 0.0
    else:
        graph, weight, exponent = maps.graph(leaves), cues.feature_weight, cues.size_exponent
    tree = merge_tree(graph, area, vectors, feature_weight=weight, size_exponent=exponent)
    if cues.figure_first:
        divided = figure_graph(graph, figure_of(tree, area, vectors, border_pixels(leaves)))
        tree = merge_tree(divided, area, vectors, feature_weight=weight, size_exponent=exponent)
    height = tree.height / max(tree.height[0], 1e-9) ** params.height_power
    labels = enlarged(leaves, image.shape[:2], sample.image.shape[:2])
    return Regions.from_tree(tree.leaf[labels], tree.parent, level=height)


class ContourMaps:
    """The contour map of an image, uint8 (H, W, 3), at half size, and two more with OTHER_CONTOURS."""

    def __init__(self, image: np.ndarray, params: Params) -> None:
        self.params = params
        self._lab = to_lab(image)
        self._planes = histogram_planes(self._lab, textons=params.textons, seed=params.seed)
        cues = params.cues
        self._strength = self._strength_at(cues.orientations, cues.colour_radii, cues.texture_radii)

    def leaves(self) -> np.ndarray:
        """Watershed leaves, int (h, w), at most ``most_leaves``."""
        params = self.params
        leaves = contour_leaves(self._strength, params.smoothing)
        if int(leaves.max()) < params.most_leaves:
            return leaves
        return merged_down(leaves, self.graph(leaves), np.bincount(leaves.ravel()), params.most_leaves, size_exponent=params.leaf_exponent)

    def graph(self, leaves: np.ndarray) -> RegionGraph:
        """Which leaves touch, and the mean boundary strength between them."""
        return region_graph(leaves, self._strength)

    def graphs(self, leaves: np.ndarray) -> list[RegionGraph]:
        """The same for all contour maps, the image's own first."""
        others = [self._strength_at(OTHER_ORIENTATIONS, *radii) for radii in OTHER_CONTOURS]
        return [self.graph(leaves), *(region_graph(leaves, strength) for strength in others)]

    def features(self, leaves: np.ndarray) -> dict[str, np.ndarray]:
        """Means over the leaves: ``bank``, the whitened filter bank (n, 18), and ``dictionary``, patch words (n, 32), both weighted in ``joined``.

        Only ``joined`` where the dictionary has no weight.
        """
        n, cues = int(leaves.max()) + 1, self.params.cues
        bank = region_means(leaves, n, half_size(whiten(bank_features(self._lab))))
        if cues.dictionary_weight <= 0:
            return {"joined": cues.bank_weight * bank}
        dictionary = region_means(leaves, n, dictionary_features(self._lab, self.params.seed))
        joined = np.concatenate([cues.bank_weight * bank, cues.dictionary_weight * dictionary], axis=1)
        return {"joined": joined, "bank": bank, "dictionary": dictionary}

    def _strength_at(self, orientations: int, colour_radii: Sequence[float], texture_radii: Sequence[float]) -> np.ndarray:
        return contour_strength(
            self._planes,
            orientations=orientations,
            colour_radii=colour_radii,
            texture_radii=texture_radii,
            lightness_weight=self.params.lightness_weight,
            other_weight=self.params.other_weight,
            bias=self.params.bias,
        )


def averaged_graph(graphs: Sequence[RegionGraph], area: np.ndarray, features: Sequence[np.ndarray], params: Params) -> RegionGraph:
    """The first graph with the mean of the ultrametric maps of all trees as its border strengths: one tree for each graph, features (n, C)
    and multiple of the size exponent."""
    cues, total, trees = params.cues, np.zeros(len(graphs[0].pairs)), 0
    for graph in graphs:
        for vectors in features:
            for step in EXPONENT_STEPS:
                exponent = step * cues.size_exponent
                total += border_heights(graph, area, vectors, feature_weight=cues.feature_weight, size_exponent=exponent)
                trees += 1
    return replace(graphs[0], strength=total / trees)


def enlarged(half: np.ndarray, reduced: tuple[int, int], full: tuple[int, int]) -> np.ndarray:
    """A half-size label map of a reduced image at the full size (height, width): the label that holds each pixel's centre."""
    rows, columns = (((np.arange(f) + 0.5) * r / f).astype(np.int64) // 2 for r, f in zip(reduced, full, strict=True))
    return half[rows[:, None], columns]
