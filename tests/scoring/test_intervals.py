"""Intervals over images and pairs of entries told apart: exact cases, Holm's procedure by hand, and error rates by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from uss_dagster.metrics.base import poisson_weights
from uss_dagster.scoring.intervals import Pairs, half_widths, interval, rank_bounds


def resampled(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of the columns of scores (images, entries) in each replicate, NaN in one without images."""
    with np.errstate(invalid="ignore"):
        return weights @ scores / weights.sum(axis=1, keepdims=True)


def pairs_of(scores: np.ndarray, weights: np.ndarray) -> Pairs:
    return Pairs.of(scores.mean(axis=0), resampled(scores, weights), np.full(scores.shape[1], len(scores)))


def by_chance(n: int, k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Scores of k entries of equal quality, correlated by the images' difficulty, and 200 replicates' weights."""
    return rng.normal(0, 1, (n, 1)) + rng.normal(0, 0.6, (n, k)), rng.poisson(1, (200, n))


# -- one number -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5, 10, 100])
def test_the_interval_of_a_mean_is_students(n: int) -> None:
    scores = np.random.default_rng(n).normal(0.5, 0.1, (n, 1))
    weights = np.stack([poisson_weights(f"image {i}", 20_000) for i in range(n)], axis=1)
    low, high = interval(scores.mean(), resampled(scores, weights)[:, 0], n)
    half = stats.t.ppf(0.975, n - 1) * scores.std(ddof=1) / np.sqrt(n)
    assert (high - low) / 2 == pytest.approx(half, rel=0.35 if n == 2 else 0.15)  # a mean of so few has no normal replicates
    assert low < scores.mean() < high


def test_five_images_are_covered_as_promised() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        scores, weights = by_chance(5, 1, rng)
        low, high = interval(scores.mean(), resampled(scores, weights)[:, 0], 5)
        covered += low <= 0 <= high
    assert covered >= 930, "percentiles alone cover .88"


def test_one_image_or_one_replicate_has_no_interval() -> None:
    assert np.isnan(interval(0.5, np.full(200, 0.5), 1)).all()
    assert np.isnan(interval(0.5, np.array([0.5, np.nan]), 9)).all()
    assert np.isfinite(interval(0.5, np.array([0.5, np.nan, 0.6]), 9)).all()


def test_biased_replicates_leave_the_value_inside() -> None:
    draws = np.random.default_rng(0).normal(0.2, 0.01, 200)
    low, high = interval(0.13, draws, 100)
    assert low < 0.13 < high
    assert high - low == pytest.approx(4 * 0.01, rel=0.2)


# -- many entries ---------------------------------------------------------------------------------------


def test_holms_procedure_by_hand() -> None:
    chances = [0.005, 0.009, 0.03, 0.04, 0.2, 0.6]  # thresholds .05/6 = .0083, .05/5 = .01, .05/4 = .0125: two are rejected
    difference = np.zeros((4, 4))
    difference[np.triu_indices(4, 1)] = stats.norm.isf(np.array(chances) / 2)
    pairs = Pairs(difference - difference.T, np.ones((4, 4)), np.full((4, 4), 100), np.full((4, 4), 1e12))
    assert pairs.chance()[np.triu_indices(4, 1)] == pytest.approx(chances, rel=1e-4)
    (half,) = half_widths([pairs])
    assert (np.abs(pairs.difference) > half)[np.triu_indices(4, 1)].tolist() == [True, True, False, False, False, False]
    assert half[0, 1] == pytest.approx(stats.norm.isf(0.05 / 4 / 2), rel=1e-4)
    first, second = half_widths([pairs, pairs])
    assert (first == second).all()
    assert not (np.abs(pairs.difference) > first).any(), "twelve pairs ask for .05/12 at first"


@pytest.mark.parametrize("n", [5, 30])
def test_entries_of_equal_quality_are_rarely_told_apart(n: int) -> None:
    rng = np.random.default_rng(n)
    wrong = alone = 0
    for _ in range(300):
        pairs = pairs_of(*by_chance(n, 14, rng))
        wrong += bool((np.abs(pairs.difference) > half_widths([pairs])[0]).any())
        alone += bool((np.abs(pairs.difference) > 1.96 * pairs.error).any())
    assert wrong <= 0.09 * 300
    assert alone >= 0.7 * 300, "each pair judged alone"


def test_entries_that_differ_are_told_apart_and_ranks_follow() -> None:
    rng = np.random.default_rng(1)
    scores, weights = by_chance(100, 5, rng)
    scores += [0, 0, 0, 1, 2]
    pairs = pairs_of(scores, weights)
    (half,) = half_widths([pairs])
    assert [bounds.tolist() for bounds in rank_bounds(pairs, half, True)] == [[3, 3, 3, 2, 1], [5, 5, 5, 2, 1]]
    assert [bounds.tolist() for bounds in rank_bounds(pairs, half, False)] == [[1, 1, 1, 4, 5], [3, 3, 3, 4, 5]]
    order = rng.permutation(5)
    again = pairs_of(scores[:, order], weights)
    assert half_widths([again])[0] == pytest.approx(half[np.ix_(order, order)], rel=1e-9)


def test_what_is_alike_on_all_images_needs_enough_of_them() -> None:
    weights = np.random.default_rng(0).poisson(1, (200, 40))
    difficulty = np.random.default_rng(1).normal(0, 1, (40, 1))
    for n, apart in ((2, False), (5, False), (40, True)):
        pairs = pairs_of(difficulty[:n] + np.array([0, 0, 0.1]), weights[:, :n])
        (half,) = half_widths([pairs])
        assert (np.abs(pairs.difference) > half)[0].tolist() == [False, False, apart]


def test_nothing_is_tested_on_one_image_or_without_replicates() -> None:
    scores = np.array([[0.1, 0.9]])
    for pairs in (pairs_of(scores, np.ones((200, 1))), Pairs.of(scores[0], np.zeros((0, 2)), np.array([40, 40]))):
        (half,) = half_widths([pairs])
        assert np.isnan(half).all()
        assert [bounds.tolist() for bounds in rank_bounds(pairs, half, True)] == [[1, 1], [2, 2]]
    assert half_widths([]) == []
