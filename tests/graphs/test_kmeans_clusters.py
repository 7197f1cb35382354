"""k-means: the optimum on small sets, determinism, and inputs with too few distinct points."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.kmeans import kmeans


def inertia(points: np.ndarray, labels: np.ndarray) -> float:
    return sum(((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum() for c in np.unique(labels)) / len(points)


@pytest.mark.parametrize("seed", range(4))
def test_near_the_best_of_all_partitions(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(7, 2))
    best = min(inertia(points, np.array(labels)) for labels in product(range(3), repeat=7))
    got = kmeans(points, 3, restarts=20)
    assert got.inertia == pytest.approx(best, rel=1e-6)
    assert got.inertia == pytest.approx(inertia(points, got.labels), rel=1e-6)


def test_finds_separate_groups_far_from_the_origin() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(12), 50)
    points = 1e4 + 20 * rng.normal(size=(12, 6))[group] + rng.normal(size=(600, 6))
    got = kmeans(points, 12)
    assert got.labels.tolist() == group.tolist(), "groups are numbered by the first point that each holds"
    np.testing.assert_allclose(got.centres, [points[group == g].mean(axis=0) for g in range(12)], rtol=1e-12)


def test_same_seed_same_clusters_and_float32_is_enough() -> None:
    points = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    first, again, wide = kmeans(points, 7, seed=3), kmeans(points, 7, seed=3), kmeans(points.astype(np.float64), 7, seed=3)
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.centres.tobytes() == again.centres.tobytes()
    assert first.labels.tolist() == wide.labels.tolist()
    assert first.labels.dtype == np.int32


@pytest.mark.parametrize(("distinct", "k", "expected"), [(1, 4, 1), (3, 8, 3), (5, 5, 5)])
def test_no_more_clusters_than_distinct_points(distinct: int, k: int, expected: int) -> None:
    points = np.tile(np.random.default_rng(2).normal(size=(distinct, 3)), (6, 1))
    got = kmeans(points, k)
    assert len(got.centres) == expected
    assert got.inertia == pytest.approx(0, abs=1e-12)
    assert sorted(set(got.labels.tolist())) == list(range(expected))


def test_one_point_and_one_cluster() -> None:
    assert kmeans(np.ones((1, 2)), 5).labels.tolist() == [0]
    points = np.arange(6.0).reshape(3, 2)
    assert kmeans(points, 1).centres.tolist() == [[2.0, 3.0]]


def test_more_restarts_are_never_worse() -> None:
    points = np.random.default_rng(5).normal(size=(300, 4))
    values = [kmeans(points, 20, restarts=r).inertia for r in (1, 3, 9)]
    assert values == sorted(values, reverse=True)


def grouped(seed: int, n: int = 900, groups: int = 40, channels: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(groups, channels))[rng.integers(groups, size=n)] + 0.7 * rng.normal(size=(n, channels))


@pytest.mark.parametrize(("seed", "k"), [(0, 60), (1, 25)])
def test_as_good_as_scikit_learn(seed: int, k: int) -> None:
    from sklearn.cluster import KMeans

    points = grouped(seed)  # enough for products in float32
    got = kmeans(points, k, restarts=10, iterations=600, tolerance=1e-6)
    theirs = KMeans(k, n_init=10, max_iter=600, tol=1e-6, algorithm="lloyd", random_state=0).fit(points).inertia_ / len(points)
    assert got.inertia == pytest.approx(theirs, rel=0.01)
    assert got.inertia == pytest.approx(inertia(points, got.labels), rel=1e-9)


def test_a_finished_run_is_a_fixed_point_of_lloyds_algorithm() -> None:
    """Comparing only with centres that moved must not change what Lloyd's algorithm ends in."""
    points = grouped(2)
    got = kmeans(points, 50, restarts=1, iterations=1000)
    squared = ((points[:, None] - got.centres) ** 2).sum(axis=2)
    chosen = squared[np.arange(len(points)), got.labels]
    assert (chosen <= squared.min(axis=1) * (1 + 1e-5)).all()
    np.testing.assert_allclose(got.centres, [points[got.labels == c].mean(axis=0) for c in range(50)], atol=1e-9)


def test_a_tolerance_ends_a_run_early() -> None:
    points = grouped(3)
    loose, tight = (kmeans(points, 30, restarts=1, iterations=600, tolerance=t).inertia for t in (10.0, 0.0))
    assert tight < loose < 1.2 * tight


def test_rows_may_lie_in_memory_in_any_order() -> None:
    points = grouped(4)
    rows, columns = kmeans(points, 10), kmeans(np.asfortranarray(points), 10)
    assert rows.labels.tolist() == columns.labels.tolist()


def test_refusals_say_what_was_got() -> None:
    with pytest.raises(UsageError, match="k = 0"):
        kmeans(np.ones((3, 2)), 0)
    with pytest.raises(UsageError, match=r"shape \(3,\)"):
        kmeans(np.ones(3), 1)
    with pytest.raises(BadData, match="not finite"):
        kmeans(np.array([[1.0, np.nan]]), 1)
