"""Max-overlap matching: recorded values of the released evaluation, worked examples, and sets of pixels for every cut."""

from __future__ import annotations

import numpy as np
import pytest
from metric_cases import CASES, GOLDEN, TREES, Case, as_truth, golden_case, random_case, sides

from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics import matching
from uss_dagster.metrics.base import Accumulator
from uss_dagster.metrics.covering import hierarchical_covering
from uss_dagster.metrics.matching import MaxOverlapMeter
from uss_dagster.regions import ClassTree, Regions

close = pytest.approx

# root -> X{1, 2}, 3; nodes in preorder: 0 root, 1 X, 2 "1", 3 "2", 4 "3"
CLASSES = ([-1, 0, 1, 1, 0], [-1, -1, 0, 0, 0])
IMAGES: list[Case] = [
    (np.array([[2, 2, 2, 2, 3, 3, 4, 4]]), CLASSES, np.array([[2, 2, 2, 3, 3, 3, 4, 4]]), [0, 0, 1, 1, 0]),
    (np.array([[2, 2, 2, 2, 4, 4, 4, 4]]), CLASSES, np.array([[1, 1, 1, 2, 2, 2, 2, 2]]), [0, 0, 0]),
]


def accumulate(cases: list[str]) -> Accumulator:
    accumulator = Accumulator(matching.measure, matching.reduce)
    for case in cases:
        accumulator.update(case, *sides(golden_case(case)))
    return accumulator


def metered(cases: list[Case], cut: str | int, thr: float = 0.0) -> MaxOverlapMeter:
    meter = MaxOverlapMeter(cases[0][1], cut, thr)
    for gt, _, pred, parents in cases:
        meter.update(gt, pred, parents)
    return meter


def of_tree(tree: int) -> list[str]:
    return [case for case in CASES if int(GOLDEN[f"{case}_class_tree"]) == tree]


def class_masks(case: Case, cut: str | int) -> dict[int, np.ndarray]:
    """The classes of a cut that are present, from the definitions; -1 is background."""
    gt, (parent, kind), _, _ = case
    kind = np.asarray(kind)

    def line(node: int) -> list[int]:
        return [] if node <= 0 else [*line(int(parent[node])), node]

    masks: dict[int, np.ndarray] = {}
    for y, x in np.ndindex(gt.shape):
        node = int(gt[y, x])
        if kind[node] == 2:
            continue
        if kind[node] == 1:
            names = [-1]
        elif cut == "leaves":
            names = [node] if kind[node] == 0 else []
        elif cut == "tree":
            names = line(node)
        elif cut == "figure":
            names = [0]
        else:
            above = line(node)[: int(cut)]
            names = above[-1:] if len(above) == int(cut) or kind[node] == 0 else []
        for name in names:
            masks.setdefault(name, np.zeros(gt.shape, bool))[y, x] = True
    if cut == "tree" and set(masks) == {-1}:
        return {}
    return masks


def brute_force(cases: list[Case], cut: str | int, thr: float = 0.0) -> tuple[dict[str, float], dict[int, list[int]]]:
    """(miou, pacc, macc, fiou), and tp, fp, fn by class, from masks and the formulas as written."""
    sums: dict[int, np.ndarray] = {}
    for case in cases:
        gt, (_, kind), pred, parents = case
        valid = np.asarray(kind)[gt] != 2
        nodes = [mask & valid for mask in Regions.from_tree(pred, parents).masks()[1:]]
        for name, real in class_masks(case, cut).items():
            best = max(nodes, key=lambda mask: (mask & real).sum() / (mask | real).sum())
            counts = np.array([(real & best).sum(), (best & ~real).sum(), (real & ~best).sum()])
            sums[name] = sums.get(name, 0) + counts
    if not sums:
        return {}, {}
    tp, fp, fn = np.array(list(sums.values())).T
    freq = (tp + fn) / (tp + fn).sum()
    iou = tp / (tp + fp + fn)
    iou = np.where(iou < thr, 0, iou)
    values = {"miou": iou.mean(), "pacc": tp.sum() / (tp + fn).sum(), "macc": (tp / (tp + fn)).mean(), "fiou": (freq * iou).sum()}
    return values, {name: counts.tolist() for name, counts in sums.items()}


@pytest.mark.parametrize("case", CASES)
def test_golden_image(case: str) -> None:
    got = metered([golden_case(case)], "leaves").result()
    index = GOLDEN[f"tree{int(GOLDEN[f'{case}_class_tree'])}_flat_classmap"]
    order = [0 if node < 0 else index[node] for node in got["nodes"]]
    np.testing.assert_allclose(got["iou"], GOLDEN[f"{case}_flat_iou"][order], atol=1e-9)
    assert sorted(order) == list(range(len(GOLDEN[f"{case}_flat_iou"])))


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("cut", ["leaves", "tree", "figure", 1, 2, 3])
@pytest.mark.parametrize("thr", [0.0, 0.5])
def test_dataset_sums_against_masks(tree: int, cut: str | int, thr: float) -> None:
    cases = [golden_case(case) for case in of_tree(tree)]
    expected, counts = brute_force(cases, cut, thr)
    got = metered(cases, cut, thr).result()
    assert {name: got[name] for name in expected} == close(expected, abs=1e-12)
    found = {int(node): [int(got[key][i]) for key in ("tp", "fp", "fn")] for i, node in enumerate(got["nodes"])}
    assert {node: values for node, values in found.items() if values[0] + values[2]} == counts
    assert got["freq"].sum() == close(1.0)


@pytest.mark.parametrize("tree", TREES)
def test_the_leaderboard_has_every_cut_of_the_tree(tree: int) -> None:
    names = of_tree(tree)
    cases = [golden_case(name) for name in names]
    got = accumulate(names).result()
    _, kind = cases[0][1]
    depths = matching.coarser_depths(ClassTree.from_arrays(*cases[0][1]))
    cuts: dict[str, str | int] = {"": "leaves"} | {f"_depth{d}": d for d in depths}
    if (np.asarray(kind)[1:] == -1).any():
        cuts["_tree"] = "tree"
    expected = {f"{name}{suffix}": value for suffix, cut in cuts.items() for name, value in brute_force(cases, cut)[0].items()}
    _, figure = brute_force(cases, "figure")
    iou = [figure[node][0] / sum(figure[node]) for node in (0, -1) if node in figure]
    if len(iou) == 2:
        expected |= {"figure_iou": iou[0], "ground_iou": iou[1], "figure_ground_miou": sum(iou) / 2}
    assert got == close(expected, abs=1e-12)
    assert set(got) <= set(matching.SPEC.metrics)


@pytest.mark.parametrize("seed", range(40))
def test_any_case_against_masks(seed: int) -> None:
    case = random_case(seed)
    for cut in ("leaves", "tree", "figure", 1, 2):
        expected, _ = brute_force([case], cut)
        got = metered([case], cut).result()
        assert {name: got[name] for name in expected} == close(expected, abs=1e-12)
        assert ("miou" in got) == bool(expected)


def test_which_depths_differ_from_the_leaves() -> None:
    def depths(parent: list[int], kind: list[int]) -> list[int]:
        return matching.coarser_depths(ClassTree.from_arrays(parent, kind))

    assert depths([-1, 0, 0], [-1, 0, 0]) == []
    assert depths(*CLASSES) == [1]
    assert depths([-1, 0, 1, 2, 2, 0], [-1, -1, -1, 0, 0, 0]) == [1, 2]
    assert depths([-1, 0, 1, 0], [-1, -1, 0, 0]) == [], "a chain of single children joins no leaves"
    assert depths([-1, 0, 1, 1, 0], [-1, -1, 0, 1, 0]) == [], "nor does an only child beside background"


def test_worked_example() -> None:
    accumulator = Accumulator(matching.measure, matching.reduce)
    alone = [accumulator.update("x", *sides(case)) or {} for case in IMAGES]
    leaves = {"miou": 0.757937, "pacc": 0.875, "macc": 0.916667, "fiou": 0.779762}
    # depth 1, {X, 3}: X takes P (6 px) and f (3 of 4 px), 3 takes c and g
    iou = 9 / 10, 6 / 7
    coarse = {"miou": sum(iou) / 2, "pacc": 15 / 16, "macc": (9 / 10 + 1) / 2, "fiou": (10 * iou[0] + 6 * iou[1]) / 16}
    # all nodes: X, 1, 2, 3
    ious = 9 / 10, 6 / 8, 2 / 3, 6 / 7
    real = 10, 8, 2, 6
    tree = {"miou": sum(ious) / 4, "pacc": 23 / 26, "macc": (0.9 + 0.75 + 1 + 1) / 4}
    tree["fiou"] = sum(i * r for i, r in zip(ious, real, strict=True)) / 26
    suffixed = {f"{name}{suffix}": v for suffix, cut in (("", leaves), ("_depth1", coarse), ("_tree", tree)) for name, v in cut.items()}
    assert accumulator.result() == close(suffixed, abs=1e-6)
    assert [a["miou"] for a in alone] == close([0.805556, 0.775], abs=1e-6)
    got = metered(IMAGES, "leaves").result()
    assert {name: got[name] for name in leaves} == close(leaves, abs=1e-6)
    assert got["nodes"].tolist() == [2, 3, 4]
    assert (got["tp"].tolist(), got["fp"].tolist(), got["fn"].tolist()) == ([6, 2, 6], [0, 1, 1], [2, 0, 0])
    assert got["freq"].tolist() == [0.5, 0.125, 0.375]


def test_threshold_zeroes_classes_over_the_dataset() -> None:
    got = metered(IMAGES, "leaves", thr=0.7).result()
    assert got["iou"].tolist() == close([0.75, 0, 6 / 7])
    assert (got["miou"], got["macc"]) == close(((0.75 + 6 / 7) / 3, 0.916667), abs=1e-6)


def test_foreground_and_background() -> None:
    """One leaf of the foreground is the best region for all of it where nothing larger is predicted."""
    classes = ([-1, 0, 0, 0], [-1, 0, 0, 1])
    gt = np.array([[1, 1, 1, 2, 2, 3, 3, 3]])
    flat: Case = gt, classes, np.array([[1, 1, 1, 2, 2, 3, 3, 3]]), [0, 0, 0, 0]
    nested: Case = gt, classes, np.array([[2, 2, 2, 3, 3, 4, 4, 4]]), [0, 0, 1, 1, 0]
    for case, figure in ((flat, 3 / 5), (nested, 1.0)):
        got = matching.reduce(matching.measure(*sides(case)) or {})
        assert (got["figure_iou"], got["ground_iou"], got["figure_ground_miou"]) == close((figure, 1.0, (figure + 1) / 2))
    only_ground: Case = np.full((1, 4), 3), classes, np.ones((1, 4), int), [0, 0]
    alone = matching.reduce(matching.measure(*sides(only_ground)) or {})
    assert alone == {"miou": 1, "pacc": 1, "macc": 1, "fiou": 1, "ground_iou": 1}


def test_image_level_mean_is_nm_covering() -> None:
    for seed in range(20):
        gt, classes, pred, parents = random_case(seed)
        whole = hierarchical_covering(gt, classes, pred, parents)
        alone = metered([(gt, classes, pred, parents)], "tree").result()
        assert alone.get("miou", np.nan) == close(whole.nm, nan_ok=True)


def test_meters_merge_and_refuse_others() -> None:
    cases = [golden_case(case) for case in of_tree(0)]
    half = metered(cases[:2], "leaves")
    half.merge(metered(cases[2:], "leaves"))
    whole = metered(cases, "leaves").result()
    assert all(np.array_equal(half.result()[key], whole[key]) for key in whole)
    with pytest.raises(UsageError, match="one class tree and one cut"):
        half.merge(metered(cases, "tree"))
    with pytest.raises(UsageError, match="'leaves', 'tree', 'figure' or a depth"):
        MaxOverlapMeter(CLASSES, cut="leafs")
    with pytest.raises(BadData, match=r"\(1, 8\).*\(1, 2\)"):
        MaxOverlapMeter(CLASSES).update(IMAGES[0][0], np.zeros((1, 2), int), [0])


def test_merging_two_halves_is_the_whole() -> None:
    cases = of_tree(0)
    half = accumulate(cases[:2])
    half.merge(accumulate(cases[2:]))
    assert half.result() == close(accumulate(cases).result())
    assert {v.shape for v in half.total.values()} == {(6,)}


def test_nothing_predicted_misses_every_pixel() -> None:
    truth, _ = sides(golden_case("case00"))
    lone = Regions.from_tree(np.zeros(truth.regions.shape, int), [0])
    for prediction in (lone, Regions.from_masks([], shape=truth.regions.shape)):
        total = matching.measure(truth, prediction)
        assert total is not None
        assert not any(values.any() for name, values in total.items() if not name.endswith(".fn"))
        assert set(matching.reduce(total).values()) == {0.0}


def test_nothing_but_ignore_is_skipped() -> None:
    classes = ([-1, 0, 0], [-1, 0, 2])
    truth = as_truth(np.full((2, 2), 2), classes)
    accumulator = Accumulator(matching.measure, matching.reduce)
    assert accumulator.update("x", truth, Regions.from_tree(np.array([[0, 1], [1, 1]]), [0, 0])) is None
    assert (accumulator.n, accumulator.skipped, accumulator.result()) == (0, ["x"], {})
    meter = metered([(np.full((2, 2), 2), classes, np.zeros((2, 2), int), [0])], "leaves")
    assert (meter.n, meter.n_skipped, meter.result()["tp"].tolist()) == (0, 1, [0])


def test_unknown_labels_are_ignored_with_a_count() -> None:
    gt, classes, pred, parents = IMAGES[0]
    meter = MaxOverlapMeter(classes)
    with pytest.warns(UserWarning, match=r"3 pixels of classes not in the tree are ignored: \[7, 255\]"):
        meter.update(np.append(gt, [[255, 7, 255]], axis=1), np.append(pred, [[2, 2, 2]], axis=1), parents)
    assert meter.result()["miou"] == close(0.805556, abs=1e-6)
