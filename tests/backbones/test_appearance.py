"""Vectors of regions: the image's own vector where the region is the image, plain masks elsewhere, and regions too small to be seen."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from uss_dagster.backbones.patches import image_vector
from uss_dagster.errors import BadData
from uss_dagster.graphs.appearance import APPEARANCE_CHANNELS, bank_features, colour_histograms, region_appearance
from uss_dagster.pixels import to_lab


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def test_of_a_whole_image_it_is_the_image_vector() -> None:
    image = picture(48, 64)
    got = region_appearance(image, np.zeros((48, 64), int), 1)
    assert got.shape == (1, APPEARANCE_CHANNELS)
    lab = to_lab(image)
    np.testing.assert_allclose(got[0, :100], image_vector(bank_features(lab), lab), atol=1e-6)
    np.testing.assert_allclose(got[0, 100:], [0.5, 0.0, 1.0], atol=1e-12)


def test_regions_are_described_by_their_own_pixels() -> None:
    image, rng = picture(40, 60, 1), np.random.default_rng(1)
    flat = np.kron(rng.permutation(24).reshape(4, 6) // 3 - 1, np.ones((10, 10), int))
    got = region_appearance(image, flat, 7)
    lab = to_lab(image)
    bank, (y, x) = bank_features(lab), np.indices(flat.shape) + 0.5
    for region in range(7):
        mask = flat == region
        moments = np.concatenate([bank[mask].mean(axis=0) - [2.5, 0, 0, *[1] * 15], bank[mask].std(axis=0)])
        expected = np.concatenate([moments / np.linalg.norm(moments), np.sqrt(colour_histograms(lab[mask])[0] / mask.sum())]) / np.sqrt(2)
        np.testing.assert_allclose(got[region, :100], expected, atol=1e-5)
        place = [y[mask].mean() / 40, abs(x[mask].mean() / 60 - 0.5), np.sqrt(mask.mean())]
        np.testing.assert_allclose(got[region, 100:], place, atol=1e-12)


def test_numbers_of_regions_do_not_matter() -> None:
    image, flat = picture(30, 40, 2), np.random.default_rng(2).integers(0, 5, (30, 40))
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_allclose(region_appearance(image, order[flat], 5)[order], region_appearance(image, flat, 5), atol=1e-12)


def test_a_region_lost_in_the_reduced_image_still_has_a_vector() -> None:
    image = picture(700, 900, 3)
    flat = np.zeros((700, 900), int)
    flat[:, 450:] = 1
    flat[699, 899] = 2
    flat[0, 0] = 3
    got = region_appearance(image, flat, 4)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(np.linalg.norm(got[:, :100], axis=1), 1)
    assert got[2, 100] > 0.99
    assert got[3, 100] < 0.01


def test_a_plain_image_has_finite_vectors() -> None:
    assert np.isfinite(region_appearance(np.full((8, 8, 3), 7, np.uint8), np.repeat([[0, 1, 1, 1]], 8, axis=0).repeat(2, axis=1), 2)).all()


def test_another_size_is_refused() -> None:
    with pytest.raises(BadData, match=r"\(4, 4\), the image \(4, 5\)"):
        region_appearance(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 4), int), 1)
