"""Superpixels, connected parts, and giving small parts away."""

from __future__ import annotations

import numpy as np
import pytest

from uss_dagster.graphs.superpixels import absorb_small, connected_parts, slic


def is_a_partition_into_parts(labels: np.ndarray) -> bool:
    return connected_parts(labels).tolist() == labels.tolist()


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (2, 2), (3, 5), (40, 60)])
@pytest.mark.parametrize("kind", ["flat", "noise"])
def test_slic_is_a_partition_into_connected_parts(shape: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(0)
    image = np.full((*shape, 3), 90, np.uint8) if kind == "flat" else rng.integers(0, 256, (*shape, 3)).astype(np.uint8)
    labels = slic(image, 400, 10.0)
    assert labels.shape == shape
    assert is_a_partition_into_parts(labels)


def test_slic_gives_about_as_many_as_asked() -> None:
    y, x = np.indices((120, 160))
    image = np.stack([y + x, 2 * y, 255 - x], axis=-1).astype(np.uint8)
    assert 120 < slic(image, 200, 20.0).max() + 1 < 280


def test_connected_parts_are_numbered_in_raster_order() -> None:
    labels = np.array([[5, 5, 2], [2, 5, 2], [2, 2, 5]])
    assert connected_parts(labels).tolist() == [[0, 0, 1], [2, 0, 1], [2, 2, 3]]


def test_small_parts_go_where_their_border_is_longest() -> None:
    labels = np.array([[0, 0, 0, 0, 1], [0, 0, 0, 2, 1], [0, 0, 0, 3, 1]])
    # 2 touches 0 twice, 1 and 3 once each; 3, next, touches 0 twice by then
    assert absorb_small(labels, 2).tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]


def test_nothing_small_stays_and_nothing_large_moves() -> None:
    rng = np.random.default_rng(1)
    labels = connected_parts(rng.integers(0, 3, (30, 40)))
    result = absorb_small(labels, 12)
    assert np.bincount(result.ravel()).min() >= 12
    assert is_a_partition_into_parts(result)
    assert absorb_small(result, 12).tolist() == result.tolist()
    for part in np.flatnonzero(np.bincount(labels.ravel()) >= 12):
        assert len(np.unique(result[labels == part])) == 1
    assert not absorb_small(labels, 10**6).any()
