"""Affinities against their formulas written out, and covariances gathered in parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_affinity import knn_affinity

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.affinity import Covariance, dense_affinity


def by_loops(features: np.ndarray, distance: str, similarity: str, sigma: float) -> np.ndarray:
    n = len(features)
    d = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            a, b = features[i], features[j]
            if distance == "cosine":
                d[i, j] = max(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), 0)
            else:
                d[i, j] = np.linalg.norm(a - b)
    found = 1 - (d - d.min()) / (d.max() - d.min()) if similarity == "minmax" else np.exp(-d / (2 * sigma**2))
    np.fill_diagonal(found, 0)
    return found


@pytest.mark.parametrize("distance", ["cosine", "l2"])
@pytest.mark.parametrize("similarity", ["minmax", "exp"])
def test_dense_affinity_is_the_formula(distance: str, similarity: str) -> None:
    features = np.random.default_rng(0).normal(size=(40, 5)) + 0.5
    got = dense_affinity(features, distance=distance, similarity=similarity, sigma=0.7)
    np.testing.assert_allclose(got, by_loops(features, distance, similarity, 0.7), atol=1e-7 if distance == "l2" else 1e-12)
    assert (got == got.T).all()
    assert (np.diag(got) == 0).all()


def test_minmax_reaches_zero_at_the_least_alike_pair_and_the_threshold_cuts() -> None:
    features = np.random.default_rng(1).normal(size=(700, 8))  # more than one block of rows
    got = dense_affinity(features)
    apart = got + np.eye(len(got))
    assert apart.min() == pytest.approx(0, abs=1e-15)
    assert got.max() < 1
    cut = dense_affinity(features, threshold=0.5)
    np.testing.assert_array_equal(cut, np.where(got < 0.5, 0, got))


def test_the_caller_keeps_its_features() -> None:
    features = np.random.default_rng(2).normal(size=(10, 3))
    before = features.copy()
    dense_affinity(features)
    dense_affinity(features, distance="l2")
    knn_affinity(features, 2)
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize("distance", ["cosine", "l2"])
def test_knn_affinity_keeps_the_nearest_of_the_dense_one(distance: str) -> None:
    features = np.random.default_rng(3).normal(size=(600, 4))
    dense = dense_affinity(features, distance=distance)
    got = knn_affinity(features, 7, distance=distance).toarray()
    rank = np.argsort(np.argsort(-(dense - 2 * np.eye(600)), axis=1), axis=1)
    near = (rank < 7) | (rank < 7).T
    np.testing.assert_allclose(got, np.where(near, dense, 0), atol=1e-9)
    assert (got == got.T).all()


def test_equal_items_are_alike_and_no_item_is_at_a_distance_from_itself() -> None:
    got = dense_affinity(np.ones((4, 3)), distance="l2")
    np.testing.assert_array_equal(got, 1 - np.eye(4))
    assert dense_affinity(np.ones((1, 3))).tolist() == [[0.0]]
    assert np.isfinite(dense_affinity(np.zeros((3, 2)))).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_covariance_in_parts_is_the_covariance_of_all(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    rows = 1e3 + rng.normal(size=(sum(sizes) + 4, 3)) * [1, 5, 0.1]
    gathered = Covariance()
    for part in np.split(rows, np.cumsum(sizes)):
        worker = Covariance()
        worker.update(part)
        gathered.merge(worker)
    assert gathered.count == len(rows)
    np.testing.assert_allclose(gathered.covariance, np.cov(rows.T), rtol=1e-9, atol=1e-12)


def test_whitened_distances_are_mahalanobis_distances() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(10, 20, 4)) @ rng.normal(size=(4, 4)) + 3
    covariance = Covariance()
    covariance.update(rows)
    whitened = covariance.whitening()(rows).reshape(-1, 4)
    flat = rows.reshape(-1, 4)
    inverse = np.linalg.inv(np.cov(flat.T))
    for i, j in [(0, 1), (5, 99), (150, 3)]:
        apart = flat[i] - flat[j]
        assert np.linalg.norm(whitened[i] - whitened[j]) == pytest.approx(np.sqrt(apart @ inverse @ apart), rel=1e-9)
    np.testing.assert_allclose(np.cov(whitened.T), np.eye(4), atol=1e-9)


def test_a_direction_without_spread_is_not_blown_up() -> None:
    rows = np.random.default_rng(5).normal(size=(50, 3))
    rows[:, 2] = rows[:, 0]
    covariance = Covariance()
    covariance.update(rows)
    assert np.abs(covariance.whitening()(rows)).max() < 10


def test_refusals_say_what_to_change() -> None:
    good = np.ones((3, 2))
    with pytest.raises(UsageError, match=r"Unknown distance 'cosin'. Did you mean 'cosine'?"):
        dense_affinity(good, distance="cosin")
    with pytest.raises(UsageError, match="Unknown similarity 'max'"):
        knn_affinity(good, 1, similarity="max")
    with pytest.raises(BadData, match="not finite"):
        dense_affinity(np.array([[1.0, np.nan]]))
    with pytest.raises(BadData, match="shape"):
        dense_affinity(np.ones(3))
    with pytest.raises(UsageError, match="between 1 and 2"):
        knn_affinity(good, 3)
    with pytest.raises(BadData, match="two or more"):
        _ = Covariance().covariance
    joined = Covariance()
    joined.update(good)
    with pytest.raises(BadData, match="3 channels, expected 2"):
        joined.update(np.ones((2, 3)))
    with pytest.raises(BadData, match="nothing to whiten"):
        joined.whitening()
