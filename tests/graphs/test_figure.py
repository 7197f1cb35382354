"""Figure and ground: which side of a tree is the figure, and that both sides are whole in the new tree."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.backbones.base import Features
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import UsageError
from uss_dagster.graphs.figure import border_pixels, figure_graph, figure_of
from uss_dagster.graphs.merging import merge_tree
from uss_dagster.graphs.region_graph import region_graph
from uss_dagster.methods import contour_merge

POST = np.repeat([[0, 0, 1, 1, 2, 2]], 6, axis=0)
"""A post from the lower to the upper border between two pieces of ground."""


def masks(labels: np.ndarray, features: np.ndarray, figure_first: bool) -> set[bytes]:
    graph, area = region_graph(labels), np.bincount(labels.ravel())
    tree = merge_tree(graph, area, features, feature_weight=1.0, size_exponent=0.3)
    if figure_first:
        figure = figure_of(tree, area, features, border_pixels(labels))
        tree = merge_tree(figure_graph(graph, figure), area, features, feature_weight=1.0, size_exponent=0.3)
    inside = np.zeros((len(tree.parent), len(area)), bool)
    inside[tree.leaf, np.arange(len(area))] = True
    for node in range(len(tree.parent) - 1, 0, -1):
        inside[tree.parent[node]] |= inside[node]
    assert len(tree.parent) == 2 * len(area) - 1, "a binary tree"
    assert (tree.height[tree.parent[1:]] >= tree.height[1:]).all()
    return {row.tobytes() for row in inside}


def test_ground_on_both_sides_of_an_object_is_one_region() -> None:
    ground = np.array([True, False, True]).tobytes()
    features = np.array([[0.0], [1.0], [0.3]])
    assert ground not in masks(POST, features, figure_first=False)
    assert ground in masks(POST, features, figure_first=True)


def test_the_figure_holds_less_of_the_border() -> None:
    labels = np.zeros((9, 9), int)
    labels[2:7, 2:7] = 1
    labels[4, 4] = 2
    graph, area, features = region_graph(labels), np.bincount(labels.ravel()), np.array([[0.0], [5.0], [5.5]])
    assert border_pixels(labels).tolist() == [36.0, 0.0, 0.0]
    tree = merge_tree(graph, area, features)
    assert figure_of(tree, area, features, border_pixels(labels)).tolist() == [False, True, True]


def test_one_leaf_has_no_figure() -> None:
    labels = np.zeros((3, 3), int)
    graph, area, features = region_graph(labels), np.array([9]), np.zeros((1, 2))
    figure = figure_of(merge_tree(graph, area, features), area, features, border_pixels(labels))
    assert not figure.any()
    assert not len(figure_graph(graph, figure).pairs)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 7), (60, 80)])
def test_preset_objects_divides_a_post_from_its_ground(shape: tuple[int, int]) -> None:
    width = shape[1]
    post = np.zeros(shape, bool)
    post[:, width * 2 // 5 : width * 3 // 5] = True
    image = np.where(post[:, :, None], np.uint8([200, 60, 40]), np.uint8([60, 90, 200])).astype(np.uint8)
    tokens = np.where(post[:, :, None], [1.0, 0.0], [0.0, 1.0])
    params = contour_merge.Params(preset="objects")
    regions = contour_merge.segment(Sample("post", image, Features({"tokens": tokens}, comparable=True)), params)
    assert regions.shape == shape
    if shape == (60, 80):
        iou = [(regions.mask(i) & ~post).sum() / (regions.mask(i) | ~post).sum() for i in range(1, len(regions))]
        assert max(iou) > 0.9
    with pytest.raises(UsageError, match="Name a backbone"):
        contour_merge.segment(Sample("post", image), params)
