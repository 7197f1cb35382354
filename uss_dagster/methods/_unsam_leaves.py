"""UnSAM on leaves of a contour map.

Cosines of hand-made features do not separate an object from its surroundings, and 32 × 32 patches of a box lose its edges. So both stages
work on the watershed leaves of a contour map, which keep the edges. Divide cuts the graph of leaves that touch, recursively, by normalised
cuts. Conquer merges the leaves greedily in several trees, which differ in contour scales, features and size exponent, since no single tree
is right for all objects. The score of a region is the height at which it is merged with another, relative to the greatest height of the tree,
times the share of the trees that have it, to the power ``VOTES_POWER``.

The features of a network join those of colour and texture in every tree and alone make ``DEEP_TREES``. The score is then multiplied by the
square root of their contrast between the region and what surrounds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uss_dagster.graphs.local_graph import FEATURE_POWER, LEAF_EXPONENT, LocalGraph, edge_weights
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.graphs.merging import merges
from uss_dagster.graphs.region_graph import RegionGraph, region_means
from uss_dagster.graphs.vectors import scaled_tokens
from uss_dagster.methods import contour_merge
from uss_dagster.methods._unsam_params import DEEP_TREES, TREES, PoolLimits
from uss_dagster.regions import Regions

VOTES_POWER = 0.3
"""Scores of merged regions are multiplied by the share of the trees that hold them to this power."""


@dataclass(frozen=True)
class Leaves:
    """Leaves of an image and what they are merged by.

    labels: int64 (h, w), leaf of each pixel of the half-size image. graphs: which leaves touch, one a contour map. area: (n,), in pixels.
    features: by name, (n, C). averaged: the graph with the mean boundaries of several trees, see ``contour_merge.averaged_graph``.
    deep: the features ``backbone`` are those of a network, and part of all others.
    """

    labels: np.ndarray
    graphs: list[RegionGraph]
    area: np.ndarray
    features: dict[str, np.ndarray]
    averaged: RegionGraph
    deep: bool = False


def leaves_of(image: np.ndarray, grid: np.ndarray, most_leaves: int, seed: int, token_weight: float = 0.0) -> Leaves:
    """The leaves of an image, uint8 (H, W, 3), with everything that trees over them are merged by.

    grid: the backbone's features (h, w, C). token_weight: with which they join all others; 0 for hand-made ones.
    """
    params = contour_merge.Params(seed=seed, most_leaves=most_leaves, leaf_exponent=LEAF_EXPONENT)
    maps = contour_merge.ContourMaps(image, params)
    labels = maps.leaves()
    area = np.bincount(labels.ravel())
    features = maps.features(labels)
    graphs = maps.graphs(labels)
    backbone = region_means(labels, len(area), scaled_tokens(grid, FEATURE_POWER))
    if token_weight > 0:
        features = {name: np.concatenate([vectors, token_weight * backbone], axis=1) for name, vectors in features.items()}
    averaged = contour_merge.averaged_graph(graphs, area, list(features.values()), params)
    features["backbone"] = backbone
    return Leaves(labels, graphs, area, features, averaged, token_weight > 0)


@dataclass(frozen=True)
class Candidates:
    """members: bool (k, n), leaves of each. level: (k,), height at which it forms, 0..1. score: (k,), see the module. source: k strings."""

    members: np.ndarray
    level: np.ndarray
    score: np.ndarray
    source: list[str]


def conquer(leaves: Leaves, trees: int, feature_weight: float = 0.3) -> Candidates:
    """Regions of the averaged tree, of so many of ``TREES``, and of ``DEEP_TREES`` for a network; the whole image left out."""
    n = len(leaves.area)
    regions = [_of_tree(*merges(leaves.averaged, leaves.area, np.zeros((n, 0)), feature_weight=0.0, size_exponent=0.0), n)]
    for scale, features, exponent in TREES[:trees] + (DEEP_TREES if leaves.deep else ()):
        children, heights = merges(
            leaves.graphs[scale], leaves.area, leaves.features[features], feature_weight=feature_weight, size_exponent=exponent
        )
        members, level, score = _of_tree(children, heights, n)
        regions.append((members[n:], level[n:], score[n:]))
    members, level, score = (np.concatenate([part[i] for part in regions]) for i in range(3))
    _, first, same, votes = np.unique(np.packbits(members, axis=1), axis=0, return_index=True, return_inverse=True, return_counts=True)
    score = score * (votes[same.ravel()] / len(regions)) ** VOTES_POWER
    if leaves.deep:
        score = score * np.sqrt(contrast(leaves, members[first]))[same.ravel()]
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


def contrast(leaves: Leaves, members: np.ndarray) -> np.ndarray:
    """How far the backbone's mean features in each region, bool (k, n), lie from those of the leaves around it, float64 (k,), 0..1.

    Leaves around it count by the length of their border. 1 is twice the root mean square length of the image's features.
    """
    from scipy.sparse import csr_array

    n, graph = len(leaves.area), leaves.graphs[0]
    features, inside = leaves.features["backbone"].astype(np.float32), members.astype(np.float32)
    length = csr_array((graph.length.astype(np.float32), graph.pairs.T), shape=(n, n))
    ring = np.where(members, np.float32(0), ((length + length.T) @ inside.T).T)

    def mean(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ features / np.maximum(weights.sum(axis=1), 1)[:, None])

    apart = np.linalg.norm(mean(inside * leaves.area.astype(np.float32)) - mean(ring), axis=1)
    return np.minimum(apart / (2 * FEATURE_POWER**0.5), 1).astype(np.float64)


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
            member = np.zeros(n, bool)
            member[items[part == number]] = True
            members.append(member)
            score.append(certain)
    return Candidates(np.array(members).reshape(-1, n), np.ones(len(score)), np.array(score), ["divide"] * len(score))


def on_most(leaves: Leaves, masks: Regions) -> Candidates:
    """Masks from elsewhere, over the image or the half-size map, as the leaves of which they hold at least half; none that hold no leaf."""
    height, width = leaves.labels.shape
    small = masks if masks.shape == (height, width) else masks.resized(height, width)
    held = np.zeros((small.members.shape[1], len(leaves.area)))
    np.add.at(held, (small.atoms.ravel(), leaves.labels.ravel()), 1)
    members = small.members.astype(np.float64) @ held >= 0.5 * leaves.area
    some = np.flatnonzero(members.any(axis=1))
    return Candidates(members[some], np.ones(len(some)), np.asarray(small.score, np.float64)[some], ["divide"] * len(some))


def pooled(leaves: Leaves, parts: Sequence[Candidates], limits: PoolLimits, window: int | None, smallest: int) -> Regions:
    """The candidates of all parts, best first and without those that nearly repeat a better one, on the half-size map; no hierarchy yet.

    smallest: in pixels of the half-size map.
    """
    members = np.concatenate([part.members for part in parts])
    level, score = np.concatenate([part.level for part in parts]), np.concatenate([part.score for part in parts])
    source = np.array([name for part in parts for name in part.source])
    area = members @ leaves.area
    fit = np.flatnonzero((area >= smallest) & (area < leaves.area.sum()) & (score >= limits.min_score))
    distinct = fit[mask_nms(Regions(leaves.labels, members[fit]), score[fit], limits.iou, window)][: limits.most]
    return Regions(leaves.labels, members[distinct], level=level[distinct], score=score[distinct], source=source[distinct].tolist())
