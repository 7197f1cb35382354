"""Ranking entries by scores that were estimated without labels: what can be told apart, and what taking the first costs."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.metrics.unlabelled.rank_model import LeftOut, RankModel
from uss_dagster.scoring.label_free import rank_entries

NAMES = ["a", "b", "c", "d"]
IDS = [f"image{n}" for n in range(20)]


def model(error: float = 0.01, experience: dict[str, float] | None = None) -> RankModel:
    rows = [LeftOut(dataset=str(n), measure="parts") for n in range(24)]  # type: ignore[typeddict-item]
    return RankModel([], [], [], [], [], 0.0, {"parts": 0.1}, {"parts": experience or {}}, {"parts": 1.0}, {"parts": error}, rows)


def scores(*means: float, noise: float = 0.01) -> np.ndarray:
    return np.array(means) + noise * np.random.default_rng(0).normal(size=(len(IDS), len(means)))


def test_a_clear_winner_is_told_apart_and_costs_nothing():
    ranking = rank_entries(NAMES, NAMES, IDS, scores(0.2, 0.9, 0.3, 0.25), model(), "parts")
    assert [row.entry for row in ranking.entries] == ["b", "c", "d", "a"]
    assert ranking.leaders == ["b"]
    assert ranking.entries[0].best_chance > 0.99
    assert ranking.regret < 0.001
    assert all(row.behind_low > 0 for row in ranking.entries[1:])


def test_equal_entries_are_not_told_apart_and_regret_grows_with_the_error():
    equal = scores(0.5, 0.501, 0.5, 0.2, noise=0.05)
    sure, unsure = (rank_entries(NAMES, NAMES, IDS, equal, model(error), "parts") for error in (0.01, 0.05))
    assert set(sure.leaders) == {"a", "b", "c"}
    assert unsure.regret > sure.regret > 0
    assert sum(row.best_chance for row in unsure.entries) == pytest.approx(1)
    widths = [[row.behind_high - row.behind_low for row in ranking.entries[1:]] for ranking in (sure, unsure)]
    assert (np.array(widths[1]) > np.array(widths[0])).all()


def test_intervals_of_unlike_entries_rank_by_experience_where_the_pictures_say_nothing():
    known = {"a": 0.05, "b": -0.05, "c": 0.2, "d": 0.0}
    ranking = rank_entries(NAMES, NAMES, IDS, scores(0.5, 0.5, 0.5, 0.5, noise=0), model(experience=known), "parts")
    assert [row.entry for row in ranking.entries] == ["c", "a", "d", "b"]
    assert ranking.entries[1].behind == pytest.approx(0.15)


def test_the_same_images_give_the_same_ranking_in_any_order():
    table = scores(0.5, 0.52, 0.48, 0.5)
    order = np.random.default_rng(1).permutation(len(IDS))
    first, second = (rank_entries(NAMES, NAMES, [IDS[i] for i in o], table[o], model(), "parts") for o in (np.arange(len(IDS)), order))
    assert [row.entry for row in first.entries] == [row.entry for row in second.entries]
    assert first.regret == pytest.approx(second.regret, rel=1e-6)


def test_one_image_has_no_interval():
    ranking = rank_entries(NAMES, NAMES, IDS[:1], scores(0.2, 0.9, 0.3, 0.25)[:1], model(), "parts")
    assert all(np.isnan(row.behind_low) and not row.apart for row in ranking.entries)
