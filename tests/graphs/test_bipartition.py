"""Two-way cuts, the full tree and its prunings: brute force on small graphs, known graphs, rules."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.bipartition import best_split, choose_threshold, cut_tree, second_eigenpair, sweep


def graph(n: int, seed: int = 0, loops: bool = True) -> np.ndarray:
    weights = np.random.default_rng(seed).gamma(0.3, size=(n, n)) + 1e-6
    weights += weights.T
    if not loops:
        np.fill_diagonal(weights, 0)
    return weights


def planted(sizes: list[int], within: float = 1.0, across: float = 0.02, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of strong weights in a shuffled order: (weights, block of each item)."""
    rng = np.random.default_rng(seed)
    block = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    weights = np.where(block[:, None] == block, within, across) * rng.uniform(0.8, 1.2, (len(block), len(block)))
    return (weights + weights.T) / 2, block


def ncut(weights: np.ndarray, side: np.ndarray) -> float:
    cut = weights[side][:, ~side].sum()
    return float(cut / weights[side].sum() + cut / weights[~side].sum())


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    return len(pairs) == len(set(first.tolist())) == len(set(second.tolist()))


@given(n=st.integers(2, 12), seed=st.integers(0, 500), loops=st.booleans())
@settings(max_examples=80, deadline=None)
def test_the_sweep_is_brute_force_over_all_splits_of_the_vector(n, seed, loops):
    weights = graph(n, seed, loops)
    _, vector = second_eigenpair(weights)
    order, costs = sweep(weights, vector)
    assert np.array_equal(order, np.argsort(vector, kind="stable"))
    for p in np.flatnonzero(np.isfinite(costs)):
        assert costs[p] == pytest.approx(ncut(weights, np.isin(np.arange(n), order[: p + 1])), rel=1e-9, abs=1e-12)
    found = best_split(weights)
    if found is not None:
        assert found.cost == costs.min()
        assert not found.side[0]
        assert found.cost == pytest.approx(ncut(weights, found.side), rel=1e-9, abs=1e-12)
        assert found.position in (found.side.sum(), (~found.side).sum())


def test_equal_entries_are_on_one_side():
    weights = graph(6)
    order, costs = sweep(weights, np.array([0.0, 1, 0, 1, 0, 1]))
    assert np.flatnonzero(np.isfinite(costs)).tolist() == [2]
    assert order.tolist() == [0, 2, 4, 1, 3, 5]
    assert np.isinf(sweep(weights, np.ones(6))[1]).all()


@pytest.mark.parametrize("n", [150, 260])
def test_never_worse_than_a_hundred_thresholds(n):
    for seed in range(3):
        weights = planted([n // 2, n // 4, n - n // 2 - n // 4], across=0.5, seed=seed)[0]
        _, vector = second_eigenpair(weights)
        low, high = vector.min(), vector.max()
        tried = [vector > t for t in np.linspace(low, high, 102)[1:-1]]
        searched = min(ncut(weights, side) for side in tried if side.any() and not side.all())
        found = best_split(weights)
        assert found is not None
        assert found.cost <= searched + 1e-12


@pytest.mark.parametrize("n", [12, 90, 240])
def test_the_two_laplacians_agree(n):
    """y is an eigenvector of I - D^-1 W and D^(1/2) y one of I - D^(-1/2) W D^(-1/2), for one eigenvalue; both solvers."""
    weights = graph(n, 4)
    value, y = second_eigenpair(weights)
    degree = weights.sum(axis=1)
    exact = linalg.eigh(np.diag(degree) - weights, np.diag(degree), eigvals_only=True)
    assert value == pytest.approx(exact[1], abs=1e-7)
    z = y * np.sqrt(degree)
    symmetric = np.eye(n) - weights / np.sqrt(degree[:, None] * degree)
    np.testing.assert_allclose(y - weights @ y / degree, value * y, atol=1e-5)
    np.testing.assert_allclose(symmetric @ z, value * z, atol=1e-5 * np.linalg.norm(z))
    assert np.linalg.norm(y) == pytest.approx(1)
    assert y[np.abs(y).argmax()] > 0


@pytest.mark.parametrize("n", [20, 300])
@pytest.mark.parametrize("across", [0.0, 1e-8])
def test_two_blocks_without_a_bridge_are_found_exactly(n, across):
    weights, block = planted([n // 3, n - n // 3], across=across)
    found = best_split(weights)
    assert found is not None
    assert found.cost < 1e-5
    assert same_partition(found.side.astype(int), block)
    # three parts: the null space has several vectors besides the constant one
    weights, block = planted([n // 4, n // 4, n // 2], across=across, seed=2)
    assert same_partition(cut_tree(weights).pruned(0.5).labels, block)


def test_small_sides_are_forbidden():
    weights = graph(20, 1)
    weights[0] = weights[:, 0] = 1e-6
    weights[0, 0] = 1
    lone = best_split(weights)
    assert lone is not None
    assert lone.side.sum() == 19
    kept = best_split(weights, 5)
    assert kept is not None
    assert 5 <= kept.side.sum() <= 15
    assert kept.cost >= lone.cost
    assert best_split(weights, 11) is None
    assert best_split(weights[:1, :1]) is None
    tree = cut_tree(weights, min_size=3)
    assert (tree.stop - tree.start).min() >= 3


@pytest.fixture
def tree():
    return cut_tree(planted([30, 20, 14, 9, 40], across=0.15)[0], min_size=2)


def test_a_tree_is_well_formed(tree):
    n = len(tree.order)
    assert sorted(tree.order.tolist()) == list(range(n))
    assert (tree.start[0], tree.stop[0], tree.parent[0]) == (0, n, -1)
    for node in range(1, len(tree)):
        above = tree.parent[node]
        assert above < node
        assert tree.depth[node] == tree.depth[above] + 1
        assert tree.start[above] <= tree.start[node] < tree.stop[node] <= tree.stop[above]
    for node in np.flatnonzero(tree.is_inner):
        first, second = np.flatnonzero(tree.parent == node)
        assert first == node + 1
        assert tree.stop[first] == tree.start[second]
        assert tree.stop[second] == tree.stop[node]
        assert tree.order[tree.start[first] : tree.stop[first]].min() < tree.order[tree.start[second] : tree.stop[second]].min()
        assert tree.cost[node] < 1
    assert np.isinf(tree.cost[~tree.is_inner]).all()
    assert set(np.unique(tree.labels)) == set(np.flatnonzero(~tree.is_inner))


def test_costs_are_those_of_the_node_s_own_graph():
    weights = planted([30, 20, 14], across=0.3)[0]
    tree = cut_tree(weights, min_size=2)
    for node in np.flatnonzero(tree.is_inner):
        held = np.sort(tree.order[tree.start[node] : tree.stop[node]])
        child = node + 1
        side = np.isin(held, tree.order[tree.start[child] : tree.stop[child]])
        assert tree.cost[node] == pytest.approx(ncut(weights[np.ix_(held, held)], side), rel=1e-9)
        assert tree.inside[node] == pytest.approx(weights[np.ix_(held, held)].sum())
        assert tree.volume[node] == pytest.approx(weights[held].sum())


def test_planted_blocks_are_found():
    weights, block = planted([30, 20, 14, 9, 40], across=0.02)
    tree = cut_tree(weights, min_size=2)
    for rule in ("gap", "modularity"):
        assert same_partition(tree.pruned(choose_threshold(tree, rule)).labels, block), rule


def test_prunings_are_nested(tree):
    last = np.zeros(len(tree.order), int)
    counts = []
    for tau in np.linspace(0, 1, 41):
        labels = tree.pruned(tau).labels
        counts.append(len(np.unique(labels)))
        assert len(set(zip(labels.tolist(), last.tolist(), strict=True))) == counts[-1]
        last = labels
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] == (~tree.is_inner).sum()


def test_a_pruning_needs_the_whole_way_from_the_root(tree):
    for tau in (0.3, 0.6, 0.9):
        made = {node for node in range(len(tree)) if tree.is_inner[node] and all(tree.cost[a] < tau for a in ancestors(tree, node))}
        assert len(tree.pruned(tau)) == 2 * len(made) + 1
    assert tree.pruned(1.0, depth=2).depth.max() == 2
    assert len(tree.pruned(1.0, depth=0)) == 1
    again = tree.pruned(0.9).pruned(0.4)
    assert np.array_equal(again.labels, tree.pruned(0.4).labels)


def ancestors(tree, node):
    while node >= 0:
        yield node
        node = tree.parent[node]


@pytest.mark.parametrize("seed", range(6))
def test_rules_by_brute_force_over_all_thresholds(seed):
    weights = planted([12, 9, 7, 5], across=0.25, seed=seed)[0]
    tree = cut_tree(weights, min_size=2)
    total, degree = weights.sum(), weights.sum(axis=1)
    marks = sorted({0.0, *tree.cost[tree.is_inner].tolist(), 1.0})
    gaps, means, modularities = {}, {}, {}
    for tau in (np.array(marks[1:]) + np.array(marks[:-1])) / 2:
        cut = tree.pruned(tau)
        refused = cut.cost[~cut.is_inner]
        gaps[tau] = min([1.0, *refused.tolist()]) - cut.cost[cut.is_inner].max(initial=0)
        member = cut.labels[:, None] == np.unique(cut.labels)
        inside, volume = np.einsum("ic,ij,jc->c", member, weights, member), degree @ member
        means[tau] = (1 - inside / volume).mean() if member.shape[1] > 1 else np.inf
        modularities[tau] = (inside / total - (volume / total) ** 2).sum()
    assert gaps[nearest(gaps, choose_threshold(tree, "gap"), tree)] == pytest.approx(max(gaps.values()))
    assert means[nearest(means, choose_threshold(tree, "mean"), tree)] == pytest.approx(min(means.values()))
    assert modularities[nearest(modularities, choose_threshold(tree, "modularity"), tree)] == pytest.approx(max(modularities.values()))


def nearest(scores, tau, tree):
    """A threshold that was tried and gives the same pruning."""
    wanted = tree.pruned(tau).labels
    return next(t for t in scores if np.array_equal(tree.pruned(t).labels, wanted))


def test_no_structure_is_not_cut():
    tree = cut_tree(np.ones((40, 40)))
    assert len(tree) == 1
    assert np.isinf(tree.cost[0])
    assert tree.labels.tolist() == [0] * 40
    for rule in ("gap", "mean", "modularity"):
        assert len(tree.pruned(choose_threshold(tree, rule))) == 1
    assert len(cut_tree(np.ones((1, 1)))) == 1
    assert len(cut_tree(np.zeros((5, 5)))) in (1, 2, 3, 4, 5, 6, 7, 8, 9)  # no weights: any tree, no error


def test_scale_and_names_of_the_items_do_not_matter():
    weights, _ = planted([30, 20, 14], across=0.2)
    tree = cut_tree(weights, min_size=3)
    assert np.array_equal(cut_tree(1000 * weights, min_size=3).labels, tree.labels)
    turn = np.random.default_rng(3).permutation(len(weights))
    turned = cut_tree(weights[np.ix_(turn, turn)], min_size=3)
    assert same_partition(turned.labels, tree.labels[turn])
    np.testing.assert_allclose(np.sort(turned.cost[turned.is_inner]), np.sort(tree.cost[tree.is_inner]), rtol=1e-9)


def test_the_same_graph_gives_the_same_bytes():
    weights = planted([150, 90, 60], across=0.3)[0]
    first, second = cut_tree(weights, min_size=4), cut_tree(weights.copy(order="F"), min_size=4)
    for name in ("order", "start", "stop", "parent", "depth", "cost", "position", "inside", "volume", "vector"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name


def test_the_tree_as_json(tree):
    nodes = json.loads(json.dumps(tree.to_json()))
    assert len(nodes) == len(tree)
    assert sorted(item for node in nodes for item in node["items"]) == list(range(len(tree.order)))
    for node in nodes:
        assert (node["cost"] is None) == (node["children"] == []) == (node["position"] is None)
        assert node["children"] == [] or sum(nodes[child]["size"] for child in node["children"]) == node["size"]


def test_bad_input_is_refused():
    for broken, words in (
        (np.ones((2, 3)), "as many columns"),
        (np.zeros((0, 0)), "as many columns"),
        (np.array([[1, -1], [-1, 1.0]]), "negative"),
        (np.array([[1, np.nan], [np.nan, 1]]), "not finite"),
        (np.array([[1, 0.5], [0.1, 1]]), "not symmetric"),
    ):
        with pytest.raises(BadData, match=words):
            cut_tree(broken)
    with pytest.raises(UsageError, match="min_size 0"):
        cut_tree(np.ones((3, 3)), min_size=0)
    with pytest.raises(UsageError, match="Did you mean 'gap'"):
        choose_threshold(cut_tree(np.ones((3, 3))), "gaps")  # type: ignore[arg-type]


def test_crowded_eigenvalues_are_left_to_the_dense_solver():
    """Forty parts with hardly a bridge: forty eigenvalues near 0, among which Lanczos would not settle."""
    weights, block = planted([8] * 40, across=1e-8)
    value, vector = second_eigenpair(weights)
    degree = weights.sum(axis=1)
    np.testing.assert_allclose(vector - weights @ vector / degree, value * vector, atol=1e-6)
    assert same_partition(cut_tree(weights, min_size=2, max_depth=40).pruned(0.5).labels, block)
