"""MaskCut: objects of one image, one after the other, by normalised cuts of a binarised graph of patches.

Two patches are joined with weight 1 where their cosine exceeds ``tau``, else with a weight near 0. The second smallest generalised
eigenvector is cut at its mean. The side with its most extreme entry is the object, unless that side holds three corners of the grid. The
connected part around that entry is the mask. Its patches are erased, and the next round begins.

The products with the packed matrix are compiled: ``benchmarks/maskcut.py`` measured the second eigenvector of a 60×60 grid over 100 times
faster than ``scipy.linalg.eigh`` (on a busy machine).

References: Wang et al., "Cut and learn for unsupervised object detection and instance segmentation", CVPR 2023 (MaskCut); Wang et al.,
"Self-supervised transformers for unsupervised object discovery using normalized cut", CVPR 2022; Arlazarov et al., "On economical construction of
the transitive closure of a directed graph", 1970 (the product of a packed matrix).

Differences from the authors' program: the choice of the side does not depend on the sign of an eigenvector, rounds stop at the first mask
that is refused (it would come again), empty masks are left out, and grids need not be square.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uss_dagster.graphs.checks import check_grid
from uss_dagster.graphs.eigen import positive_peak

SMALLEST_GAP = 1e-3
"""Where the third eigenvalue is nearer to the second, any mixture of their vectors is as good: the cut is arbitrary."""
_DENSE_BELOW = 64
_TOLERANCES = (1e-10, 1e-4)
"""Of Lanczos; the second where the first is not reached, before the dense solver has its turn."""


class BinaryAffinity:
    """W = eps · 11ᵀ + (1 - eps) · B over n patches, with B 0/1, symmetric and packed: n² / 8 bytes.

    Parameters
    ----------
    features : ndarray of float, shape (n, C)
        A row of zeros has cosine 0 with every row.
    tau : float
        Cosine above which B is 1.
    eps : float
        Weight of other pairs.

    Attributes
    ----------
    degree : ndarray of float64, shape (n,)
        Row sums of W.
    ones : int
        Number of entries of B that are 1.
    """

    def __init__(self, features: np.ndarray, tau: float, eps: float) -> None:
        units = np.asarray(features, np.float64)
        length = np.linalg.norm(units, axis=1, keepdims=True)
        units = (units / np.where(length > 0, length, 1)).astype(np.float32)
        self.n, self.eps = len(units), eps
        self._packed = _packed_above(units, tau)
        held = np.rint(self.product(np.ones(self.n)))
        self.ones = int(held.sum())
        self.degree = eps * self.n + (1 - eps) * held

    @property
    def constant(self) -> bool:
        """All weights are equal, so there is nothing to cut."""
        return self.ones in (0, self.n * self.n)

    def dense(self) -> np.ndarray:
        """W itself, float64 (n, n)."""
        rows = np.stack([self.product(unit) for unit in np.eye(self.n)])
        return self.eps + (1 - self.eps) * np.rint(rows)

    def product(self, vector: np.ndarray) -> np.ndarray:
        """B @ vector, float64 (n,)."""
        from uss_dagster.graphs._bits_kernel import bits_times

        padded, out = np.zeros(8 * len(self._packed)), np.empty(self.n)
        padded[: self.n] = vector
        bits_times(self._packed, padded, out)
        return out


@dataclass(frozen=True)
class Cut:
    """The cut of one graph over a grid.

    Parameters
    ----------
    vector : ndarray of float64, shape (h, w)
        Second eigenvector of (D - W) x = λ D x; the entry of greatest magnitude is positive.
    values : ndarray of float64, shape (3,)
        The smallest eigenvalues, NaN if the grid has fewer.
    """

    vector: np.ndarray
    values: np.ndarray

    @property
    def reliable(self) -> bool:
        """The second eigenvector is the only one, see ``SMALLEST_GAP``."""
        return not self.values[2] - self.values[1] < SMALLEST_GAP

    @cached_property
    def side(self) -> np.ndarray:
        """The side of the object, bool (h, w): that with the most extreme entry, or the other one if this holds three corners or more.

        It is the same for the vector and its negative.
        """
        above = self.vector > self.vector.mean()
        side = above if above.ravel()[np.argmax(np.abs(self.vector))] else ~above
        return ~side if corners(side) >= 3 else side

    @cached_property
    def seed(self) -> tuple[int, int]:
        """The patch of the object whose entry is the most extreme in its direction."""
        upwards = bool((self.vector[self.side] > self.vector.mean()).all())
        value = np.where(self.side, self.vector if upwards else -self.vector, -np.inf)
        row, column = np.unravel_index(int(np.argmax(value)), value.shape)
        return int(row), int(column)

    @cached_property
    def mask(self) -> np.ndarray:
        """The 4-connected part of the object's side that holds the seed, bool (h, w)."""
        from scipy import ndimage

        parts, _ = ndimage.label(self.side)
        return parts == parts[self.seed]


def corners(side: np.ndarray) -> int:
    """How many of the four corners of a grid, bool (h, w), a side holds."""
    return int(side[[0, 0, -1, -1], [0, -1, 0, -1]].sum())


def normalised_cut(features: np.ndarray, tau: float = 0.15, eps: float = 1e-5) -> Cut | None:
    """The cut of a map of features (h, w, C); None where the affinity is constant and every cut would be arbitrary."""
    h, w = check_grid(features).shape[:2]
    affinity = BinaryAffinity(features.reshape(h * w, -1), tau, eps)
    if affinity.constant:
        return None
    values, vector = second_eigenvector(affinity)
    return Cut(vector.reshape(h, w), values)


def second_eigenvector(affinity: BinaryAffinity) -> tuple[np.ndarray, np.ndarray]:
    """Smallest eigenvalues λ and second eigenvector x of (D - W) x = λ D x.

    With s = d^(-1/2), the first eigenvector of diag(s) W diag(s) is known: d^(1/2). It is deflated, Lanczos finds the next two, x = s · u.

    Returns
    -------
    values : ndarray of float64, shape (3,)
    vector : ndarray of float64, shape (n,)
        The entry of greatest magnitude is positive.
    """
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    n, scale = affinity.n, 1 / np.sqrt(affinity.degree)
    first = np.sqrt(affinity.degree / affinity.degree.sum())

    def product(vector: np.ndarray) -> np.ndarray:
        scaled = scale * vector.ravel()
        image = scale * (affinity.eps * scaled.sum() + (1 - affinity.eps) * affinity.product(scaled))
        # deflated to below the spectrum, so that it is never among the largest
        return image - 2 * (first @ vector.ravel()) * first

    pairs = None
    for tolerance in _TOLERANCES if n >= _DENSE_BELOW else ():
        try:
            start = np.random.default_rng(0).standard_normal(n)
            operator = LinearOperator((n, n), matvec=product, dtype=np.float64)
            pairs = eigsh(operator, 2, which="LA", v0=start, tol=tolerance, ncv=min(n, 32), maxiter=30)
            break
        except ArpackError:
            continue  # eigenvalues crowd, so that the cut is arbitrary, or nearly
    if pairs is None:
        pairs = np.linalg.eigh(affinity.dense() * scale * scale[:, None] - 2 * first * first[:, None])
    order = np.argsort(-pairs[0], kind="stable")[:2]
    values = np.full(3, np.nan)
    values[0] = 0.0
    values[1 : 1 + len(order)] = np.maximum(1 - pairs[0][order], 0)
    vector = scale * pairs[1][:, order[0]]
    return values, positive_peak(vector)


@dataclass(frozen=True)
class Round:
    """One round of MaskCut: the mask less earlier ones, bool (h, w), and the cut that it comes from."""

    mask: np.ndarray
    cut: Cut


def maskcut_rounds(
    features: np.ndarray,
    rounds: int = 3,
    tau: float = 0.15,
    eps: float = 1e-5,
    *,
    most_iou: float = 0.5,
    min_area: float = 0.01,
) -> list[Round]:
    """The rounds that are accepted.

    Parameters
    ----------
    features : ndarray of float, shape (h, w, C)
    rounds : int, default 3
        At most so many.
    tau, eps
        See ``BinaryAffinity``.
    most_iou : float, default 0.5
        From the second round on, a mask that overlaps the one before with a higher IoU is refused and ends the search.
    min_area : float, default 0.01
        So does a mask with no more than this share of the grid.
    """
    accepted: list[Round] = []
    painted = np.zeros(features.shape[:2], bool)
    before = painted
    for _ in range(rounds):
        cut = normalised_cut(np.where(painted[:, :, None], 0, features), tau, eps)
        if cut is None:
            break
        mask = cut.mask
        if accepted:
            overlap = np.count_nonzero(mask & before) / np.count_nonzero(mask | before)
            if overlap > most_iou or np.count_nonzero(mask) <= min_area * mask.size:
                break
        before = mask
        if (mask & ~painted).any():
            accepted.append(Round(mask & ~painted, cut))
        painted = painted | mask
    return accepted


def _packed_above(units: np.ndarray, tau: float) -> np.ndarray:
    """Whether products of unit rows exceed tau, packed along the first axis, uint8 (ceil(n / 8), n); B is symmetric."""
    n = len(units)
    packed = np.empty((-(-n // 8), n), np.uint8)
    for start in range(0, n, 512):
        above = units[start : start + 512] @ units.T > np.float32(tau)
        packed[start // 8 : start // 8 + -(-len(above) // 8)] = np.packbits(above, axis=0)
    return packed
