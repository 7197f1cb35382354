"""Max-overlap matching: recorded values of the released evaluation, worked examples, and sets of pixels for every cut."""

from __future__ import annotations

import numpy as np
import pytest
from metric_cases import CASES, GOLDEN, TREES, Case, as_truth, golden_case, random_case, sides
from references import hierarchical_covering

from uss_dagster.errors import BadData
from uss_dagster.metrics import matching
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.metrics.covering import overlap
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


def summed(cases: list[Case], cut: str | int) -> dict[str, np.ndarray]:
    """tp, fp and fn of each class-tree node over all images, all background at its first node."""
    images = [matching.cut_sums(overlap(*sides(case)), cut) for case in cases]
    return {name: np.sum([image[name] for image in images], axis=0) for name in images[0]}


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
    iou = np.nan_to_num(matching.class_iou(summed([golden_case(case)], "leaves")))
    index = GOLDEN[f"tree{int(GOLDEN[f'{case}_class_tree'])}_flat_classmap"]
    classes = np.unique(index[index >= 0])
    got = [iou[index == c].max() for c in classes]
    np.testing.assert_allclose(got, GOLDEN[f"{case}_flat_iou"][classes], atol=1e-9)
    assert classes.tolist() == list(range(len(GOLDEN[f"{case}_flat_iou"])))
    assert not iou[index < 0].any()


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("cut", ["leaves", "tree", "figure", 1, 2, 3])
@pytest.mark.parametrize("thr", [0.0, 0.5])
def test_dataset_sums_against_masks(tree: int, cut: str | int, thr: float) -> None:
    cases = [golden_case(case) for case in of_tree(tree)]
    expected, counts = brute_force(cases, cut, thr)
    sums = summed(cases, cut)
    assert matching.summary(sums, thr) == close(expected, abs=1e-12)
    ground = np.asarray(cases[0][1][1]) == 1
    found = {-1 if ground[node] else node: [int(sums[key][node]) for key in ("tp", "fp", "fn")] for node in range(len(ground))}
    assert {node: values for node, values in found.items() if values[0] + values[2]} == counts


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
        assert matching.summary(summed([case], cut)) == close(expected, abs=1e-12)


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
    got = matching.sums_of(accumulator.total, "leaves")
    assert matching.summary(got) == close(leaves, abs=1e-6)
    assert {name: values.tolist() for name, values in got.items()} == {"tp": [0, 0, 6, 2, 6], "fp": [0, 0, 0, 1, 1], "fn": [0, 0, 2, 0, 0]}


def test_threshold_zeroes_classes_over_the_dataset() -> None:
    got = matching.summary(summed(IMAGES, "leaves"), threshold=0.7)
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
        alone = matching.summary(summed([(gt, classes, pred, parents)], "tree"))
        assert alone.get("miou", np.nan) == close(whole.nm, nan_ok=True)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(BadData, match=r"\(1, 8\).*\(1, 2\)"):
        matching.measure(as_truth(IMAGES[0][0], CLASSES), Regions.from_tree(np.zeros((1, 2), int), [0]))


def test_merging_two_halves_is_the_whole() -> None:
    cases = of_tree(0)
    half = accumulate(cases[:2])
    half.merge(accumulate(cases[2:]))
    whole = accumulate(cases)
    assert half.result() == close(whole.result())
    assert all(np.array_equal(half.total[key], whole.total[key]) for key in whole.total)
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
    assert matching.summary(summed([(np.full((2, 2), 2), classes, np.zeros((2, 2), int), [0])], "leaves")) == {}


def test_unknown_labels_are_ignored_with_a_count() -> None:
    gt, classes, pred, parents = IMAGES[0]
    strange = np.append(gt, [[5, 6, 5]], axis=1)
    truth = as_truth(strange, ([*classes[0], 0, 0], [*classes[1], 0, 0]))
    truth = Truth("classes", truth.regions, ClassTree.from_arrays(*classes))
    truth.regions.label[truth.regions.label > 4] += [2, 249]
    with pytest.warns(UserWarning, match=r"3 pixels of classes not in the tree are ignored: \[7, 255\]"):
        got = matching.measure(truth, Regions.from_tree(np.append(pred, [[2, 2, 2]], axis=1), parents))
    assert matching.reduce(got or {})["miou"] == close(0.805556, abs=1e-6)
