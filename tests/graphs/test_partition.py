"""Recursive partition: recorded trees, the node rules one by one, invariances, degenerate graphs."""

from __future__ import annotations

import hashlib
import inspect
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs import partition
from uss_dagster.graphs.eigen import Eigen, smallest_eigenpairs
from uss_dagster.graphs.partition import (
    Partition,
    normalised_cuts,
    perturbation_bound,
    recursive_partition,
    scaled,
    threshold_split,
)

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "partition_golden.npz")
CASES = sorted({name.split("_")[0] for name in GOLDEN.files if name.startswith("part")})


def nodes(labels: np.ndarray, parent: np.ndarray) -> list[frozenset[int]]:
    """Items of each node."""
    held: list[set[int]] = [set() for _ in parent]
    for item, leaf in enumerate(labels.tolist()):
        held[leaf].add(item)
    for node in range(len(parent) - 1, 0, -1):
        held[parent[node]] |= held[node]
    return [frozenset(items) for items in held]


def tree(found: Partition) -> set[frozenset[int]]:
    return set(nodes(found.labels, found.parent))


def blocks(sizes: list[int], across: float = 0.05, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """An affinity of 1 within groups and ``across`` between them, both disturbed."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(seed)
    shake = np.triu(rng.uniform(1 - noise, 1, (len(group), len(group))), 1)
    return np.where(group[:, None] == group, 1.0, across) * (shake + shake.T)


def random_affinity(seed: int, n: int) -> np.ndarray:
    """Two-level groups, some weights missing."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(0, 6, n)
    base = np.where(fine[:, None] == fine, 0.9, np.where(fine[:, None] // 2 == fine // 2, 0.4, 0.05))
    shake = np.triu(rng.uniform(0, 1, (n, n)) * (rng.uniform(size=(n, n)) > 0.1), 1)
    return base * (shake + shake.T)


def golden(case: str, solver: str = "auto") -> Partition:
    levels, max_kways, min_points, mncut_th, max_perturb = GOLDEN[f"{case}_params"]
    return recursive_partition(GOLDEN[f"{case}_adj"], int(levels), int(max_kways), int(min_points), mncut_th, max_perturb, solver=solver)


@pytest.mark.parametrize("solver", ["auto", "krylov"])
@pytest.mark.parametrize("case", CASES)
def test_recorded_trees(case: str, solver: str) -> None:
    got = golden(case, solver)
    wanted = nodes(GOLDEN[f"{case}_labels"], GOLDEN[f"{case}_parent"])
    assert tree(got) == set(wanted)
    ncut = dict(zip(nodes(got.labels, got.parent), got.ncut, strict=True))
    for items, value in zip(wanted, GOLDEN[f"{case}_ncut"], strict=True):
        assert ncut[items] == pytest.approx(value, abs=1e-6)
    assert (got.parent == 0).sum() == GOLDEN[f"{case}_root_k"]


@pytest.mark.parametrize("case", CASES)
def test_recorded_eigenvalues(case: str) -> None:
    wanted = GOLDEN[f"{case}_root_eigenvalues"]
    got = smallest_eigenpairs(GOLDEN[f"{case}_adj"], len(wanted))
    np.testing.assert_allclose(got.values, wanted, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_recorded_trees_do_not_depend_on_scale_or_order(case: str) -> None:
    adjacency, wanted = GOLDEN[f"{case}_adj"], tree(golden(case))
    levels, max_kways, min_points, mncut_th, max_perturb = GOLDEN[f"{case}_params"]
    rules = (int(levels), int(max_kways), int(min_points), mncut_th, max_perturb)
    for scale in (1e-13, 1e-3, 1e6):
        assert tree(recursive_partition(scale * adjacency, *rules)) == wanted
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(adjacency))
        got = recursive_partition(adjacency[np.ix_(order, order)], *rules)
        assert {frozenset(order[list(items)].tolist()) for items in tree(got)} == wanted
    for seed in range(3):
        assert tree(recursive_partition(adjacency, *rules, seed=seed)) == wanted


@pytest.mark.parametrize("case", CASES)
def test_recorded_trees_with_other_signs_of_k_means_input(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs reach the tree through the thresholds alone, which see them fixed: k-means does not care."""
    wanted = tree(golden(case))

    def turned(weights: np.ndarray, q: int, **options: object) -> Eigen:
        pairs = smallest_eigenpairs(weights, q, **options)  # type: ignore[arg-type]
        sign = np.where(np.arange(q) == 1, 1.0, -1.0)
        return Eigen(pairs.values, pairs.vectors * sign, pairs.solver, pairs.residual)

    monkeypatch.setattr(partition, "smallest_eigenpairs", turned)
    assert tree(golden(case)) == wanted


@pytest.mark.parametrize(("across", "ncut"), [(0.0, 0.0), (0.1, 0.2 / 1.2)])
def test_two_pairs_are_two_leaves(across: float, ncut: float) -> None:
    affinity = np.full((4, 4), across)
    affinity[:2, :2] = affinity[2:, 2:] = 1
    got = recursive_partition(affinity)
    assert tree(got) == {frozenset({0, 1, 2, 3}), frozenset({0, 1}), frozenset({2, 3})}
    assert got.parent.tolist() == [-1, 0, 0]
    np.testing.assert_allclose(got.ncut, [0, ncut, ncut], atol=1e-12)
    if across:
        assert got.ncut[1] == pytest.approx(0.1667, abs=1e-4)


@pytest.mark.parametrize("weight", [1e-13, 0.3, 1.0, 1e5])
def test_pairs_and_threes(weight: float) -> None:
    pair = np.array([[0, weight], [weight, 0]])
    assert recursive_partition(pair).parent.tolist() == [-1]
    assert recursive_partition(weight * (1 - np.eye(3))).parent.tolist() == [-1]
    three = np.zeros((3, 3))
    three[0, 1] = three[1, 0] = weight
    assert recursive_partition(three).parent.tolist() == [-1], "three items are never split, connected or not"


def test_a_pair_without_affinity_is_split() -> None:
    got = recursive_partition(np.zeros((2, 2)))
    assert got.parent.tolist() == [-1, 0, 0]
    assert got.labels.tolist() == [1, 2]
    assert got.ncut.tolist() == [0, 0, 0]


@pytest.mark.parametrize("k", range(3, 10))
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_k_equal_blocks_are_k_children(k: int, noise: float) -> None:
    sizes = [8] * k
    got = recursive_partition(blocks(sizes, noise=noise))
    children = {items for items, above in zip(nodes(got.labels, got.parent), got.parent, strict=True) if above == 0}
    assert children == {frozenset(range(8 * c, 8 * c + 8)) for c in range(k)}


def test_the_bound_of_exact_cliques_is_zero() -> None:
    groups = np.repeat([0, 1, 2], [4, 1, 7])
    exact = (groups[:, None] == groups) - np.eye(12)
    for laplacian in ("symmetrical", "randomwalk", "standard"):
        assert perturbation_bound(exact, groups, 0.5, laplacian) == 0
        assert perturbation_bound(exact, groups, 0.0, laplacian) == 0
    assert perturbation_bound(7.3 * exact, groups, 0.5) == 0
    assert perturbation_bound(1 - np.eye(12), groups, 0.0) == np.inf


@pytest.mark.parametrize("laplacian", ["symmetrical", "randomwalk", "standard"])
def test_the_bound_is_the_formula(laplacian: str) -> None:
    affinity, groups = blocks([300, 250, 80], seed=3), np.repeat([0, 1, 2], [300, 250, 80])

    def dense(weights: np.ndarray) -> np.ndarray:
        degree = weights.sum(axis=1)
        L = np.diag(degree) - weights
        if laplacian == "symmetrical":
            return L / np.sqrt(np.outer(degree, degree))
        return L / degree[:, None] if laplacian == "randomwalk" else L

    apart = dense(affinity) - dense((groups[:, None] == groups) - np.eye(630))
    assert perturbation_bound(affinity, groups, 0.3, laplacian) == pytest.approx(np.linalg.norm(apart) / 0.3, rel=1e-9)


def test_normalised_cuts_are_the_formula() -> None:
    affinity, groups = random_affinity(0, 20), np.arange(20) % 3
    for c, got in enumerate(normalised_cuts(affinity, groups)):
        cut = sum(affinity[i, j] for i in range(20) for j in range(20) if groups[i] == c and groups[j] != c)
        whole = sum(affinity[i, j] for i in range(20) for j in range(20) if groups[i] == c)
        assert got == pytest.approx(cut / whole, rel=1e-12)
    assert normalised_cuts(np.zeros((3, 3)), np.array([0, 1, 1])).tolist() == [0, 0]


def test_threshold_split_is_the_best_of_twelve() -> None:
    affinity = random_affinity(1, 25)
    vector = smallest_eigenpairs(affinity, 2).vectors[:, 1]
    got = threshold_split(affinity, vector)
    assert got is not None
    step = (vector.max() - vector.min()) / 10
    thresholds = [vector.min() + step * i for i in range(10)] + [0.0, vector.mean()]
    scores = [normalised_cuts(affinity, (vector > t).astype(int)).mean() for t in thresholds]
    np.testing.assert_array_equal(got, vector > thresholds[int(np.argmin(scores))])
    assert threshold_split(affinity, np.full(25, 0.2)) is None
    assert threshold_split(affinity, np.zeros(25)) is None


def test_a_threshold_never_leaves_a_side_empty() -> None:
    affinity = np.zeros((5, 5))
    got = threshold_split(affinity, np.array([0.5, 0.5, 0.5, 0.6, 0.9]))
    assert got is not None
    assert 0 < got.sum() < 5


def test_every_stop_says_why() -> None:
    affinity = blocks([6, 6, 6, 6], across=0.2)
    assert recursive_partition(affinity, levels=0).stop == ("levels",)
    assert recursive_partition(affinity, min_points=24).stop == ("size",)
    assert recursive_partition(affinity, max_kways=2).stop == ("no gap",)
    assert recursive_partition(affinity, max_perturb=0.01).stop == ("perturbation",)
    assert recursive_partition(affinity, mncut_th=0.0).stop == ("normalised cut",)
    assert recursive_partition(affinity, eig_stab_th=-1.0).stop == ("unstable eigenvectors",)
    assert recursive_partition(affinity, levels=1).stop == ("", *["levels"] * 4)


def test_fewer_groups_are_tried_where_the_cut_is_too_dear() -> None:
    """Four groups in two pairs: as four their mean cut is above the threshold, as the two pairs it is below."""
    affinity = blocks([10] * 4, across=0.02, noise=0.0)
    affinity[:20, :20] = np.where(affinity[:20, :20] < 0.5, 0.3, affinity[:20, :20])
    affinity[20:, 20:] = np.where(affinity[20:, 20:] < 0.5, 0.3, affinity[20:, 20:])
    np.fill_diagonal(affinity, 0)
    as_four = normalised_cuts(affinity, np.repeat(np.arange(4), 10)).mean()
    as_two = normalised_cuts(affinity, np.repeat(np.arange(2), 20)).mean()
    assert as_two < 0.1 < as_four
    got = recursive_partition(affinity, levels=1, mncut_th=0.1)
    assert tree(got) == {frozenset(range(40)), frozenset(range(20)), frozenset(range(20, 40))}
    np.testing.assert_allclose(got.ncut[1:], as_two)


def test_splits_in_two_keep_the_bound_where_that_is_asked() -> None:
    """Two groups whose perturbation, by the formula with the gap to the third eigenvalue, lies between two bounds."""
    affinity, groups = blocks([8, 8], across=0.1), np.repeat([0, 1], 8)
    values = smallest_eigenpairs(affinity, 3).values
    rho = perturbation_bound(affinity, groups, values[2] - values[1])
    assert 0 < rho < np.inf
    for heuristic in ("fiedler", "maxgap"):
        for ways in (2, 10) if heuristic == "fiedler" else (10,):
            tested = {"heuristic": heuristic, "max_kways": ways, "levels": 1, "perturb_two": True}
            below = recursive_partition(affinity, max_perturb=0.999 * rho, **tested)
            above = recursive_partition(affinity, max_perturb=1.001 * rho, **tested)
            assert below.stop == ("perturbation",)
            assert tree(above) == {frozenset(range(16)), frozenset(range(8)), frozenset(range(8, 16))}
    untested = recursive_partition(affinity, heuristic="fiedler", max_perturb=0.0, levels=1)
    assert len(untested.parent) == 3
    assert len(recursive_partition(np.zeros((2, 2)), max_perturb=0.0, perturb_two=True).parent) == 3  # two items have no gap after them


def test_fiedler_always_makes_two() -> None:
    got = recursive_partition(blocks([6, 6, 6, 6]), heuristic="fiedler")
    inner = np.bincount(got.parent[1:], minlength=len(got.parent))
    assert set(inner.tolist()) == {0, 2}
    assert {frozenset(range(6 * c, 6 * c + 6)) for c in range(4)} <= tree(got)


@pytest.mark.parametrize("laplacian", ["randomwalk", "standard"])
@pytest.mark.parametrize("scaling", ["unit", "minmax", "standard", "none"])
def test_other_laplacians_and_scalings_find_clear_groups(laplacian: str, scaling: str) -> None:
    got = recursive_partition(blocks([9, 7, 8]), levels=1, laplacian=laplacian, scaling=scaling, max_perturb=1e4)
    assert {frozenset(range(9)), frozenset(range(9, 16)), frozenset(range(16, 24))} < tree(got)


def test_scalings() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(scaled(vectors, "unit"), [[0.6, 0.8], [0, 0], [1 / 5**0.5, 2 / 5**0.5]])
    np.testing.assert_allclose(scaled(vectors, "minmax"), [[1, 1], [0, 0], [1 / 3, 0.5]])
    np.testing.assert_allclose(scaled(vectors, "standard").std(axis=0), 1)
    assert scaled(vectors, "none") is vectors


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from(["maxgap", "fiedler"]))
def test_every_item_is_in_a_leaf_and_every_node_is_the_union_of_its_leaves(seed: int, n: int, heuristic: str) -> None:
    got = recursive_partition(random_affinity(seed, n), heuristic=heuristic)
    count = len(got.parent)
    assert got.parent[0] == -1
    assert (got.parent[1:] < np.arange(1, count)).all(), "preorder: parents come first"
    children = np.bincount(got.parent[1:], minlength=count)
    assert (children != 1).all()
    assert set(got.labels.tolist()) == set(np.flatnonzero(children == 0).tolist()), "leaves, all of them, and nothing else"
    held = nodes(got.labels, got.parent)
    for node in range(count):
        below = [held[c] for c in range(count) if got.parent[c] == node]
        if below:
            assert frozenset().union(*below) == held[node]
            assert sum(map(len, below)) == len(held[node])
        assert (got.stop[node] == "") == (children[node] > 0)
    assert got.ncut[0] == 0
    assert ((got.ncut >= 0) & (got.ncut <= 1 + 1e-12)).all()
    # preorder: a node's subtree is contiguous
    for node in range(1, count):
        ancestors = {node - 1}
        while got.parent[max(ancestors)] >= 0 and got.parent[node] not in ancestors:
            ancestors = {int(got.parent[max(ancestors)])}
        assert got.parent[node] in ancestors


@pytest.mark.parametrize("n", [1, 2, 3, 4, 12])
def test_graphs_without_edges(n: int) -> None:
    got = recursive_partition(np.zeros((n, n)))
    assert set(got.labels.tolist()) == set(range(len(got.parent))) - set(got.parent.tolist())
    assert np.isfinite(got.ncut).all()
    assert len(set(got.labels.tolist())) == n, "every item stands alone"


def test_equal_weights_everywhere() -> None:
    for n in (4, 30):
        got = recursive_partition(np.ones((n, n)))
        assert len(got.labels) == n
        assert np.isfinite(got.ncut).all()


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_a_disconnected_graph_falls_into_its_components(groups: int) -> None:
    affinity = blocks([7] * groups, across=0.0)
    got = recursive_partition(affinity)
    assert {frozenset(range(7 * c, 7 * c + 7)) for c in range(groups)} <= tree(got)
    assert not got.ncut[np.flatnonzero(got.parent == 0)].any()


def test_items_that_nothing_connects_do_not_break_the_rest() -> None:
    affinity = np.zeros((20, 20))
    affinity[:16, :16] = blocks([8, 8])
    got = recursive_partition(affinity)
    found = tree(got)
    assert not any(0 < len(items & set(range(8))) < 8 and len(items) > 8 for items in found), "no group is torn"


def test_a_deep_tree_needs_no_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    n = 300
    affinity = np.diag(np.ones(n - 1), 1)
    monkeypatch.setattr(partition, "threshold_split", lambda weights, vector: (np.arange(len(vector)) > 0).astype(np.int64))
    monkeypatch.setattr(
        partition, "_pairs", lambda weights, q, rules: Eigen(np.arange(q) / q, np.eye(len(weights))[:, :q], "", np.zeros(q))
    )
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 120)
    try:
        got = recursive_partition(affinity + affinity.T, levels=10**6, max_kways=3, heuristic="fiedler", mncut_th=2.0)
    finally:
        sys.setrecursionlimit(limit)
    assert len(got.parent) == 2 * n - 1


def test_the_direct_route_finds_groups_of_a_large_graph() -> None:
    sizes = [300, 250, 200]
    affinity = blocks(sizes, across=0.3, noise=0.5)
    got = recursive_partition(affinity, levels=1)
    ends = np.cumsum([0, *sizes])
    children = tree(got) - {frozenset(range(750))}
    assert children == {frozenset(range(a, b)) for a, b in pairwise(ends.tolist())}
    again = recursive_partition(affinity, levels=1)
    assert got.labels.tobytes() == again.labels.tobytes()
    assert got.ncut.tobytes() == again.ncut.tobytes()


PROGRAM = """
import hashlib, numpy as np
from uss_dagster.graphs.partition import recursive_partition
golden = np.load({path!r})
digest = hashlib.sha256()
for case in {cases!r}:
    levels, kways, points, cut, perturb = golden[case + "_params"]
    found = recursive_partition(golden[case + "_adj"], int(levels), int(kways), int(points), cut, perturb)
    digest.update(found.labels.tobytes() + found.parent.tobytes() + np.round(found.ncut, 9).tobytes())
print(digest.hexdigest())
"""


def test_one_and_two_threads_give_the_same_trees() -> None:
    program = PROGRAM.format(path=str(Path(__file__).parent.parent / "golden" / "partition_golden.npz"), cases=CASES)
    runs = []
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        runs.append(subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout)
    assert runs[0] == runs[1]
    assert len(runs[0].strip()) == hashlib.sha256().digest_size * 2


def test_refusals_say_what_to_change() -> None:
    good = 1 - np.eye(4)
    with pytest.raises(UsageError, match=r"Unknown heuristic 'maxgaps'\. Did you mean 'maxgap'\?"):
        recursive_partition(good, heuristic="maxgaps")
    with pytest.raises(UsageError, match="Unknown scaling 'units'"):
        recursive_partition(good, scaling="units")
    for bad in (np.nan, np.inf, -0.1):
        broken = good.copy()
        broken[0, 1] = broken[1, 0] = bad
        with pytest.raises(BadData, match="negative or not finite"):
            recursive_partition(broken)
    with pytest.raises(BadData, match="not symmetric"):
        recursive_partition(np.triu(good))
    for shape in ((0, 0), (2, 3), (4,)):
        with pytest.raises(BadData, match="shape"):
            recursive_partition(np.ones(shape))
