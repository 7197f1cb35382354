"""k-means over shards against k-means in memory and scikit-learn; few clusters with all restarts at once; rows put aside on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs import _streaming_kmeans_kernel as kernel
from uss_dagster.graphs.few_clusters import few_clusters
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.streaming_kmeans import (
    RowFile,
    Some,
    assign,
    fit_centres,
    principal,
    tally,
)


def clouds(n: int, k: int, channels: int, apart: float = 3.0, seed: int = 0) -> np.ndarray:
    """Points (n, channels), float16, around k places."""
    rng = np.random.default_rng(seed)
    return (apart * rng.normal(size=(k, channels))[rng.integers(k, size=n)] + rng.normal(size=(n, channels))).astype(np.float16)


def inertia_of(points: np.ndarray, centres: np.ndarray) -> float:
    squared = ((points.astype(np.float64)[:, None] - centres[None]) ** 2).sum(axis=2)
    return float(squared.min(axis=1).mean())


def test_every_finite_half_is_widened_exactly() -> None:
    half = np.arange(2**16, dtype=np.uint16).reshape(-1, 64)
    bits = np.empty(half.shape, np.int32)
    floats = bits.view(np.float32)
    assert not kernel.widen(half, bits, floats)
    plain = half.view(np.float16).astype(np.float32)
    finite = np.isfinite(plain)
    assert floats[finite].tobytes() == plain[finite].tobytes()
    # rows are told apart by whether all of them are finite
    assert [kernel.widen(half[i : i + 1], bits, floats) for i in range(len(half))] == finite.all(axis=1).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 7), st.integers(1, 20), st.booleans(), st.integers(0, 99))
def test_assignment_is_that_of_brute_force(n: int, k: int, channels: int, half: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, channels)).astype(np.float16 if half else np.float32)
    centres = rng.normal(size=(k, channels)).astype(np.float32)
    sums, counts = np.zeros((k, channels)), np.zeros(k, np.int64)
    labels, inertia = tally(points, centres, sums, counts)
    squared = ((points.astype(np.float64)[:, None] - centres[None]) ** 2).sum(axis=2)
    assert np.allclose(squared[np.arange(n), labels], squared.min(axis=1), atol=1e-4)
    assert np.isclose(inertia, squared.min(axis=1).sum(), rtol=1e-4, atol=1e-3)
    assert counts.tolist() == np.bincount(labels, minlength=k).tolist()
    expected = np.zeros((k, channels))
    np.add.at(expected, labels, points.astype(np.float64))
    assert np.allclose(sums, expected, atol=1e-3)


@pytest.mark.parametrize("k", [2, 3, 8])
def test_shards_give_what_memory_gives(k: int) -> None:
    points = clouds(6000, k, 12)
    shards = np.split(points, [1, 1, 700, 4000])
    found = fit_centres(shards, k, batch=500)
    whole = kmeans(points.astype(np.float64), k, restarts=5, iterations=300)
    assert np.isclose(found.inertia, whole.inertia, rtol=1e-3)
    assert np.isclose(inertia_of(points, found.centres), found.inertia, rtol=1e-4)
    apart = np.linalg.norm(found.centres[:, None] - whole.centres[None], axis=2)
    assert apart.min(axis=1).max() < 0.02
    labels = np.concatenate([tally(shard, found.centres)[0] for shard in shards])
    assert labels.tolist() == assign(points, found.centres).tolist()
    assert np.isclose(sum(tally(shard, found.centres)[1] for shard in shards) / len(points), found.inertia, rtol=1e-3)


def test_it_ends_at_a_fixed_point_and_repeats_bit_for_bit() -> None:
    points = clouds(4000, 5, 6, apart=1.0)
    shards = np.split(points, 7 * [0] + [1500])
    found, again = (fit_centres(shards, 5, batch=300, tolerance=1e-5) for _ in range(2))
    assert found.centres.tobytes() == again.centres.tobytes()
    assert found.shift < 1e-5
    means = np.stack([points[assign(points, found.centres) == c].astype(np.float64).mean(axis=0) for c in range(5)])
    assert np.allclose(means, found.centres, atol=1e-3)
    assert fit_centres(shards, 5, seed=1).centres.tobytes() != found.centres.tobytes()


@pytest.mark.slow
def test_no_worse_than_scikit_learn() -> None:
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    points = clouds(8000, 6, 16, apart=0.7, seed=3)
    with threadpool_limits(1):
        theirs = MiniBatchKMeans(6, batch_size=1000, n_init=5, random_state=0).fit(points.astype(np.float32)).inertia_ / len(points)
    assert fit_centres(np.split(points, 8), 6, batch=1000).inertia <= 1.01 * theirs


def test_few_or_no_or_equal_points() -> None:
    assert fit_centres([], 3).centres.shape == (0, 0)
    assert fit_centres([np.zeros((0, 4), np.float16)], 3).centres.shape == (0, 0)
    same = fit_centres([np.ones((9, 4), np.float16)] * 2, 3)
    assert same.centres.tolist() == [[1.0] * 4]
    assert same.inertia == 0
    assert len(fit_centres([clouds(2, 2, 4)], 5).centres) == 2


def test_what_cannot_be_clustered_is_refused() -> None:
    points = clouds(100, 2, 4)
    for k, batch in ((0, 10), (2, 0)):
        with pytest.raises(UsageError, match="expected 1 or more"):
            fit_centres([points], k, batch=batch)
    with pytest.raises(UsageError, match=r"\(100, 4\) cannot be assigned"):
        assign(points, np.zeros((2, 5)))
    for kind in (np.float16, np.float32):
        bad = points.astype(kind)
        bad[70, 2] = np.inf
        with pytest.raises(BadData, match="not finite"):
            assign(bad, np.zeros((2, 4)))


def test_rows_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    points = clouds(50, 3, 5)
    rows = RowFile()
    for piece in (points[:20], points[:0], points[20:]):
        rows.append(piece)
    assert (len(rows), rows.rows) == (3, 50)
    assert rows[2].tobytes() == points[20:].tobytes()
    assert rows[1].shape == (0, 5)
    assert [len(piece) for piece in (Some(rows, [2, 0])[0], Some(rows, [2, 0])[1])] == [30, 20]
    with pytest.raises(BadData, match="Rows of 4 values follow rows of 5"):
        rows.append(points[:, :4])
    paths = [tmp_path / f"{i}.npy" for i in range(2)]
    np.save(paths[0], points[:30].reshape(5, 6, 5))
    np.save(paths[1], points[30:])
    mapped = [np.load(path, mmap_mode="r").reshape(-1, 5) for path in paths]
    assert fit_centres(mapped, 3).centres.tobytes() == fit_centres([points[:30], points[30:]], 3).centres.tobytes()


def test_principal_directions_are_those_of_the_covariance() -> None:
    points = clouds(3000, 4, 10)
    found = principal(np.split(points, 3), 4)
    values, vectors = np.linalg.eigh(np.cov(points.astype(np.float64).T))
    overlap = np.abs(found.basis.T @ vectors[:, ::-1][:, :4])
    assert np.allclose(overlap, np.eye(4), atol=1e-2)
    assert np.isclose(found(points).var(axis=0).sum(), values[::-1][:4].sum(), rtol=1e-2)
    assert np.allclose(found(points).mean(axis=0), 0, atol=1e-2)
    with pytest.raises(BadData, match="no points"):
        principal([], 4)


# -- few clusters of one image ------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "channels"), [(2, 3), (2, 40), (4, 8)])
def test_all_restarts_at_once_find_what_one_after_another_find(k: int, channels: int) -> None:
    points = clouds(400, k, channels).astype(np.float32)
    labels = few_clusters(points, k)
    assert labels.tolist() == kmeans(points, k, restarts=10).labels.tolist()
    assert labels[0] == 0


def test_more_restarts_never_find_worse_clusters() -> None:
    points = clouds(300, 6, 4, apart=0.5).astype(np.float32)

    def inertia(restarts: int) -> float:
        labels = few_clusters(points, 6, restarts=restarts)
        return sum(float(((points[labels == c] - points[labels == c].mean(axis=0)) ** 2).sum()) for c in range(labels.max() + 1))

    found = [inertia(restarts) for restarts in (1, 3, 10)]
    assert found[0] >= found[1] - 1e-2 >= found[2] - 2e-2


def test_equal_points_are_one_cluster() -> None:
    assert few_clusters(np.full((7, 3), 0.3), 2).tolist() == [0] * 7
    assert few_clusters(np.zeros((1, 3)), 2).tolist() == [0]
    with pytest.raises(UsageError, match="few_clusters got points"):
        few_clusters(np.zeros((0, 3)), 2)
