"""Regions held as atoms say the same as the masks they stand for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from uss_dagster.errors import BadData
from uss_dagster.regions import Regions, rle
from uss_dagster.regions.regions import intersections

MASKS = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9)).flatmap(lambda s: arrays(bool, s))


@given(MASKS)
@settings(max_examples=80, deadline=None)
def test_masks_come_back(masks):
    regions = Regions.from_masks(masks)
    assert (regions.masks() == masks).all()
    assert (regions.area == masks.sum(axis=(1, 2))).all()
    for mask, box in zip(masks, regions.boxes, strict=True):
        assert box.tolist() == coco.toBbox(coco.encode(np.asfortranarray(mask.astype(np.uint8)))).astype(int).tolist()


@given(MASKS)
@settings(max_examples=80, deadline=None)
def test_run_lengths_agree_with_coco(masks):
    for mask, code in zip(masks, rle.encode(masks), strict=True):
        assert (rle.decode(code, *mask.shape) == mask).all()
        runs = rle.runs(code)
        assert runs.sum() == mask.size
        assert runs[1::2].sum() == mask.sum()


@given(MASKS, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_intersections_equal_the_pixel_product(masks, seed):
    rng = np.random.default_rng(seed)
    others, valid = rng.random((3, *masks.shape[1:])) < 0.5, rng.random(masks.shape[1:]) < 0.8
    got = intersections(Regions.from_masks(masks), Regions.from_masks(others), valid)
    assert (got == (masks & valid).reshape(len(masks), -1).astype(int) @ others.reshape(3, -1).T.astype(int)).all()


LEAVES = np.array([[2, 2, 3, 3], [2, 2, 3, 3], [4, 4, 4, -1]])
PARENT = [0, 0, 1, 1, 0]


def test_a_tree_nests():
    tree = Regions.from_tree(LEAVES, PARENT, level=[1, 0.5, 0, 0, 0.1])
    assert tree.parent.tolist() == [-1, 0, 1, 1, 0]
    assert tree.depth.tolist() == [0, 1, 2, 2, 1]
    assert tree.area.tolist() == [11, 8, 4, 4, 3]
    assert (tree.mask(1) == np.isin(LEAVES, [2, 3])).all()
    assert (tree.deepest() == LEAVES).all()
    assert not tree.is_root.any()  # one pixel belongs to nothing
    assert Regions.from_tree(np.where(LEAVES < 0, 0, LEAVES), PARENT).is_root.tolist() == [True, False, False, False, False]


def test_cuts_take_the_largest_regions_that_are_fine_enough():
    tree = Regions.from_tree(LEAVES, PARENT, level=[1, 0.5, 0, 0, 0.1])
    assert sorted(set(tree.cut(0.05).ravel())) == [-1, 2, 3, 4]  # 4 forms at 0.1: nothing finer, so the region itself
    assert sorted(set(tree.cut(0.5).ravel())) == [-1, 1, 4]
    assert sorted(set(tree.cut(1.0).ravel())) == [-1, 0]


def test_selecting_reattaches_children_to_what_is_kept():
    tree = Regions.from_tree(LEAVES, PARENT, label=[0, 10, 20, 30, 40])
    kept = tree.select(np.array([True, False, True, True, True]))
    assert kept.parent.tolist() == [-1, 0, 0, 0]
    assert kept.label.tolist() == [0, 20, 30, 40]
    assert (kept.mask(1) == (LEAVES == 2)).all()


def test_empty_nodes_are_pruned():
    tree = Regions.from_tree(np.zeros((2, 2), int) + 2, [0, 0, 1, 1])
    assert tree.area.tolist() == [4, 4, 4, 0]
    assert len(tree.pruned()) == 3


def test_resizing_is_nearest_by_pixel_centre():
    labels = np.arange(16).reshape(4, 4)
    half = Regions.from_label_map(labels).resized(2, 2)
    assert half.atoms.tolist() == [[5, 7], [13, 15]]
    assert (Regions.from_label_map(labels).resized(8, 8).deepest()[::2, ::2] == labels).all()


def test_to_coco_is_read_by_pycocotools():
    tree = Regions.from_tree(LEAVES, PARENT)
    for region, row in enumerate(tree.to_coco(7, first_id=100)):
        decoded = coco.decode({"size": row["segmentation"]["size"], "counts": row["segmentation"]["counts"].encode()})
        assert (decoded.astype(bool) == tree.mask(region)).all()
        assert row["image_id"] == 7
        assert row["id"] == 100 + region
    assert [r["parent"] for r in tree.to_coco(7, 100)] == [None, 100, 101, 101, 100]


def test_an_empty_family_needs_a_size():
    assert Regions.from_masks([], shape=(3, 4)).shape == (3, 4)
    with pytest.raises(BadData, match=r"pass shape=\(height, width\)"):
        Regions.from_masks([])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regions.from_tree(LEAVES, [0, 2, 1, 1, 0]), "Region 1 has parent 2; a parent comes before its children"),
        (lambda: Regions.from_tree(LEAVES + 1, PARENT), "holds 0..5, but the tree has nodes 0..4"),
        (lambda: Regions.from_tree(LEAVES.astype(float), PARENT), "A leaf map is an integer array"),
        (lambda: Regions.from_masks([np.ones((2, 2), bool), np.ones((3, 2), bool)]), "Masks of one image must have one size"),
        (lambda: intersections(Regions.from_label_map(np.zeros((2, 2))), Regions.from_label_map(np.zeros((2, 3)))), "must have one size"),
        (lambda: rle.decode(b"", 2, 2), "is empty"),
        (lambda: rle.decode(rle.encode(np.ones((1, 2, 2), bool))[0], 3, 3), "covers 4 pixels, its image has 3×3 = 9"),
        (lambda: rle.runs(b"\x05\x06"), "no COCO writer produces"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(BadData, match=message.replace("(", r"\(").replace(")", r"\)")):
        make()
