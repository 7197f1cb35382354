"""Saliency, CorLoc and clicks: worked examples, and written-out computations on random images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import random_case, sides
from scipy import ndimage

from uss_dagster.metrics import clicks, corloc, saliency
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.metrics.coco.clicks import click_point
from uss_dagster.regions import ClassTree, Regions

TREE = ClassTree.from_nested({"object": "foreground", "background": "background", "unknown": "ignore"})
OBJECT, BACKGROUND, UNKNOWN = 1, 2, 3


def truth_of(labels: list[list[int]]) -> Truth:
    return Truth("classes", Regions.from_label_map(np.array(labels), use_labels=True), TREE)


def box(shape: tuple[int, int], x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + height, x : x + width] = True
    return mask


# -- saliency ---------------------------------------------------------------------------------------------


def test_saliency_of_a_worked_example():
    """Ten pixels: four of the object, five of background, one ignored. Scores .9 on two of the object, .6 on one more and two wrong ones."""
    truth = truth_of([[1, 1, 1, 1, 2, 2, 2, 2, 2, 3]])
    sure, wide = box((1, 10), 0, 0, 2, 1), box((1, 10), 0, 0, 3, 1) | box((1, 10), 4, 0, 2, 1) | box((1, 10), 9, 0, 1, 1)
    prediction = Regions.from_masks([wide, sure], score=[0.6, 0.9])
    values = saliency.reduce(saliency.measure(truth, prediction))
    low, high = (1.3 * p * r / (0.3 * p + r) for p, r in ((3 / 5, 3 / 4), (1.0, 2 / 4)))
    assert high > low
    assert values == pytest.approx({"max_f": high, "saliency_iou": 3 / 6, "saliency_accuracy": 6 / 9})


def test_precision_and_recall_are_averaged_before_the_greatest_f_is_taken():
    total = Accumulator(saliency.measure, saliency.reduce, 2)
    total.update("a", truth_of([[1, 1, 2, 2]]), Regions.from_masks([box((1, 4), 0, 0, 2, 1)], score=[0.2]))
    total.update("b", truth_of([[1, 2, 2, 2]]), Regions.from_masks([box((1, 4), 0, 0, 2, 1)], score=[0.8]))
    assert total.update("c", truth_of([[2, 2, 3, 3]]), Regions.from_masks([], shape=(1, 4))) is None
    p, r = np.mean([1, 1 / 2]), 1.0  # up to .2; above it P = (0 + 1/2) / 2, R = 1/2
    values = total.result()
    assert values["max_f"] == pytest.approx(1.3 * p * r / (0.3 * p + r))
    assert values["saliency_iou"] == pytest.approx((0 + 1 / 2) / 2)
    assert values["saliency_accuracy"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert total.skipped == ["c"]


def test_without_scores_the_object_is_what_holds_least_of_the_border():
    labels = np.full((6, 8), 1)
    labels[2:5, 2:5] = 0
    flat = Regions.from_tree(1 + labels, [-1, 0, 0])
    assert saliency.object_region(flat) == 1
    truth = truth_of(np.where(labels == 0, OBJECT, BACKGROUND).tolist())
    assert saliency.reduce(saliency.measure(truth, flat)) == {"max_f": 1.0, "saliency_iou": 1.0, "saliency_accuracy": 1.0}
    scored = Regions.from_tree(1 + labels, [-1, 0, 0], score=[1, 0.2, 0.7])
    assert saliency.object_region(scored) == 2, "a score says more"
    root = Regions.from_tree(np.zeros((6, 8), int), [-1])
    assert saliency.object_region(root) == -1
    assert saliency.reduce(saliency.measure(truth, root)) == {"max_f": 0.0, "saliency_iou": 0.0, "saliency_accuracy": 39 / 48}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_saliency_from_pixels(seed: int):
    rng = np.random.default_rng(seed)
    case = random_case(seed)
    truth, prediction = sides(case)
    prediction.score = rng.random(len(prediction)).astype(np.float32)
    contribution = saliency.measure(truth, prediction)
    kind = np.asarray(case[1][1])[case[0]]
    wanted, counts = kind == 0, (kind == 0) | (kind == 1)
    if not wanted.any():
        assert contribution is None
        return
    level = np.zeros(kind.shape)
    for region in np.flatnonzero(~prediction.is_root):
        level = np.maximum(level, np.where(prediction.mask(region), prediction.score[region], 0))
    for k in (1, 60, 128, 255):
        found = level >= k / 255
        hit = (found & wanted).sum()
        assert contribution["precision"][k - 1] == pytest.approx(hit / max((found & counts).sum(), 1))
        assert contribution["recall"][k - 1] == pytest.approx(hit / wanted.sum())
    half = level > 0.5
    assert contribution["iou"] == pytest.approx((half & wanted).sum() / ((half & counts) | wanted).sum())
    assert contribution["accuracy"] == pytest.approx((half == wanted)[counts].mean())


# -- CorLoc -----------------------------------------------------------------------------------------------


def test_corloc_of_a_worked_example():
    shape = (10, 10)
    objects = Regions.from_masks([box(shape, 0, 0, 4, 5), box(shape, 6, 6, 4, 4), box(shape, 0, 0, 10, 9)], source=["", "", "crowd"])
    total = Accumulator(corloc.measure, corloc.reduce)
    for number, (mask, right) in enumerate(
        [
            (box(shape, 0, 0, 4, 5), 1.0),
            (box(shape, 0, 0, 4, 9), 1.0),  # 20 / 36
            (box(shape, 0, 0, 4, 10), 0.0),  # 20 / 40 is not above 1/2
            (box(shape, 6, 6, 3, 3), 1.0),  # 9 / 16
            (box(shape, 6, 6, 2, 4), 0.0),  # 8 / 16
            (box(shape, 0, 0, 10, 9), 0.0),  # a crowd
        ]
    ):
        other = box(shape, 6, 6, 4, 4)  # right, of a smaller score
        prediction = Regions.from_masks([other, mask], score=[0.1, 0.9])
        assert total.update(str(number), Truth("instances", objects), prediction) == {"corloc": right}, number
    assert total.update("none", Truth("instances", objects), Regions.from_masks([], shape=shape)) == {"corloc": 0.0}
    assert total.update("empty", Truth("instances", Regions.from_masks([], shape=shape)), prediction) is None
    assert total.result() == {"corloc": 3 / 7}


# -- clicks -----------------------------------------------------------------------------------------------


def test_clicks_of_a_worked_example():
    """One row. The object is 2..8. The best mask at its centre is too large; a negative click takes a smaller one, a third adds the rest."""
    shape = (1, 12)
    target = box(shape, 2, 0, 7, 1)
    masks = [box(shape, 2, 0, 10, 1), box(shape, 2, 0, 5, 1), box(shape, 7, 0, 2, 1)]
    prediction = Regions.from_masks(masks, score=[0.9, 0.8, 0.7])
    assert clicks.answer(prediction, [(5, 0)], []).sum() == 10, "IoU 7/10; the error is 9..11, clicked at 10"
    assert clicks.answer(prediction, [(5, 0)], [(10, 0)]).sum() == 5, "IoU 5/7 = .71; the error is 7..8, clicked at 7"
    assert clicks.answer(prediction, [(5, 0), (7, 0)], [(10, 0)]).sum() == 7
    truth = Truth("instances", Regions.from_masks([target]))
    assert clicks.reduce(clicks.measure(truth, prediction)) == {"noc80": 3.0, "noc85": 3.0, "noc90": 3.0}


def test_a_negative_click_takes_regions_out_and_levels_are_reached_one_by_one():
    shape = (1, 20)
    target = box(shape, 0, 0, 16, 1)
    truth = Truth("instances", Regions.from_masks([target]))
    whole, tail = box(shape, 0, 0, 19, 1), box(shape, 16, 0, 3, 1)
    # 16/19 = .842 after one click; a negative one at 16 refuses the whole, so only another region can answer the first.
    prediction = Regions.from_masks([whole, tail], score=[0.9, 0.5])
    assert clicks.reduce(clicks.measure(truth, prediction)) == {"noc80": 1.0, "noc85": 20.0, "noc90": 20.0}
    wider = box(shape, 0, 0, 17, 1)
    assert clicks.answer(Regions.from_masks([wider, tail]), [(8, 0)], [(18, 0)]).sum() == 16, "the tail is taken out of it"
    both = Regions.from_masks([whole, tail, box(shape, 0, 0, 15, 1)], score=[0.9, 0.5, 0.4])
    assert clicks.reduce(clicks.measure(truth, both)) == {"noc80": 1.0, "noc85": 2.0, "noc90": 2.0}


def test_what_is_never_reached_takes_20_clicks_and_nothing_is_no_number():
    truth = Truth("instances", Regions.from_masks([box((4, 4), 0, 0, 2, 2)]))
    nothing = Regions.from_masks([], shape=(4, 4))
    assert clicks.reduce(clicks.measure(truth, nothing)) == {"noc80": 20.0, "noc85": 20.0, "noc90": 20.0}
    assert clicks.measure(Truth("instances", nothing), nothing) is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_clicks_step_by_step(seed: int):
    """The rule once more, by pixels and without windows, on trees with random scores."""
    rng = np.random.default_rng(seed)
    _, _, pred, parents = random_case(seed, largest=12)
    prediction = Regions.from_tree(pred, parents)
    prediction.score = rng.integers(0, 3, len(prediction)).astype(np.float32)
    target = ndimage.binary_dilation(rng.random(pred.shape) < 0.1)
    if not target.any():
        return
    masks = [prediction.mask(region) for region in range(len(prediction)) if not prediction.is_root[region]]
    score = [float(prediction.score[region]) for region in range(len(prediction)) if not prediction.is_root[region]]
    best = sorted(range(len(masks)), key=lambda i: (-score[i], -masks[i].sum(), i))
    yes, no, expected, selected = [], [], [20, 20, 20], np.zeros_like(target)
    for number in range(1, 21):
        errors = []
        for sign, error in enumerate((target & ~selected, selected & ~target)):
            labels, count = ndimage.label(error)
            errors += [((labels == i).sum(), -sign, -i, labels == i) for i in range(1, count + 1)]
        if not errors:
            break
        _, sign, _, where = max(errors, key=lambda e: e[:3])
        (no if sign else yes).append(click_point(where))
        taken, removed = np.zeros_like(target), np.zeros_like(target)
        for mine, others, side in ((yes, no, taken), (no, yes, removed)):
            for x, y in mine:
                fitting = [i for i in best if masks[i][y, x] and not any(masks[i][v, u] for u, v in others)]
                if fitting:
                    side |= masks[fitting[0]]
        selected = taken & ~removed
        iou = (selected & target).sum() / (selected | target).sum()
        expected = [number if old == 20 and iou >= level else old for old, level in zip(expected, (0.8, 0.85, 0.9), strict=True)]
    found = clicks.clicks_needed(target, lambda positive, negative: clicks.answer(prediction, positive, negative))
    assert found.tolist() == expected
