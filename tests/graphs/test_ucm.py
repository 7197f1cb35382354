"""The tree of an ultrametric map gives every segmentation of the map: labelled components, on made-up and on real maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from uss_dagster.datasets.base import mirror_folder
from uss_dagster.errors import BadData
from uss_dagster.graphs.ucm import ucm_tree
from uss_dagster.regions import Regions


def regions_of(ucm2: np.ndarray) -> Regions:
    labels, tree = ucm_tree(ucm2)
    return Regions.from_tree(tree.leaf[labels], tree.parent, level=tree.height)


def first_pixel(labels: np.ndarray) -> np.ndarray:
    """Each pixel's label replaced by the first pixel that has it: equal for equal segmentations."""
    _, first, index = np.unique(labels, return_index=True, return_inverse=True)
    return first[index].reshape(labels.shape)


def components(ucm2: np.ndarray, threshold: float) -> np.ndarray:
    return label(ucm2 <= threshold, np.ones((3, 3)))[0][1::2, 1::2]


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5)).map(lambda size: (2 * size[0] + 1, 2 * size[1] + 1))
# few open places: touching at corners is enough to join, so that most of a map with many would be one leaf
STRENGTHS = st.sampled_from([0.0] + 3 * [0.25, 0.5, 0.75])
MAPS = SIZES.flatmap(lambda size: arrays(np.float64, size, elements=STRENGTHS))


@settings(max_examples=150, deadline=None)
@given(MAPS, st.booleans())
def test_every_cut_is_the_labelled_map(ucm2: np.ndarray, flat_pixels: bool) -> None:
    """Any map, many ties; where pixels lie above 0 the cut is the map's from the highest of them on."""
    if flat_pixels:
        ucm2[1::2, 1::2] = 0
    regions = regions_of(ucm2)
    for threshold in (0.0, 0.1, 0.25, 0.5, 0.6, 0.75):
        if threshold >= ucm2[1::2, 1::2].max():
            np.testing.assert_array_equal(first_pixel(regions.cut(threshold)), first_pixel(components(ucm2, threshold)))


@settings(max_examples=100, deadline=None)
@given(MAPS)
def test_shape_of_the_tree(ucm2: np.ndarray) -> None:
    """Preorder, the child with the lowest leaf first; heights strictly descend; every inner node has two children or more."""
    ucm2[1::2, 1::2] = 0
    labels, tree = ucm_tree(ucm2)
    n = len(tree.leaf)
    assert sorted(np.unique(labels)) == list(range(n))
    assert (np.diff([np.flatnonzero(labels.ravel() == leaf)[0] for leaf in range(n)]) > 0).all()
    assert tree.parent[0] == -1
    assert (tree.height[1:] < tree.height[tree.parent[1:]]).all()
    children = np.bincount(tree.parent[1:], minlength=len(tree.parent))
    assert sorted(np.flatnonzero(children == 0)) == sorted(tree.leaf)
    assert (children != 1).all()
    line = [0]  # of descent to the node before
    lowest = {int(node): leaf for leaf, node in enumerate(tree.leaf)}
    for node in range(len(tree.parent) - 1, -1, -1):
        below = [lowest[child] for child in range(node + 1, len(tree.parent)) if tree.parent[child] == node]
        assert below == sorted(below)
        lowest[node] = min([*below, lowest.get(node, n)])
        if node:
            before, line = node - 1, [node - 1]
            while before:
                before = int(tree.parent[before])
                line.append(before)
            assert tree.parent[node] in line


def test_one_region_and_bad_maps() -> None:
    labels, tree = ucm_tree(np.zeros((5, 3)))
    assert (labels.shape, labels.max(), tree.parent.tolist(), tree.height.tolist(), tree.leaf.tolist()) == ((2, 1), 0, [-1], [0.0], [0])
    with pytest.raises(BadData, match="2 · height"):
        ucm_tree(np.zeros((4, 5)))
    with pytest.raises(BadData, match="NaN"):
        ucm_tree(np.full((3, 3), np.nan))


def test_every_cut_of_real_maps() -> None:
    """Photographs' maps at the thresholds of the benchmark; levels are single precision in regions, double in the file."""
    folder = mirror_folder("bsds500/ucm2/test")
    if folder is None:
        pytest.skip("NO gPb-owt-ucm MAPS HERE: set USS_MIRROR to a folder that holds bsds500/ucm2/test to run this test.")
    for path in sorted(folder.glob("*.npz"))[::25]:
        stored = np.load(path)
        ucm2 = stored["values"][stored["index"]]
        regions = regions_of(ucm2)
        for k in [0, *range(1, 40, 3), *range(40, 100, 10), 99, 100]:
            np.testing.assert_array_equal(first_pixel(regions.cut(k / 100)), first_pixel(components(ucm2, k / 100)), err_msg=path.name)
