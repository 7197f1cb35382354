"""Panoptic quality: the evaluation code of its authors (recorded), a worked example, and a count over pairs of pixels' segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import random_case, sides

from uss_dagster.metrics import panoptic, panoptic_classes
from uss_dagster.metrics.base import Accumulator, Truth, accumulator
from uss_dagster.regions import ClassTree, Regions

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "panoptic_golden.npz")
"""Six label maps a side with void (0), crowds and four classes, and what panopticapi counts of them: TP, sum of IoU, FP, FN."""
TREE = ClassTree.from_nested({"things": {"a": "foreground", "b": "foreground"}, "stuff": {"c": "foreground", "d": "foreground"}})
NODES = np.array([2, 3, 5, 6])
"""Nodes of ``TREE`` of the four classes."""


def recorded(number: int) -> tuple[Regions, Regions]:
    """(ground truth, prediction) of one image; labels are nodes of ``TREE`` and clusters."""
    gt, pred = GOLDEN["gt"][number], GOLDEN["pred"][number]
    own, found = np.unique(gt[gt > 0]), np.unique(pred[pred > 0])
    truth = Regions.from_masks(
        [gt == segment for segment in own],
        label=NODES[GOLDEN["gt_class"][number][own] - 1],
        source=["crowd" if crowd else "" for crowd in GOLDEN["crowd"][number][own]],
    )
    return truth, Regions.from_masks([pred == segment for segment in found], label=GOLDEN["pred_class"][number][found] * 10)


def test_counts_are_those_of_the_evaluation_code_without_classes():
    total = Accumulator(panoptic.measure, panoptic.reduce, 3)
    for number in range(len(GOLDEN["gt"])):
        truth, prediction = recorded(number)
        total.update(str(number), Truth("instances", truth), prediction)
    assert total.total["all"] == pytest.approx(GOLDEN["agnostic"], abs=1e-12)
    tp, iou, fp, fn = GOLDEN["agnostic"]
    expected = {"pq": iou / (tp + fp / 2 + fn / 2), "sq": iou / tp, "rq": tp / (tp + fp / 2 + fn / 2)}
    assert total.result() == pytest.approx(expected, abs=1e-12)
    assert len(total.replicate_results()) == 3


def test_values_are_those_of_the_evaluation_code_with_classes():
    parts = [accumulator(panoptic_classes, 2), accumulator(panoptic_classes, 2)]
    for number in range(len(GOLDEN["gt"])):
        truth, prediction = recorded(number)
        parts[number % 2].update(str(number), Truth("classes", truth, TREE), prediction)
    parts[0].merge(parts[1])
    expected = {}
    for name, suffix in (("all", ""), ("things", "_things"), ("stuff", "_stuff")):
        expected |= {f"classes_{key}{suffix}": value for key, value in zip(("pq", "sq", "rq"), GOLDEN[name].tolist(), strict=True)}
    assert parts[0].result() == pytest.approx(expected, abs=1e-12)


def test_a_worked_example():
    """Eight pixels a row. Truth: A (4), B (2), void (2), B' (4), crowd (4). Segments: 3 of A; 1 of A and B; void and 1 of B'; 3 of B'; crowd."""
    gt = np.array([[1, 1, 1, 1, 2, 2, 0, 0], [3, 3, 3, 3, 4, 4, 4, 4]])
    pred = np.array([[1, 1, 1, 2, 2, 2, 3, 3], [3, 4, 4, 4, 5, 5, 5, 6]])
    truth = Regions.from_label_map(gt, ignore=0)
    truth.source = ("", "", "", "crowd")
    # A: 3/4. B: 2/3. B': 3/4. Segment 3 is two thirds void, 5 and 6 are crowd: no false positives.
    sums = panoptic.measure(Truth("instances", truth), Regions.from_label_map(pred))
    assert sums["all"] == pytest.approx([3, 3 / 4 + 2 / 3 + 3 / 4, 0, 0])
    # Without segment 2, B is missed; a segment over A and B' that is in vain is wrong.
    other = np.where(pred == 2, 0, pred)
    sums = panoptic.measure(Truth("instances", truth), Regions.from_label_map(other, ignore=0))
    assert panoptic.reduce(sums) == pytest.approx({"pq": 1.5 / 2.5, "sq": 0.75, "rq": 2 / 2.5})


def test_masks_are_laid_by_score_then_depth():
    whole, left, part = np.ones((1, 6), bool), np.array([[1, 1, 1, 0, 0, 0]], bool), np.array([[0, 0, 1, 1, 1, 1]], bool)
    masks = Regions.from_masks([left, part, whole], score=[0.5, 0.9, 0.1])
    region, holds = panoptic.without_overlap(masks, ~masks.is_root)
    assert region.tolist() == [1, 0], "two thirds of the left one are free"
    np.testing.assert_array_equal(holds[:, masks.atoms[0]], [[0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
    tree = Regions.from_tree(np.array([[2, 2, 3, 3, 1, 1]]), [-1, 0, 1, 1])
    assert panoptic.without_overlap(tree, ~tree.is_root)[0].tolist() == [2, 3], "leaves; two thirds of their parent are taken"
    half = Regions.from_masks([left, np.array([[0, 1, 1, 1, 1, 0]], bool)], score=[2.0, 1.0])
    assert panoptic.without_overlap(half, ~half.is_root)[0].tolist() == [0, 1], "half of it is free"


def counted(gt: np.ndarray, pred: np.ndarray) -> list[float]:
    """TP, sum of IoU, FP and FN of label maps, -1 for void and for no segment, pair by pair."""
    tp, total, fn = 0, 0.0, 0
    used = set()
    for a in set(gt.ravel().tolist()) - {-1}:
        for b in set(pred.ravel().tolist()) - {-1}:
            union = ((gt == a) | ((pred == b) & (gt != -1))).sum()
            iou = ((gt == a) & (pred == b)).sum() / union
            if iou > 0.5:
                tp, total, used = tp + 1, total + iou, used | {("gt", a), ("pred", b)}
        fn += ("gt", a) not in used
    fp = sum(("pred", b) not in used and np.mean(gt[pred == b] == -1) <= 0.5 for b in set(pred.ravel().tolist()) - {-1})
    return [tp, total, fp, fn]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_count_over_pairs_of_segments(seed: int):
    """Random class trees (background, ignored and inner classes) against leaves of random trees."""
    case = random_case(seed, largest=8)
    truth, prediction = sides(case)
    gt, (parent, kind), _, _ = case
    kinds = np.asarray(kind)[gt]
    expected_gt = np.where(np.isin(kinds, (-1, 2)), -1, np.where(kinds == 1, len(parent), gt))
    region, holds = panoptic.without_overlap(prediction, ~prediction.is_root)
    pred = np.full(gt.shape, -1)
    for number, atoms in zip(region, holds, strict=True):
        assert (pred[atoms[prediction.atoms]] == -1).all()
        pred[atoms[prediction.atoms]] = number
    sums = panoptic.measure(truth, prediction)
    expected = counted(expected_gt, pred)
    assert ([0, 0, 0, 0] if sums is None else sums["all"]) == pytest.approx(expected)


@pytest.mark.parametrize("family", [panoptic, panoptic_classes], ids=lambda module: module.SPEC.name)
def test_the_truth_itself_is_perfect_and_nothing_is_worth_nothing(family):
    truth, _ = recorded(1)
    perfect = truth.labelled(np.arange(len(truth)), truth.label)
    values = family.reduce(family.measure(Truth("classes", truth, TREE), perfect))
    assert len(values) == 9
    assert set(values.values()) == {1.0}
    nothing = Regions.from_masks([], shape=truth.shape)
    values = family.reduce(family.measure(Truth("classes", truth, TREE), nothing))
    assert {name: value for name, value in values.items() if "pq" in name} == dict.fromkeys((n for n in values if "pq" in n), 0.0)
    assert len(values) in (6, 9)


def test_no_number_without_a_segment():
    void = Truth("classes", Regions.from_label_map(np.full((3, 3), 1), use_labels=True), TREE)
    prediction = Regions.from_label_map(np.arange(9).reshape(3, 3) % 2, use_labels=True)
    assert panoptic.measure(void, prediction) is None
    assert panoptic_classes.measure(void, prediction) is None
