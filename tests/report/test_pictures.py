"""Cuts, colours and lines of pictures, on families small enough to know the answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uss_dagster import drawing
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions
from uss_dagster.report.jpeg import save_jpeg

PHOTO = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)


def binary_tree(depth: int, level: bool = True, shape: tuple[int, int] = (32, 64)) -> Regions:
    """The image halved from left to right ``depth`` times; nodes in breadth-first order, levels falling with depth."""
    n = 2 ** (depth + 1) - 1
    parent = np.maximum((np.arange(n) - 1) // 2, 0)
    leaf = 2**depth - 1 + np.arange(shape[1]) * 2**depth // shape[1]
    depths = np.floor(np.log2(np.arange(n) + 1))
    return Regions.from_tree(np.tile(leaf, (shape[0], 1)), parent, level=1 - depths / depth if level else None)


@pytest.mark.parametrize("level", [True, False])
@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_a_cut_of_n_regions_has_n_regions(n: int, level: bool) -> None:
    labels = drawing.flat_cut(binary_tree(5, level), n)
    assert len(np.unique(labels)) == n
    assert set(np.bincount(labels.ravel())[labels.ravel()]) == {labels.size // n}, "each level is opened before the next"


def test_levels_decide_what_is_opened_first() -> None:
    tree = binary_tree(2)
    level = tree.level.copy()
    level[[1, 2]] = [0.9, 0.1]
    deep_left = Regions(tree.atoms, tree.members, tree.parent, level=level)
    assert sorted(np.unique(drawing.flat_cut(deep_left, 3))) == [2, 3, 4]


def test_specks_do_not_use_up_the_regions() -> None:
    """A chain that splits off one pixel at a time from a large half, and a half that splits in two."""
    leaf = np.ones((60, 60), int)
    leaf[:, 30:] = 2
    parent, level = [0, 0, 0], [1.0, 0.9, 0.1]
    for i in range(6):
        leaf[i, 0] = len(parent)
        parent.append(1)
        level.append(0.0)
    leaf[30:, 30:] = len(parent)
    parent.append(2)
    level.append(0.0)
    shown = np.unique(drawing.flat_cut(Regions.from_tree(leaf, parent, level=level), 3))
    assert len(parent) - 1 in shown, "the second half was split too, although six specks came first"


def test_a_flat_family_is_shown_whole_and_a_wide_root_is_opened() -> None:
    labels = np.arange(64)[None, :].repeat(32, axis=0) // 4
    assert len(np.unique(drawing.flat_cut(Regions.from_label_map(labels), 4))) == 16
    rooted = Regions.from_tree(labels + 1, [0] * 17)
    assert len(np.unique(drawing.flat_cut(rooted, 4))) == 16


def test_overlapping_masks_are_drawn_largest_first_without_near_duplicates() -> None:
    large, twin, small, far = np.zeros((4, 20, 20), bool)
    large[:, :12], twin[:, :11], small[5:10, 8:16], far[:3, 18:] = True, True, True, True
    family = Regions.from_masks([small, far, twin, large])
    assert not family.is_tree
    assert drawing.appearance(family).tolist() == [2, 3, np.inf, 1]
    labels = drawing.flat_cut(family, 2)
    assert (labels[small] == 0).all()
    assert (labels[large & ~small] == 3).all()
    assert (labels[~large & ~small] == -1).all()
    assert not (drawing.flat_cut(family, 2) == 1).any()


def test_no_regions_and_pixels_without_region_are_grey() -> None:
    none = Regions.from_masks([], shape=(32, 64))
    drawn = drawing.overlay(PHOTO, none)
    assert (drawn == drawn[..., :1]).all()
    assert (drawing.contours(PHOTO, none) == drawing.contours(PHOTO, none)[..., :1]).all()


def test_palette_is_stable_distinct_and_even() -> None:
    many = drawing.colours(40)
    assert (many[:7] == drawing.colours(7)).all()
    assert len(np.unique(many, axis=0)) == 40
    assert np.linalg.norm(np.diff(many[:20].astype(float), axis=0), axis=1).min() > 60


def test_colours_follow_the_reference() -> None:
    reference = drawing.colour_map(np.repeat([[5] * 40 + [9] * 24], 32, axis=0))
    assert reference[0, [0, 63]].tolist() == [0, 1], "the largest region comes first"
    moved = np.repeat([[2] * 20 + [7] * 18 + [4] * 26], 32, axis=0)
    matched = drawing.colour_map(moved, reference)
    assert matched[0, 63] == 1
    assert sorted(np.unique(matched)) == [0, 1, 2]
    assert drawing.colour_map(np.full((4, 4), -1)).max() == -1


def test_contours_are_wider_where_they_appear_earlier() -> None:
    drawn = drawing.contours(PHOTO, binary_tree(5))
    bands = [np.asarray(colour) for _, _, colour in drawing.BANDS]
    row = drawn[16]
    widths = [(row == band).all(axis=-1).sum() for band in bands]
    assert widths[0] == 3 * 3, "the first four regions: three lines, three pixels each"
    assert 0 < widths[1] <= 4 * 2
    assert 0 < widths[2] <= 8


def test_annotators_are_drawn_by_agreement_and_the_median_one_is_shown() -> None:
    columns = np.arange(64)[None, :].repeat(32, axis=0)
    masks, source = [], []
    for name, cuts in (("a", [32]), ("b", [32, 48]), ("c", [32, 40, 48])):
        labels = np.digitize(columns, cuts)
        masks += [labels == v for v in range(len(cuts) + 1)]
        source += [name] * (len(cuts) + 1)
    truth = Regions.from_masks(np.stack(masks), source=source)
    assert len(np.unique(drawing.truth_map(truth))) == 3
    drawn = drawing.truth_contours(PHOTO, truth)[16]
    assert (drawn[31] == drawing.BANDS[0][2]).all(), "all three"
    assert (drawn[47] == drawing.BANDS[2][2]).all(), "two of three"
    assert (drawn[39] == drawing.BANDS[3][2]).all(), "one of three"


def test_regions_of_another_size_are_fitted_and_the_same_twice() -> None:
    coarse = binary_tree(3, shape=(4, 8))
    first, second = (drawing.overlay(PHOTO, coarse, 8) for _ in range(2))
    assert first.shape == PHOTO.shape
    assert (first == second).all()


def test_montage_and_shrink() -> None:
    picture = drawing.montage([PHOTO, PHOTO[:16], PHOTO], ["one", "a caption that is far too long for its cell", "three"], columns=2)
    assert picture.dtype == np.uint8
    assert picture.shape[1] == 8 + 2 * (64 + 8)
    assert drawing.shrunk(PHOTO, 32).shape == (16, 32, 3)
    assert drawing.shrunk(PHOTO, 100) is PHOTO
    with pytest.raises(BadData, match="as many captions as images"):
        drawing.montage([PHOTO], [])


def test_a_wrong_image_is_refused() -> None:
    with pytest.raises(BadData, match="Convert it to RGB"):
        drawing.overlay(PHOTO[..., 0], binary_tree(1))


@pytest.mark.parametrize("shape", [(60, 80, 3), (400, 500, 3)])
def test_pictures_that_are_all_edges_can_be_saved(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """Such a file has more bytes than the picture has pixels."""
    noise = np.random.default_rng(1).integers(0, 2, shape, dtype=np.uint8) * 255
    save_jpeg(tmp_path / "noise.jpg", noise, 86)
    assert (tmp_path / "noise.jpg").stat().st_size > shape[0] * shape[1]
    with Image.open(tmp_path / "noise.jpg") as there:
        assert there.size == (shape[1], shape[0])
        there.load()
