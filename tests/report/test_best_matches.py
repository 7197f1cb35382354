"""Pictures of the best matches, on regions small enough to know the answer, and against the covering metric."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import annotator_matches
from uss_dagster.regions import Regions
from uss_dagster.report.best_matches import BestMatches

LEFT, RIGHT = np.zeros((2, 20, 40), bool)
LEFT[:, :16], RIGHT[:, 16:] = True, True
TRUTH = Regions.from_masks([LEFT, RIGHT])


def test_each_region_of_the_truth_paints_its_best_match_in_its_colour() -> None:
    """Nested regions: a cut of the largest would show neither match."""
    near_left, half_right, large = LEFT.copy(), RIGHT.copy(), np.ones((20, 40), bool)
    near_left[0], half_right[:10], large[0] = False, False, False
    family = Regions.from_masks([large, near_left, half_right])
    sought = BestMatches.of(TRUTH, (20, 40))
    drawn, count = sought.drawn(family, family)
    assert count == 2
    assert (drawn[near_left] == sought.colours[5, 0]).all()
    assert (drawn[large & RIGHT] == sought.colours[5, 39]).all(), "its IoU with the right is 24 · 19 of 800, more than a half of the right"
    assert (drawn[0, :16] == -1).all(), "grey where no best match is"


def test_of_two_regions_with_one_match_the_better_gives_the_colour() -> None:
    family = Regions.from_masks([LEFT | (np.arange(40) < 20)[None, :].repeat(20, axis=0)])
    sought = BestMatches.of(TRUTH, (20, 40))
    drawn, count = sought.drawn(family, family)
    assert count == 1
    assert set(np.unique(drawn)) == {-1, int(sought.colours[0, 0])}


def test_whole_images_and_nothing_match_nothing() -> None:
    sought = BestMatches.of(TRUTH, (20, 40))
    for family in (Regions.from_tree(np.zeros((20, 40), int), [-1]), Regions.from_masks([], shape=(20, 40))):
        drawn, count = sought.drawn(family, family)
        assert count == 0
        assert (drawn == -1).all()
    empty = BestMatches.of(Regions.from_masks([], shape=(20, 40)), (10, 20))
    assert len(empty.sought) == 0
    assert empty.drawn(TRUTH, TRUTH.resized(10, 20))[1] == 0


@pytest.mark.parametrize("seed", range(5))
def test_matches_are_those_of_the_metric(seed: int) -> None:
    """One annotator's segments, random overlapping masks: the regions that NMCovering takes are the regions that are painted."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (4, 6)).repeat(6, axis=0).repeat(6, axis=1)
    truth = Regions.from_masks([labels == value for value in range(3)], source=["a"] * 3)
    boxes = np.zeros((12, 24, 36), bool)
    for box in boxes:
        top, left = rng.integers(0, 18), rng.integers(0, 28)
        box[top : top + rng.integers(3, 16), left : left + rng.integers(3, 20)] = True
    family = Regions.from_masks(boxes)
    match = annotator_matches(Truth("annotators", truth), family)[2]
    sought = BestMatches.of(truth, (24, 36))
    drawn, count = sought.drawn(family, family)
    assert count == len(set(match.tolist()))
    assert ((drawn >= 0) == family.members[match].any(axis=0)[family.atoms]).all()
