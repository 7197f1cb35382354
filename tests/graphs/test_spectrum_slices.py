"""Eigenpairs of cosine affinities whose features have few strong channels: slices of the spectrum against the full decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from uss_dagster.errors import BadData
from uss_dagster.graphs.affinity import cosine_affinity, dense_affinity
from uss_dagster.graphs.eigen import smallest_eigenpairs
from uss_dagster.graphs.overclustering import over_cluster
from uss_dagster.graphs.spectrum_slices import Factor, ShiftedInverse


def token_like(n: int = 900, channels: int = 100, seed: int = 0) -> np.ndarray:
    """Features whose channels fall off as those of a trained network do: ten directions carry nearly everything."""
    rng = np.random.default_rng(seed)
    strength = np.concatenate([np.linspace(3, 1, 10), 0.15 * np.exp(-np.arange(channels - 10) / 25)])
    return (1.5 + rng.normal(size=(n, channels)) * strength) @ np.linalg.qr(rng.normal(size=(channels, channels)))[0]


FEATURES = token_like()
AFFINITY, FACTOR = cosine_affinity(FEATURES)
SCALE = 1 / np.sqrt(AFFINITY.sum(axis=1))
MATRIX = AFFINITY * SCALE[:, None] * SCALE
VALUES, VECTORS = scipy.linalg.eigh(MATRIX)
VALUES, VECTORS = VALUES[::-1], VECTORS[:, ::-1]


def test_the_factor_is_that_of_the_affinity() -> None:
    np.testing.assert_array_equal(AFFINITY, dense_affinity(FEATURES))
    full = (FACTOR.columns * FACTOR.signs) @ FACTOR.columns.T
    np.fill_diagonal(full, 0)
    np.testing.assert_allclose(full, AFFINITY, atol=1e-13)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.6, 0.99])
def test_eigenvalues_above_a_shift_are_counted(share: float) -> None:
    place = int(share * len(VALUES))
    sigma = (VALUES[place] + VALUES[place + 1]) / 2
    factor = Factor(FACTOR.columns * SCALE[:, None], FACTOR.signs)
    diagonal = ((factor.columns**2) @ factor.signs).ravel()
    assert ShiftedInverse(factor, diagonal, sigma).above() == place + 1


@pytest.mark.parametrize("k", [40, 110])
def test_slices_agree_with_the_full_decomposition(k: int) -> None:
    got = smallest_eigenpairs(AFFINITY, k, solver="slices", factor=FACTOR)
    assert got.solver == "slices", "no fallback was needed"
    np.testing.assert_allclose(got.values, 1 - VALUES[:k], atol=1e-9)
    missed = 1 - np.linalg.norm(VECTORS[:, :k].T @ got.vectors) ** 2 / k
    assert missed < 1e-4
    assert got.residual.max() < 1e-5
    np.testing.assert_allclose(got.vectors.T @ got.vectors, np.eye(k), atol=1e-9)


def test_crowded_eigenvalues_are_solved_by_slices_and_others_are_not() -> None:
    assert VALUES[79] < -np.min(SCALE**2), "the last lies among the entries of the diagonal"
    assert smallest_eigenpairs(AFFINITY, 80, factor=FACTOR).solver == "slices"
    rng = np.random.default_rng(3)
    noisy, factor = cosine_affinity(rng.normal(size=(12, 200))[rng.integers(12, size=900)] + rng.normal(size=(900, 200)))
    assert smallest_eigenpairs(noisy, 20, factor=factor).solver == "krylov"


def test_the_factor_of_another_affinity_is_not_used() -> None:
    other = cosine_affinity(token_like(seed=5))[1]
    got = smallest_eigenpairs(AFFINITY, 40, solver="slices", factor=other)
    assert got.solver == "slices, dense"
    np.testing.assert_allclose(got.values, 1 - VALUES[:40], atol=1e-12)


def test_the_same_seed_gives_the_same_bytes_and_parts_stay_as_good() -> None:
    first = over_cluster(AFFINITY, 80, restarts=2, factor=FACTOR)
    np.testing.assert_array_equal(first, over_cluster(AFFINITY, 80, restarts=2, factor=FACTOR))
    assert first.max() == 79

    def within(labels: np.ndarray) -> float:
        member = labels[:, None] == np.arange(labels.max() + 1)
        return float(sum(np.var(VECTORS[rows][:, :80], axis=0).sum() * rows.sum() for rows in member.T))

    assert within(first) == pytest.approx(within(over_cluster(AFFINITY, 80, restarts=2)), rel=0.03)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadData, match="not finite"):
        cosine_affinity(np.full((3, 2), np.nan))
