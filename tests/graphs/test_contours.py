"""The contour map against plain programs for its parts, and on pictures whose boundaries are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uss_dagster.graphs import contours
from uss_dagster.graphs._contour_kernel import add_difference, correlate, integral, nearest_word


def two_halves(height: int = 60, width: int = 80, slope: float = 0.0) -> np.ndarray:
    """Lab, dark on the left and light on the right of a straight edge through the middle."""
    y, x = np.indices((height, width))
    lab = np.zeros((height, width, 3), np.float32)
    lab[..., 0] = np.where(x - width / 2 + 0.5 > slope * (y - height / 2), 75, 25)
    return lab


def strength_of(lab: np.ndarray, **values: Any) -> np.ndarray:
    return contours.contour_strength(contours.histogram_planes(lab), **values)


def test_integral_is_a_sum_over_the_gathered_plane() -> None:
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 256, 50).astype(np.uint8)
    index = rng.integers(0, 50, (9, 13)).astype(np.int32)
    table = np.full((10, 14), 7, np.int32)
    table[0] = 0
    integral(plane, index, table)
    gathered = plane[index].astype(int)
    assert table[1:, 1:].tolist() == gathered.cumsum(0).cumsum(1).tolist()
    assert not table[:, 0].any()


@pytest.mark.parametrize(("wide", "tall"), [(1, 1), (2, 3), (3, 5)])
def test_difference_of_two_boxes(wide: int, tall: int) -> None:
    counts = np.random.default_rng(1).integers(0, 3, (20, 24))
    table = np.zeros((21, 25), np.int32)
    table[1:, 1:] = counts.cumsum(0).cumsum(1)
    first, last = np.full(20, 24), np.zeros(20, np.int64)
    first[5:15], last[5:15] = 4, 20
    got = np.ones((20, 24), np.float32)
    add_difference(table, first, last, wide, tall, 0.25, got)
    expected = np.ones((20, 24))
    for y in range(5, 15):
        for x in range(4, 20):
            columns = slice(x - tall // 2, x + tall // 2 + 1)
            p, q = counts[y - wide : y, columns].sum(), counts[y : y + wide, columns].sum()
            expected[y, x] += 0.25 * (p - q) ** 2 / max(p + q, 1)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize("shape", [(31, 44), (8, 1), (1, 1), (40, 17)])
def test_rotated_grid_goes_there_and_back(turn: int, shape: tuple[int, int]) -> None:
    """An image pixel's place on the grid holds that pixel, or one a step away where rounding moved it; reading stays inside."""
    margin = 5
    index, first, last, ys, xs = contours._rotated_grid(shape, np.pi * turn / 8, margin)
    v, u = np.round(ys - 0.5).astype(int), np.round(xs).astype(int)
    y, x = np.divmod(index[v, u], shape[1])
    rows, columns = np.indices(shape)
    assert max(abs(y - rows).max(), abs(x - columns).max()) <= 1
    if turn in (0, 4):
        np.testing.assert_array_equal(index[v, u], rows * shape[1] + columns)
    for offset in (0, 1):
        line = ys.astype(int) + offset
        assert (first[line] <= xs.astype(int)).all()
        assert (xs.astype(int) + 2 <= last[line]).all()
    used = last > first
    assert first[used].min() >= margin - 1
    assert last.max() <= index.shape[1] - margin + 2
    assert np.flatnonzero(used).min() >= margin - 1
    assert np.flatnonzero(used).max() <= index.shape[0] - margin + 1


@pytest.mark.parametrize("slope", [0.0, 0.4, 1.0])
def test_a_straight_edge_is_found_where_it_is(slope: float) -> None:
    strength = strength_of(two_halves(80, 120, slope))
    assert strength.shape == (40, 60)
    assert strength.dtype == np.float32
    y, x = np.indices(strength.shape)
    distance = np.abs((2 * x + 0.5 - 59.5) - slope * (2 * y + 0.5 - 39.5)) / np.hypot(1, slope)
    assert strength[distance < 1.5].min() > 0.8
    assert strength[distance > 26].max() < 0.05
    ridge = np.argmax(strength[10:30], axis=1)
    assert np.abs(2 * ridge + 0.5 - 59.5 - slope * (2 * y[10:30, 0] + 0.5 - 39.5)).max() <= 3


def test_strength_turns_with_the_image() -> None:
    """Transposing and mirroring the picture does the same to its contours, up to the random sample behind the textons."""
    lab = two_halves(64, 64, 0.7)
    lab[..., 1] += np.indices((64, 64))[0] / 4
    plain = strength_of(lab, texture_radii=(5, 10, 20), other_weight=0.0)
    for turned in (strength_of(lab[:, ::-1], other_weight=0.0)[:, ::-1], strength_of(lab[::-1], other_weight=0.0)[::-1]):
        assert np.abs(plain - turned).max() < 0.2
        assert np.abs(plain - turned).mean() < 0.01


def test_texture_alone_makes_a_boundary() -> None:
    """Stripes across beside stripes along, of one mean colour: only the texton cue can tell the halves apart far from the stripes."""
    y, x = np.indices((96, 128))
    lab = np.zeros((96, 128, 3), np.float32)
    lab[..., 0] = 50 + 15 * np.sign(np.sin(np.where(x < 64, x, y) * np.pi / 3 + 0.1))
    strength = strength_of(lab, texture_radii=(10, 20, 30))
    middle = strength[16:-16, 30:34].mean()
    assert middle > 3 * np.median(strength[16:-16, 8:20])


def test_soft_bins() -> None:
    planes = contours._soft_bins(np.array([[0.0, 100, 50, -5, 105]]), 0.0, 100.0)[:, 0]
    assert np.abs(planes.sum(axis=0, dtype=int) - 255).max() <= 2
    assert planes[0].argmax() == 0
    np.testing.assert_array_equal(planes[:, 0], planes[:, 3])
    np.testing.assert_array_equal(planes[:, 1], planes[:, 4])
    # 50 lies half-way between bins 7 and 8: weights 1 - .5 / 1.6 of each, 1 - 1.5 / 1.6 of 6 and 9
    share = np.array([1 - 1.5 / 1.6, 1 - 0.5 / 1.6])
    np.testing.assert_allclose(planes[[6, 7, 8, 9], 2], 255 * share[[0, 1, 1, 0]] / (2 * share.sum()), atol=1)


def test_correlation_and_words() -> None:
    from scipy import ndimage

    rng = np.random.default_rng(2)
    image, taps = rng.normal(size=(15, 17)).astype(np.float32), rng.normal(size=(5, 5)).astype(np.float32)
    out = np.empty_like(image)
    correlate(np.pad(image, 7, mode="symmetric"), taps, 7, out)
    np.testing.assert_allclose(out, ndimage.correlate(image, taps, mode="reflect"), atol=1e-5)
    channels, words = rng.normal(size=(4, 1000)).astype(np.float32), rng.normal(size=(6, 4)).astype(np.float32)
    nearest = np.empty(1000, np.uint8)
    nearest_word(channels, words, nearest)
    expected = ((channels.T[:, None] - words) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(nearest, expected)


def test_texture_filters() -> None:
    filters = contours.texture_filters()
    assert [len(f) for f in filters] == [7] * 12 + [9] * 12 + [15] * 6
    for taps in filters:
        assert abs(float(taps.sum())) < 1e-5
        assert float(np.abs(taps).sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 50), (50, 1), (3, 5)])
def test_small_and_plain_images(shape: tuple[int, int]) -> None:
    half = ((shape[0] + 1) // 2, (shape[1] + 1) // 2)
    plain = strength_of(np.full((*shape, 3), 40, np.float32))
    assert plain.shape == half
    np.testing.assert_allclose(plain, 1 / (1 + np.exp(4.1)), rtol=1e-5)
    noise = strength_of(np.random.default_rng(0).uniform(0, 100, (*shape, 3)).astype(np.float32))
    assert noise.shape == half
    assert ((noise > 0) & (noise < 1)).all()


def test_half_size() -> None:
    image = np.arange(15, dtype=np.float32).reshape(3, 5)
    np.testing.assert_array_equal(contours.half_size(image), [[3, 5, 6.5], [10.5, 12.5, 14]])
