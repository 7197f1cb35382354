"""Covering: the recorded values of the released evaluation, worked examples, and what must hold for any tree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics import covering
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.metrics.covering import hierarchical_covering, tree_covering
from uss_dagster.regions import ClassTree, Regions

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "metrics_golden.npz")
CASES = sorted(key[:6] for key in GOLDEN.files if key.endswith("_gt_nodes"))
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


def golden_tree(case: str) -> tuple[np.ndarray, np.ndarray]:
    tree = int(GOLDEN[f"{case}_class_tree"])
    return GOLDEN[f"tree{tree}_parent"], GOLDEN[f"tree{tree}_type"]


def as_truth(gt: np.ndarray, classes: tuple) -> Truth:
    """Ground truth as a dataset gives it: the tree of class regions, labelled with class-tree nodes."""
    parent = np.asarray(classes[0]).copy()
    return Truth("classes", Regions.from_tree(gt, parent, label=np.arange(len(parent))).pruned(), ClassTree.from_arrays(*classes))


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    def golden(key: str) -> np.ndarray:
        return GOLDEN[f"{case}_{key}"]

    arguments = golden("gt"), golden_tree(case), golden("pred"), golden("pred_parent")
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
    """The library's own types give the same numbers, and the flat score that of the flat evaluator."""
    classes = golden_tree(case)
    truth = as_truth(GOLDEN[f"{case}_gt"], classes)
    prediction = Regions.from_tree(GOLDEN[f"{case}_pred"], GOLDEN[f"{case}_pred_parent"])
    expected = hierarchical_covering(GOLDEN[f"{case}_gt"], classes, GOLDEN[f"{case}_pred"], GOLDEN[f"{case}_pred_parent"])
    got = tree_covering(truth, prediction)
    assert (got.nm, got.nh) == close((expected.nm, expected.nh), abs=1e-12, nan_ok=True)
    assert got.match.tolist() == expected.match.tolist()
    values = covering.reduce(covering.measure(truth, prediction) or {})
    assert values["nm_covering_flat"] == close(float(GOLDEN[f"{case}_flat_nfcovering"]), abs=1e-9)
    assert ("nm_covering" in values) != bool(GOLDEN[f"{case}_skipped"])


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
    assert values == close({"nm_covering": 0.854167, "nh_covering": 0.854167, "nm_covering_flat": 0.805556}, abs=1e-6)
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
    for pred in (np.zeros_like(GT), np.full_like(GT, -1)):
        for mode in ("code", "formula"):
            got = hierarchical_covering(GT, CLASSES, pred, [0], mode=mode)
            assert (got.nm, got.nh, set(got.match)) == (0, 0, {-1})
    nothing = tree_covering(as_truth(GT, CLASSES), Regions.from_masks([], shape=GT.shape), mode="formula")
    assert (nothing.nm, nothing.nh) == (0, 0)


def test_background_is_one_region_below_the_root() -> None:
    gt = np.array([[1, 2, 3, 3]])
    classes = ([-1, 0, 0, 0], [-1, 1, 1, 0])
    got = hierarchical_covering(gt, classes, np.array([[1, 1, 2, 2]]), [0, 0, 0])
    assert got.gt_nodes.tolist() == [3, -1]
    assert (got.nm, got.nh) == (1.0, 1.0)
    assert np.isnan(hierarchical_covering(np.array([[1, 2]]), classes, np.array([[1, 2]]), [0, 0, 0]).nm)


def test_unknown_classes_are_ignored_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"2 pixels of classes not in the tree are ignored: \[-7, 99\]"):
        got = hierarchical_covering(np.append(GT, [[99, -7]], axis=1), CLASSES, np.append(GT, [[2, 3]], axis=1), CLASSES[0])
    assert got.nm == 1.0


def test_errors_say_what_to_change() -> None:
    with pytest.raises(UsageError, match="Did you mean 'formula'"):
        hierarchical_covering(GT, CLASSES, GT, CLASSES[0], mode="formulae")
    with pytest.raises(BadData, match=r"nodes 0\.\.1"):
        hierarchical_covering(GT, CLASSES, GT, [0, 0])
    with pytest.raises(BadData, match="parents before children"):
        hierarchical_covering(GT, CLASSES, GT, [0, 3, 0, 0, 0])
    with pytest.raises(BadData, match=r"\(1, 8\).*\(1, 7\)"):
        hierarchical_covering(GT, CLASSES, GT[:, 1:], CLASSES[0])
    with pytest.raises(BadData, match="class 9"):
        tree_covering(
            Truth("classes", Regions.from_tree(GT, CLASSES[0], label=[0, 9, 9, 9, 9, 9]), ClassTree.from_arrays(*CLASSES)),
            Regions.from_tree(GT, CLASSES[0]),
        )


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


def random_tree(rng: np.random.Generator, most: int = 9) -> list[int]:
    return [-1] + [int(rng.integers(node)) for node in range(1, int(rng.integers(2, most)))]


def random_case(seed: int) -> tuple[np.ndarray, tuple, np.ndarray, list[int]]:
    """gt, classes, pred, parents on a small image; ground truth holds every kind of leaf, and sometimes inner nodes."""
    rng = np.random.default_rng(seed)
    class_parent = random_tree(rng)
    inner = set(class_parent)
    kind = [-1 if node in inner else int(rng.choice([0, 0, 0, 1, 2])) for node in range(len(class_parent))]
    parents = random_tree(rng, 12)
    shape = tuple(rng.integers(2, 7, 2))
    return rng.integers(1, len(kind), shape), (class_parent, kind), rng.integers(0, len(parents), shape), parents


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
    gt, classes, pred, parents = case = random_case(seed)
    got, printed = hierarchical_covering(*case), hierarchical_covering(*case, mode="formula")
    assert (got.nm, got.nh, printed.nh) == close(brute_force(*case), abs=1e-12, nan_ok=True)
    through = tree_covering(as_truth(gt, classes), Regions.from_tree(pred, parents))
    if not Regions.from_tree(pred, parents).is_root[1:].any():
        assert (through.nm, through.nh) == close((got.nm, got.nh), abs=1e-12, nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_region_numbers_do_not_matter(seed: int) -> None:
    gt, classes, pred, parents = random_case(seed)
    prediction = Regions.from_tree(pred, parents)
    order = np.random.default_rng(seed + 1).permutation(len(prediction))
    masks = prediction.masks()
    shuffled = Regions.from_masks(list(masks[order]))
    truth = as_truth(gt, classes)
    before, after = covering.measure(truth, prediction), covering.measure(truth, shuffled)
    # without parents a region of the whole image is a root wherever it stands, so compare where only region 0 is one
    if before is not None and after is not None and prediction.is_root.sum() == shuffled.is_root.sum():
        for name in ("nm_covering", "nm_covering_flat"):
            assert before.get(name, np.nan) == close(after.get(name, np.nan), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_perfect_prediction(seed: int) -> None:
    gt, classes, _, _ = random_case(seed)
    kind = np.asarray(classes[1])
    merged = np.where(kind[gt] == 1, len(kind), gt)
    got = hierarchical_covering(gt, classes, merged, [*classes[0], 0])
    assert got.nm == close(1.0) or np.isnan(got.nm)
    assert got.nh <= got.nm or np.isnan(got.nm)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_ignored_pixels_never_matter(seed: int) -> None:
    gt, classes, pred, parents = random_case(seed)
    ignored = np.asarray(classes[1])[gt] == 2
    other = np.where(ignored, np.random.default_rng(seed + 1).integers(0, len(parents), pred.shape), pred)
    for mode in ("code", "formula"):
        before = hierarchical_covering(gt, classes, pred, parents, mode=mode)
        after = hierarchical_covering(gt, classes, other, parents, mode=mode)
        assert (before.nm, before.nh) == close((after.nm, after.nh), nan_ok=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_refining_a_tree_never_lowers_nm(seed: int) -> None:
    gt, classes, pred, parents = random_case(seed)
    rng = np.random.default_rng(seed + 1)
    split = int(rng.integers(len(parents)))
    half = (pred == split) & (rng.random(pred.shape) < 0.5)
    finer = np.where(half, len(parents), pred)
    before = hierarchical_covering(gt, classes, pred, parents)
    after = hierarchical_covering(gt, classes, finer, [*parents, split])
    assert after.nm >= before.nm - 1e-12 or np.isnan(before.nm)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=8), st.integers(1, 7))
def test_any_split_of_the_images_merges(seeds: list[int], at: int) -> None:
    def accumulate(part: list[int]) -> Accumulator:
        accumulator = Accumulator(covering.measure, covering.reduce, replicates=3)
        for seed in part:
            gt, classes, pred, parents = random_case(seed)
            accumulator.update(str(seed), as_truth(gt, classes), Regions.from_tree(pred, parents))
        return accumulator

    whole, merged = accumulate(seeds), accumulate(seeds[:at])
    merged.merge(accumulate(seeds[at:]))
    assert (whole.n, whole.n_skipped) == (merged.n, merged.n_skipped)
    assert whole.result() == close(merged.result(), nan_ok=True)
    for a, b in zip(whole.replicate_results(), merged.replicate_results(), strict=True):
        assert a == close(b, nan_ok=True)
