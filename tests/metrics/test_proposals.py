"""Mask proposals: worked example, recorded COCOeval values, brute force, replicates, classes, clicks, bad input."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import proposal_ar_ap

from uss_dagster.errors import BadData
from uss_dagster.metrics import base, proposals
from uss_dagster.metrics.base import Truth, poisson_weights
from uss_dagster.metrics.coco import clicks
from uss_dagster.metrics.coco.clicks import click_point, one_click, reduce_clicks
from uss_dagster.metrics.coco.matches import match_codes
from uss_dagster.metrics.proposals import match_regions
from uss_dagster.regions import ClassTree, Regions, rle
from uss_dagster.regions.coded import CodedRegions

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "unsam_golden.npz")
EVALUATIONS = sorted(key.removesuffix("_stats12") for key in GOLDEN.files if key.endswith("_stats12"))
SUMMARY = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar1000", "ar_small", "ar_medium", "ar_large"]

Image = tuple[np.ndarray, np.ndarray, np.ndarray]
"""One image's ground truth (G, H, W), results (D, H, W) and scores (D,)."""


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((200, 200), bool)
    mask[top:bottom, left:right] = True
    return mask


def segmentations(masks: np.ndarray) -> list[dict[str, Any]]:
    return [{"size": list(masks.shape[1:]), "counts": code} for code in rle.encode(masks)]


def coco_lists(images: dict[Any, Image]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    gt = [{"image_id": i, "segmentation": s} for i, (truth, _, _) in images.items() for s in segmentations(truth)]
    dt = [
        {"image_id": i, "segmentation": s, "score": float(v)}
        for i, (_, masks, scores) in images.items()
        for s, v in zip(segmentations(masks), scores, strict=True)
    ]
    return gt, dt


def example() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    truth = np.stack([box(0, 20, 0, 20), box(50, 100, 50, 100), box(100, 200, 100, 200)])
    masks = np.stack([box(0, 20, 0, 16), box(50, 100, 50, 85), box(100, 200, 100, 200), box(0, 200, 0, 50)])
    return coco_lists({1: (truth, masks, np.array([0.9, 0.8, 0.7, 0.95]))})


def random_image(rng: np.random.Generator, ties: bool = False) -> Image:
    """Up to 5 boxes and up to 8 results near them, on 40 × 50 pixels; areas on both sides of 32²."""

    def boxes(n: int) -> np.ndarray:
        masks = np.zeros((n, 40, 50), bool)
        for mask in masks:
            top, left = rng.integers(0, 5, 2) * 4
            mask[top : top + rng.integers(4, 9) * 4, left : left + rng.integers(4, 11) * 4] = True
        return masks

    truth, masks = boxes(int(rng.integers(0, 6))), boxes(int(rng.integers(0, 9)))
    near = rng.random(len(masks)) < 0.7
    if len(truth):
        masks[near] = truth[rng.integers(0, len(truth), int(near.sum()))]
        for mask in masks[near]:
            mask[: rng.integers(0, 12)] = False
    # Scores of float32, which Regions hold
    score = rng.random(len(masks)).astype(np.float32)
    return truth, masks, np.round(score, 1) if ties else score


def by_hand(images: dict[Any, Image], most: int = 1000) -> dict[str, float]:
    """AR and AP over all sizes as printed in the definition: loops over masks, thresholds and recall points."""
    recalls, averages = [], []
    n_truths = sum(len(truth) for truth, _, _ in images.values())
    for threshold in np.linspace(0.5, 0.95, 10):
        ranked = []
        for image_id, (truth, masks, scores) in sorted(images.items()):
            free = list(range(len(truth)))
            for rank in np.argsort(-scores, kind="stable")[:most]:
                iou = {g: (masks[rank] & truth[g]).sum() / (masks[rank] | truth[g]).sum() for g in free}
                best = max(iou, key=lambda g: (iou[g], g), default=-1)
                found = best >= 0 and iou[best] >= threshold
                if found:
                    free.remove(best)
                ranked.append((-scores[rank], image_id, found))
        ranked.sort(key=lambda row: row[:2])
        right = np.cumsum([row[2] for row in ranked])
        precision = right / np.arange(1, len(right) + 1)
        recalls.append(right[-1] / n_truths if len(right) else 0)
        # Recall is compared as COCOeval does: 7 of 10 falls short of the point .7, which is 0.7000000000000001 in floating point.
        points = [precision[right / n_truths >= point].max(initial=0) for point in np.linspace(0, 1, 101)]
        averages.append(np.mean(points))
    return {f"ar{most}": float(np.mean(recalls)), "ap": float(np.mean(averages)), "ap50": averages[0], "ap75": averages[5]}


def truth_and_regions(image: Image) -> tuple[Truth, Regions]:
    truth, masks, scores = image
    shape = truth.shape[1:]
    prediction = Regions.from_masks(masks, score=scores) if len(masks) else Regions.from_masks([], shape=shape)
    return Truth("instances", Regions.from_masks(truth, shape=shape)), prediction


def accumulate(images: dict[str, Image], replicates: int = 0) -> base.Accumulator:
    meter = base.accumulator(proposals, replicates)
    for image_id, image in images.items():
        meter.update(image_id, *truth_and_regions(image))
    return meter


# -- recorded and worked numbers ------------------------------------------------------------------


def test_worked_example() -> None:
    gt, dt = example()
    values = proposal_ar_ap(gt, dt, (1, 100, 1000))
    assert values["ar1"] == 0
    assert values["ar1000"] == pytest.approx((0.7 + 0.5 + 1) / 3)
    assert [values[f"ar_{size}"] for size in ("small", "medium", "large")] == pytest.approx([0.7, 0.5, 1])
    assert [values[f"ap_{size}"] for size in ("small", "medium", "large")] == pytest.approx([0.7, 0.5, 0.5])
    assert round(values["ap"], 4) == 0.4666
    assert round(values["ap50"], 2) == 0.75
    assert round(values["ap75"], 4) == 0.3317
    assert proposal_ar_ap(gt, dt, (1, 10, 1000))["ap"] == values["ap"]
    assert proposal_ar_ap(gt, dt, (1, 10, 1000), ap_max_dets=100)["ap"] == -1  # as COCOeval prints it


@pytest.mark.parametrize("key", EVALUATIONS)
def test_recorded_evaluations(key: str) -> None:
    def unpacked(name: str) -> list[dict[str, Any]]:
        masks = np.unpackbits(GOLDEN[f"{key}_{name}"], axis=1)[:, : 160 * 200].reshape(-1, 160, 200).astype(bool)
        return [{"image_id": int(i), "segmentation": s} for i, s in zip(GOLDEN[f"{key}_{name}_img"], segmentations(masks), strict=True)]

    dt = [d | {"score": float(v)} for d, v in zip(unpacked("dt"), GOLDEN[f"{key}_dt_score"], strict=True)]
    values = proposal_ar_ap(unpacked("gt"), dt, (1, 10, 1000))
    np.testing.assert_allclose([values[name] for name in SUMMARY], GOLDEN[f"{key}_stats12"], atol=1e-9)


# -- brute force and properties -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_brute_force(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    images = {f"{i}": random_image(rng, ties) for i in range(4)}
    gt, dt = coco_lists(images)
    if gt:
        for most in (2, 1000):
            expected = by_hand(images, most)
            values = proposal_ar_ap(gt, dt, (most,))
            assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_order_and_split_of_images_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = {f"{i}": random_image(rng, ties=True) for i in range(6)}
    whole = accumulate(images, replicates=3)
    shuffled = [str(i) for i in rng.permutation(6)]
    parts = [accumulate({i: images[i] for i in group}, replicates=3) for group in (shuffled[:2], shuffled[2:])]
    parts[0].merge(pickle.loads(pickle.dumps(parts[1])))
    assert parts[0].result() == whole.result()
    assert parts[0].replicate_results() == whole.replicate_results()
    assert (parts[0].n, sorted(parts[0].skipped)) == (whole.n, sorted(whole.skipped))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_replicate_is_the_metric_of_repeated_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = {f"{i}": random_image(rng) for i in range(5)}
    meter = accumulate(images, replicates=4)
    for r, values in enumerate(meter.replicate_results()):
        drawn = {(i, copy): images[i] for i in images for copy in range(poisson_weights(i, 4)[r])}
        unique = {i: (truth, *without_twins(masks, scores)) for i, (truth, masks, scores) in drawn.items()}
        expected = proposal_ar_ap(*coco_lists(unique))
        found = {name: value for name, value in values.items() if not name.startswith("click")}
        assert found == pytest.approx({name: value for name, value in expected.items() if value >= 0}, abs=1e-12)


def without_twins(masks: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best of each group of equal masks, which is all that ``Regions`` count."""
    order = np.argsort(-scores, kind="stable")
    first: dict[bytes, int] = {}
    for i in order.tolist():
        first.setdefault(masks[i].tobytes(), i)
    return masks[list(first.values())], scores[list(first.values())]


def test_perfect_proposals() -> None:
    truth = np.stack([box(0, 20, 0, 20), box(50, 100, 50, 100), box(100, 200, 100, 200)])
    meter = accumulate({"a": (truth, truth, np.ones(3))})
    assert meter.result() == pytest.approx(dict.fromkeys(set(proposals.SPEC.metrics) - {"ar1"}, 1.0) | {"ar1": 1 / 3})


def test_image_without_ground_truth_adds_wrong_proposals_only() -> None:
    truth, masks, scores = box(0, 20, 0, 20)[None], box(0, 20, 0, 20)[None], np.array([0.5])
    alone = {"a": (truth, masks, scores)}
    beside = alone | {"b": (truth[:0], masks, np.array([0.9]))}
    assert accumulate(alone).result()["ap"] == pytest.approx(1)
    meter = accumulate(beside)
    assert meter.n == 2
    assert meter.result()["ar1000"] == 1
    assert meter.result()["ap"] == pytest.approx(0.5)


def test_image_without_proposals_lowers_recall() -> None:
    truth = box(0, 20, 0, 20)[None]
    found, missed = (truth, truth, np.ones(1)), (truth, truth[:0], np.ones(0))
    assert accumulate({"a": found, "b": missed}).result()["ar1000"] == 0.5
    nothing = accumulate({"b": missed}).result()
    assert set(nothing) == {name for name in proposals.SPEC.metrics if not name.endswith(("medium", "large"))}
    assert set(nothing.values()) == {0}


def test_nothing_at_all_is_skipped() -> None:
    empty = (np.zeros((0, 4, 4), bool), np.zeros((0, 4, 4), bool), np.ones(0))
    meter = accumulate({"a": empty}, replicates=2)
    assert (meter.n, meter.skipped, meter.result(), meter.replicate_results()) == (0, ["a"], {}, [])
    assert set(proposal_ar_ap([], []).values()) == {-1}


def test_a_crowd_takes_many_and_costs_nothing() -> None:
    crowd, thing = box(0, 100, 0, 100), box(150, 180, 150, 180)
    inside = [box(0, 40, 0, 40), box(10, 60, 50, 100)]  # their union with the crowd is the crowd: IoU would be small
    regions = Regions.from_masks([crowd, thing], source=["crowd", ""])
    meter = base.accumulator(proposals)
    meter.update("a", Truth("instances", regions), Regions.from_masks([*inside, thing], score=[0.9, 0.8, 0.7]))
    assert meter.result()["ap"] == pytest.approx(1)
    assert meter.result()["ar1000"] == 1
    assert meter.result()["click_oracle"] == 1  # a crowd is not clicked


# -- regions --------------------------------------------------------------------------------------

CLASSES = ClassTree.from_nested({"sky": "background", "car": {"wheel": "foreground", "body": "foreground"}, "void": "ignore"})


def test_classes_that_count() -> None:
    """Neither whole image nor background nor ignored, and each mask once: here car, wheel and body."""
    leaf = np.array([[1, 1, 3, 3, 4, 4, 4, 5]])
    truth = Regions.from_tree(leaf, CLASSES.parent, label=np.arange(6))
    prediction = Regions.from_masks(truth.masks()[2:5])
    matches = match_regions(Truth("classes", truth, CLASSES), prediction)
    assert matches.truths.tolist() == [3, 3, 0, 0]
    assert proposals.reduce(matches.contribution())["ar1000"] == 1
    only_wheels = np.array([[1, 1, 3, 3, 3, 3, 3, 5]])
    chain = Regions.from_tree(only_wheels, CLASSES.parent, label=np.arange(6)).pruned()
    assert match_regions(Truth("classes", chain, CLASSES), prediction).truths[0] == 1


def test_ignored_pixels_never_matter() -> None:
    rng = np.random.default_rng(3)
    leaf = np.repeat(np.repeat(rng.choice([1, 3, 4, 5], (6, 7)), 4, axis=0), 4, axis=1)
    truth = Truth("classes", Regions.from_tree(leaf, CLASSES.parent, label=np.arange(6)), CLASSES)
    masks = rng.random((12, 24, 28)) < 0.5
    masks[:3] = truth.regions.masks()[2:5]
    other = np.where(leaf == 5, rng.random(masks.shape) < 0.5, masks)
    values = []
    for family in (masks, other):
        meter = base.accumulator(proposals)
        meter.update("a", truth, Regions.from_masks(family, score=np.linspace(1, 0, 12)))
        values.append(meter.result())
    assert values[0] == values[1]
    assert values[0]["ar1000"] == 1


def test_proposals_are_the_best_thousand_distinct_regions_below_the_root() -> None:
    rng = np.random.default_rng(4)
    boxes = np.stack([box(int(t), int(t) + 3, int(x), int(x) + 3) for t, x in rng.integers(0, 197, (1300, 2))])
    thing = box(50, 90, 50, 90)
    score = np.linspace(0.9, 0.2, 1300)
    truth = Truth("instances", Regions.from_masks([thing]))
    for place, found in ((0.95, 1.0), (0.1, 0.0)):  # first, and after the thousandth
        family = Regions.from_masks([box(0, 200, 0, 200), *boxes, *boxes[:5], thing], score=[1, *score, *score[:5], place])
        matches = match_regions(truth, family)
        assert len(matches.score) == 1000
        assert proposals.reduce(matches.contribution())["ar1000"] == found
        assert 1 not in matches.score  # the root takes no part
        assert len(set(matches.score)) == 1000  # nor does a mask that came before


def test_a_proposal_is_24_bytes() -> None:
    matches = match_regions(*truth_and_regions(random_image(np.random.default_rng(0))))
    assert len(matches.score) > 0
    assert sum(column.nbytes for column in (matches.score, matches.found, matches.void)) == 24 * len(matches.score)


def test_runs_and_atoms_agree() -> None:
    for seed in range(20):
        truth, masks, scores = random_image(np.random.default_rng(seed))
        masks, scores = without_twins(masks, scores)
        first = match_codes((40, 50), rle.encode(truth), rle.encode(masks), scores)
        second = match_regions(*truth_and_regions((truth, masks, scores)))
        for name in ("score", "found", "void", "truths"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_polygons_and_plain_counts() -> None:
    square = {"image_id": 7, "segmentation": [[10, 20, 30, 20, 30, 50, 10, 50]]}
    mask = np.zeros((60, 80), bool)
    mask[20:50, 10:30] = True
    counts = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(mask.ravel(order="F"))) + 1, [mask.size]])).tolist()
    result = {"image_id": 7, "segmentation": {"size": [60, 80], "counts": counts}, "score": 1}
    images = {"images": [{"id": 7, "height": 60, "width": 80}], "annotations": [square]}
    assert proposal_ar_ap(images, [result])["ar1000"] == 1
    assert proposal_ar_ap([square], [result], sizes={7: (60, 80)})["ar1000"] == 1


def test_ground_truth_is_sized_by_its_area_field() -> None:
    gt, dt = example()
    sized = [g | {"area": 50} for g in gt]
    assert proposal_ar_ap(sized, dt)["ar_small"] == pytest.approx((0.7 + 0.5 + 1) / 3)
    assert proposal_ar_ap(sized, dt)["ar_large"] == -1


# -- one click ------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_click_point_is_farthest_from_the_outside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((9, 11)) < 0.8
    mask[4, 5] = True
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded) - 1
    distance = {(x, y): np.min(((outside - (y, x)) ** 2).sum(axis=1)) for y, x in np.argwhere(mask)}
    point = click_point(mask)
    assert distance[point] == max(distance.values())
    assert point == min((p for p in distance if distance[p] == distance[point]), key=lambda p: (p[1], p[0]))


def test_click_on_a_tree() -> None:
    """Click on the centre of one cell: the answers are the cell of score .3 and the half of score .6 around it."""
    leaf = np.repeat([[2, 2, 3, 3, 4, 4, 4, 4]], 4, axis=0)
    tree = Regions.from_tree(leaf, [-1, 0, 1, 1, 0], score=[1, 0.6, 0.3, 0.3, 0.2])
    truth = Truth("instances", Regions.from_masks([leaf == 2]))
    values = base.accumulator(proposals).update("a", truth, tree)
    assert values is not None
    assert (values["click_max"], values["click_oracle"]) == (0.5, 1)


def test_clicks_of_regions_are_those_of_their_masks() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        truth, masks, scores = random_image(rng)
        masks, scores = without_twins(masks, scores)
        answers = [masks[:, y, x] for x, y in map(click_point, truth)]
        expected = one_click(truth, [masks[a] for a in answers], [scores[a] for a in answers])["clicks"]
        clicks = match_regions(*truth_and_regions((truth, masks, scores))).clicks
        np.testing.assert_allclose(clicks, expected, atol=1e-12)
        assert clicks[1] >= clicks[0]


def test_one_click_takes_the_answer_of_best_quality() -> None:
    truth = np.array([[[1, 1, 0, 0]], [[0, 0, 1, 1]]], bool)
    answers = [np.array([[[1, 0, 0, 0]], [[1, 1, 0, 0]]], bool), np.zeros((0, 1, 4), bool)]
    total = one_click(truth, answers, [np.array([0.9, 0.1]), np.zeros(0)])
    assert reduce_clicks(total) == {"click_max": 0.25, "click_oracle": 0.5}
    with pytest.raises(BadData, match=r"Click 0 has 2 masks"):
        one_click(truth, answers, [np.array([0.9]), np.zeros(0)])


# -- bad input ------------------------------------------------------------------------------------


def test_bad_scores_are_named() -> None:
    truth, masks = box(0, 20, 0, 20)[None], np.stack([box(0, 9, 0, 9), box(0, 20, 0, 20)])
    with pytest.raises(BadData, match=r"Region 1 has a score of NaN"):
        accumulate({"a": (truth, masks, np.array([0.5, np.nan]))})
    gt, dt = example()
    dt[2]["score"] = float("nan")
    with pytest.raises(BadData, match=r"Image '1', region 2 has a score of NaN"):
        proposal_ar_ap(gt, dt)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [100, 400], "counts": b"0"}, r"Image '1', result 0: its mask is 100×400, its image 200×200"),
        ({"size": [200, 200], "counts": rle.encode_runs(np.array([0, 40001]))}, r"region 0: its run-length code covers 40001 pixels"),
        ({"size": [200, 200], "counts": b""}, r"region 0: its run-length code is broken"),
        ({"size": [200, 200], "counts": "~~"}, r"region 0: its run-length code is broken"),
        ({"size": [200, 200], "counts": b"o"}, r"region 0: its run-length code is broken"),
    ],
)
def test_bad_masks_are_named(segmentation: dict[str, Any], message: str) -> None:
    gt, _ = example()
    with pytest.raises(BadData, match=message):
        proposal_ar_ap(gt, [{"image_id": 1, "segmentation": segmentation, "score": 1.0}])


def test_other_bad_input() -> None:
    image = random_image(np.random.default_rng(0))
    truth, regions = truth_and_regions(image)
    meter = accumulate({"a": image})
    with pytest.raises(BadData, match="'a' is scored twice"):
        meter.merge(accumulate({"a": image}))
    with pytest.raises(BadData, match=r"Ground truth is \(40, 50\), its regions are \(3, 3\)"):
        meter.update("b", truth, Regions.from_masks([np.ones((3, 3), bool)]))
    with pytest.raises(BadData, match="got 'annotators'"):
        meter.update("b", Truth("annotators", truth.regions), regions)
    wrong = Regions.from_masks([np.ones((4, 4), bool)], label=[9])
    with pytest.raises(BadData, match="class 9, but the class tree ends at 5"):
        meter.update("b", Truth("classes", wrong, CLASSES), wrong)


@pytest.mark.parametrize("seed", range(6))
def test_the_click_on_a_large_mask_is_that_of_all_distances(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blobs, rectangles with many farthest pixels, and noise, at the image's edge and inside."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:300, :420]
    mask = np.zeros((300, 420), bool)
    for _ in range(4):
        top, left, radius = rng.integers(0, 300), rng.integers(0, 420), rng.integers(10, 120)
        mask |= (y - top) ** 2 + (x - left) ** 2 < radius**2 if seed % 2 else (abs(y - top) < radius) & (abs(x - left) < 2 * radius)
    mask &= rng.random(mask.shape) > (0.3 if seed == 5 else 1e-4)
    expected = click_point(mask)
    monkeypatch.setattr(clicks, "LARGE", 0)
    assert click_point(mask) == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_codes_give_the_matches_of_their_atoms(seed: int, as_given: bool) -> None:
    truth, masks, score = random_image(np.random.default_rng(seed), True)
    crowd = ["crowd" if i % 3 == 2 else "" for i in range(len(truth))]
    shape = (40, 50)
    sides = [
        (Regions.from_masks(truth, shape=shape, source=crowd), Regions.from_masks(masks, shape=shape, score=score)),
        (CodedRegions(rle.encode(truth), shape, source=crowd), CodedRegions(rle.encode(masks), shape, score=score)),
    ]
    first, second = (match_regions(Truth("instances", regions), prediction, as_given) for regions, prediction in sides)
    for name in ("score", "found", "void", "truths", "clicks"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
