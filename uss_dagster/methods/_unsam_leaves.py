"""UnSAM on leaves of a contour map: divide and conquer for backbones that know only the appearance of one image.

Cosines of hand-made features do not tell an object from its surroundings, and 32 × 32 patches of a box lose its edges. So both stages work on the
watershed leaves of a contour map, which keep the edges: divide cuts the graph of leaves that touch, recursively, by
normalised cuts; conquer merges the leaves greedily, by several trees that differ in contour scales, features and the pull of size,
since no single tree is right for all objects. A region is ranked by the height at which it is merged with something else, as a share of the
tree's greatest, which tells how strong its weakest border is, and by how many trees hold it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from uss_dagster.graphs.contours import histogram_planes
from uss_dagster.graphs.local_graph import LEAF_EXPONENT, LocalGraph, edge_weights, scaled_tokens
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.graphs.merging import merged_down, merges
from uss_dagster.graphs.region_graph import RegionGraph, region_graph, region_means
from uss_dagster.graphs.watershed import contour_leaves
from uss_dagster.methods import contour_merge
from uss_dagster.regions import Regions

TREES = (
    (0, "joined", 0.2),
    (1, "bank", 0.2),
    (2, "dictionary", 0.2),
    (0, "dictionary", 0.4),
    (1, "backbone", 0.4),
    (2, "bank", 0.05),
)
"""Contour scales (``contour_merge``'s own, then its two others), features, and size exponent of the trees beside the averaged one."""

VOTES_POWER = 0.3
"""Scores of merged regions are multiplied by the share of the trees that hold them to this power."""


@dataclass(frozen=True)
class Leaves:
    """labels: int64 (h, w), leaf of each pixel of the half-size image. graphs: which touch, one a contour map. area: (n,). features: by name, (n, C)."""

    labels: np.ndarray
    graphs: list[RegionGraph]
    area: np.ndarray
    features: dict[str, np.ndarray]
    averaged: RegionGraph


def leaves_of(image: np.ndarray, grid: np.ndarray, most_leaves: int, seed: int) -> Leaves:
    """The leaves of an image, uint8 (H, W, 3), with everything that trees over them may go by. grid: the backbone's features (h, w, C)."""
    from skimage.color import rgb2lab

    params = contour_merge.Params(seed=seed)
    lab = rgb2lab(image.astype(np.float32) / 255).astype(np.float32)
    planes = histogram_planes(lab, textons=params.textons, seed=seed)
    own = params.of_preset("colour_radii"), params.of_preset("texture_radii")
    few = replace(params, orientations=contour_merge.OTHER_ORIENTATIONS)
    strengths = [contour_merge.strength_of(planes, params, *own)]
    strengths += [contour_merge.strength_of(planes, few, *radii) for radii in contour_merge.OTHER_CONTOURS]
    labels = contour_leaves(strengths[0], params.smoothing)
    if int(labels.max()) >= most_leaves:
        graph, area = region_graph(labels, strengths[0]), np.bincount(labels.ravel())
        labels = merged_down(labels, graph, area, most_leaves, size_exponent=LEAF_EXPONENT)
    bank, dictionary = contour_merge.leaf_features(lab, labels, params)
    joined = contour_merge.joined_features(params, bank, dictionary)
    area = np.bincount(labels.ravel())
    graphs = [region_graph(labels, strength) for strength in strengths]
    known = [joined, bank] + ([] if dictionary is None else [dictionary])
    averaged = contour_merge.averaged_graph(planes, labels, graphs[0], area, known, params)
    features = {"joined": joined, "bank": bank, "dictionary": joined if dictionary is None else dictionary}
    features["backbone"] = region_means(labels, len(area), scaled_tokens(grid))
    return Leaves(labels, graphs, area, features, averaged)


@dataclass(frozen=True)
class Candidates:
    """members: bool (k, n), leaves of each. level: (k,), height at which it forms, 0..1. score: (k,), see the module. source: k strings."""

    members: np.ndarray
    level: np.ndarray
    score: np.ndarray
    source: list[str]


def conquer(leaves: Leaves, trees: int, feature_weight: float = 0.3) -> Candidates:
    """Regions of the averaged tree and of so many of ``TREES``, the whole image left out."""
    n = len(leaves.area)
    found = [_of_tree(*merges(leaves.averaged, leaves.area, np.zeros((n, 0)), feature_weight=0.0, size_exponent=0.0), n)]
    for scale, features, exponent in TREES[:trees]:
        children, heights = merges(
            leaves.graphs[scale], leaves.area, leaves.features[features], feature_weight=feature_weight, size_exponent=exponent
        )
        members, level, score = _of_tree(children, heights, n)
        found.append((members[n:], level[n:], score[n:]))
    members, level, score = (np.concatenate([part[i] for part in found]) for i in range(3))
    _, same, votes = np.unique(np.packbits(members, axis=1), axis=0, return_inverse=True, return_counts=True)
    score = score * (votes[same.ravel()] / len(found)) ** VOTES_POWER
    return Candidates(members, level, score, ["conquer"] * len(score))


def _of_tree(children: np.ndarray, heights: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(leaves of each region, bool; the height at which it forms; that at which it is joined) of a tree, leaves first, without the last region."""
    members = np.zeros((n + len(children), n), bool)
    members[np.arange(n), np.arange(n)] = True
    level, joined = np.zeros(n + len(children)), np.zeros(n + len(children))
    top = max(float(heights[-1]), 1e-12) if len(heights) else 1.0
    for k, (first, second) in enumerate(children.tolist()):
        members[n + k] = members[first] | members[second]
        level[n + k] = joined[first] = joined[second] = heights[k] / top
    return members[:-1], level[:-1], joined[:-1]


def divide(leaves: Leaves, depth: int, temperature: float, confidence: float) -> Candidates:
    """Connected parts of the regions that recursive normalised cuts make; ``score`` is 1 - the cost of the cut, which must exceed ``confidence``.

    The graph is ``edge_weights`` of the leaves under the backbone's features. depth: how many times a region is cut.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    from uss_dagster.graphs.bipartition import cut_tree

    n = len(leaves.area)
    graph = leaves.graphs[0]
    if n < 2 or depth < 1:
        return Candidates(np.zeros((0, n), bool), np.zeros(0), np.zeros(0), [])
    weights = edge_weights(LocalGraph(leaves.labels, graph, leaves.area, leaves.features["backbone"]), temperature)
    touch = csr_array((np.ones(len(graph.pairs)), graph.pairs.T), shape=(n, n)).tocsr()
    tree = cut_tree(weights, max_depth=depth)
    members, score = [], []
    for node in range(1, len(tree)):
        certain = 1 - float(tree.cost[tree.parent[node]])
        items = tree.order[tree.start[node] : tree.stop[node]]
        if certain <= confidence:
            continue
        _, part = connected_components(touch[items][:, items], directed=False)
        for number in range(int(part.max()) + 1):
            held = np.zeros(n, bool)
            held[items[part == number]] = True
            members.append(held)
            score.append(certain)
    return Candidates(np.array(members).reshape(-1, n), np.ones(len(score)), np.array(score), ["divide"] * len(score))


def on_most(leaves: Leaves, masks: Regions) -> Candidates:
    """Masks found elsewhere, over the image or the half-size map, as the leaves of which they hold at least half; none that hold no leaf."""
    height, width = leaves.labels.shape
    small = masks if masks.shape == (height, width) else masks.resized(height, width)
    held = np.zeros((small.members.shape[1], len(leaves.area)))
    np.add.at(held, (small.atoms.ravel(), leaves.labels.ravel()), 1)
    members = small.members.astype(np.float64) @ held >= 0.5 * leaves.area
    some = np.flatnonzero(members.any(axis=1))
    return Candidates(members[some], np.ones(len(some)), np.asarray(small.score, np.float64)[some], ["divide"] * len(some))


def pooled(
    leaves: Leaves, parts: list[Candidates], *, iou: float, window: int | None, min_score: float, smallest: int, most: int
) -> Regions:
    """The candidates of all parts, best first and without those that nearly repeat a better one, on the half-size map; no hierarchy yet.

    smallest: in pixels of the half-size map. most: how many are kept.
    """
    members = np.concatenate([part.members for part in parts])
    level, score = np.concatenate([part.level for part in parts]), np.concatenate([part.score for part in parts])
    source = np.array([name for part in parts for name in part.source])
    area = members @ leaves.area
    fit = np.flatnonzero((area >= smallest) & (area < leaves.area.sum()) & (score >= min_score))
    family = Regions(leaves.labels, members[fit])
    kept = fit[mask_nms(family, score[fit], iou, window)][:most]
    return Regions(leaves.labels, members[kept], level=level[kept], score=score[kept], source=source[kept].tolist())
