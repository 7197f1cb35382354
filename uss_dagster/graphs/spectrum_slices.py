"""Largest eigenpairs of a matrix of low rank less a diagonal, Z J Zᵀ - H, slice by slice of the spectrum.

Cosine affinities are such a matrix: the rank is the number of channels plus one. Where few channels matter, as in the tokens of a
network, all but some dozens of eigenvalues lie within the range of -H, thousands of them in an interval of about a thousandth of the
spectrum. Products with the matrix hardly tell them apart. But its shifted inverse is cheap (Woodbury's formula), and so is the number of
eigenvalues above a shift (Sylvester's law of inertia). The eigenpairs nearest to a shift are found by block Lanczos with the inverse; shifts
follow one another down the spectrum, and the counts show that no eigenvalue is missing. ``benchmarks/real_tokens.py`` measures it.

References: Parlett, "The symmetric eigenvalue problem", 1980 (spectrum slicing); Grimes, Lewis & Simon, "A shifted block Lanczos algorithm
for solving sparse symmetric generalized eigenproblems", SIAM J. Matrix Anal. 15, 1994.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.graphs.lanczos import block_lanczos, lengths

_TOP_WIDTH, _TOP_ROOM = 16, 400
_WIDTH, _ROOM = 12, 360
"""Vectors of a block, and of the whole space, for each shift: then some 60 eigenpairs around it have converged."""
_CONVERGED = 1e-5
"""Largest residual of an eigenpair of the inverse, as a share of its eigenvalue."""
_AIM = 56
_MOST_SHIFTS = 60


@dataclass(frozen=True)
class Factor:
    """An affinity with its diagonal put back, of low rank: ``columns @ diag(signs) @ columns.T``.

    columns: float64 (n, r). signs: float64 (r,), 1 or -1.
    """

    columns: np.ndarray
    signs: np.ndarray


class ShiftedInverse:
    """(Z J Zᵀ - H - σ)^(-1), and how many eigenvalues of Z J Zᵀ - H lie above σ."""

    def __init__(self, factor: Factor, diagonal: np.ndarray, sigma: float) -> None:
        self.sigma = sigma
        self._columns, self._negative = factor.columns, int(np.count_nonzero(factor.signs < 0))
        below = -(diagonal + sigma)
        below[below == 0] = np.finfo(np.float64).tiny
        self._below = below
        # the product of a matrix with itself takes half the time of another: all as one sign, then the fewer of the other twice
        roots = self._columns / np.sqrt(np.abs(below))[:, None]
        most = -1.0 if 2 * np.count_nonzero(below < 0) >= len(below) else 1.0
        others = roots[np.sign(below) != most]
        self._small = most * (roots.T @ roots - 2 * (others.T @ others)) + np.diag(factor.signs)
        self._weighted = factor.columns / below[:, None]

    def above(self) -> int:
        """Number of eigenvalues above σ."""
        return int(np.count_nonzero(self._below > 0)) + _negative_eigenvalues(self._small) - self._negative

    def nearest(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
        """(eigenvalues, unit eigenvectors as rows, radius): all eigenpairs nearer to σ than the radius."""
        inverse = np.linalg.inv(self._small)
        steps = block_lanczos(
            lambda rows: rows / self._below - ((rows @ self._weighted) @ inverse) @ self._weighted.T,
            rng.standard_normal((_WIDTH, len(self._below))),
            min(_ROOM, len(self._below) // _WIDTH * _WIDTH),
        )
        basis, projected, following = list(steps)[-1]
        ritz, turn = np.linalg.eigh(projected, UPLO="U")
        order = np.argsort(-np.abs(ritz))
        ritz, turn = ritz[order], turn[:, order]
        apart = np.zeros(len(ritz)) if following is None else lengths(turn[-_WIDTH:].T @ following)
        count = int(np.argmin(np.append(apart <= _CONVERGED * np.abs(ritz), False)))
        if count < 2:
            return np.zeros(0), basis[:0], 0.0
        # half way between the last two, so that neither lies on the bound
        radius = float(1 / abs(ritz[count - 2]) + 1 / abs(ritz[count - 1])) / 2
        return self.sigma + 1 / ritz[:count], turn[:, :count].T @ basis, radius


def _negative_eigenvalues(matrix: np.ndarray) -> int:
    """Number of negative eigenvalues of a symmetric matrix, from its factors L D Lᵀ."""
    from scipy.linalg import lapack

    factors, pivots, _ = lapack.dsytrf(matrix, lower=1)
    # a block of two has one eigenvalue of either sign; both of its pivots are negative
    return int(np.count_nonzero(np.diag(factors)[pivots > 0] < 0) + np.count_nonzero(pivots < 0) // 2)


class _Spectrum:
    """The eigenpairs found so far, from the greatest down without a gap."""

    def __init__(self, factor: Factor, diagonal: np.ndarray, seed: int) -> None:
        self.factor, self.diagonal = factor, diagonal
        self.values: list[np.ndarray] = []
        self.rows: list[np.ndarray] = []
        self.shifts = 0
        self._rng = np.random.default_rng(seed)
        self._bulk = np.sort(-diagonal)[::-1]

    @property
    def total(self) -> int:
        return sum(map(len, self.values))

    def above(self, sigma: float) -> int:
        return ShiftedInverse(self.factor, self.diagonal, sigma).above()

    def add(self, values: np.ndarray, rows: np.ndarray, low: float, high: float) -> None:
        inside = (values > low) & (values <= high)
        self.values.append(values[inside])
        self.rows.append(rows[inside])

    def top(self) -> float:
        """Add the eigenpairs well above the bulk by Lanczos with the matrix itself; returns the bound down to which all are found."""
        columns, signs = self.factor.columns, self.factor.signs
        edge = -0.7 * float(self.diagonal.min())
        start = self._rng.standard_normal((_TOP_WIDTH, len(self.diagonal)))

        def times(rows: np.ndarray) -> np.ndarray:
            return ((rows @ columns) * signs) @ columns.T - rows * self.diagonal

        expected = self.above(edge)
        values, rows = np.zeros(0), np.zeros((0, len(self.diagonal)))
        for basis, projected, following in block_lanczos(times, start, _TOP_ROOM):
            if following is not None and (len(basis) < expected + 4 * _TOP_WIDTH or len(basis) // _TOP_WIDTH % 3):
                continue
            ritz, turn = np.linalg.eigh(projected, UPLO="U")
            over = ritz > edge
            apart = 0.0 if following is None else lengths(turn[-_TOP_WIDTH:, over].T @ following).max(initial=0.0)
            if np.count_nonzero(over) == expected and apart <= 1e-3 * (edge + self.diagonal.min()):
                values, rows = ritz[over], turn[:, over].T @ basis
                break
        self.add(values, rows, edge, np.inf)
        return edge

    def fill(self, low: float, high: float, sigma: float) -> float:
        """Add the eigenpairs of an interval, open below where ``low`` is infinite; returns its lower end."""
        self.shifts += 1
        if self.shifts > _MOST_SHIFTS:
            return low
        values, rows, radius = ShiftedInverse(self.factor, self.diagonal, sigma).nearest(self._rng)
        bottom, ceiling = max(low, sigma - radius), min(high, sigma + radius)
        self.add(values, rows, bottom, ceiling)
        if ceiling < high and self.above(ceiling) > self.above(high):
            self.fill(ceiling, high, (ceiling + high) / 2)
        if np.isfinite(low) and low < bottom and self.above(low) > self.above(bottom):
            self.fill(low, bottom, (low + bottom) / 2)
        return bottom

    def next_shift(self, edge: float, aim: int) -> float:
        """A shift below the edge, with about so many eigenvalues between, if they lie as densely as the diagonal's entries."""
        passed = int(np.count_nonzero(self._bulk > edge))
        end = float(self._bulk[min(passed + aim, len(self._bulk) - 1)])
        # nearer to the edge: eigenvalues lie more densely below
        return edge + 0.4 * (end - edge)


def largest_by_slices(factor: Factor, diagonal: np.ndarray, wanted: int, seed: int = 0) -> np.ndarray | None:
    """Approximate eigenvectors, rows (m, n), of the m >= ``wanted`` greatest eigenvalues of Z J Zᵀ - H; None where some are missing.

    Parameters
    ----------
    factor : Factor
        Z and J.
    diagonal : ndarray of float64, shape (n,)
        H, positive.
    wanted : int
    seed : int, default 0
        Of the starting vectors.
    """
    spectrum = _Spectrum(factor, diagonal, seed)
    edge, aim = spectrum.top(), _AIM
    while spectrum.total < wanted and spectrum.shifts < _MOST_SHIFTS:
        before, sigma = spectrum.shifts, spectrum.next_shift(edge, aim)
        edge = spectrum.fill(-np.inf, edge, sigma)
        # a slice that one shift does not fill is followed by a thinner one
        aim = max(aim // 2, 4) if spectrum.shifts > before + 1 else min(aim + aim // 4, 4 * _AIM)
    if spectrum.total < wanted or spectrum.above(edge) != spectrum.total:
        return None
    order = np.argsort(-np.concatenate(spectrum.values), kind="stable")[:wanted]
    return np.concatenate(spectrum.rows)[order]
