"""Boundary quality: examples counted by hand, explicit distances on small images, and what happens at edges and ignored pixels."""

from __future__ import annotations

import numpy as np
import pytest
from metric_cases import as_truth, random_annotators, random_case, sides

from uss_dagster.metrics import boundary
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.boundary import band_width, extreme, inner_band, trimap
from uss_dagster.regions import Regions


def boundary_iou(first: np.ndarray, second: np.ndarray, width: int | None = None) -> float:
    """Boundary IoU of two masks, bool (H, W); width: of the band, or None for 2 % of the diagonal. 0 where both are empty."""
    width = band_width(*first.shape) if width is None else width
    a, b = inner_band(first, width), inner_band(second, width)
    return np.count_nonzero(a & b) / max(np.count_nonzero(a | b), 1)


close = pytest.approx


def square(side: int, size: int, top: int, left: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def near(first: np.ndarray, second: np.ndarray, distance: int) -> np.ndarray:
    """Pixels of the first mask within a chessboard distance of a pixel of the second, one pair after another."""
    result = np.zeros(first.shape, bool)
    others = np.argwhere(second)
    for y, x in np.argwhere(first):
        result[y, x] = len(others) > 0 and np.abs(others - (y, x)).max(axis=1).min() <= distance
    return result


def band_by_pairs(mask: np.ndarray, width: int) -> np.ndarray:
    """Inner band of a mask, from distances to all pixels outside it, the image's surroundings too."""
    wide = np.pad(mask, width + 1)
    return near(wide, ~wide, width)[width + 1 : -width - 1, width + 1 : -width - 1]


def test_two_squares_one_pixel_apart() -> None:
    """Each ring has 16 pixels; they share 4 of the top row and 4 of the bottom row: 8 / 24. The squares' IoU is 20 / 30."""
    first, second = square(5, 9, 2, 1), square(5, 9, 2, 2)
    assert boundary_iou(first, second, 1) == close(8 / 24)
    # a band of 2 leaves out only the middle pixel of each: 18 shared, 24 + 24 - 18 together
    assert boundary_iou(first, second, 2) == close(18 / 30)
    assert boundary_iou(first, second, 3) == close(20 / 30), "a band that fills the masks is their IoU"


def test_the_edge_of_the_image_is_outside() -> None:
    assert inner_band(np.ones((4, 5), bool), 1).tolist() == [[1] * 5, [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1] * 5]


def test_width_is_two_per_cent_of_the_diagonal() -> None:
    assert [band_width(*shape) for shape in ((480, 640), (321, 481), (60, 60), (3, 4))] == [16, 12, 2, 1]
    assert boundary_iou(square(5, 9, 2, 1), square(5, 9, 2, 2)) == close(8 / 24)


def test_empty_masks() -> None:
    nothing = np.zeros((4, 4), bool)
    assert boundary_iou(nothing, nothing) == 0
    assert boundary_iou(nothing, square(2, 4, 0, 0)) == 0


@pytest.mark.parametrize("seed", range(30))
def test_bands_against_all_pairs_of_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, width = tuple(rng.integers(1, 9, 2)), int(rng.integers(1, 5))
    mask = rng.random(shape) < 0.7
    assert (inner_band(mask, width) == band_by_pairs(mask, width)).all()
    labels = rng.integers(-1, 4, shape).astype(np.int32)
    parts = [labels == value for value in range(4)]
    expected = np.any([band_by_pairs(part, width) for part in parts], axis=0)
    assert (boundary.inner_bands(labels, width) == expected).all()
    differs = np.any([near(part, (labels >= 0) & ~part, width) for part in parts], axis=0)
    assert (trimap(labels, width) == differs).all()
    window = [
        [labels[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1].max() for x in range(shape[1])]
        for y in range(shape[0])
    ]
    assert extreme(labels, width, np.maximum, -1).tolist() == np.array(window).tolist()


def test_trimap_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes 1 1 1 1 2 2 3 3, leaves a a a b b b c c, one pixel on each side: pixels 3, 4, 5 and 6.

    1 takes a: nothing of it is there, so 0 of 1. 2 takes b: 2 found, 1 too many. 3 takes c: 1 of 1.
    """
    monkeypatch.setattr(boundary, "TRIMAPS", (1,))
    classes = ([-1, 0, 1, 1, 0, 0], [-1, -1, 0, 0, 0, 2])
    gt, pred, parents = np.array([[2, 2, 2, 2, 3, 3, 4, 4]]), np.array([[2, 2, 2, 3, 3, 3, 4, 4]]), [0, 0, 1, 1, 0]
    assert trimap(np.array([[2, 2, 2, 2, 3, 3, 4, 4]]), 1).tolist() == [[0, 0, 0, 1, 1, 1, 1, 0]]
    total = boundary.measure(*sides((gt, classes, pred, parents)))
    assert total is not None
    assert [total[f"trimap1.{name}"][2:5].tolist() for name in ("tp", "fp", "fn")] == [[0, 2, 1], [0, 1, 0], [1, 0, 0]]
    values = boundary.reduce(total)
    assert (values["trimap_miou_1"], values["trimap_pacc_1"]) == close(((0 + 2 / 3 + 1) / 3, 3 / 4))
    # a single row lies at the edge all along, so the bands of boundary IoU are the regions themselves
    assert values["boundary_miou"] == close(0.805556, abs=1e-6)
    far = np.append(gt, [[5, 5, 2]], axis=1)
    beyond = boundary.measure(*sides((far, classes, np.append(pred, [[2, 2, 2]], axis=1), parents)))
    assert beyond is not None
    assert beyond["trimap1.tp"].tolist() == total["trimap1.tp"].tolist(), "a class across two ignored pixels is no boundary"


@pytest.mark.parametrize("seed", range(40))
def test_classes_against_masks(seed: int) -> None:
    """Boundary and trimap sums from masks and distances, class by class."""
    case = random_case(seed, largest=9)
    gt, (_, kind), pred, parents = case
    kind = np.asarray(kind)
    valid = kind[gt] != 2
    merged = np.where(kind[gt] == 1, -1, gt)
    names = [name for name in np.unique(merged[valid]) if name < 0 or kind[name] == 0]
    total = boundary.measure(*sides(case))
    assert (total is None) == (not names)
    nodes = [mask & valid for mask in Regions.from_tree(pred, parents).masks()[1:]]
    ious = []
    for name in names:
        real = (merged == name) & valid
        best = max(nodes, key=lambda mask: (mask & real).sum() / (mask | real).sum())
        place = name if name >= 0 else int(np.argmax(kind == 1))
        width = band_width(*gt.shape)
        mine, theirs = band_by_pairs(real, width), band_by_pairs(best, width)
        ious.append((mine & theirs).sum() / (mine | theirs).sum())
        assert boundary_iou(real, best) == close(ious[-1])
        counts = {"boundary": (mine, theirs)}
        for r in boundary.TRIMAPS:
            band = np.any([near((merged == v) & valid, (merged != v) & valid, r) for v in np.unique(merged[valid])], axis=0)
            counts[f"trimap{r}"] = (real & band, best & band)
        for key, (a, b) in counts.items():
            expected = [(a & b).sum(), (b & ~a).sum(), (a & ~b).sum()] if a.any() else [0, 0, 0]
            assert [total[f"{key}.{part}"][place] for part in ("tp", "fp", "fn")] == expected
    if names:
        assert boundary.reduce(total)["boundary_miou"] == close(np.mean(ious))


@pytest.mark.parametrize("seed", range(20))
def test_annotators_against_masks(seed: int) -> None:
    truth, prediction = random_annotators(seed)
    means = []
    source = np.asarray(truth.regions.source)
    for person in (truth.regions.select(source == name) for name in sorted(set(truth.regions.source))):
        values = []
        for mask in person.masks()[~person.is_root]:
            best = max(prediction.masks()[~prediction.is_root], key=lambda other: (mask & other).sum() / (mask | other).sum())
            values.append(boundary_iou(mask, best))
        means += [np.mean(values)] if values else []
    got = boundary.reduce(boundary.measure(truth, prediction) or {"annotators": np.array(np.nan), "annotators.n": np.array(1)})
    assert got["boundary_iou_annotators"] == close(float(np.mean(means)) if means else np.nan, nan_ok=True)


def test_nothing_predicted_and_nothing_to_find() -> None:
    truth, _ = sides(random_case(3))
    assert {v for k, v in boundary.reduce(boundary.measure(truth, Regions.from_masks([], shape=truth.regions.shape)) or {}).items()} == {
        0.0
    }
    ignored = as_truth(np.full((3, 3), 2), ([-1, 0, 0], [-1, 0, 2]))
    assert boundary.measure(ignored, Regions.from_tree(np.ones((3, 3), int), [0, 0])) is None
    whole = Truth("annotators", Regions.from_masks(np.ones((1, 3, 3), bool)))
    assert boundary.measure(whole, Regions.from_tree(np.ones((3, 3), int), [0, 0])) is None


def test_one_class_has_no_trimap() -> None:
    truth = as_truth(np.ones((5, 5), int), ([-1, 0, 0], [-1, 0, 0]))
    got = boundary.reduce(boundary.measure(truth, Regions.from_tree(np.ones((5, 5), int), [0, 0])) or {})
    assert got == {"boundary_miou": 1.0}


def test_a_ragged_outline_costs_more_than_iou_says() -> None:
    """A large square against itself with a comb for an edge: IoU barely falls, the boundary does."""
    gt = np.where(square(60, 100, 20, 20), 2, 1)
    ragged = gt.copy()
    ragged[20:80:2, 76:80] = 1
    classes = ([-1, 0, 0], [-1, 1, 0])
    truth = as_truth(gt, classes)
    exact, rough = (boundary.reduce(boundary.measure(truth, Regions.from_tree(m, [0, 0, 0])) or {}) for m in (gt, ragged))
    assert set(exact.values()) == {1.0}
    assert (ragged == 2).sum() / (gt == 2).sum() > 0.96
    assert rough["boundary_miou"] < 0.9
    assert rough["boundary_miou"] < rough["trimap_miou_20"] < 0.99
