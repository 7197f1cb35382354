"""Which images stand for an entry: the best, the median and the worst, by a rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uss_dagster import registry
from uss_dagster.scoring.image_scores import ImageScores
from uss_dagster.stages.scores import gallery_of

MOST = "nm_covering"


def rows(values: dict[str, float], metric: str = MOST, grid: str = "full") -> list[Any]:
    family = next(f for f in registry.names("metric") if metric in registry.load("metric", f).SPEC.metrics)
    spec = registry.load("metric", family).SPEC.metrics[metric]
    way = {"metric": metric, "protocol": spec.protocol, "scope": spec.scope, "grid": grid}
    return [{"image_id": i, **way, "value": v, "n": 1} for i, v in values.items()]


def test_best_median_and_worst_of_the_first_metric() -> None:
    values = {f"i{n}": v for n, v in enumerate(np.random.default_rng(0).permutation(7) / 10)}
    found = gallery_of(["covering"], "full", ImageScores.of([*rows({"other": 5.0}, grid="60x60"), *rows(values)]))
    order = sorted(values, key=lambda i: -values[i])
    assert found["images"] == [
        ["best", order[0], values[order[0]]],
        ["median", order[3], values[order[3]]],
        ["worst", order[6], values[order[6]]],
    ]
    assert (found["metric"], found["grid"]) == (MOST, "full")


def test_where_lower_is_better_the_lowest_is_best() -> None:
    found = gallery_of(["bsds"], "full", ImageScores.of(rows({"a": 2.0, "b": 1.0, "c": 3.0}, metric="bsds_voi_ois")))
    assert [image for _, image, _ in found["images"]] == ["b", "a", "c"]


@pytest.mark.parametrize(("values", "places"), [({}, []), ({"a": 1.0}, ["best"]), ({"a": 1.0, "b": 1.0}, ["best", "worst"])])
def test_few_images_get_the_first_word_that_fits(values: dict[str, float], places: list[str]) -> None:
    found = gallery_of(["covering"], "full", ImageScores.of(rows(values)))
    assert [place for place, _, _ in found.get("images", [])] == places
    assert [image for _, image, _ in found.get("images", [])] == sorted(values), "equal scores go by image id"
