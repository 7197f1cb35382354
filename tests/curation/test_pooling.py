"""Pools: one hierarchy without duplicates; measures against a plain loop over masks; stability; splits; drift."""

import numpy as np
import pytest
from curation_cases import box, boxes, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.artifacts.tables import regions_from_table
from uss_dagster.curation import drift
from uss_dagster.curation.mask_pool import MaskFamily, MaskPoolParams, merge_families, nest, pool_masks
from uss_dagster.curation.measures import measure, refined_iou
from uss_dagster.curation.splits import SPLITS, split_of
from uss_dagster.curation.stability import check_views, stability
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import Regions

SHAPE = (48, 64)
QUICK = MaskPoolParams(refine=False)


def masks_in(rows):
    return list(regions_from_table(rows).masks())


def test_a_pool_of_two_methods_has_no_copies_and_nests():
    first = boxes(SHAPE, (0, 0, 40, 40), (5, 5, 10, 10))
    second = boxes(SHAPE, (0, 0, 40, 40), (5, 5, 20, 10), (30, 50, 6, 6), (0, 0, 40, 39))
    rows = pool_masks("a", picture(0), [MaskFamily("one", first), MaskFamily("two", second)], QUICK)
    assert rows["entry"].to_pylist() == ["one", "two", "one", "two"], "of copies the first stays; what overlaps by 0.975 goes"
    assert rows["area"].to_pylist() == [1600, 200, 100, 36]
    assert rows["parent"].to_pylist() == [-1, 0, 1, -1]
    assert rows["depth"].to_pylist() == [0, 1, 2, 0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 50), st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12))
def test_every_mask_lies_below_the_smallest_one_that_holds_it(places):
    rows = pool_masks("a", picture(0), [MaskFamily("m", boxes(SHAPE, *places))], MaskPoolParams(iou=1.0, refine=False))
    masks, parent = masks_in(rows), rows["parent"].to_pylist()
    assert {m.tobytes() for m in masks} == {box(SHAPE, *p).tobytes() for p in places}
    for child, mask in enumerate(masks):
        holding = [h for h, other in enumerate(masks) if h != child and not (mask & ~other).any()]
        assert parent[child] == (min(holding, key=lambda h: masks[h].sum()) if holding else -1) or (
            holding and masks[parent[child]].sum() == min(masks[h].sum() for h in holding)
        )


def test_families_are_joined_without_drawing_masks():
    first, second = boxes(SHAPE, (0, 0, 20, 20), (10, 10, 20, 20)), boxes(SHAPE, (5, 5, 30, 30))
    together = merge_families([first, second])
    assert np.array_equal(together.masks(), np.concatenate([first.masks(), second.masks()]))
    assert len(nest(Regions.from_masks([], shape=SHAPE))) == 0
    with pytest.raises(BadData, match="must have one size"):
        merge_families([first, boxes((10, 10), (0, 0, 5, 5))])


def test_an_image_without_masks_has_no_rows():
    assert pool_masks("a", picture(0), [MaskFamily("m", Regions.from_masks([], shape=SHAPE))], QUICK).num_rows == 0


def test_masks_of_another_size_are_refused():
    with pytest.raises(BadData, match=r"is \(48, 64\) \(height, width\), its masks are over \(10, 12\)"):
        pool_masks("a", picture(0), [MaskFamily("m", boxes((10, 12), (0, 0, 5, 5)))], QUICK)


def test_the_best_of_too_many_stay():
    regions = boxes(SHAPE, (0, 0, 30, 30), (0, 40, 8, 8), (40, 0, 6, 6))
    scored = Regions(regions.atoms, regions.members, score=[0.1, 0.9, 0.5])
    rows = pool_masks("a", picture(0), [MaskFamily("m", scored)], MaskPoolParams(most=2, refine=False))
    assert rows["area"].to_pylist() == [64, 36]


def test_separation_is_that_of_a_loop_over_masks():
    """Mean colour inside, mean colour of the neighbouring atoms by length of border: here atoms are the masks, so colours are exact."""
    from skimage.color import rgb2lab

    image = picture(7)
    labels = (np.arange(48)[:, None] // 16) * 4 + np.arange(64)[None, :] // 16
    regions = Regions.from_label_map(labels)
    found = measure(image, regions, refine=False)["separation"]
    lab = rgb2lab(image)
    means = np.array([lab[labels == n].mean(axis=0) for n in range(12)])
    for n in range(12):
        y, x = divmod(n, 4)
        near = [m for m, (v, u) in enumerate(np.ndindex(3, 4)) if abs(v - y) + abs(u - x) == 1]
        inside = lab[labels == n]
        spread = np.sqrt(((inside - inside.mean(axis=0)) ** 2).sum(axis=1).mean())
        apart = np.linalg.norm(means[n] - means[near].mean(axis=0))
        assert found[n] == pytest.approx(apart / (apart + spread + 2.0), rel=1e-4)


def test_a_mask_on_an_edge_beats_one_beside_it():
    image = np.full((48, 64, 3), 200, np.uint8)
    image[10:30, 20:44] = (60, 90, 160)
    image = np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    on, beside = boxes(SHAPE, (10, 20, 20, 24)), boxes(SHAPE, (14, 28, 20, 24))
    good, bad = (measure(image, regions, refine=True) for regions in (on, beside))
    assert good["edge"][0] > 0.9 > 0.75 > bad["edge"][0]
    assert good["quality"][0] > bad["quality"][0] + 0.15
    assert good["refined_iou"][0] > 0.95 > bad["refined_iou"][0]


def test_what_cannot_be_measured_is_nan_and_the_whole_image_has_no_edge():
    whole = Regions.from_masks([np.ones(SHAPE, bool)])
    found = measure(picture(0), whole, refine=True)
    assert np.isnan(found["edge"][0])
    assert found["separation"][0] == 0
    thin = Regions.from_masks([box((450, 600), 0, 0, 400, 300), box((450, 600), 1, 1, 1, 1), box((450, 600), 10, 400, 9, 9)])
    found = measure(np.zeros((450, 600, 3), np.uint8), thin, refine=True)
    assert np.isnan(found["quality"]).tolist() == [False, True, False], "the second has no pixel where the picture is measured"
    assert np.isnan(found["refined_iou"]).tolist() == [False, True, True], "the third is too small to judge"


def test_refinement_in_chunks_is_refinement_at_once(monkeypatch):
    regions = boxes(SHAPE, (0, 0, 30, 30), (5, 5, 10, 10), (20, 30, 12, 20))
    before = refined_iou(picture(0), regions)
    monkeypatch.setattr("uss_dagster.curation.measures.CHUNK", 1)
    assert np.array_equal(refined_iou(picture(0), regions), before)


def test_stability_of_a_method_that_follows_the_picture_and_of_one_that_does_not():
    image = np.zeros((48, 64, 3), np.uint8)
    image[8:24, 4:30] = 255

    def bright(picture):
        return Regions.from_masks([picture[..., 0] > 127])

    def corner(picture):
        return Regions.from_masks([box(picture.shape[:2], 8, 4, 16, 26)])

    views = ("flip", "0.5", "2")
    assert stability(image, bright(image), bright, views)[0] > 0.95
    assert stability(image, corner(image), corner, views)[0] < 0.4
    assert np.isnan(stability(image, bright(image), bright, ())).all()
    with pytest.raises(UsageError, match="A view is 'flip'"):
        check_views(["upside down"])


def test_splits_have_their_shares_and_stay_when_others_come():
    names = [f"image {i}" for i in range(4000)]
    split = {name: split_of(name, 0, (0.8, 0.1, 0.1)) for name in names}
    shares = [sum(s == name for s in split.values()) / len(names) for name in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)
    assert split_of("image 0", 0, (1, 0, 0)) == "train"
    assert split_of("image 0", 0, (0, 0, 5)) == "test"
    assert any(split_of(name, 1, (0.8, 0.1, 0.1)) != s for name, s in split.items())


def test_drift():
    assert drift.jensen_shannon([1, 2, 3], [2, 4, 6]) == pytest.approx(0, abs=1e-8)
    assert drift.jensen_shannon([1, 0], [0, 7]) == pytest.approx(1)
    before = drift.Summary()
    before.status["kept"] = 2
    before.masks, before.coverage = 20, 1.8
    before.add("area", [100, 200, 5000, float("nan")])
    assert sum(before.histograms["area"]) == 3
    same = drift.compare(before.to_dict(), before.to_dict())
    assert all(row["within"] and row["moved"] == 0 for row in same)
    now = drift.Summary()
    now.status["kept"] = 1
    now.status["empty"] = 1
    now.masks, now.coverage = 30, 0.5
    now.add("area", [10, 10, 10])
    moved = {row["measure"]: row for row in drift.compare(before.to_dict(), now.to_dict())}
    assert not any(row["within"] for row in moved.values())
    assert (moved["masks an image"]["before"], moved["masks an image"]["now"]) == (10, 30)
