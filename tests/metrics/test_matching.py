"""Max-overlap matching: recorded values of the released evaluation, the worked example, merging."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from uss_dagster.metrics import matching
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.regions import ClassTree, Regions

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "metrics_golden.npz")
CASES = sorted(key[:6] for key in GOLDEN.files if key.endswith("_gt_nodes"))
TREES = sorted({int(GOLDEN[f"{case}_class_tree"]) for case in CASES})


def truth_and_prediction(case: str) -> tuple[Truth, Regions]:
    tree = int(GOLDEN[f"{case}_class_tree"])
    parent, kind = GOLDEN[f"tree{tree}_parent"], GOLDEN[f"tree{tree}_type"]
    truth = Regions.from_tree(GOLDEN[f"{case}_gt"], parent, label=np.arange(len(parent))).pruned()
    prediction = Regions.from_tree(GOLDEN[f"{case}_pred"], GOLDEN[f"{case}_pred_parent"])
    return Truth("classes", truth, ClassTree.from_arrays(parent, kind)), prediction


def accumulate(cases: list[str]) -> Accumulator:
    accumulator = Accumulator(matching.measure, matching.reduce)
    for case in cases:
        accumulator.update(case, *truth_and_prediction(case))
    return accumulator


def by_class_index(values: np.ndarray, tree: int) -> np.ndarray:
    """Per-node values in the order of the flat evaluator's classes; nodes of one class add up."""
    index = GOLDEN[f"tree{tree}_flat_classmap"]
    return np.bincount(index[index >= 0], np.nan_to_num(values)[index >= 0])


@pytest.mark.parametrize("case", CASES)
def test_golden_image(case: str) -> None:
    total = accumulate([case]).total
    np.testing.assert_allclose(
        by_class_index(matching.class_iou(total), int(GOLDEN[f"{case}_class_tree"])), GOLDEN[f"{case}_flat_iou"], atol=1e-9
    )


@pytest.mark.parametrize("tree", TREES)
def test_dataset_sums_against_sets_of_pixels(tree: int) -> None:
    """All images of a class tree, pooled, by explicit masks and the formulas as written."""
    index, kind = GOLDEN[f"tree{tree}_flat_classmap"], GOLDEN[f"tree{tree}_type"]
    cases = [case for case in CASES if int(GOLDEN[f"{case}_class_tree"]) == tree]
    sums = np.zeros((3, index.max() + 1))
    for case in cases:
        gt, (_, prediction) = GOLDEN[f"{case}_gt"], truth_and_prediction(case)
        valid = kind[gt] != 2
        for c in np.unique(index[gt[valid]]):
            real = (index[gt] == c) & valid
            masks = [mask & valid for mask in prediction.masks()[1:]]
            best = max(masks, key=lambda mask: (mask & real).sum() / (mask | real).sum())
            sums[:, c] += (real & best).sum(), (best & ~real).sum(), (real & ~best).sum()
    tp, fp, fn = sums[:, sums[0] + sums[2] > 0]
    freq = (tp + fn) / (tp + fn).sum()
    iou = tp / (tp + fp + fn)
    expected = {"miou": iou.mean(), "pacc": tp.sum() / (tp + fn).sum(), "macc": (tp / (tp + fn)).mean(), "fiou": (freq * iou).sum()}
    accumulator = accumulate(cases)
    assert accumulator.result() == pytest.approx(expected, abs=1e-12)
    for name, values in zip(("tp", "fp", "fn"), sums, strict=True):
        assert by_class_index(accumulator.total[name], tree).tolist() == values.tolist()


def test_worked_example() -> None:
    classes = ClassTree.from_arrays([-1, 0, 1, 1, 0], [-1, -1, 0, 0, 0])
    accumulator = Accumulator(matching.measure, matching.reduce)
    images = [
        ([2, 2, 2, 2, 3, 3, 4, 4], [2, 2, 2, 3, 3, 3, 4, 4], [0, 0, 1, 1, 0]),
        ([2, 2, 2, 2, 4, 4, 4, 4], [1, 1, 1, 2, 2, 2, 2, 2], [0, 0, 0]),
    ]
    alone = []
    for gt, leaves, parents in images:
        truth = Truth("classes", Regions.from_tree(np.array([gt]), classes.parent, label=np.arange(5)), classes)
        alone.append(accumulator.update("x", truth, Regions.from_tree(np.array([leaves]), parents)) or {})
    assert accumulator.result() == pytest.approx({"miou": 0.757937, "pacc": 0.875, "macc": 0.916667, "fiou": 0.779762}, abs=1e-6)
    assert [a["miou"] for a in alone] == pytest.approx([0.805556, 0.775], abs=1e-6)


def test_merging_two_halves_is_the_whole() -> None:
    cases = [case for case in CASES if int(GOLDEN[f"{case}_class_tree"]) == 0]
    half = accumulate(cases[:2])
    half.merge(accumulate(cases[2:]))
    assert half.result() == pytest.approx(accumulate(cases).result())
    assert {k: v.shape for k, v in half.total.items()} == dict.fromkeys(("tp", "fp", "fn"), (6,))


def test_nothing_predicted_misses_every_pixel() -> None:
    truth, _ = truth_and_prediction("case00")
    lone = Regions.from_tree(np.zeros(truth.regions.shape, int), [0])
    total = matching.measure(truth, lone)
    assert total is not None
    assert not total["tp"].any()
    assert not total["fp"].any()
    assert set(matching.reduce(total).values()) == {0.0}


def test_nothing_but_ignore_is_skipped() -> None:
    classes = ClassTree.from_arrays([-1, 0, 0], [-1, 0, 2])
    truth = Truth("classes", Regions.from_tree(np.full((2, 2), 2), classes.parent, label=[0, 1, 2]), classes)
    accumulator = Accumulator(matching.measure, matching.reduce)
    assert accumulator.update("x", truth, Regions.from_tree(np.array([[0, 1], [1, 1]]), [0, 0])) is None
    assert (accumulator.n, accumulator.n_skipped, accumulator.result()) == (0, 1, {})
