"""Leaves of a contour map as a graph: weights and heights against the formulas written out naively."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.graphs.local_graph import HEIGHT_POWER, LocalGraph, contrast_heights, edge_weights, local_graph
from uss_dagster.graphs.merging import merge_tree
from uss_dagster.graphs.region_graph import region_graph


def made_up(seed: int, side: int = 9, regions: int = 12) -> LocalGraph:
    """A random tiling with random features and boundary strengths."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    centres = rng.uniform(0, side, (regions, 2))
    nearest = np.argmin((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2, axis=2)
    leaves = np.unique(nearest, return_inverse=True)[1].reshape(side, side)
    area = np.bincount(leaves.ravel())
    return LocalGraph(leaves, region_graph(leaves, rng.random((side, side))), area, rng.normal(size=(len(area), 3)))


@given(st.integers(0, 10_000), st.floats(0.05, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=30, deadline=None)
def test_weights_are_the_formula(seed: int, temperature: float, feature_weight: float) -> None:
    local = made_up(seed)
    expected = np.zeros((len(local.area),) * 2)
    for (i, j), length, strength in zip(local.graph.pairs, local.graph.length, local.graph.strength, strict=True):
        apart = np.sqrt(((local.features[i] - local.features[j]) ** 2).sum())
        expected[i, j] = expected[j, i] = length * np.exp(-(feature_weight * apart + strength) / temperature)
    np.testing.assert_allclose(edge_weights(local, temperature, feature_weight), expected, rtol=1e-12)


def random_tree(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(tree leaf of each of n items, parents) of a random tree in preorder, some of whose leaves hold several items."""
    labels, parent = np.zeros(n, np.int64), []
    waiting = [(-1, rng.permutation(n))]
    while waiting:
        above, held = waiting.pop()
        node = len(parent)
        parent.append(above)
        labels[held] = node
        if len(held) > 1 and (above < 0 or rng.random() < 0.8):
            parts = np.array_split(held, rng.integers(2, min(4, len(held)) + 1))
            waiting += [(node, part) for part in parts]
    return labels, np.array(parent)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_heights_are_the_formula(seed: int) -> None:
    """The children of every node as masks of pixels, their borders counted pixel pair by pixel pair."""
    local, rng = made_up(seed), np.random.default_rng(seed + 1)
    labels, parent = random_tree(len(local.area), rng)
    n_of = dict(zip(map(tuple, local.graph.pairs.tolist()), zip(local.graph.length, local.graph.strength, strict=True), strict=True))
    above = [{node} for node in range(len(parent))]
    for node in range(1, len(parent)):
        above[node] |= above[parent[node]]
    items = [[i for i, leaf in enumerate(labels) if node in above[leaf]] for node in range(len(parent))]
    expected = np.zeros(len(parent))
    for node in reversed(range(len(parent))):
        children = [c for c in range(len(parent)) if parent[c] == node]
        lengths, costs = [], []
        for u in children:
            for v in children:
                sides = {(i, j) for i in items[u] for j in items[v]} | {(j, i) for i in items[u] for j in items[v]}
                borders = [n_of[pair] for pair in n_of if u < v and pair in sides]
                if borders:
                    length = sum(b[0] for b in borders)
                    strength = sum(b[0] * b[1] for b in borders) / length
                    a, b = (local.area[items[w]].sum() for w in (u, v))
                    means = [np.average(local.features[items[w]], axis=0, weights=local.area[items[w]]) for w in (u, v)]
                    size = a * b / ((a + b) * local.area.sum())
                    lengths.append(length)
                    costs.append((0.3 * np.linalg.norm(means[0] - means[1]) + strength) * size**0.2)
        own = np.average(costs, weights=lengths) if costs else 0.0
        expected[node] = max([own, *expected[children]])
    expected /= expected[0] ** HEIGHT_POWER
    np.testing.assert_allclose(contrast_heights(local, labels, parent), expected, rtol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_heights_of_a_merge_tree_are_its_own(seed: int) -> None:
    """``merge_tree`` never lets a height fall from one merge to the next, which may lift a merge that has nothing to do with the one
    before; a height that is greater than all others so far is the merge's own cost.
    """
    local = made_up(seed)
    tree = merge_tree(local.graph, local.area, local.features)
    found = contrast_heights(local, tree.leaf, tree.parent) * contrast_heights(local, tree.leaf, tree.parent)[0]  # power 1/2 undone
    assert (found <= tree.height + 1e-9).all()
    for height in np.unique(tree.height):
        same = tree.height == height
        assert np.isclose(found[same].max(), height)


def test_two_leaves_and_one() -> None:
    leaves = np.array([[0, 0, 1]])
    graph = region_graph(leaves, np.array([[0.0, 0.5, 0.25]]))
    local = LocalGraph(leaves, graph, np.array([2, 1]), np.array([[0.0], [2.0]]))
    cost = (0.3 * 2 + 0.5) * (2 * 1 / (3 * 3)) ** 0.2
    assert contrast_heights(local, np.array([1, 2]), np.array([-1, 0, 0])) == pytest.approx([cost**0.5, 0, 0])
    assert edge_weights(local, 0.1)[0, 1] == pytest.approx(np.exp(-11.0))
    assert contrast_heights(local, np.array([0, 0]), np.array([-1])).tolist() == [0.0]


def test_leaves_follow_the_contours_whatever_the_scale_of_tokens() -> None:
    strength = np.zeros((20, 30))
    strength[:, 14:16] = 0.9
    tokens = np.random.default_rng(0).normal(size=(5, 7, 4))
    tokens[:, 4:] += 3
    found = local_graph(strength, tokens)
    assert found.graph.pairs.tolist() == [[0, 1]]
    assert found.area.sum() == 600
    assert (found.leaves[:, :13] == found.leaves[0, 0]).all()
    assert (found.leaves[:, 17:] == found.leaves[0, -1]).all()
    louder = local_graph(strength, 64 * tokens + 8)
    np.testing.assert_allclose(louder.features, found.features, atol=1e-9)
    assert not local_graph(strength, np.ones((5, 7, 4))).features.any()


def test_too_many_leaves_are_merged() -> None:
    strength = np.random.default_rng(0).random((60, 60))
    many, few = local_graph(strength, np.zeros((2, 2, 1))), local_graph(strength, np.zeros((2, 2, 1)), most_leaves=20)
    assert len(many.area) > 50
    assert len(few.area) == 20
    assert few.area.sum() == 3600
