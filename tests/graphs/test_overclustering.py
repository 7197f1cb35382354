"""Over-clustering and the graph of its parts."""

from __future__ import annotations

import numpy as np
import pytest
from sparse_affinity import knn_affinity

from uss_dagster.errors import BadData
from uss_dagster.graphs.affinity import dense_affinity
from uss_dagster.graphs.eigen import smallest_eigenpairs
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.overclustering import over_cluster, part_graph
from uss_dagster.graphs.partition import recursive_partition, scaled


def grouped(n: int, groups: int, channels: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    group = np.sort(rng.integers(groups, size=n))
    return rng.normal(size=(groups, channels))[group] + noise * rng.normal(size=(n, channels)), group


def test_parts_are_the_groups_there_are() -> None:
    features, group = grouped(300, 12, 32, 0.05)
    labels = over_cluster(dense_affinity(features), 12)
    assert labels.dtype == np.int32
    assert len({*zip(labels.tolist(), group.tolist(), strict=True)}) == 12
    again = over_cluster(dense_affinity(features), 12)
    assert labels.tobytes() == again.tobytes()


def test_an_iterative_solver_costs_less_than_one_percent_of_the_objective() -> None:
    features, _ = grouped(800, 15, 96, 1.0)
    affinity = dense_affinity(features)
    exact = scaled(smallest_eigenpairs(affinity, 60, solver="dense").vectors)
    found = smallest_eigenpairs(affinity, 60, solver="krylov")
    assert found.solver == "krylov"

    def objective(labels: np.ndarray) -> float:
        return sum(((exact[labels == c] - exact[labels == c].mean(axis=0)) ** 2).sum() for c in range(labels.max() + 1))

    ours, best = (kmeans(points, 60, seed=1234, restarts=10, iterations=600).labels for points in (scaled(found.vectors), exact))
    assert objective(ours) == pytest.approx(objective(best), rel=0.01)


def test_no_more_parts_than_items_and_none_empty() -> None:
    assert over_cluster(np.zeros((1, 1)), 200).tolist() == [0]
    assert over_cluster(np.ones((5, 5)), 1).tolist() == [0] * 5
    for n in (2, 3, 30):
        labels = over_cluster(np.random.default_rng(n).random((n, n)) @ np.ones((n, n)) / n, 200)
        assert sorted(set(labels.tolist())) == list(range(labels.max() + 1))
    flat = over_cluster(dense_affinity(np.ones((40, 3))), 10)
    assert sorted(set(flat.tolist())) == list(range(flat.max() + 1))


def test_part_graph_sums_the_affinity_between_parts() -> None:
    affinity = dense_affinity(np.random.default_rng(0).normal(size=(30, 4)))
    labels = np.arange(30) % 4
    got = part_graph(affinity, labels)
    for a in range(4):
        for b in range(4):
            wanted = 0 if a == b else affinity[np.ix_(labels == a, labels == b)].sum()
            assert got[a, b] == pytest.approx(wanted, rel=1e-12)
    assert (got == got.T).all()


def test_the_two_stages_find_groups_of_groups() -> None:
    rng = np.random.default_rng(1)
    coarse = np.repeat(np.arange(3), 200)
    fine = np.repeat(np.arange(12), 50)
    centres = 3 * rng.normal(size=(3, 64))[np.arange(12) // 4] + rng.normal(size=(12, 64))
    affinity = dense_affinity(centres[fine] + 0.5 * rng.normal(size=(600, 64)))
    labels = over_cluster(affinity, 40)
    found = recursive_partition(part_graph(affinity, labels))
    top = found.labels.copy()
    while (found.parent[top] > 0).any():
        top = np.where(found.parent[top] > 0, found.parent[top], top)
    children = np.unique(top)
    assert len(children) == 3
    for child in children:
        counts = np.bincount(coarse[top[labels] == child])
        assert counts.max() > 0.98 * counts.sum(), "a child of the root is a coarse group, but for a stray part"


def test_an_affinity_of_few_neighbours() -> None:
    features, group = grouped(700, 5, 16, 0.1)
    labels = over_cluster(knn_affinity(features, 25).toarray(), 5)
    assert len({*zip(labels.tolist(), group.tolist(), strict=True)}) == 5


def test_refusals() -> None:
    with pytest.raises(BadData, match="one label of 0 or more for each of 3 items"):
        part_graph(np.zeros((3, 3)), np.zeros(2, np.int64))
    with pytest.raises(BadData, match="negative or not finite"):
        over_cluster(np.full((4, 4), np.nan), 2)
