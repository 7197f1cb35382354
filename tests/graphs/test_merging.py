"""Greedy merging against a program that looks at every pair again before each merge."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.graphs.merging import MergeTree, border_heights, cut_linkage_tree, linkage_tree, merge_tree, merged_down, ward_tree
from uss_dagster.graphs.partition import normalised_cuts
from uss_dagster.graphs.region_graph import RegionGraph, region_graph
from uss_dagster.graphs.superpixels import connected_parts
from uss_dagster.regions import Regions


def rescanned(graph: RegionGraph, area: np.ndarray, features: np.ndarray, weight: float, exponent: float) -> dict[frozenset[int], float]:
    """Leaf set of every merged region → height, straight from the definition."""
    whole = float(area.sum())
    regions = {i: (frozenset([i]), float(area[i]), features[i].astype(float)) for i in range(len(area))}
    borders = {
        frozenset(pair): (length, length * strength)
        for pair, length, strength in zip(map(tuple, graph.pairs.tolist()), graph.length.tolist(), graph.strength.tolist(), strict=True)
    }
    found: dict[frozenset[int], float] = {}
    height, new = 0.0, len(area)
    while borders:
        candidates = []
        for pair, (length, total) in borders.items():
            i, j = sorted(pair)
            (_, n_i, z_i), (_, n_j, z_j) = regions[i], regions[j]
            distance = float(np.sqrt(((z_i - z_j) ** 2).sum()))
            candidates.append(((weight * distance + total / length) * (n_i * n_j / ((n_i + n_j) * whole)) ** exponent, i, j))
        cost, i, j = min(candidates)
        height = max(height, cost)
        (a, n_i, z_i), (b, n_j, z_j) = regions.pop(i), regions.pop(j)
        regions[new] = (a | b, n_i + n_j, (n_i * z_i + n_j * z_j) / (n_i + n_j))
        found[a | b] = height
        moved: dict[frozenset[int], tuple[float, float]] = {}
        for pair, (length, total) in borders.items():
            renamed = frozenset(new if end in (i, j) else end for end in pair)
            if len(renamed) == 2:
                before = moved.get(renamed, (0.0, 0.0))
                moved[renamed] = (before[0] + length, before[1] + total)
        borders = moved
        new += 1
    return found


def leaf_sets(tree: MergeTree) -> dict[frozenset[int], float]:
    """Leaf set of every inner node → height."""
    below: list[set[int]] = [set() for _ in tree.parent]
    for i, node in enumerate(tree.leaf.tolist()):
        below[node].add(i)
    for node in range(len(tree.parent) - 1, 0, -1):
        below[tree.parent[node]] |= below[node]
    inner = np.setdiff1d(np.arange(len(tree.parent)), tree.leaf)
    return {frozenset(below[node]): float(tree.height[node]) for node in inner.tolist()}


def check_tree(tree: MergeTree, n: int) -> None:
    """Preorder, one root, leaves at height 0, heights that never fall towards the root."""
    assert tree.parent[0] == -1
    assert (tree.parent[1:] >= 0).all()
    line = [0]
    for node in range(1, len(tree.parent)):
        while line[-1] != tree.parent[node]:
            line.pop()
        line.append(node)
    assert len(set(tree.leaf.tolist())) == n
    assert set(tree.leaf.tolist()) == set(range(len(tree.parent))) - set(tree.parent.tolist())
    assert not tree.height[tree.leaf].any()
    assert (tree.height[1:] <= tree.height[tree.parent[1:]]).all()


def random_map(rng: np.random.Generator, n: int) -> np.ndarray:
    """A label map with n connected-ish cells, all present: nearest of n random sites."""
    sites = rng.random((n, 2)) * 16
    y, x = np.indices((16, 16)) + 0.5
    labels = np.argmin((y[..., None] - sites[:, 0]) ** 2 + (x[..., None] - sites[:, 1]) ** 2, axis=-1)
    return np.unique(labels, return_inverse=True)[1].reshape(16, 16)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize(("weight", "exponent"), [(0.3, 0.2), (1.0, 0.0), (0.0, 0.25)])
def test_against_rescanning(seed: int, weight: float, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    labels = random_map(rng, int(rng.integers(2, 25)))
    area = np.bincount(labels.ravel())
    features, strength = rng.normal(size=(len(area), 5)), rng.random(labels.shape)
    graph = region_graph(labels, strength)
    tree = merge_tree(graph, area, features, feature_weight=weight, size_exponent=exponent)
    check_tree(tree, len(area))
    got, expected = leaf_sets(tree), rescanned(graph, area, features, weight, exponent)
    assert got.keys() == expected.keys()
    assert [got[k] for k in expected] == pytest.approx(list(expected.values()), rel=1e-12)


@pytest.mark.parametrize("seed", range(25))
def test_ties_go_to_the_lowest_pair(seed: int) -> None:
    """Few distinct values, all exact in binary, so that many costs are equal to the last bit."""
    rng = np.random.default_rng(seed)
    labels = random_map(rng, 16)
    area = np.full(int(labels.max()) + 1, 4)
    features = rng.integers(0, 3, (len(area), 1)).astype(float)
    graph = region_graph(labels)
    tree = merge_tree(graph, area, features, feature_weight=0.5, size_exponent=0.0)
    assert leaf_sets(tree) == rescanned(graph, area, features, 0.5, 0.0)


def test_all_equal_merges_in_order_of_number() -> None:
    chain = RegionGraph(np.array([[0, 1], [1, 2], [2, 3]]), np.ones(3), np.zeros(3))
    tree = merge_tree(chain, np.ones(4, int), np.zeros((4, 2)))
    assert set(leaf_sets(tree)) == {frozenset({0, 1}), frozenset({2, 3}), frozenset({0, 1, 2, 3})}
    assert tree.parent.tolist() == [-1, 0, 1, 1, 0, 4, 4]
    assert tree.leaf.tolist() == [2, 3, 5, 6]
    assert not tree.height.any()


def test_joined_borders_are_weighted_by_length() -> None:
    """0 and 1 merge first; their borders with 2 have lengths 3 and 1 and strengths .2 and .6, together .3."""
    graph = RegionGraph(np.array([[0, 1], [0, 2], [1, 2]]), np.array([5.0, 3, 1]), np.array([0.1, 0.2, 0.6]))
    tree = merge_tree(graph, np.array([1, 1, 2]), np.zeros((3, 1)), size_exponent=0.0)
    assert leaf_sets(tree) == pytest.approx({frozenset({0, 1}): 0.1, frozenset({0, 1, 2}): 0.3})


def test_heights_never_fall() -> None:
    """Merging the outer pair of a line of features brings the mean nearer the third: cost 1 · 1.5 < 2, height stays 2."""
    graph = RegionGraph(np.array([[0, 1], [0, 2], [1, 2]]), np.ones(3), np.array([0, 9.0, 0]))
    tree = merge_tree(graph, np.ones(3, int), np.array([[0.0], [2.0], [4.5]]), feature_weight=1.0, size_exponent=0.0)
    assert tree.height[0] >= tree.height.max()
    # leaf 2 is 3.5 from the mean of 0 and 1, and the joined border has strength 4.5
    assert leaf_sets(tree) == pytest.approx({frozenset({0, 1}): 2.0, frozenset({0, 1, 2}): 8.0})
    sinking = RegionGraph(np.array([[0, 1], [1, 2]]), np.array([1.0, 1]), np.array([2.0, 0]))
    tree = merge_tree(sinking, np.array([1, 1, 1]), np.array([[0.0], [0.0], [3.0]]), feature_weight=1.0, size_exponent=0.0)
    assert leaf_sets(tree) == pytest.approx({frozenset({0, 1}): 2.0, frozenset({0, 1, 2}): 3.0})
    falling = RegionGraph(np.array([[0, 1], [0, 2], [1, 2]]), np.array([1.0, 1, 9]), np.array([1.0, 3, 1]))
    tree = merge_tree(falling, np.array([1, 1, 1]), np.zeros((3, 1)), size_exponent=1.0)
    assert (tree.height[1:] <= tree.height[tree.parent[1:]]).all()


def test_disconnected_and_single() -> None:
    none = RegionGraph(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0))
    single = merge_tree(none, np.array([7]), np.zeros((1, 3)))
    assert (single.parent.tolist(), single.height.tolist(), single.leaf.tolist()) == ([-1], [0.0], [0])
    apart = merge_tree(none, np.ones(3, int), np.zeros((3, 3)))
    check_tree(apart, 3)
    assert apart.parent.tolist() == [-1, 0, 0, 0]
    pairs = RegionGraph(np.array([[0, 1], [2, 3]]), np.ones(2), np.array([0.5, 0.25]))
    two = merge_tree(pairs, np.ones(4, int), np.zeros((4, 1)), size_exponent=0.0)
    check_tree(two, 4)
    assert two.height[0] == 0.5


def test_ward_is_scipys() -> None:
    from scipy.cluster.hierarchy import ward

    points = np.random.default_rng(0).normal(size=(12, 4))
    tree = ward_tree(np.ones(12), points)
    check_tree(tree, 12)
    inner = sorted(set(tree.parent.tolist()) - {-1})
    # SciPy's distance is sqrt(2 n_i n_j / (n_i + n_j)) · |c_i - c_j|, ours has 1/N in place of the 2
    np.testing.assert_allclose(sorted(tree.height[inner]), ward(points)[:, 2] / np.sqrt(2 * 12), atol=1e-12)


def test_a_tree_is_ready_for_regions() -> None:
    labels = random_map(np.random.default_rng(3), 20)
    area = np.bincount(labels.ravel())
    tree = merge_tree(region_graph(labels), area, np.random.default_rng(4).normal(size=(len(area), 2)))
    regions = Regions.from_tree(tree.leaf[labels], tree.parent, level=tree.height)
    assert len(regions.pruned()) == len(regions) == 2 * len(area) - 1
    assert regions.area[0] == labels.size
    assert regions.area[tree.leaf].tolist() == area.tolist()


@pytest.mark.parametrize("seed", range(10))
def test_border_heights_are_where_two_leaves_meet_and_give_the_tree_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = random_map(rng, 25)
    area = np.bincount(labels.ravel())
    features, strength = rng.normal(size=(len(area), 3)), rng.random(labels.shape)
    graph = region_graph(labels, strength)
    tree = merge_tree(graph, area, features)
    heights = border_heights(graph, area, features)
    sets = leaf_sets(tree)
    for (i, j), height in zip(graph.pairs.tolist(), heights.tolist(), strict=True):
        assert height == min(h for leaves, h in sets.items() if {i, j} <= leaves)
    again = merge_tree(RegionGraph(graph.pairs, graph.length, heights), area, features[:, :0], feature_weight=0.0, size_exponent=0.0)
    # joined borders are averages of equal numbers, so heights agree to rounding; where heights tie the order may differ
    distinct = len(set(sets.values())) == len(sets)
    if distinct:
        assert leaf_sets(again).keys() == sets.keys()
    np.testing.assert_allclose(sorted(again.height), sorted(tree.height), rtol=1e-12)


def test_border_heights_of_parts_that_do_not_touch() -> None:
    pairs = RegionGraph(np.array([[0, 1], [2, 3]]), np.ones(2), np.array([0.5, 0.25]))
    assert border_heights(pairs, np.ones(4, int), np.zeros((4, 1)), size_exponent=0.0).tolist() == [0.5, 0.25]
    none = RegionGraph(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros(0))
    assert border_heights(none, np.ones(1, int), np.zeros((1, 1))).tolist() == []


@pytest.mark.parametrize("most", [1, 2, 7, 24, 25, 100])
def test_merging_down_is_the_beginning_of_the_tree(most: int) -> None:
    rng = np.random.default_rng(8)
    labels = connected_parts(random_map(rng, 25))
    strength = rng.random(labels.shape)
    graph, area = region_graph(labels, strength), np.bincount(labels.ravel())
    merged = merged_down(labels, graph, area, most, size_exponent=0.25)
    assert merged.max() + 1 == min(most, len(area))
    assert connected_parts(merged).max() == merged.max()
    numbers = merged.ravel()
    assert np.unique(numbers, return_index=True)[1].tolist() == sorted(np.unique(numbers, return_index=True)[1].tolist())
    sets = set(leaf_sets(merge_tree(graph, area, np.zeros((len(area), 1)), feature_weight=0.0, size_exponent=0.25)))
    for region in range(int(merged.max()) + 1):
        leaves = frozenset(np.unique(labels[merged == region]).tolist())
        assert len(leaves) == 1 or leaves in sets


def test_many_borders_outgrow_the_first_queue() -> None:
    """On a complete graph of 60 every merge pushes a pair for each region that is left."""
    points = np.random.default_rng(9).normal(size=(60, 3))
    first, second = np.triu_indices(60, 1)
    graph = RegionGraph(np.stack([first, second], axis=1), np.ones(len(first)), np.zeros(len(first)))
    got = leaf_sets(ward_tree(np.ones(60), points))
    expected = rescanned(graph, np.ones(60), points, 1.0, 0.5)
    assert got.keys() == expected.keys()
    assert [got[k] for k in expected] == pytest.approx(list(expected.values()), rel=1e-12)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("linkage", ["average", "complete", "single"])
def test_linkage_joins_the_nearest_two_clusters_again_and_again(linkage: str, distance: str) -> None:
    points = np.random.default_rng(2).normal(size=(14, 5))
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    if distance == "cosine":
        length = np.linalg.norm(points, axis=1)
        apart = 1 - points @ points.T / np.outer(length, length)
    of_pairs = {"average": np.mean, "complete": np.max, "single": np.min}[linkage]
    clusters, expected = [frozenset([i]) for i in range(14)], {}
    while len(clusters) > 1:
        pairs = [(of_pairs(apart[np.ix_(list(a), list(b))]), a, b) for i, a in enumerate(clusters) for b in clusters[:i]]
        height, a, b = min(pairs, key=lambda pair: pair[0])
        clusters = [c for c in clusters if c not in (a, b)] + [a | b]
        expected[a | b] = height
    got = leaf_sets(linkage_tree(points, linkage, distance))  # type: ignore[arg-type]
    assert got.keys() == expected.keys()
    assert [got[k] for k in expected] == pytest.approx(list(expected.values()))

    few = linkage_tree(points, linkage, distance, 5)  # type: ignore[arg-type]
    assert len(few.parent) == 9
    assert leaf_sets(few).items() <= got.items()
    assert len(linkage_tree(points[:1], linkage, distance).parent) == 1  # type: ignore[arg-type]


def test_ward_is_that_of_the_region_graph() -> None:
    points = np.random.default_rng(3).normal(size=(20, 4))
    ours, scipys = leaf_sets(ward_tree(np.ones(20), points)), leaf_sets(linkage_tree(points, "ward", "l2"))
    assert ours.keys() == scipys.keys()
    # scipy's heights are in units of a pair of points, ours of all of them
    assert [scipys[k] for k in ours] == pytest.approx([np.sqrt(2 * 20) * height for height in ours.values()])
    units = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert leaf_sets(linkage_tree(points, "ward")) == leaf_sets(linkage_tree(units, "ward", "l2"))


def test_merging_by_normalised_cuts_takes_the_least_sum() -> None:
    """Against all pairs tried one by one."""
    half = np.random.default_rng(4).random((9, 9))
    affinity = half + half.T
    np.fill_diagonal(affinity, 0)
    clusters, expected = [[i] for i in range(9)], set()
    while len(clusters) > 1:

        def total(pair: tuple[int, int], clusters: list[list[int]] = clusters) -> float:
            group = np.zeros(9, int)
            for number, cluster in enumerate(clusters):
                group[cluster] = pair[0] if number == pair[1] else number
            return float(normalised_cuts(affinity, np.unique(group, return_inverse=True)[1]).sum())

        a, b = min(((a, b) for b in range(len(clusters)) for a in range(b)), key=total)
        merged = clusters[a] + clusters[b]
        clusters = [c for n, c in enumerate(clusters) if n not in (a, b)] + [merged]
        expected.add(frozenset(merged))
    tree = cut_linkage_tree(affinity)
    assert set(leaf_sets(tree)) == expected
    assert max(tree.height) == 1
    assert len(cut_linkage_tree(np.zeros((1, 1))).parent) == 1
