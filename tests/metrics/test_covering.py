"""Covering: the recorded values of the released evaluation, worked examples, and what must hold for any tree."""

from __future__ import annotations

import numpy as np
import pytest
from metric_cases import CASES, GOLDEN, as_truth, golden_case, random_case, sides
from references import hierarchical_covering

from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics import covering
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import tree_covering
from uss_dagster.regions import Regions

close = pytest.approx

# root -> X{1, 2}, 3; nodes in preorder: 0 root, 1 X, 2 "1", 3 "2", 4 "3", 5 ignore
CLASSES = ([-1, 0, 1, 1, 0, 0], [-1, -1, 0, 0, 0, 2])
GT = np.array([[2, 2, 2, 2, 3, 3, 4, 4]])
WORKED = {
    # name: (leaves, parents, nm, nh by code, nh by formula, (nm, nh) at threshold .5)
    "A": ([2, 2, 2, 3, 3, 3, 4, 4], [0, 0, 1, 1, 0], 0.854167, 0.854167, 0.854167, (0.854167, 0.854167)),
    "B": ([1, 1, 1, 1, 1, 3, 4, 4], [0, 0, 0, 2, 2], 0.783333, 0.720833, 0.620833, (0.783333, 0.720833)),
    "C": ([1, 1, 1, 1, 1, 2, 2, 2], [0, 0, 0], 0.6375, 0.60625, 0.50625, (0.575, 0.575)),
}


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    def golden(key: str) -> np.ndarray:
        return GOLDEN[f"{case}_{key}"]

    arguments = golden_case(case)
    got = hierarchical_covering(*arguments)
    half = hierarchical_covering(*arguments, threshold=0.5)
    printed = hierarchical_covering(*arguments, mode="formula")
    if golden("skipped"):
        assert np.isnan([got.nm, got.nh, half.nm, printed.nh]).all()
        assert len(got.gt_nodes) == 0
        return
    assert (got.nm, got.nh) == close((float(golden("nm_t00")), float(golden("nh_t00"))), abs=1e-9)
    assert (half.nm, half.nh) == close((float(golden("nm_t50")), float(golden("nh_t50"))), abs=1e-9)
    assert printed.nh == close(float(golden("nh_paper")), abs=1e-9)
    assert got.gt_nodes.tolist() == golden("gt_nodes").tolist()
    assert got.match.tolist() == golden("match").tolist()
    np.testing.assert_allclose(got.iou, golden("match_iou"), atol=1e-9)
    np.testing.assert_allclose(got.weight, golden("hier_weight"), atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_golden_through_regions(case: str) -> None:
    """The family gives the recorded numbers, and the flat score that of the flat evaluator."""
    truth, prediction = sides(golden_case(case))
    values = covering.reduce(covering.measure(truth, prediction) or {})
    assert values["nm_covering_flat"] == close(float(GOLDEN[f"{case}_flat_nfcovering"]), abs=1e-9)
    assert ("nm_covering" in values) != bool(GOLDEN[f"{case}_skipped"])
    if "nm_covering" in values:
        assert values["nh_covering_formula"] == close(float(GOLDEN[f"{case}_nh_paper"]), abs=1e-9)
        for name, key in (("nm_covering", "nm_t00"), ("nh_covering", "nh_t00"), ("nm_covering_50", "nm_t50"), ("nh_covering_50", "nh_t50")):
            assert values[name] == close(float(GOLDEN[f"{case}_{key}"]), abs=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_masks_give_the_same_numbers(case: str) -> None:
    """NM over the masks of the ground-truth tree; NF of the released evaluator over the leaf classes with background."""
    gt, classes, pred, parents = golden_case(case)
    index, kind = GOLDEN[f"tree{int(GOLDEN[f'{case}_class_tree'])}_flat_classmap"], np.asarray(classes[1])
    valid = kind[gt] != 2
    masks = Regions.from_tree(pred, parents).masks()[1:]
    truth = [(index[gt] == c) & valid for c in np.unique(index[index >= 0])]
    assert mean_best_iou(truth, masks, valid) == close(float(GOLDEN[f"{case}_flat_nfcovering"]), abs=1e-9)
    figure = [mask for c, mask in zip(np.unique(index[index >= 0]), truth, strict=True) if (kind[index == c] == 0).all()]
    alone = covering.reduce(covering.measure(*sides(golden_case(case))) or {}).get("nf_covering", np.nan)
    assert mean_best_iou(figure, masks, valid) == close(alone, abs=1e-12, nan_ok=True)
    if not GOLDEN[f"{case}_skipped"]:
        above = as_truth(gt, classes).classes.ancestors  # type: ignore[union-attr]
        nodes = [(kind[gt] == 1) if node < 0 else above[node][gt] & (kind[gt] == 0) for node in GOLDEN[f"{case}_gt_nodes"]]
        assert mean_best_iou(nodes, masks, valid) == close(float(GOLDEN[f"{case}_nm_t00"]), abs=1e-9)


def mean_best_iou(truth: list[np.ndarray], masks: np.ndarray, valid: np.ndarray) -> float:
    """The definition, mask by mask; regions without a valid pixel are left out."""
    best = [max((t & m & valid).sum() / ((t | m) & valid).sum() for m in masks) for t in truth if (t & valid).any()]
    return float(np.mean(best)) if best else np.nan


@pytest.mark.parametrize("name", WORKED)
def test_worked_examples(name: str) -> None:
    leaves, parents, nm, code, formula, half = WORKED[name]
    pred = np.array([leaves])
    got = hierarchical_covering(GT, CLASSES, pred, parents)
    printed = hierarchical_covering(GT, CLASSES, pred, parents, mode="formula")
    above_half = hierarchical_covering(GT, CLASSES, pred, parents, threshold=0.5)
    assert (got.nm, got.nh, printed.nm, printed.nh) == close((nm, code, nm, formula), abs=1e-6)
    assert (above_half.nm, above_half.nh) == close(half, abs=1e-6)
    assert got.nested.mean() == close(got.nh)
    assert (got.iou * got.weight) == close(got.nested)


def test_worked_example_a_flat_and_ignored() -> None:
    leaves, parents = WORKED["A"][:2]
    truth = as_truth(GT, CLASSES)
    values = covering.reduce(covering.measure(truth, Regions.from_tree(np.array([leaves]), parents)) or {})
    tree = dict.fromkeys(("nm_covering", "nh_covering", "nh_covering_formula", "nm_covering_50", "nh_covering_50"), 0.854167)
    assert values == close(tree | {"nm_covering_flat": 0.805556, "nf_covering": 0.805556}, abs=1e-6)
    for stray in range(5):
        ninth = hierarchical_covering(np.append(GT, [[5]], axis=1), CLASSES, np.array([[*leaves, stray]]), parents)
        assert (ninth.nm, ninth.nh) == close((0.854167, 0.854167), abs=1e-6)


def test_formula_punishes_single_child_chains() -> None:
    """root -> Y -> y: the same mask twice on the ground-truth line, one predicted node, so half the set is missing."""
    gt = np.array([[2, 2, 3, 3]])
    classes = ([-1, 0, 1, 0], [-1, -1, 0, 0])
    pred, parents = np.array([[1, 1, 2, 2]]), [0, 0, 0]
    assert hierarchical_covering(gt, classes, pred, parents).nh == close(1.0)
    assert hierarchical_covering(gt, classes, pred, parents, mode="formula").nh == close((1 + 0.5 + 1) / 3)


def test_lone_root_and_nothing_predicted() -> None:
    nothing = Regions.from_tree(np.full_like(GT, -1), [0]).pruned()
    for prediction in (Regions.from_tree(np.zeros_like(GT), [0]), nothing, Regions.from_masks([], shape=GT.shape)):
        for mode in ("code", "formula"):
            got = tree_covering(as_truth(GT, CLASSES), prediction, mode=mode)
            assert (got.nm, got.nh, set(got.match)) == (0, 0, {-1})


def test_background_is_one_region_below_the_root() -> None:
    gt = np.array([[1, 2, 3, 3]])
    classes = ([-1, 0, 0, 0], [-1, 1, 1, 0])
    got = hierarchical_covering(gt, classes, np.array([[1, 1, 2, 2]]), [0, 0, 0])
    assert got.gt_nodes.tolist() == [3, -1]
    assert (got.nm, got.nh) == (1.0, 1.0)
    assert np.isnan(hierarchical_covering(np.array([[1, 2]]), classes, np.array([[1, 2]]), [0, 0, 0]).nm)


def test_unknown_classes_are_ignored_with_a_warning() -> None:
    truth = as_truth(np.append(GT, [[4, 4]], axis=1), CLASSES)
    truth.regions.label[truth.regions.label == 4] = 9
    with pytest.warns(UserWarning, match=r"4 pixels of classes not in the tree are ignored: \[9\]"):
        through = tree_covering(truth, Regions.from_tree(np.append(GT, [[2, 3]], axis=1), CLASSES[0]))
    assert through.gt_nodes.tolist() == [1, 2, 3]
    assert through.nm == 1.0


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_any_integers_do(kind: type) -> None:
    leaves, parents, nm = WORKED["B"][:3]
    assert hierarchical_covering(GT.astype(kind), CLASSES, np.array([leaves], kind, order="F"), parents).nm == close(nm, abs=1e-6)


def test_errors_say_what_to_change() -> None:
    with pytest.raises(UsageError, match="Did you mean 'formula'"):
        hierarchical_covering(GT, CLASSES, GT, CLASSES[0], mode="formulae")
    with pytest.raises(BadData, match=r"nodes 0\.\.1"):
        hierarchical_covering(GT, CLASSES, GT, [0, 0])
    with pytest.raises(BadData, match="a parent comes before its children"):
        hierarchical_covering(GT, CLASSES, GT, [0, 3, 0, 0, 0])
    with pytest.raises(BadData, match=r"\(1, 8\).*\(1, 7\)"):
        hierarchical_covering(GT, CLASSES, GT[:, 1:], CLASSES[0])
    with pytest.raises(BadData, match="Region 1 has parent 1"):
        hierarchical_covering(GT, CLASSES, GT, [0, 1, 0, 0, 0])
    with pytest.raises(BadData, match=r"the tree has nodes 0\.\.-1"):
        hierarchical_covering(GT, CLASSES, GT, [])
    with pytest.raises(BadData, match=r"A leaf map is an integer array \(H, W\), got float64"):
        hierarchical_covering(GT, CLASSES, GT.astype(float), CLASSES[0])
    with pytest.raises(BadData, match="without its class tree"):
        tree_covering(Truth("classes", Regions.from_tree(GT, CLASSES[0])), Regions.from_tree(GT, CLASSES[0]))


def test_annotators_are_averaged() -> None:
    first = Regions.from_label_map(np.array([[1, 1, 2, 2, 3, 3]]), source="a")
    second = Regions.from_label_map(np.array([[1, 1, 1, 1, 2, 2]]), source="b")
    third = Regions.from_label_map(np.array([[1, 1, 1, 1, 1, 1]]), source="whole")
    masks = [r.mask(i) for r in (first, second, third) for i in range(len(r))]
    truth = Truth("annotators", Regions.from_masks(masks, source=[*"aaabb", "whole"]))
    prediction = Regions.from_tree(np.array([[1, 1, 1, 2, 2, 2]]), [0, 0, 0])
    # a: 2/3, 1/4, 2/3 ; b: 3/4, 2/3 ; the whole image is no region
    expected = ((2 / 3 + 1 / 4 + 2 / 3) / 3 + (3 / 4 + 2 / 3) / 2) / 2
    assert covering.reduce(covering.measure(truth, prediction) or {}) == close({"nm_covering_annotators": expected})
    only_whole = Truth("annotators", Regions.from_masks(masks[-1:], source="whole"))
    assert covering.measure(only_whole, prediction) is None


# -- any tree -------------------------------------------------------------------------------------


def brute_force(gt: np.ndarray, classes: tuple, pred: np.ndarray, parents: list[int]) -> tuple[float, float, float]:
    """(nm, nh by code, nh by formula) from sets of pixels."""
    class_parent, kind = classes

    def line(node: int, parent: list[int]) -> list[int]:
        return [] if node <= 0 else [node, *line(parent[node], parent)]

    valid = {p for p in np.ndindex(gt.shape) if kind[gt[p]] != 2}
    truth = {}
    for node in range(1, len(kind)):
        pixels = {p for p in valid if node in line(int(gt[p]), class_parent) and kind[gt[p]] != 1}
        if pixels:
            truth[node] = pixels
    if not truth:
        return (np.nan,) * 3
    ground = {p for p in valid if kind[gt[p]] == 1}
    if ground:
        truth[-1] = ground
    nodes = {k: {p for p in valid if k in line(int(pred[p]), parents)} for k in range(1, len(parents))}
    iou = {(r, k): len(a & b) / len(a | b) for r, a in truth.items() for k, b in nodes.items()}
    match = {r: min(nodes, key=lambda k: (-iou[r, k], k)) for r in truth}
    nm, code, formula = [], [], []
    for r in truth:
        lineage = [-1] if r == -1 else line(r, class_parent)
        nm.append(iou[r, match[r]])
        code.append(nm[-1] * sum(match[p] in line(match[r], parents) for p in lineage) / len(lineage))
        beta = {match[p] for p in lineage}
        formula.append(max(iou[r, k] * len(beta & set(line(k, parents))) / len(lineage) for k in nodes))
    return float(np.mean(nm)), float(np.mean(code)), float(np.mean(formula))


@pytest.mark.parametrize("seed", range(60))
def test_against_sets_of_pixels(seed: int) -> None:
    case = random_case(seed)
    got, printed = hierarchical_covering(*case), hierarchical_covering(*case, mode="formula")
    assert (got.nm, got.nh, printed.nh) == close(brute_force(*case), abs=1e-12, nan_ok=True)
