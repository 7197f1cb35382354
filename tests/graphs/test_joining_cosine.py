"""The cosine above which items are joined: given, or by the image's own distribution."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.graphs.affinity import joining_cosine
from uss_dagster.graphs.vectors import unit


def grid(common: float, n: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    return unit(np.concatenate([rng.normal(size=(n, 5)), np.full((n, 1), common)], axis=1))


@pytest.mark.parametrize("common", [0.0, 3.0, 30.0])
@pytest.mark.parametrize("joined", [0.2, 0.6])
def test_relative_joins_the_same_share_however_alike_the_features_are(common: float, joined: float) -> None:
    units = grid(common)
    share = np.mean(units @ units.T > joining_cosine(units, 0.2, "relative", joined))
    assert share == pytest.approx(joined, abs=0.01)


def test_auto_is_absolute_where_the_cosine_parts_the_pairs() -> None:
    assert joining_cosine(grid(0.0), 0.2, "auto", 0.6) == 0.2
    alike = grid(30.0)
    assert (alike @ alike.T).min() > 0.2
    assert joining_cosine(alike, 0.2, "absolute", 0.6) == 0.2
    assert joining_cosine(alike, 0.2, "auto", 0.6) == joining_cosine(alike, 0.2, "relative", 0.6) > 0.9
    assert joining_cosine(grid(0.0), 0.999, "auto", 0.6) < 0.5


def test_scaling_changes_nothing_and_equal_items_are_not_torn() -> None:
    units = np.ones((9, 1))
    assert not (units @ units.T > joining_cosine(units, 0.2, "auto", 0.6)).any()
