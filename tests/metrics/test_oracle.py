"""Per-image oracles: hand-made examples, the released formulas as written, and what must not matter."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from uss_dagster.metrics import oracle, own
from uss_dagster.metrics.base import Accumulator, Truth, accumulator
from uss_dagster.regions import ClassTree, Regions

# root, three foreground leaves, background, ignore
TREE = ClassTree.from_arrays([-1, 0, 0, 0, 0, 0], [-1, 0, 0, 0, 1, 2])
OBJECTS = ClassTree.from_arrays([-1, 0, 0, 0], [-1, 0, 0, 0])
seeds = st.lists(st.integers(0, 10**6), min_size=1, max_size=4)


def truth_of(nodes: np.ndarray, tree: ClassTree = TREE) -> Truth:
    return Truth("classes", Regions.from_tree(nodes, tree.parent, label=np.arange(len(tree))), tree)


def drawn(seed: int, segments: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(1, 6, (4, 6)), rng.integers(0, segments, (4, 6))


def scored(images: dict[str, tuple[np.ndarray, np.ndarray]], tree: ClassTree = TREE) -> Accumulator:
    total = accumulator(oracle)
    for image_id, (nodes, segments) in images.items():
        total.update(image_id, truth_of(nodes, tree), Regions.from_label_map(segments))
    return total


def row(*runs: tuple[int, int]) -> np.ndarray:
    return np.repeat([value for value, _ in runs], [length for _, length in runs])[None]


def test_one_image_with_more_segments_than_classes() -> None:
    # segments a..d have 4+1, 3, 2+1, 2 pixels in classes 1, 2, 3
    nodes = row((1, 4), (2, 1), (1, 3), (2, 2), (3, 1), (3, 2))
    segments = row((0, 5), (1, 3), (2, 3), (3, 2))
    total = scored({"a": (nodes, segments)}, OBJECTS)
    got = total.result()
    # a-1, c-2, d-3; b is left over: missed by class 1, no false positive
    assert got["oracle_diffseg_miou"] == pytest.approx(np.mean([4 / 8, 2 / 4, 2 / 3]))
    assert got["oracle_diffseg_accuracy"] == got["oracle_strict_accuracy"] == pytest.approx(8 / 13)
    # b covers class 1 alone: none of its pixels is a false positive of another class
    assert got["oracle_strict_miou"] == pytest.approx(got["oracle_diffseg_miou"])
    # b is named 1 as well, and 1 of the 5 pixels of a is wrong
    assert got["oracle_majority_miou"] == pytest.approx(np.mean([7 / 8, 2 / 4, 2 / 3]))
    assert got["oracle_majority_accuracy"] == pytest.approx(11 / 13)
    assert "oracle_diffcut_miou" not in got, "no background"


def test_what_is_left_over_counts_against_the_class_it_stands_for() -> None:
    nodes, segments = row((1, 6), (1, 3), (2, 2), (2, 4)), row((0, 6), (1, 5), (2, 4))
    got = scored({"a": (nodes, segments)}, ClassTree.from_arrays([-1, 0, 0], [-1, 0, 0])).result()
    assert got["oracle_diffseg_miou"] == pytest.approx(np.mean([6 / 9, 4 / 6]))
    assert got["oracle_strict_miou"] == pytest.approx(np.mean([6 / (9 + 2), 4 / 6]))


def test_a_segment_left_over_may_fall_to_a_class_that_the_image_has_not() -> None:
    nodes, segments = row((1, 6), (1, 3)), row((0, 6), (1, 3))
    got = scored({"a": (nodes, segments)}, OBJECTS).result()
    assert got["oracle_diffseg_miou"] == pytest.approx(np.mean([6 / 9, 0]))
    assert got["oracle_strict_miou"] == pytest.approx(6 / 9)


def released(nodes: np.ndarray, segments: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """tp, fp, fn as the released evaluation of DiffSeg computes them: a row a class, a column a number of a segment."""
    columns = np.zeros((classes, max(classes, segments.max() + 1)), np.int64)
    np.add.at(columns, (nodes.ravel() - 1, segments.ravel()), 1)
    rows, chosen = linear_sum_assignment(columns, maximize=True)
    tp = columns[rows, chosen]
    return tp, columns[:, chosen].sum(axis=0) - tp, columns.sum(axis=1) - tp


@pytest.mark.parametrize("count", [3, 27, 40, 120])
def test_diffseg_is_the_released_evaluation_for_any_number_of_segments(count: int) -> None:
    """27 classes, of which an image has a few. Segments differ in size, and their numbers say nothing of it."""
    rng = np.random.default_rng(count)
    tree = ClassTree.from_arrays([-1, *[0] * 27], [-1, *[0] * 27])
    images, expected = {}, np.zeros((3, 27))
    for number in range(5):
        nodes = rng.choice(27, 6, replace=False)[rng.integers(0, 6, (40, 50))] + 1
        share = rng.lognormal(0, 2, count)
        segments = np.unique(rng.choice(count, (40, 50), p=share / share.sum()), return_inverse=True)[1].reshape(40, 50)
        images[str(number)] = nodes, segments
        expected += released(nodes, segments, 27)
    tp, fp, fn = expected
    got = scored(images, tree).result()
    assert got["oracle_diffseg_miou"] == pytest.approx(np.nanmean(tp / np.where(tp + fp + fn > 0, tp + fp + fn, np.nan)), abs=1e-12)
    assert got["oracle_diffseg_accuracy"] == pytest.approx(tp.sum() / (tp + fn).sum(), abs=1e-12)


def test_diffcut_gathers_the_background_first() -> None:
    nodes = row((1, 5), (4, 1), (4, 4), (4, 3))
    segments = row((0, 6), (1, 4), (2, 3))
    got = scored({"a": (nodes, segments)}).result()
    assert got["oracle_diffcut_accuracy"] == pytest.approx(12 / 13)
    assert got["oracle_diffcut_miou"] == pytest.approx(np.mean([5 / 6, 7 / 8]))
    assert got["oracle_strict_accuracy"] == pytest.approx(9 / 13), "one segment of the background alone"


def test_sums_are_added_over_images() -> None:
    images = {"a": (row((1, 4), (2, 4)), row((0, 4), (1, 4))), "b": (row((1, 2), (2, 6)), row((0, 5), (1, 3)))}
    tree = ClassTree.from_arrays([-1, 0, 0], [-1, 0, 0])
    # the second image: 0-1 and 1-2 with 2 + 3 pixels, or 0-2 and 1-1 with 3 + 0
    assert scored(images, tree).result()["oracle_diffseg_miou"] == pytest.approx(np.mean([6 / 9, 7 / 10]))


@given(st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_against_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 5, (rng.integers(1, 6), rng.integers(1, 5)))
    segments, classes = table.shape
    size = max(segments, classes)
    square = np.zeros((size, size), int)
    square[:segments, :classes] = table
    best = max(square[list(p), range(size)].sum() for p in permutations(range(size)))
    tp, fp = oracle.diffseg(table)
    assert tp.sum() == best
    matched = min(segments, classes)
    assert fp.sum() + tp.sum() <= np.sort(table.sum(axis=1))[::-1][:matched].sum()
    assert oracle.majority(table)[0].sum() == table.max(axis=1).sum() >= best
    strict_tp, strict_fp = oracle.strict(table, table.sum(axis=0) > 0)
    assert strict_tp.sum() == best
    assert strict_fp.sum() <= table.sum() - best


@given(seeds, st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_ids_order_ignored_pixels_and_splits_do_not_matter(chosen: list[int], at: int) -> None:
    images = {f"{i}-{seed}": drawn(seed) for i, seed in enumerate(chosen)}
    rng = np.random.default_rng(chosen[0])
    changed = {}
    for key in reversed(images):
        nodes, segments = images[key]
        changed[key] = nodes, np.where(nodes == 5, rng.integers(0, 9, nodes.shape), rng.permutation(6)[segments])
    whole = scored(images)
    # which segment left over falls to an absent class follows the numbers of segments in the released evaluation
    numbered = {"oracle_diffseg_miou"}
    kept, again = ({name: value for name, value in total.result().items() if name not in numbered} for total in (whole, scored(changed)))
    assert kept == pytest.approx(again, abs=1e-12, nan_ok=True)
    same = {key: images[key] for key in reversed(images)}
    assert whole.result() == pytest.approx(scored(same).result(), abs=1e-12, nan_ok=True)
    half, rest = (scored(dict(list(images.items())[part])) for part in (np.s_[:at], np.s_[at:]))
    half.merge(rest)
    assert half.result() == pytest.approx(whole.result(), nan_ok=True)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_perfect_segmentation_scores_one(chosen: list[int]) -> None:
    images = {str(i): (drawn(seed)[0], drawn(seed)[0]) for i, seed in enumerate(chosen)}
    assert set(scored(images).result().values()) == {1.0}


def test_the_deepest_regions_are_the_segments() -> None:
    nodes = row((1, 3), (2, 2), (3, 2), (4, 1))
    tree = Regions.from_tree(row((2, 3), (3, 2), (1, 2), (-1, 1)), [0, 0, 1, 1])
    total = accumulator(oracle)
    got = total.update("a", truth_of(nodes), tree)
    assert got is not None
    # node 1 keeps the pixels that no child has; the last pixel is in no region and missed
    assert got["oracle_strict_accuracy"] == pytest.approx(7 / 8)
    assert got["oracle_strict_miou"] == pytest.approx(3 / 4)


def test_labelled_regions_are_the_segments_where_there_are_any() -> None:
    nodes = row((1, 3), (2, 2), (3, 2), (4, 1))
    leaves = row((2, 3), (3, 2), (1, 2), (-1, 1))
    tree = Regions.from_tree(leaves, [0, 0, 1, 1]).labelled(np.array([0, 1]), np.array([7, 7]))
    got = accumulator(oracle).update("a", truth_of(nodes), tree)
    assert got is not None
    assert got["oracle_majority_accuracy"] == pytest.approx(3 / 8), "one segment of seven pixels, none below it"
    assert got["oracle_majority_miou"] == pytest.approx(3 / 7 / 4)


def test_the_own_segmentation_is_that_of_the_finest_regions_whatever_is_labelled() -> None:
    nodes = row((1, 3), (2, 2), (3, 2), (4, 1))
    tree = Regions.from_tree(row((2, 3), (3, 2), (1, 2), (-1, 1)), [0, 0, 1, 1])
    plain, labelled = (accumulator(own).update("a", truth_of(nodes), t) for t in (tree, tree.labelled(np.array([0, 1]), np.array([7, 7]))))
    assert plain == labelled
    finest = accumulator(oracle).update("a", truth_of(nodes), tree)
    assert plain is not None
    assert finest is not None
    assert {name.removeprefix("own_"): value for name, value in plain.items()} == {
        name.removeprefix("oracle_"): value for name, value in finest.items()
    }
    assert {metric.protocol for metric in own.SPEC.metrics.values()}.isdisjoint(m.protocol for m in oracle.SPEC.metrics.values())


def test_no_region_and_no_valid_pixel() -> None:
    total = accumulator(oracle)
    nothing = Regions.from_masks([], shape=(1, 4))
    got = total.update("a", truth_of(np.array([[1, 1, 2, 4]])), nothing)
    assert got is not None
    assert set(got.values()) == {0.0}
    assert total.update("b", truth_of(np.full((1, 4), 5)), nothing) is None
    assert total.skipped == ["b"]
