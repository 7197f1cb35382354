"""PAMR against loops over pixels, and its promises at the edges."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from uss_dagster.errors import BadData, UsageError
from uss_dagster.refine.pamr import Pamr, pamr


def loops(p: np.ndarray, image: np.ndarray, dilations: tuple[int, ...], iterations: int, std_scale: float = 0.1) -> np.ndarray:
    labels, height, width = p.shape
    colour, mask = image.astype(float), p.astype(float)
    weights: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
    for y in range(height):
        for x in range(width):
            around = [(dy * d, dx * d) for d in dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
            places = [(int(np.clip(y + dy, 0, height - 1)), int(np.clip(x + dx, 0, width - 1))) for dy, dx in around]
            values = np.array([colour[q] for q in places])
            std = np.concatenate([values, colour[y, x][None]]).std(axis=0)
            logit = (-np.abs(values - colour[y, x]) / (std_scale * std + 1e-8)).mean(axis=1)
            share = np.exp(logit - logit.max())
            weights[y, x] = [(*q, s) for q, s in zip(places, share / share.sum(), strict=True)]
    for _ in range(iterations):
        mask = np.array(
            [[sum(s * mask[:, v, u] for v, u, s in weights[y, x]) for x in range(width)] for y in range(height)],
        ).transpose(2, 0, 1)
    assert mask.shape == (labels, height, width)
    return mask


@pytest.mark.parametrize("size", [(9, 11), (1, 12), (12, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize(("labels", "dilations"), [(3, (1,)), (6, (1, 2, 4)), (1, (1, 8))])
def test_against_loops(size: tuple[int, int], labels: int, dilations: tuple[int, ...]) -> None:
    rng = np.random.default_rng(labels)
    image, p = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.random((labels, *size))
    for scale in (0.1, 1.0):
        ours = pamr(p, image, Pamr(dilations=dilations, iterations=4, std_scale=scale))
        np.testing.assert_allclose(ours, loops(p, image, dilations, 4, scale), atol=2e-5)


def test_sums_are_kept_and_a_ragged_border_snaps_to_the_edge() -> None:
    image = np.full((24, 32, 3), 60, np.uint8)
    image[:, 16:] = 180
    right = np.zeros((24, 32))
    right[:, 16:] = 1
    ragged = right.copy()
    ragged[::2, 13:16] = 1
    ragged[1::2, 16:18] = 0
    refined = pamr(np.stack([1 - ragged, ragged]), image)
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(refined.argmax(axis=0), right)


def test_one_colour_is_a_plain_average() -> None:
    p = np.zeros((2, 5, 5))
    p[0], p[1, 2, 2] = 1, 8
    refined = pamr(p, np.full((5, 5, 3), 9, np.uint8), Pamr(dilations=(1,), iterations=1))
    expected = np.zeros((5, 5))
    expected[1:4, 1:4] = 1
    expected[2, 2] = 0
    np.testing.assert_allclose(refined[1], expected, atol=1e-6)


def test_brightness_range_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    image, p = rng.integers(0, 100, (8, 9, 3), dtype=np.uint8), rng.random((4, 8, 9))
    np.testing.assert_allclose(pamr(p, image * 2), pamr(p, image), atol=1e-5)


def test_same_bytes_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(0)
    image, p = rng.integers(0, 256, (30, 41, 3), dtype=np.uint8), rng.random((13, 30, 41))
    assert len({hashlib.sha256(pamr(p, image, threads=n).tobytes()).hexdigest() for n in (1, 2, 4, 7)}) == 1


def test_broken_requests_are_refused() -> None:
    image, p = np.zeros((4, 5, 3), np.uint8), np.ones((2, 4, 5))
    with pytest.raises(BadData, match="NaN"):
        pamr(p * np.nan, image)
    with pytest.raises(UsageError, match="of the maps' size"):
        pamr(p, image[:3])
    with pytest.raises(UsageError, match="dilations"):
        pamr(p, image, Pamr(dilations=()))
    with pytest.raises(UsageError, match="shape"):
        pamr(p[0], image)
