"""k-means of more points than fit into memory, which come in shards of float16 or float32 rows, one shard in memory at a time.

Seeds are k-means++ on a sample of the shards. In the first epochs centres move after each mini-batch, as in Sculley. The following epochs
are exact: a whole pass with fixed centres, which then move to the means. So the result is a fixed point of k-means on all points, up to
the tolerance. Everything runs in one thread and in the order of the shards. One more pass assigns every point.

Assignment is compiled: ``benchmarks/streaming_kmeans.py`` measured a pass over 4.8 million float16 points of 384 channels 6.9 times faster
than scikit-learn's MiniBatchKMeans, with the same inertia (on a busy machine).

References: Sculley, "Web-scale k-means clustering", WWW 2010; Lloyd, IEEE TIT 28, 1982; Arthur & Vassilvitskii, SODA 2007.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.kmeans import kmeans


class Shards(Protocol):
    """Points in pieces, each float16 or float32 (n, C), possibly without rows. A piece is released before the next is read."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> np.ndarray: ...


class RowFile:
    """Rows in a temporary file, written and read piece by piece; the file is deleted with this object."""

    def __init__(self, dtype: type = np.float16) -> None:
        self._dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(prefix="rows-")  # noqa: SIM115 - it lives as long as the object
        self._starts = [0]
        self._width = 0

    def append(self, rows: np.ndarray) -> None:
        """Write one more piece (n, C); all have one C."""
        if self._width and rows.shape[1] != self._width:
            raise BadData(f"Rows of {rows.shape[1]} values follow rows of {self._width}; extract the features of all images alike.")
        self._width = rows.shape[1]
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self._starts.append(self._starts[-1] + len(rows))

    @property
    def rows(self) -> int:
        return self._starts[-1]

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: int, /) -> np.ndarray:
        self._file.flush()
        row = self._width * self._dtype.itemsize
        begin, end = self._starts[number], self._starts[number + 1]
        return np.frombuffer(os.pread(self._file.fileno(), (end - begin) * row, begin * row), self._dtype).reshape(-1, self._width)


@dataclass(frozen=True)
class Some:
    """Some of the pieces of shards, by their numbers."""

    shards: Shards
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int, /) -> np.ndarray:
        return self.shards[self.numbers[number]]


@dataclass(frozen=True)
class Centres:
    """Centres of clusters.

    Parameters
    ----------
    centres : ndarray of float32, shape (k, C)
        Fewer than requested if the seeding sample has fewer distinct points.
    inertia : float
        Mean squared distance of a point to its centre, in the last pass.
    epochs : int
        Passes over all shards.
    shift : float
        Distance that the fastest centre moved in the last one.
    """

    centres: np.ndarray
    inertia: float
    epochs: int
    shift: float


def fit_centres(
    shards: Shards,
    k: int,
    *,
    seed: int = 0,
    restarts: int = 5,
    batch: int = 16_384,
    minibatch_epochs: int = 1,
    epochs: int = 100,
    tolerance: float = 1e-4,
    seed_points: int = 10_000,
) -> Centres:
    """Centres of k clusters of all points; no rows (0, 0) if there is no point.

    Parameters
    ----------
    shards : Shards
    k : int
    seed : int, default 0
    restarts : int, default 5
        Of the seeding, of which the best counts.
    batch : int, default 16384
        Rows of a mini-batch.
    minibatch_epochs : int, default 1
        Epochs in which centres move after each mini-batch.
    epochs : int, default 100
        Greatest number of passes over all shards.
    tolerance : float, default 1e-4
        The run ends when no centre moves by this or more in an exact epoch.
    seed_points : int, default 10000
        Points from all over the shards that the seeding sees.
    """
    if k < 1 or batch < 1 or epochs < 1 or seed_points < k or restarts < 1:
        raise UsageError(
            f"fit_centres got k = {k}, a batch of {batch}, {epochs} epochs, {restarts} restarts and {seed_points} points for seeding, "
            "expected 1 or more of each and no fewer points than clusters."
        )
    sample = _sample(shards, seed_points, seed)
    if not len(sample):
        return Centres(np.zeros((0, 0), np.float32), 0.0, 0, 0.0)
    centres = kmeans(sample, k, seed=seed, restarts=restarts).centres
    inertia = shift = 0.0
    for epoch in range(epochs):
        before = centres.copy()
        sums, counts, seen, inertia = np.zeros(centres.shape), np.zeros(len(centres), np.int64), 0, 0.0
        for points in _batches(shards, batch):
            inertia += tally(points, centres, sums, counts)[1]
            seen += len(points)
            if epoch < minibatch_epochs:
                centres = _means(sums, counts, centres)
        centres, inertia = _means(sums, counts, centres), inertia / seen
        shift = float(np.linalg.norm(centres - before, axis=1).max())
        # a mini-batch epoch measures centres on the move
        if epoch >= minibatch_epochs and shift < tolerance:
            break
    return Centres(centres.astype(np.float32), inertia, epoch + 1, shift)


def assign(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Nearest centre of each point, int32 (n,). points: float16 or float32 (n, C). centres: (k, C), k ≥ 1."""
    return tally(points, centres)[0]


def tally(
    points: np.ndarray, centres: np.ndarray, sums: np.ndarray | None = None, counts: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """Assign points to their nearest centres, and add them up.

    Parameters
    ----------
    points : ndarray of float16 or float32, shape (n, C)
    centres : ndarray, shape (k, C), k ≥ 1
    sums : ndarray of float64, shape (k, C), optional
        The points of each cluster are added to it.
    counts : ndarray of int64, shape (k,), optional
        So are their numbers.

    Returns
    -------
    labels : ndarray of int32, shape (n,)
    squares : float
        Sum of squared distances.
    """
    from uss_dagster.graphs import _streaming_kmeans_kernel as kernel

    if points.ndim != 2 or centres.ndim != 2 or points.shape[1] != centres.shape[1] or not len(centres):
        raise UsageError(
            f"Points of shape {points.shape} cannot be assigned to centres of shape {centres.shape}: (n, C) and (k, C), k ≥ 1."
        )
    transposed = np.ascontiguousarray(centres.T, np.float32)
    own = np.einsum("ck,ck->k", transposed, transposed)
    labels = np.empty(len(points), np.int32)
    sums = np.zeros(centres.shape) if sums is None else sums
    counts = np.zeros(len(centres), np.int64) if counts is None else counts
    points = np.ascontiguousarray(points)
    if points.dtype == np.float16:
        inertia = kernel.assign_half(points.view(np.uint16), transposed, own, labels, sums, counts)
    else:
        inertia = kernel.assign_single(points.astype(np.float32, copy=False), transposed, own, labels, sums, counts)
    if not np.isfinite(inertia):
        raise BadData("k-means over shards met points that are not finite. Extract these features again.")
    return labels, max(float(inertia), 0.0)  # rounding may take it below


@dataclass(frozen=True)
class Projection:
    """Principal directions without whitening. mean: float32 (C,). basis: float32 (C, channels)."""

    mean: np.ndarray
    basis: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points (n, C) as float32 (n, channels)."""
        return np.asarray((points.astype(np.float32) - self.mean) @ self.basis)


def principal(shards: Shards, channels: int, rows: int = 200_000, seed: int = 0) -> Projection:
    """The first principal directions of a sample of about ``rows`` points at most, the largest entry of each positive."""
    total = 0
    mean = moments = np.zeros(0)
    for points in _drawn(shards, rows, seed):
        exact = points.astype(np.float64)
        if not total:
            mean, moments = np.zeros(exact.shape[1]), np.zeros((exact.shape[1],) * 2)
        total, mean, moments = total + len(exact), mean + exact.sum(axis=0), moments + exact.T @ exact
    if not total:
        raise BadData("There are no points to find principal directions of.")
    mean = mean / total
    vectors = np.linalg.eigh(moments / total - np.outer(mean, mean))[1][:, ::-1][:, :channels]
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return Projection(mean.astype(np.float32), np.ascontiguousarray(vectors, np.float32))


def _means(sums: np.ndarray, counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Means of the clusters; one without points stays where it is."""
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)


def _batches(shards: Shards, size: int) -> Iterator[np.ndarray]:
    """All points in batches of ``size`` rows, the last one smaller, wherever shards begin and end. A batch is overwritten by the next."""
    room: np.ndarray | None = None
    held = 0
    for number in range(len(shards)):
        piece = shards[number]
        if not len(piece):
            continue
        if room is None:
            room = np.empty((size, piece.shape[1]), np.float16 if piece.dtype == np.float16 else np.float32)
        begin = 0
        while begin < len(piece):
            if not held and len(piece) - begin >= size and piece.dtype == room.dtype:
                yield piece[begin : begin + size]
                begin += size
                continue
            taken = min(size - held, len(piece) - begin)
            room[held : held + taken] = piece[begin : begin + taken]
            held, begin = held + taken, begin + taken
            if held == size:
                yield room
                held = 0
    if room is not None and held:
        yield room[:held]


def _sample(shards: Shards, count: int, seed: int) -> np.ndarray:
    """At most ``count`` points, float32: all of them where there are no more."""
    pieces = [points.astype(np.float32) for points in _drawn(shards, count, seed)]
    return np.concatenate(pieces) if pieces else np.zeros((0, 0), np.float32)


def _drawn(shards: Shards, count: int, seed: int) -> Iterator[np.ndarray]:
    """From each shard points in proportion to its size, at random, ``count`` in all; all points where there are no more."""
    sizes = np.array([len(shards[number]) for number in range(len(shards))], np.int64)
    total = int(sizes.sum())
    if not total:
        return
    # how many are due after each shard: rounding never adds up
    due = np.cumsum(sizes) * min(count, total) // total
    for number in np.flatnonzero(np.diff(due, prepend=0)).tolist():
        rows = np.random.default_rng([seed, number]).permutation(int(sizes[number]))
        share = int(due[number] - (due[number - 1] if number else 0))
        yield shards[number][np.sort(rows[:share])]
