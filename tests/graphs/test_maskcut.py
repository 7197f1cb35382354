"""MaskCut: the release's degrees, eigenvectors and masks, the dense eigenproblem, and what must not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import linalg
from scipy.ndimage import gaussian_filter, label

from uss_dagster.errors import BadData
from uss_dagster.graphs.maskcut import BinaryAffinity, Cut, maskcut_rounds, normalised_cut, second_eigenvector

GOLDEN = Path(__file__).parents[1] / "golden" / "unsam_golden.npz"
CASES = ("c00", "c01", "c03", "c04", "c07", "c09", "c12")


def squares(h: int = 20, w: int = 28, seed: int = 0) -> np.ndarray:
    """Two rectangles of their own features on a ground, with noise; some pairs of unlike patches are joined all the same."""
    rng = np.random.default_rng(seed)
    kind = np.zeros((h, w), int)
    kind[3:9, 4:11], kind[10:18, 14:23] = 1, 2
    return np.eye(3, 64)[kind] + 0.13 * rng.standard_normal((h, w, 64))


def maskcut(features: np.ndarray, rounds: int = 3) -> np.ndarray:
    masks = [one.mask for one in maskcut_rounds(features, rounds)]
    return np.stack(masks) if masks else np.zeros((0, *features.shape[:2]), bool)


def dense_second(affinity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    degree = np.diag(affinity.sum(axis=1))
    values, vectors = linalg.eigh(degree - affinity, degree, subset_by_index=[0, 2])
    return values, vectors[:, 1]


@pytest.mark.parametrize("case", CASES)
def test_degrees_vector_and_masks_are_the_release(case: str) -> None:
    golden = np.load(GOLDEN)
    features = golden[f"{case}_features"]
    h, w, channels = features.shape
    affinity = BinaryAffinity(features.reshape(h * w, channels), 0.15, 1e-5)
    np.testing.assert_allclose(affinity.degree, golden[f"{case}_aff_degree"], rtol=1e-12)
    assert affinity.ones == golden[f"{case}_aff_ones"]
    if not golden[f"{case}_eig_reliable"]:
        assert normalised_cut(features) is None
        assert maskcut(features).shape == (0, h, w)
        return
    cut = normalised_cut(features)
    assert cut is not None
    assert cut.reliable
    x, y = cut.vector.ravel(), golden[f"{case}_eigvec2"].ravel()
    assert abs(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)) > 1 - 1e-6
    np.testing.assert_allclose(cut.values, golden[f"{case}_eigvals4"][:3], atol=1e-9)
    masks = maskcut(features, len(golden[f"{case}_maskcut"]))
    for turn, mask in enumerate(masks):
        assert any(np.array_equal(mask, golden[f"{case}_{variant}"][turn]) for variant in ("maskcut", "maskcut_negsign"))
    assert len(masks) == np.count_nonzero(golden[f"{case}_maskcut"].any(axis=(1, 2)))


def test_a_frame_with_all_corners_is_not_the_object() -> None:
    golden = np.load(GOLDEN)
    assert maskcut(golden["c12_features"])[0].sum() == 400


def test_the_sign_of_the_vector_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        vector = gaussian_filter(rng.standard_normal((9, 12)), 1.5)
        cut, negative = Cut(vector, np.zeros(3)), Cut(-vector, np.zeros(3))
        np.testing.assert_array_equal(cut.side, negative.side)
        assert cut.seed == negative.seed
        assert cut.mask[cut.seed]
        assert label(cut.mask)[1] == 1


@pytest.mark.parametrize("shape", [(5, 7), (9, 14), (20, 20)])
def test_lanczos_agrees_with_the_dense_problem(shape: tuple[int, int]) -> None:
    features = gaussian_filter(np.random.default_rng(1).standard_normal((*shape, 12)), (1.5, 1.5, 0))
    affinity = BinaryAffinity(features.reshape(-1, 12), 0.15, 1e-5)
    values, vector = second_eigenvector(affinity)
    expected_values, expected = dense_second(affinity.dense())
    np.testing.assert_allclose(values, expected_values, atol=1e-9)
    assert abs(vector @ expected) / (np.linalg.norm(vector) * np.linalg.norm(expected)) > 1 - 1e-9


def test_the_packed_product_is_the_matrix() -> None:
    features = np.random.default_rng(2).standard_normal((53, 6))
    features[7] = 0
    affinity = BinaryAffinity(features, 0.1, 1e-3)
    units = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-30)
    expected = np.where(units @ units.T > 0.1, 1.0, 1e-3)
    np.testing.assert_allclose(affinity.dense(), expected)
    assert affinity.ones == np.count_nonzero(expected == 1)
    vector = np.random.default_rng(3).standard_normal(53)
    np.testing.assert_allclose(affinity.product(vector), (expected == 1) @ vector, atol=1e-12)


def test_rounds_are_disjoint_stop_at_the_first_refusal_and_take_any_shape() -> None:
    rounds = maskcut_rounds(squares(), 6)
    masks = np.stack([found.mask for found in rounds])
    assert masks.sum(axis=0).max() == 1
    assert sorted(masks.sum(axis=(1, 2)).tolist())[:2] == [42, 72]
    again = maskcut(squares().swapaxes(0, 1), 6)
    np.testing.assert_array_equal(again, masks.swapaxes(1, 2))


def test_scale_and_order_of_patches_change_nothing() -> None:
    features = squares(seed=4)
    before = maskcut(features, 4)
    np.testing.assert_array_equal(maskcut(features * 7.3, 4), before)
    mirrored = maskcut(features[::-1, ::-1], 4)
    np.testing.assert_array_equal(mirrored[:, ::-1, ::-1], before)


def test_blank_tiny_and_broken_maps() -> None:
    for blank in (np.zeros((6, 7, 3)), np.ones((6, 7, 3)), np.ones((1, 1, 3))):
        assert len(maskcut(blank)) == 0
    assert maskcut(np.array([[[1.0, 0.0], [0.0, 1.0]]])).shape[1:] == (1, 2)
    with pytest.raises(BadData, match="no grid of finite features"):
        maskcut(np.full((4, 4, 2), np.inf))


def test_several_separate_things_are_reported_as_ambiguous() -> None:
    kind = np.zeros((12, 12), int)
    kind[:4], kind[4:8], kind[8:] = 0, 1, 2
    cut = normalised_cut(np.eye(3)[kind])
    assert cut is not None
    assert not cut.reliable
