"""Scores of a student: found by hand, and differences that are paired over images."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.metrics.coco.matches import match_codes
from uss_dagster.regions import rle
from uss_dagster.student.evaluate import difference, mean_of, values


def found(hits: list[bool]) -> dict:
    """An image a hit: one mask, found whole or not at all."""
    mask = np.zeros((2, 8, 8), bool)
    mask[0, :4], mask[1, 4:] = True, True
    right, wrong = rle.encode(mask)
    return {f"image{i}": match_codes((8, 8), [right], [right if hit else wrong], [0.9]) for i, hit in enumerate(hits)}


def test_a_difference_is_paired_over_images() -> None:
    first, second = found([True, False] * 10), found([True, True, True, False] * 5)
    assert values(first)["ar1000"] == 0.5
    gain, low, high = difference(first, second, "ar1000")
    assert gain == pytest.approx(0.25)
    assert 0 < low < gain < high < 0.5
    assert difference(first, first, "ar1000") == (0, 0, 0)  # the same images in every draw


def test_draws_without_any_image_are_left_out() -> None:
    gain, low, high = difference(found([False, True]), found([True, True]), "ar1000")
    assert gain == 0.5
    assert -10 < low < 0 < gain < high < 10, "two images decide nothing"


def test_what_training_watches_is_the_mean_of_what_there_is() -> None:
    assert mean_of({"ar1000": 0.2, "click_oracle": 0.6}) == pytest.approx(0.4)
    assert mean_of({"ar1000": 0.2}) == 0.2
    assert mean_of({}) == 0
