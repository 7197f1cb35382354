"""Affinities between the items of one image, and whitening for Mahalanobis distances.

The defaults are the affinity of the hierarchy-agnostic method (Rossetti & Pirri, NeurIPS 2024): cosine distances d, and
A = 1 - (d - min d) / (max d - min d), so that the least similar pair of an image has exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from uss_dagster.errors import BadData, check_choice
from uss_dagster.graphs.spectrum_slices import Factor

TauMode = Literal["auto", "absolute", "relative"]
DISTANCES = ("cosine", "l2")
SIMILARITIES = ("minmax", "exp")
LEAST_SHARE = 0.05
"""A cosine with a smaller share of the pairs on one of its sides does not separate the items of an image."""
_TINY = 1e-12
_ROWS = 512


def dense_affinity(
    features: np.ndarray, *, distance: str = "cosine", similarity: str = "minmax", sigma: float = 1.0, threshold: float = 0.0
) -> np.ndarray:
    """Affinities of items, float64 (n, n), symmetric, with a diagonal of zeros. Only one matrix of this size is held.

    Parameters
    ----------
    features : ndarray of float, shape (n, C)
    distance : {"cosine", "l2"}, default "cosine"
        "cosine" is 1 - the inner product of unit vectors.
    similarity : {"minmax", "exp"}, default "minmax"
        "minmax" rescales over the whole matrix of distances d; "exp" is exp(-d / (2 sigma²)).
    sigma : float, default 1
        Scale of "exp", in units of the distance.
    threshold : float, default 0
        Affinities below it become 0.
    """
    return _affinity(*_points(features, distance, similarity), similarity, sigma, threshold)[0]


def cosine_affinity(features: np.ndarray) -> tuple[np.ndarray, Factor]:
    """``dense_affinity`` with its defaults, and its factor: of cosines c it is (c + max d - 1) / (max d - min d), a matrix of low rank
    but for the diagonal of zeros."""
    points, _ = _points(features, "cosine", "minmax")
    affinity, low, high = _affinity(points, None, "minmax", 1.0, 0.0)
    scale = 1 / max(high - low, _TINY)
    constant = (high - 1) * scale
    columns = np.concatenate([np.sqrt(scale) * points, np.full((len(points), 1), np.sqrt(abs(constant)))], axis=1)
    return affinity, Factor(columns, np.append(np.ones(points.shape[1]), np.sign(constant) or 1.0))


def _affinity(
    points: np.ndarray, squares: np.ndarray | None, similarity: str, sigma: float, threshold: float
) -> tuple[np.ndarray, float, float]:
    """(affinities, least and greatest distance) of what ``_points`` gives."""
    affinity = points @ points.T
    low, high = np.inf, 0.0
    for start in range(0, len(points), _ROWS):
        rows = affinity[start : start + _ROWS]
        _to_distances(rows, squares, start)
        low, high = min(low, float(rows.min())), max(high, float(rows.max()))
    for start in range(0, len(points), _ROWS):
        rows = affinity[start : start + _ROWS]
        _to_similarities(rows, similarity, low, high, sigma)
        rows[rows < threshold] = 0
    np.fill_diagonal(affinity, 0)
    return affinity, low, high


def joining_cosine(units: np.ndarray, tau: float, mode: TauMode, joined: float) -> float:
    """The cosine above which two items of an image are joined.

    Networks differ in how similar their features are. Hardly any two keys of DINOv2 have a cosine below 0.6, so a threshold that was chosen
    for another network joins all of them, and there is nothing to cut.

    Parameters
    ----------
    units : ndarray of float, shape (n, C)
        Features at length 1.
    tau : float
        The cosine of "absolute".
    mode : {"auto", "absolute", "relative"}
        "absolute": ``tau``. "relative": the cosine above which the share ``joined`` of the pairs of the image lies. "auto": "absolute" where
        at least ``LEAST_SHARE`` of the pairs lie on either side of ``tau``, else "relative".
    joined : float
        The share of "relative", 0 to 1.
    """
    if mode == "absolute":
        return tau
    cosines = (units @ units.T).ravel()
    above = np.count_nonzero(cosines > tau) / len(cosines)
    if mode == "auto" and LEAST_SHARE <= above <= 1 - LEAST_SHARE:
        return tau
    return float(np.quantile(cosines, 1 - joined))


def _points(features: np.ndarray, distance: str, similarity: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Float64 points whose inner products give the distances, and their squared lengths where the distance is ``l2``."""
    check_choice("distance", distance, DISTANCES)
    check_choice("similarity", similarity, SIMILARITIES)
    points = np.array(features, np.float64)
    if points.ndim != 2 or not len(points):
        raise BadData(f"Features have shape {points.shape}, expected one row for each of one or more items.")
    if not np.isfinite(points).all():
        raise BadData("Features hold values that are not finite. Extract them again, or leave these images out.")
    if distance == "cosine":
        points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), _TINY)
        return points, None
    points -= points.mean(axis=0)
    return points, np.einsum("ij,ij->i", points, points)


def _to_distances(products: np.ndarray, squares: np.ndarray | None, start: int) -> None:
    """Turn rows ``start``.. of the matrix of inner products into distances, in place."""
    if squares is None:
        np.subtract(1, products, out=products)
        np.maximum(products, 0, out=products)
        return
    products *= -2
    products += squares[start : start + len(products), None] + squares
    np.maximum(products, 0, out=products)
    np.sqrt(products, out=products)
    # an item is at no distance from itself, whatever the rounding
    products[np.arange(len(products)), np.arange(start, start + len(products))] = 0


def _to_similarities(distances: np.ndarray, similarity: str, low: float, high: float, sigma: float) -> None:
    if similarity == "minmax":
        distances -= low
        distances /= -max(high - low, _TINY)
        distances += 1
    else:
        distances /= -2 * sigma**2
        np.exp(distances, out=distances)


@dataclass
class Covariance:
    """Mean and covariance of many feature vectors in float64, accumulated image by image and merged across workers.

    Updates follow Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983: deviations from the mean are summed,
    which loses no precision where the mean is large. Merge the parts of workers in a fixed order for equal bytes.
    """

    count: int = 0
    mean: np.ndarray | None = None
    scatter: np.ndarray | None = None

    def update(self, features: np.ndarray) -> None:
        """Add feature vectors (…, C)."""
        rows = np.asarray(features, np.float64).reshape(-1, np.shape(features)[-1])
        if not np.isfinite(rows).all():
            raise BadData("Features hold values that are not finite. Extract them again, or leave these images out.")
        if len(rows):
            mean = rows.mean(axis=0)
            rows = rows - mean
            self.merge(Covariance(len(rows), mean, rows.T @ rows))

    def merge(self, other: Covariance) -> None:
        """Add the vectors of another accumulator."""
        if other.mean is None or other.scatter is None:
            return
        if self.mean is None or self.scatter is None:
            self.count, self.mean, self.scatter = other.count, other.mean.copy(), other.scatter.copy()
            return
        if other.mean.shape != self.mean.shape:
            raise BadData(f"Features have {len(other.mean)} channels, expected {len(self.mean)} as in those before.")
        total, apart = self.count + other.count, other.mean - self.mean
        self.scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.count * other.count / total)
        self.mean = self.mean + apart * (other.count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance, float64 (C, C)."""
        if self.scatter is None or self.count < 2:
            raise BadData(f"A covariance was asked of {self.count} feature vectors, expected two or more.")
        return self.scatter / (self.count - 1)

    def whitening(self, floor: float = 1e-6) -> Whitening:
        """The map that makes Euclidean distances of its images Mahalanobis distances.

        With Cov = Q diag(l) Qᵀ it is z = diag(max(l, floor · max l))^(-1/2) Qᵀ (f - mean).
        """
        lengths, axes = np.linalg.eigh(self.covariance)
        lengths = np.maximum(lengths, floor * lengths[-1])
        if lengths[-1] <= 0:
            raise BadData("All feature vectors are equal, so there is nothing to whiten.")
        assert self.mean is not None
        return Whitening(self.mean, axes / np.sqrt(lengths))


@dataclass(frozen=True)
class Whitening:
    """mean: (C,). axes: (C, C), one column a whitened channel."""

    mean: np.ndarray
    axes: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Whitened features, float64 (…, C), for the ``l2`` distance."""
        return (features - self.mean) @ self.axes
