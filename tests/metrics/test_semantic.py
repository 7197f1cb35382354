"""Dataset-wide matching of clusters to classes: worked examples, brute force over assignments, and what must not matter."""

from __future__ import annotations

import pickle
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import cluster_table

from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics import semantic
from uss_dagster.metrics.base import Truth, accumulator, poisson_weights
from uss_dagster.metrics.semantic import hungarian, majority_by_iou, many_to_one, one_to_one_by_iou
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.scoring.scorer import Scorer

THREE = np.array([[50, 2, 0], [5, 30, 1], [0, 3, 20]])
FIVE = np.concatenate([THREE, [[10, 0, 0], [0, 8, 1]]])

# root, three foreground leaves, an inner node with one more, two backgrounds, ignore
TREE = ClassTree.from_arrays([-1, 0, 0, 0, 0, 4, 0, 0, 0], [-1, 0, 0, 0, -1, 0, 1, 1, 2])
LEAVES = [1, 2, 3, 5]
IGNORED = [0, 4, 8]  # no class of its own: the root, an inner node, and the ignore class
FLAT = ClassTree.from_arrays([-1, 0, 0, 0], [-1, 0, 0, 0])
seeds = st.lists(st.integers(0, 10**6), min_size=1, max_size=5)


def truth_of(nodes: np.ndarray, tree: ClassTree = TREE) -> Truth:
    return Truth("classes", Regions.from_tree(nodes, tree.parent, label=np.arange(len(tree))), tree)


def prediction_of(clusters: np.ndarray) -> Regions:
    """A flat family below a whole image without a cluster; cluster -1 is the whole image alone."""
    present = np.unique(clusters[clusters >= 0])
    nodes = np.where(clusters >= 0, np.searchsorted(present, clusters) + 1, 0)
    return Regions.from_tree(nodes, [0] * (len(present) + 1), label=[-1, *present.tolist()])


def drawn(seed: int, clusters: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, len(TREE), (4, 5)), rng.integers(-1, clusters, (4, 5))


def scored(images: dict[str, tuple[np.ndarray, np.ndarray]], tree: ClassTree = TREE, replicates: int = 0) -> semantic.PairCounts:
    total = semantic.accumulator(replicates)
    for image_id, (nodes, clusters) in images.items():
        total.update(image_id, truth_of(nodes, tree), prediction_of(clusters))
    return total


def brute_force(table: np.ndarray, missed: np.ndarray, leftover: str) -> tuple[float, float]:
    """(mIoU, accuracy) over all assignments: the most matched pixels, and of those the greatest mIoU."""
    table = table[table.sum(axis=1) > 0]
    real = table.sum(axis=0) + missed
    classes = [c for c in range(len(real)) if real[c] > 0 or leftover == "stego"]
    k, spare = len(table), max(0, len(classes) - len(table))
    best = (-1.0, -1.0)
    for chosen in permutations(range(k + spare), len(classes)):
        if k > len(classes) and max(chosen, default=0) >= k:
            continue
        tp, ious = 0, []
        for c, cluster in zip(classes, chosen, strict=True):
            shared, size = (table[cluster, c], table[cluster].sum()) if cluster < k else (0, 0)
            tp += shared
            if real[c] + size - shared > 0:
                ious.append(shared / (real[c] + size - shared))
        if leftover == "stego" and k > len(classes):
            ious.append(0.0)
        best = max(best, (tp, float(np.mean(ious))))
    return best[1], best[0] / real.sum()


# -- tables -------------------------------------------------------------------------------------------


def test_worked_example_with_as_many_clusters_as_classes() -> None:
    got = hungarian(THREE)
    assert got.match.tolist() == [0, 1, 2]
    assert got.iou == pytest.approx([0.877193, 0.731707, 0.833333], abs=5e-7)
    assert (got.miou, got.accuracy) == pytest.approx((0.814078, 0.900901), abs=5e-7)
    for other in (hungarian(THREE, leftover="stego"), many_to_one(THREE)):
        assert (other.miou, other.accuracy) == (got.miou, got.accuracy)


def test_worked_example_with_clusters_left_over() -> None:
    error, stego, many = hungarian(FIVE), hungarian(FIVE, leftover="stego"), many_to_one(FIVE)
    assert error.iou == pytest.approx([0.746269, 0.612245, 0.8], abs=5e-7)
    assert (error.miou, error.accuracy) == pytest.approx((0.719505, 0.769231), abs=5e-7)
    assert (stego.miou, stego.accuracy) == pytest.approx((0.539628, 0.769231), abs=5e-7)
    assert many.iou == pytest.approx([0.895522, 0.76, 0.8], abs=5e-7)
    assert (many.miou, many.accuracy) == pytest.approx((0.818507, 0.907692), abs=5e-7)


@pytest.mark.parametrize("leftover", ["error", "stego"])
@given(seed=st.integers(0, 10**6), k=st.integers(1, 6), c=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_hungarian_is_the_best_of_all_assignments(leftover: str, seed: int, k: int, c: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 6, (k, c)) * (rng.random((k, c)) < 0.6) * (rng.random(c) < 0.8)
    missed = rng.integers(0, 3, c) * (rng.random(c) < 0.5)
    got = hungarian(table, missed, leftover)
    if table.sum() + missed.sum() == 0:
        assert np.isnan([got.miou, got.accuracy]).all()
    else:
        assert (got.miou, got.accuracy) == pytest.approx(brute_force(table, missed, leftover), abs=1e-12)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_numbers_of_clusters_do_not_matter_even_where_assignments_tie(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 3, rng.integers(1, 6, 2))
    shuffled = rng.permutation(table)
    for score in (hungarian, many_to_one, lambda t: hungarian(t, leftover="stego"), lambda t: hungarian(np.concatenate([t, 0 * t[:1]]))):
        first, second = score(table), score(shuffled)
        assert (first.miou, first.accuracy) == pytest.approx((second.miou, second.accuracy), abs=1e-12, nan_ok=True)


def test_of_equal_assignments_the_greater_iou() -> None:
    for table in ([[2, 3], [1, 2]], [[1, 2], [2, 3]]):
        assert hungarian(np.array(table)).miou == pytest.approx(1 / 3)  # not (1/5 + 3/7) / 2, with as many pixels


def test_fewer_clusters_than_classes_count_zero() -> None:
    got = hungarian(THREE[:2])
    assert got.match.tolist() == [0, 1, -1]
    assert got.iou == pytest.approx([50 / 57, 30 / 38, 0])
    assert got.miou == pytest.approx((50 / 57 + 30 / 38) / 3)


def test_absent_classes() -> None:
    table = np.array([[50, 2, 0], [5, 30, 0], [0, 3, 0]])
    error, stego = hungarian(table), hungarian(table, leftover="stego")
    assert np.isnan(error.iou[2])
    assert error.miou == pytest.approx((50 / 57 + 30 / 40) / 2)
    assert stego.miou == pytest.approx((50 / 57 + 30 / 40 + 0) / 3), "the third cluster is forced upon the absent class"
    assert hungarian(table[:2], leftover="stego").miou == pytest.approx((50 / 57 + 30 / 37) / 2), "0/0 is left out"
    assert majority_by_iou(table).miou == pytest.approx((50 / 57 + 33 / 40) / 3)


def test_pixels_without_a_cluster_are_errors() -> None:
    got = hungarian(THREE, np.array([9, 0, 4]))
    assert got.iou == pytest.approx([50 / 66, 30 / 41, 20 / 28])
    assert got.accuracy == pytest.approx(100 / 124)
    assert many_to_one(THREE, np.array([9, 0, 4])).accuracy == pytest.approx(100 / 124)


@given(seed=st.integers(0, 10**6), k=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_comus_maximises_the_sum_of_ious(seed: int, k: int) -> None:
    table = np.random.default_rng(seed).integers(0, 5, (k, k))
    size, real = table.sum(axis=1), table.sum(axis=0)
    iou = table / np.maximum(size[:, None] + real - table, 1)
    best = max(iou[list(p), range(k)].sum() for p in permutations(range(k)))
    fixed = max(iou[list(p), range(k - 1)].sum() for p in permutations(range(k - 1))) + iou[-1, -1]
    expected = np.array([best, fixed]) / k if table.any() else np.full(2, np.nan)
    got = [one_to_one_by_iou(table).miou, one_to_one_by_iou(table, fixed=True).miou]
    assert got == pytest.approx(expected.tolist(), abs=1e-12, nan_ok=True)


def test_iou_and_pixels_may_decide_differently() -> None:
    # cluster 1 has more pixels of class 0 but is large; the IoU sends it to class 1
    table = np.array([[10, 0], [30, 29]])
    assert hungarian(table).match.tolist() == [0, 1]
    assert majority_by_iou(np.array([[0, 40], [30, 29]])).match.tolist() == [1, 0]
    assert majority_by_iou(np.array([[30, 20], [70, 0]])).match.tolist() == [1, 0], "20 of 50 pixels, but IoU 0.4 against 0.3"
    assert many_to_one(np.array([[30, 20], [70, 0]])).match.tolist() == [0, 0]


def test_large_tables_keep_their_pixels_apart() -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(10**9, 10**10, (150, 150))
    got = hungarian(table)
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table, maximize=True)
    assert got.accuracy == pytest.approx(table[rows, columns].sum() / table.sum(), abs=1e-15)


# -- from maps to a table -----------------------------------------------------------------------------


def maps(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.repeat(np.indices(table.shape).reshape(2, -1), table.ravel(), axis=1)
    return pairs[0][None], pairs[1][None]


def test_the_worked_examples_through_regions() -> None:
    for table, leftover, expected in ((THREE, "hungarian", 0.814078), (FIVE, "hungarian", 0.719505), (FIVE, "stego", 0.539628)):
        clusters, labels = maps(table)
        got = scored({"image": (labels + 1, clusters)}, FLAT).result()
        assert got[f"{leftover}_miou"] == pytest.approx(expected, abs=5e-7)


def test_ignored_pixels_and_merged_parts() -> None:
    rng = np.random.default_rng(1)
    clusters, labels = rng.integers(-1, 4, (6, 8, 8)), rng.choice([1, 2, 3, 4], (6, 8, 8))
    tree = ClassTree.from_arrays([-1, 0, 0, 0, 0], [-1, 0, 0, 0, 2])
    images = {str(i): (labels[i], clusters[i]) for i in range(6)}
    others = {i: (nodes, np.where(nodes == 4, rng.integers(-1, 4, (8, 8)), found)) for i, (nodes, found) in images.items()}
    parts = [scored({i: pair for i, pair in others.items() if int(i) % 2 == odd}, tree) for odd in (0, 1)]
    parts[0].merge(parts[1])
    assert parts[0].result() == scored(images, tree).result()


def test_an_image_without_a_valid_pixel_is_skipped() -> None:
    got = scored({"image": (np.full((2, 2), 8), np.zeros((2, 2), int))})
    assert (got.n, got.skipped, got.result()) == (0, ["image"], {})
    assert np.isnan([hungarian(np.zeros((2, 2))).miou, hungarian(np.zeros((2, 2))).accuracy]).all()


def test_an_unknown_leftover_is_refused() -> None:
    with pytest.raises(UsageError, match=r"leftover 'stegos'\. Did you mean 'stego'"):
        hungarian(np.zeros((2, 2)), leftover="stegos")


# -- regions ------------------------------------------------------------------------------------------


def test_the_table_of_regions_is_that_of_maps() -> None:
    images = {f"image{i}": drawn(i) for i in range(5)}
    nodes, clusters = (np.stack(maps) for maps in zip(*images.values(), strict=True))
    labels = np.where(np.isin(nodes, IGNORED), 255, semantic.class_columns(TREE)[nodes])
    expected = hungarian(*cluster_table(clusters, labels, (7, 5)))
    got = scored(images).result()
    assert got["hungarian_miou"] == pytest.approx(expected.miou, abs=1e-12)
    assert got["hungarian_accuracy"] == pytest.approx(expected.accuracy, abs=1e-12)
    assert semantic.class_columns(TREE).tolist() == [-1, 0, 1, 2, -1, 3, 4, 4, -1]


def test_the_deepest_region_with_a_cluster_shows() -> None:
    nodes = np.array([[1, 1, 2, 2, 3, 3]])
    # the image is in cluster 0, a child without a cluster, and a grandchild in cluster 1
    prediction = Regions.from_tree(np.array([[0, 1, 2, 2, 1, 0]]), [0, 0, 1], label=[0, -1, 1])
    pairs = semantic.measure(truth_of(nodes), prediction)
    assert pairs is not None
    assert list(zip(*(pairs[k].tolist() for k in ("cluster", "class", "pixels")), strict=True)) == [(0, 0, 2), (0, 2, 2), (1, 1, 2)]


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_numbers_of_clusters_order_of_images_and_ignored_pixels_do_not_matter(chosen: list[int]) -> None:
    images = {f"{i}-{seed}": drawn(seed) for i, seed in enumerate(chosen)}
    rng = np.random.default_rng(chosen[0])
    rename = np.append(rng.permutation(7), -1)
    changed = {}
    for key in reversed(images):
        nodes, clusters = images[key]
        ignored = np.isin(nodes, IGNORED)
        unlike = np.where(ignored, rng.choice(IGNORED, nodes.shape), nodes)
        changed[key] = unlike, np.where(ignored, rng.integers(0, 7, nodes.shape), rename[clusters])
    first, second = scored(images), scored(changed)
    if not first.n:
        assert second.result() == {}
        return
    one, other = first.result(), second.result()
    for name in one:  # whether clusters are as many as classes is a matter of their highest number
        if not name.startswith(("comus_miou", "comus_acc", "comus_fixed")):
            assert one[name] == pytest.approx(other[name], abs=1e-12, nan_ok=True), name


@given(seeds, st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_any_split_of_the_images_merges(chosen: list[int], at: int) -> None:
    images = {f"{i}-{seed}": drawn(seed) for i, seed in enumerate(chosen)}
    parts = [dict(list(images.items())[part]) for part in (np.s_[:at], np.s_[at:])]
    whole, merged = scored(images, replicates=3), accumulator(semantic, 3)
    for part in parts[::-1]:
        merged.merge(pickle.loads(pickle.dumps(scored(part, replicates=3))))
    assert (merged.n, sorted(merged.skipped)) == (whole.n, sorted(whole.skipped))
    assert merged.result() == pytest.approx(whole.result(), nan_ok=True)
    for a, b in zip(merged.replicate_results(), whole.replicate_results(), strict=True):
        assert a == pytest.approx(b, nan_ok=True)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_perfect_clusters_score_one(chosen: list[int]) -> None:
    images = {}
    for i, seed in enumerate(chosen):
        nodes, _ = drawn(seed)
        nodes[0, :5] = [1, 2, 3, 5, 6]
        images[str(i)] = nodes, np.array([9, 3, 0, 1, 9, 2, 4, 4, 9])[nodes] % 9
    got = scored(images).result()
    assert {name: got[name] for name in got if not name.startswith("comus")} == dict.fromkeys(
        [f"{m}_{v}" for m in ("hungarian", "stego", "many_to_one") for v in ("miou", "accuracy")], 1.0
    )
    assert got["comus_miou"] == got["comus_majority_miou"] == 1


def test_replicates_are_weighted_sums_of_images() -> None:
    images = {f"image{i}": drawn(i) for i in range(6)}
    whole = scored(images, replicates=4)
    weights = np.stack([poisson_weights(image_id, 4) for image_id in images])
    for r, values in enumerate(whole.replicate_results()):
        repeated = accumulator(semantic)
        for weight, (nodes, clusters) in zip(weights[:, r], images.values(), strict=True):
            for copy in range(weight):
                repeated.update(str(copy), truth_of(nodes), prediction_of(clusters))
        assert values["hungarian_miou"] == pytest.approx(repeated.result()["hungarian_miou"], abs=1e-12)
        assert values["stego_accuracy"] == pytest.approx(repeated.result()["stego_accuracy"], abs=1e-12)


def test_comus_takes_pixels_without_a_cluster_for_background() -> None:
    nodes = np.array([[1, 1, 2, 2, 3, 5, 6, 7, 6, 7]])
    clusters = np.array([[0, 0, 1, -1, 2, 3, -1, -1, -1, 0]])
    got = scored({"a": (nodes, clusters)}).result()
    assert got["foreground_iou"] == pytest.approx(5 / 7)
    assert got["background_iou"] == pytest.approx(3 / 5)
    expected = np.mean([2 / 3, 1 / 2, 1, 1, 3 / 5])
    for name in ("comus_miou", "comus_fixed_miou", "comus_majority_miou"):
        assert got[name] == pytest.approx(expected)
    assert got["comus_accuracy"] == pytest.approx(8 / 10)
    assert got["hungarian_accuracy"] == pytest.approx(5 / 10), "elsewhere they are errors"


def test_a_fixed_background_is_not_matched_with_an_object() -> None:
    # the background cluster lies on object 1 mostly: free, they swap; fixed, both are wrong
    nodes, clusters = np.array([[1, 1, 1, 1, 2, 3, 5, 6]]), np.array([[-1, -1, -1, -1, 1, 2, 3, 0]])
    got = scored({"a": (nodes, clusters)}).result()
    assert (got["comus_miou"], got["comus_fixed_miou"]) == pytest.approx((1.0, 3 / 5))


def test_what_a_dataset_or_prediction_has_not_is_not_reported() -> None:
    nodes, clusters = np.array([[1, 2, 3]]), np.array([[0, 1, 1]])
    assert not any(name.startswith(("comus", "fore", "back")) for name in scored({"a": (nodes, clusters)}, FLAT).result())
    all_labelled = scored({"a": (np.array([[1, 2, 6]]), clusters)}).result()
    assert "comus_majority_miou" in all_labelled
    assert not {"foreground_iou", "comus_fixed_miou", "comus_miou"} & set(all_labelled), "two clusters, five classes"
    as_many = scored({"a": (np.array([[1, 2, 6]]), np.array([[0, 4, 3]]))}).result()
    assert as_many["comus_miou"] == pytest.approx(3 / 5), "clusters 1 and 2 exist, though no pixel shows them"


def test_nothing_but_ignore_is_skipped() -> None:
    total = scored({"a": (np.full((2, 2), 8), np.zeros((2, 2), int)), "b": (np.full((2, 2), 4), np.zeros((2, 2), int))}, replicates=2)
    assert (total.n, total.skipped, total.result(), total.replicate_results()) == (0, ["a", "b"], {}, [])


def test_a_class_beyond_the_tree_is_refused() -> None:
    truth = Truth("classes", Regions.from_label_map(np.array([[0, 5]]), use_labels=True), FLAT)
    with pytest.raises(BadData, match="class 5, but the class tree ends at 3"):
        semantic.measure(truth, prediction_of(np.zeros((1, 2), int)))


def test_own_segments_are_scored_by_their_own_labels():
    generator = np.random.default_rng(0)
    total, alone = Scorer(["own_semantic", "semantic"], replicates=3), Scorer(["semantic"], replicates=3)
    for number in range(4):
        truth = truth_of(generator.choice(LEAVES, (6, 8)))
        cut, own = (prediction_of(generator.integers(0, 4, (6, 8))) for _ in range(2))
        total.add(f"image{number}", truth, cut, own)
        alone.add(f"image{number}", truth, own)
    expected = {row["metric"]: row["value"] for row in alone.dataset_rows()}
    values = {row["metric"]: row["value"] for row in total.dataset_rows()}
    own_values = {name.removeprefix("own_"): value for name, value in values.items() if name.startswith("own_")}
    assert set(own_values) == {
        f"{name}_{value}" for name in ("hungarian", "many_to_one", "comus_majority") for value in ("miou", "accuracy")
    }
    assert own_values == {name: expected[name] for name in own_values}
    assert values["hungarian_miou"] != values["own_hungarian_miou"]
