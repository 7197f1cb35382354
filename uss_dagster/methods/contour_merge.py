"""Contour map, watershed leaves and greedy merging into an ultrametric tree: pixels only, no weights.

Boundaries come from differences of local histograms of colour and texture, leaves from a watershed on them; leaves then merge by
the contrast of their whitened colour and texture features and the mean boundary strength between them. No such tree is right at all
scales, so the default averages the ultrametric maps of several, which differ in contour scales, features and the pull of size, and
merges once more by this mean. Pixel-exact: the same image gives the same bytes on any number of threads.

References: Arbeláez et al., "Contour detection and hierarchical image segmentation", TPAMI 33(5), 2011 (the lineage: local
differences, watershed, ultrametric map); Bell & Sejnowski, Vision Research 1997, and Coates, Lee & Ng, AISTATS 2011 (the region features).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from uss_dagster.backbones.patches import bank_features, dictionary_features, whiten
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.contours import contour_strength, half_size, histogram_planes
from uss_dagster.graphs.merging import border_heights, merge_tree, merged_down
from uss_dagster.graphs.region_graph import RegionGraph, region_graph, region_means
from uss_dagster.graphs.watershed import contour_leaves
from uss_dagster.methods.base import MethodSpec
from uss_dagster.pixels import check_image, resize_image
from uss_dagster.regions import Regions

OTHER_CONTOURS = (((2.0, 12.0), (5.0, 20.0)), ((3.0, 8.0, 24.0), (5.0, 14.0, 40.0)))
"""Colour and texture radii of the contour maps that join the preset's own in the average, each at OTHER_ORIENTATIONS."""
OTHER_ORIENTATIONS = 4
EXPONENT_STEPS = (0.5, 1.0, 1.5)
"""The averaged trees use these multiples of size_exponent."""


@dataclass(frozen=True)
class Params:
    """preset: ``r1``, all cues, averaged trees; ``r0``, without the patch dictionary and one tree; ``r0_fast``, also with half the
    orientations and without the middle scale. orientations, colour_radii, texture_radii (full-size pixels, one a scale), bank_weight,
    dictionary_weight (in the region features) and average are the preset's unless given; ``r1`` with average false is a single tree.

    lightness_weight, other_weight, bias: of the contour map, see ``contour_strength``; textons: texture words of an image.
    smoothing: sigma in pixels before the watershed. most_leaves: more are merged down, by boundary strength alone with
    leaf_exponent. feature_weight, size_exponent: see ``merge_tree``. height_power: heights are divided by the greatest one to this power,
    so that a threshold means more nearly the same in a plain picture and a busy one; 0 leaves them as they are, 1 makes the greatest 1.
    long_side: an image longer than 4/3 of it is reduced to it, since all lengths were chosen at that size. seed: of the textons and the
    dictionary.
    """

    preset: Literal["r1", "r0", "r0_fast"] = "r1"
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
    feature_weight: float = 0.3
    size_exponent: float = 0.2
    height_power: float = 0.5
    long_side: int = 480
    seed: int = 0

    def __post_init__(self) -> None:
        colour, texture = self.of_preset("colour_radii"), self.of_preset("texture_radii")
        if not colour or len(colour) != len(texture) or min(*colour, *texture) <= 0:
            raise UsageError(
                f"contour_merge: colour_radii {tuple(colour)} and texture_radii {tuple(texture)}, expected equally many, 1 or more, above 0."
            )
        if self.of_preset("orientations") < 1 or not 1 <= self.textons <= 255:
            raise UsageError(
                f"contour_merge: {self.of_preset('orientations')} orientations and {self.textons} textons, expected 1 or more and 1 to 255."
            )
        if self.most_leaves < 1 or self.long_side < 16:
            raise UsageError(f"contour_merge: most_leaves {self.most_leaves} and long_side {self.long_side}, expected at least 1 and 16.")

    def of_preset(self, name: str) -> Any:
        """The value given, or the preset's."""
        given = getattr(self, name)
        return PRESETS[self.preset][name] if given is None else given


_COLOUR, _TEXTURE = (3.0, 6.0, 12.0), (5.0, 10.0, 20.0)
PRESETS: dict[str, dict[str, Any]] = {
    "r1": {
        "orientations": 8,
        "colour_radii": _COLOUR,
        "texture_radii": _TEXTURE,
        "bank_weight": 0.8,
        "dictionary_weight": 0.6,
        "average": True,
    },
    "r0": {
        "orientations": 8,
        "colour_radii": _COLOUR,
        "texture_radii": _TEXTURE,
        "bank_weight": 1.0,
        "dictionary_weight": 0.0,
        "average": False,
    },
    "r0_fast": {
        "orientations": 4,
        "colour_radii": _COLOUR[::2],
        "texture_radii": _TEXTURE[::2],
        "bank_weight": 1.0,
        "dictionary_weight": 0.0,
        "average": False,
    },
}

SPEC = MethodSpec(
    name="contour_merge",
    title="Contours + merging",
    params=Params,
    paper="Arbeláez et al., TPAMI 2011",
    licence="MIT",
    reimplementation=False,
    summary="Local histogram contours, watershed leaves, merged greedily by colour, texture and boundary into a binary tree. No weights.",
)


def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """A binary tree of regions from the image (region 0) down to leaves; ``level`` is the merge height, 0 at leaves.

    With the default parameters ``Regions.cut(0.7)`` gives about a dozen regions of a photograph.
    """
    from skimage.color import rgb2lab
    from threadpoolctl import threadpool_limits

    image = reduced(check_image(sample.image), params.long_side)
    with threadpool_limits(1):  # sums inside BLAS come out in one order
        lab = rgb2lab(image.astype(np.float32) / 255).astype(np.float32)
        planes = histogram_planes(lab, textons=params.textons, seed=params.seed)
        strength = strength_of(planes, params, params.of_preset("colour_radii"), params.of_preset("texture_radii"))
        leaves = contour_leaves(strength, params.smoothing)
        if int(leaves.max()) >= params.most_leaves:
            graph, area = region_graph(leaves, strength), np.bincount(leaves.ravel())
            leaves = merged_down(leaves, graph, area, params.most_leaves, size_exponent=params.leaf_exponent)
        bank, dictionary = leaf_features(lab, leaves, params)
    area, graph = np.bincount(leaves.ravel()), region_graph(leaves, strength)
    features = joined_features(params, bank, dictionary)
    if params.of_preset("average"):
        graph = averaged_graph(planes, leaves, graph, area, [features] if dictionary is None else [features, bank, dictionary], params)
        tree = merge_tree(graph, area, features[:, :0], feature_weight=0.0, size_exponent=0.0)
    else:
        tree = merge_tree(graph, area, features, feature_weight=params.feature_weight, size_exponent=params.size_exponent)
    height = tree.height / max(tree.height[0], 1e-9) ** params.height_power
    labels = enlarged(leaves, image.shape[:2], sample.image.shape[:2])
    return Regions.from_tree(tree.leaf[labels], tree.parent, level=height)


def averaged_graph(
    planes: np.ndarray, leaves: np.ndarray, graph: RegionGraph, area: np.ndarray, features: list[np.ndarray], params: Params
) -> RegionGraph:
    """The graph with the mean of the ultrametric maps of all trees as its border strengths."""
    graphs = [graph]
    for colour, texture in OTHER_CONTOURS:
        other = replace(params, orientations=OTHER_ORIENTATIONS)
        graphs.append(region_graph(leaves, strength_of(planes, other, colour, texture)))
    total, trees = np.zeros(len(graph.pairs)), 0
    for given in graphs:
        for vectors in features:
            for step in EXPONENT_STEPS:
                exponent = step * params.size_exponent
                total += border_heights(given, area, vectors, feature_weight=params.feature_weight, size_exponent=exponent)
                trees += 1
    return replace(graph, strength=total / trees)


def strength_of(planes: np.ndarray, params: Params, colour: tuple[float, ...], texture: tuple[float, ...]) -> np.ndarray:
    return contour_strength(
        planes,
        orientations=params.of_preset("orientations"),
        colour_radii=colour,
        texture_radii=texture,
        lightness_weight=params.lightness_weight,
        other_weight=params.other_weight,
        bias=params.bias,
    )


def leaf_features(lab: np.ndarray, leaves: np.ndarray, params: Params) -> tuple[np.ndarray, np.ndarray | None]:
    """Means over the leaves of the whitened filter bank and, where it has a weight, of the patch dictionary: (n, 18) and (n, 32)."""
    n = int(leaves.max()) + 1
    bank = region_means(leaves, n, half_size(whiten(bank_features(lab))))
    if params.of_preset("dictionary_weight") <= 0:
        return bank, None
    return bank, region_means(leaves, n, dictionary_features(lab, params.seed))


def joined_features(params: Params, bank: np.ndarray, dictionary: np.ndarray | None) -> np.ndarray:
    weighted = [params.of_preset("bank_weight") * bank]
    if dictionary is not None:
        weighted.append(params.of_preset("dictionary_weight") * dictionary)
    return np.concatenate(weighted, axis=1)


def reduced(image: np.ndarray, long_side: int) -> np.ndarray:
    """The image, area-averaged to ``long_side`` where its longer side is beyond 4/3 of that."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if 3 * longest <= 4 * long_side:
        return image
    return resize_image(image, (max(1, round(height * long_side / longest)), max(1, round(width * long_side / longest))), area=True)


def enlarged(half: np.ndarray, reduced: tuple[int, int], full: tuple[int, int]) -> np.ndarray:
    """A half-size label map of a reduced image at the full size (height, width): the label that holds each pixel's centre."""
    rows, columns = (((np.arange(f) + 0.5) * r / f).astype(np.int64) // 2 for r, f in zip(reduced, full, strict=True))
    return half[rows[:, None], columns]
