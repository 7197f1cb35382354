"""The BSDS500 region benchmark: worked numbers, brute force over pixels, scales shared by images, merging."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import annotator_regions, bsds_of_maps, family

from uss_dagster.errors import BadData, UsageError
from uss_dagster.metrics import bsds
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.regions import Regions

S1, S2 = np.array([[1, 1, 1, 2, 2, 2]]), np.array([[1, 1, 2, 2, 3, 3]])
G1, G2 = np.array([[1, 1, 2, 2, 3, 3]]), np.array([[1, 1, 1, 1, 2, 2]])


def annotators(*maps: np.ndarray) -> Truth:
    """Ground truth of label maps; 0 for no region."""
    return Truth("annotators", annotator_regions(maps))


def accumulate(images: Sequence[tuple[str, Truth, Regions]], scales: bsds.Scales, replicates: int = 0) -> Accumulator:
    accumulator = Accumulator(functools.partial(bsds.measure, state=scales), bsds.reduce, replicates)
    for image in images:
        accumulator.update(*image)
    return accumulator


# -- worked numbers ---------------------------------------------------------------------------------


def test_worked_scales_of_one_image() -> None:
    first = bsds_of_maps([S1], [G1, G2])
    assert first.ri.tolist() == pytest.approx([2 / 3])
    assert first.voi.tolist() == pytest.approx([1.125815], abs=5e-7)
    assert bsds_of_maps([S1], [G1]).voi[0] == pytest.approx(1.251629, abs=5e-7)
    assert bsds_of_maps([S1], [G1]).voi[0] * np.log(2) == pytest.approx(0.867563, abs=5e-7)
    assert bsds_of_maps([S1], [G2]).voi[0] == pytest.approx(1.0)
    assert bsds_of_maps([S1], [G1]).ri[0] == pytest.approx(bsds_of_maps([S1], [G2]).ri[0]) == pytest.approx(0.666667, abs=5e-7)
    assert [bsds_of_maps([S1], [g]).cnt[0] / 6 for g in (G1, G2)] == pytest.approx([0.527778, 0.722222], abs=5e-7)
    both = bsds_of_maps([S1, S2], [G1, G2])
    assert both.cnt.tolist() == pytest.approx([7.5, 10])
    assert both.sum.tolist() == [12, 12]
    assert both.best == pytest.approx(11)
    whole = bsds.reduce(bsds.measure(annotators(G1, G2), family([S1, S2]), bsds.Scales("level", (0.0, 1.0))) or {})
    assert whole["bsds_covering_ods"] == whole["bsds_covering_ois"] == pytest.approx(0.833333, abs=5e-7)
    assert whole["bsds_covering_best"] == pytest.approx(0.916667, abs=5e-7)


def test_worked_pooling_of_two_images() -> None:
    """The second image as its numbers say: coverings 5/6 and 3/6, Best 5/6, of one annotator's 6 pixels."""
    one = bsds.measure(annotators(G1, G2), family([S1, S2]), bsds.Scales("level", (0.0, 1.0)))
    assert one is not None
    two = one | {"cnt": np.array([5.0, 3.0]), "own_cnt": np.array(5.0), "best": np.array(5.0), "sum": np.array(6.0)}
    total = bsds.reduce({key: one[key] + two[key] for key in one})
    assert total["bsds_covering_ods"] == pytest.approx(0.722222, abs=5e-7)
    assert total["bsds_covering_ois"] == pytest.approx(0.833333, abs=5e-7)
    assert total["bsds_covering_best"] == pytest.approx(0.888889, abs=5e-7)


# -- brute force ------------------------------------------------------------------------------------


def entropy(labels: list[object]) -> float:
    share = np.array([labels.count(value) for value in set(labels)]) / len(labels)
    return float(-(share * np.log2(share)).sum())


def by_hand(segmentation: np.ndarray, drawn: list[np.ndarray]) -> tuple[float, float, float, float]:
    """(cnt, PRI, VOI, reverse cnt) from sets of pixels and all pairs of pixels."""
    s = segmentation.ravel().tolist()
    cnt, ri, voi = 0.0, [], []
    segments = [{i for i, v in enumerate(s) if v == value} for value in set(s) - {0}]
    everybodys = []
    for labels in drawn:
        g = labels.ravel().tolist()
        regions = [{i for i, v in enumerate(g) if v == value} for value in set(g) - {0}]
        everybodys += regions
        cnt += sum(len(r) * max((len(r & c) / len(r | c) for c in segments), default=0) for r in regions)
        agree = [(s[i] == s[j]) == (g[i] == g[j]) for i, j in combinations(range(len(s)), 2)]
        ri.append(np.mean(agree) if agree else 1.0)
        voi.append(2 * entropy(list(zip(s, g, strict=True))) - entropy(s) - entropy(g))
    reverse = sum(len(c) * max((len(r & c) / len(r | c) for r in everybodys), default=0) for c in segments)
    return cnt, float(np.mean(ri)), float(np.mean(voi)), reverse


label_maps = st.lists(st.integers(0, 4), min_size=12, max_size=12).map(lambda values: np.array(values).reshape(3, 4))
full_maps = st.lists(st.integers(1, 4), min_size=12, max_size=12).map(lambda values: np.array(values).reshape(3, 4))


@st.composite
def scale_maps(draw: st.DrawFn) -> list[np.ndarray]:
    """One to four label maps that leave the same pixels out."""
    inside = draw(label_maps) > 0
    return [labels * inside for labels in draw(st.lists(full_maps, min_size=1, max_size=4))]


@settings(max_examples=150, deadline=None)
@given(scale_maps(), st.lists(label_maps, min_size=1, max_size=3))
def test_brute_force(maps: list[np.ndarray], drawn: list[np.ndarray]) -> None:
    result = bsds_of_maps(maps, drawn)
    expected = [by_hand(labels, drawn) for labels in maps]
    np.testing.assert_allclose(np.stack([result.cnt, result.ri, result.voi, result.reverse_cnt], 1), expected, atol=1e-12)
    assert (result.sum == sum(np.count_nonzero(g) for g in drawn)).all()
    assert result.reverse_sum.tolist() == [np.count_nonzero(labels) for labels in maps]
    best = 0.0
    for g in drawn:
        for value in set(g.ravel().tolist()) - {0}:
            ious = [
                ((labels == v) & (g == value)).sum() / ((labels == v) | (g == value)).sum()
                for labels in maps
                for v in set(labels.ravel().tolist()) - {0}
            ]
            best += np.count_nonzero(g == value) * max(ious, default=0)
    assert result.best == pytest.approx(best)


@settings(max_examples=50, deadline=None)
@given(st.lists(label_maps, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_names_of_labels_do_not_matter(drawn: list[np.ndarray], random) -> None:
    names = [0, *random.sample(range(1, 90_000_000), 4)]
    renamed = [np.array(names)[labels] for labels in drawn]
    for mine, theirs in zip(bsds_of_maps(renamed[:1], drawn), bsds_of_maps(drawn[:1], renamed), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


# -- regions at scales ------------------------------------------------------------------------------


@st.composite
def families(draw: st.DrawFn) -> Regions:
    """Anything that Regions allows: forests, overlaps, pixels of inner nodes or of none, levels in any order or missing."""
    k = draw(st.integers(1, 7))
    parent = [-1] + [draw(st.integers(-1, i - 1)) for i in range(1, k)]
    level = draw(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, np.nan]), min_size=k, max_size=k))
    if draw(st.booleans()):
        leaf = draw(st.lists(st.integers(-1, k - 1), min_size=12, max_size=12))
        return Regions.from_tree(np.array(leaf).reshape(3, 4), parent, level=level)
    held = np.array(draw(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=k, max_size=k)))
    return Regions(np.arange(12).reshape(3, 4), held, parent, level=level)


@settings(max_examples=200, deadline=None)
@given(families(), st.lists(label_maps, min_size=1, max_size=3))
def test_scales_are_cuts(regions: Regions, drawn: list[np.ndarray]) -> None:
    """The fast way over atoms is the label maps of ``Regions.cut``, for any family."""
    scales = bsds.Scales("level", tuple(float(np.float32(v)) for v in (-0.1, 0.0, 0.1, 0.3, 0.5, 0.7, 0.9)))
    at = bsds.region_at(regions, scales)
    maps = [regions.cut(value) for value in scales.values]
    for scale, labels in enumerate(maps):
        np.testing.assert_array_equal(at[scale][regions.atoms], labels)
    truth = annotators(*drawn).regions
    plain = bsds_of_maps([labels + 1 for labels in maps], drawn)
    for mine, theirs in zip(bsds.bsds_region(regions, truth, scales), plain, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_trees_without_levels_are_cut_by_depth() -> None:
    tree = Regions.from_tree(np.array([[1, 3, 4, 5]]), [-1, 0, 0, 2, 2, 4])
    scales = bsds.prepare([tree])
    assert scales == bsds.Scales("depth", tuple(map(float, range(1, 10))))
    assert bsds.region_at(tree, scales)[:, tree.atoms[0]].tolist() == [[1, 2, 2, 2], [1, 3, 4, 4]] + 7 * [[1, 3, 4, 5]]


def random_tree(rng: np.random.Generator, leaves: int) -> tuple[list[int], list[float]]:
    """(parent, level) of a binary tree with ascending random heights, root first."""
    heights = np.sort(rng.gamma(2.0, 1.0, leaves - 1))[::-1].tolist()
    parent, level, open_leaves = [-1], [0.0], [0]
    for height in heights:
        node = open_leaves.pop(int(rng.integers(len(open_leaves))))
        level[node] = height
        open_leaves += [len(parent), len(parent) + 1]
        parent += [node, node]
        level += [0.0, 0.0]
    return parent, level


def columns(parent: Sequence[int], level: Sequence[float], source: str = "") -> SimpleNamespace:
    """Just what the pipeline reads before it decodes any mask."""
    return SimpleNamespace(parent=np.array(parent, np.int32), level=np.array(level, np.float32), source=[source] * len(parent))


def test_scales_run_from_few_to_many_regions() -> None:
    rng = np.random.default_rng(3)
    trees = [random_tree(rng, int(rng.integers(250, 500))) for _ in range(30)]
    scales = bsds.prepare(columns(*tree) for tree in trees)
    assert scales.kind == "level"
    assert len(scales.values) > 95
    assert set(scales.values) <= {float(np.float32(v)) for _, level in trees for v in level}
    finest, coarsest = (
        np.mean([1 + (np.array(level, np.float32) > t).sum() for _, level in trees]) for t in scales.values[:: len(scales.values) - 1]
    )
    assert 1.2 < coarsest <= 1.3
    assert 195 < finest <= 200
    assert bsds.prepare(columns(*tree) for tree in trees[::-1]) == scales
    shuffled = []
    for parent, level in trees:  # another order of the regions, parents still first
        order = np.argsort(np.array(level) * -1 + rng.random(len(level)) * 1e-9, kind="stable")
        place = np.argsort(order)
        shuffled.append(columns([place[parent[i]] if parent[i] >= 0 else -1 for i in order], np.array(level)[order]))
    assert bsds.prepare(shuffled) == scales


def test_scales_of_small_trees_end_at_their_leaves() -> None:
    rng = np.random.default_rng(4)
    trees = [random_tree(rng, 12) for _ in range(40)]
    scales = bsds.prepare(columns(*tree) for tree in trees)
    assert scales.values[0] == 0.0
    assert np.mean([1 + (np.array(level, np.float32) > scales.values[-1]).sum() for _, level in trees]) <= 1.3


def test_scales_where_regions_stay_apart() -> None:
    """Forests, and roots that never form: what never joins counts as many regions at every scale."""
    rng = np.random.default_rng(8)
    parent, level = random_tree(rng, 300)
    forest = columns([-1] * 50 + [p + 50 if p >= 0 else -1 for p in parent], [0.0] * 50 + level)
    never = columns([-1] + 51 * [0] + [p + 51 if p > 0 else 0 for p in parent[1:]], [np.nan] + 51 * [0.0] + level[1:])
    for image, apart in ((forest, 51), (never, 53)):
        scales = bsds.prepare([image] * 3)
        inner = np.bincount(image.parent[image.parent >= 0], minlength=len(image.level)) > 0
        count = [apart + (image.level[inner] > t).sum() for t in scales.values]
        assert count[-1] == apart
        assert 190 < count[0] <= 200
        assert sorted(count, reverse=True) == count


def test_few_levels_are_all_taken() -> None:
    ten = columns([-1] * 20, [i % 10 for i in range(20)])
    assert bsds.prepare([ten, ten]) == bsds.Scales("level", tuple(map(float, range(10))))
    assert bsds.prepare([columns([-1, 0], [np.nan, np.nan]), columns([-1, 0, 0], [-0.0, 0.0, -3.5])]).values == (-3.5, 0.0)


def test_many_levels_without_a_tree() -> None:
    level = np.random.default_rng(5).normal(size=4000)
    scales = bsds.prepare([columns([-1] * 4000, level)])
    assert len(scales.values) == 99
    np.testing.assert_allclose([(level <= t).mean() for t in scales.values], np.arange(1, 100) / 100, atol=0.002)


def test_ultrametric_maps_have_the_published_scales() -> None:
    scales = bsds.prepare([columns([-1, 0, 0], [0.3, 0, 0], "ucm")])
    assert scales.values == tuple(float(np.float32(k / 100)) for k in range(1, 100))
    assert bsds.prepare([columns([-1, 0, 0], [0.3, 0, 0], "ucm"), columns([-1, 0, 0], [0.3, 0, 0])]).values != scales.values


# -- pooling ----------------------------------------------------------------------------------------


def some_images(count: int) -> list[tuple[str, Truth, Regions]]:
    rng = np.random.default_rng(6)
    images = []
    for number in range(count):
        parent, level = random_tree(rng, 20)
        leaves = np.setdiff1d(np.arange(len(parent)), parent)
        prediction = Regions.from_tree(rng.choice(leaves, (12, 15)), parent, level=level)
        truth = annotators(*(rng.integers(0, 4, (12, 15)) for _ in range(int(rng.integers(1, 5)))))
        images.append((f"image{number}", truth, prediction))
    return images


def test_merge_of_a_split_is_the_whole_and_order_does_not_matter() -> None:
    images = some_images(9)
    scales = bsds.prepare(prediction for _, _, prediction in images)
    whole = accumulate(images, scales, replicates=20)
    split = accumulate(images[5:], scales, replicates=20)
    split.merge(accumulate(images[:2], scales, replicates=20))
    split.merge(accumulate(images[2:5][::-1], scales, replicates=20))
    assert split.n == whole.n == 9
    assert split.result() == pytest.approx(whole.result(), abs=1e-12)
    assert set(whole.result()) == set(bsds.SPEC.metrics)
    for mine, theirs in zip(split.replicate_results(), whole.replicate_results(), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-12)
    result = whole.result()
    assert result["bsds_covering_ods"] <= result["bsds_covering_ois"] <= result["bsds_covering_best"] <= 1
    assert result["bsds_pri_ods"] <= result["bsds_pri_ois"]
    assert result["bsds_voi_ois"] <= result["bsds_voi_ods"]


def test_ids_of_regions_do_not_matter() -> None:
    _, truth, prediction = some_images(1)[0]
    scales = bsds.prepare([prediction])
    rng = np.random.default_rng(7)
    # any order in which a parent comes before its children
    order = np.lexsort([rng.random(len(prediction)), prediction.depth])
    place = np.argsort(order)
    parent = np.array([place[prediction.parent[i]] if prediction.parent[i] >= 0 else -1 for i in order])
    renamed = Regions(prediction.atoms, prediction.members[order], parent, level=prediction.level[order])
    other = truth.regions.select(np.arange(len(truth.regions)))
    turned = rng.permutation(len(other))
    other = Regions(other.atoms, other.members[turned], source=[other.source[i] for i in turned])
    for mine, theirs in zip(bsds.bsds_region(renamed, other, scales), bsds.bsds_region(prediction, truth.regions, scales), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)


def test_ods_is_chosen_anew_in_each_replicate() -> None:
    """Two images whose best scales differ: a replicate of one of them alone has that image's own best."""
    images = [("a", annotators(G1), family([G1, S1])), ("b", annotators(S1), family([G1, S1]))]
    accumulator = accumulate(images, bsds.Scales("level", (0.0, 1.0)), replicates=60)
    assert accumulator.result()["bsds_covering_ods"] < 1
    ods = [values["bsds_covering_ods"] for values in accumulator.replicate_results()]
    assert 1.0 in ods
    assert any(value < 1 for value in ods)


def test_a_perfect_family_scores_one() -> None:
    scores = bsds_of_maps([S1, G1], [G1, G1])
    assert (scores.best, scores.cnt[1], scores.ri[1], scores.voi[1]) == (12, 12, 1, 0)


# -- edges ------------------------------------------------------------------------------------------


def test_edges() -> None:
    nothing = Regions.from_masks([], shape=(1, 6))
    scores = bsds.bsds_region(nothing, annotators(G1).regions, bsds.Scales("level", (0.5,)))
    assert (scores.cnt[0], scores.best, scores.ri[0], scores.voi[0]) == (0, 0, pytest.approx(0.2), pytest.approx(np.log2(3)))
    assert bsds.measure(Truth("annotators", nothing), family([S1]), bsds.Scales("level", (0.5,))) is None
    assert bsds_of_maps([np.ones((1, 1), int)], [np.ones((1, 1), int)]).ri.tolist() == [1.0]
    assert bsds.prepare([]) == bsds.prepare([nothing]) == bsds.Scales("depth", tuple(map(float, range(1, 10))))


def test_bad_input() -> None:
    with pytest.raises(BadData, match=r"\(1, 6\) and its ground truth \(2, 3\)"):
        bsds_of_maps([S1], [G1.reshape(2, 3)])
    with pytest.raises(BadData, match="one size"):
        bsds_of_maps([S1], [G1, G1.reshape(2, 3)])
    with pytest.raises(BadData, match="'a' share pixels"):
        bsds.bsds_region(family([S1]), Regions.from_masks([S1 == 1, S1 > 0], source="a"), bsds.Scales("level", (0.0,)))
    with pytest.raises(UsageError, match="scales that all images share"):
        bsds.measure(annotators(G1), family([S1]))
