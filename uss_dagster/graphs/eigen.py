"""Smallest eigenpairs of a graph Laplacian, with a solver that suits the size of the graph and the number of pairs.

With degrees g and G = diag(g), the three Laplacians are G^(-1/2) (G - A) G^(-1/2) (*symmetrical*), G^(-1) (G - A) (*randomwalk*) and
the pencil (G - A) y = λ G y (*standard*). All have the eigenvalues of the first, and G^(-1/2) turns its eigenvectors into theirs, so
every solver works on the symmetric matrix M = I - L, whose largest eigenvalues are sought.

The solvers for many pairs are written here: ``benchmarks/spectral.py`` measured 200 pairs of 3600 nodes 5.6 times faster than
``scipy.linalg.eigh``, with residuals up to 7e-7.

References: von Luxburg, "A tutorial on spectral clustering", Statistics and Computing 17, 2007; Golub & Underwood, "The block
Lanczos method for computing eigenvalues", 1977.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import BadData, UsageError, check_choice
from uss_dagster.graphs.lanczos import block_lanczos, lengths, orthonormal
from uss_dagster.graphs.spectrum_slices import Factor, ShiftedInverse, largest_by_slices

LAPLACIANS = ("symmetrical", "randomwalk", "standard")
SOLVERS = ("auto", "dense", "krylov", "low-rank", "slices")

FLOOR = 1e-12
"""A degree below this share of the largest counts as none; a share, so that a graph and its multiples are treated alike."""

# measured on two cores: below these sizes the simpler solver is the faster one
_FULL_BELOW = 150
_DENSE_BELOW = 600
# largest rank that counts as low
_RANK = 128
# share of the wanted space, root mean square, that may be missed before the dense solver takes over
_MISSED = 0.01


@dataclass(frozen=True)
class Eigen:
    """Eigenpairs of a Laplacian.

    Parameters
    ----------
    values : ndarray of float64, shape (k,)
        Ascending.
    vectors : ndarray of float64, shape (n, k)
        Of unit length (*standard*: yᵀ G y = 1); the entry of greatest magnitude is positive.
    solver : str
        The solver that was used; "krylov, dense" if the first did not converge.
    residual : ndarray of float64, shape (k,)
        |L v - λ v|, or |(G - A) y - λ G y| for *standard*.
    """

    values: np.ndarray
    vectors: np.ndarray
    solver: str
    residual: np.ndarray


def smallest_eigenpairs(
    affinity: np.ndarray,
    k: int,
    *,
    laplacian: str = "symmetrical",
    solver: str = "auto",
    tol: float = 1e-3,
    seed: int = 0,
    factor: Factor | None = None,
) -> Eigen:
    """The k smallest eigenpairs of the Laplacian of an affinity.

    A node without edges has a row of zeros in the Laplacian and adds an eigenvalue 0.

    Parameters
    ----------
    affinity : ndarray of float, shape (n, n)
        Symmetric, 0 or more.
    k : int
        Number of pairs, 1..n.
    laplacian : {"symmetrical", "randomwalk", "standard"}, default "symmetrical"
        See the module.
    solver : {"auto", "dense", "krylov", "low-rank", "slices"}, default "auto"
        "auto" takes "dense" for small graphs or many pairs, "krylov" for large ones, "low-rank" where more pairs are sought than
        the features have channels, and "slices" where the affinity's factor is given and eigenvalues crowd. The iterative solvers are
        checked: "dense" runs after all where a residual of the symmetrical form exceeds ``tol``, where the k-th pair is too near to
        the next to separate the space of the first k, or where eigenvalues repeat more often than the solver can see.
    tol : float, default 1e-3
        With 1e-5 or more "krylov" multiplies in float32 and finishes in float64, which leaves residuals near 1e-6.
    seed : int, default 0
        Of the starting vectors.
    factor : Factor, optional
        Of the affinity, see ``affinity.cosine_affinity``; "slices" needs it. One that is not the affinity's is not used.

    Returns
    -------
    Eigen
    """
    check_choice("Laplacian", laplacian, LAPLACIANS)
    check_choice("solver", solver, SOLVERS)
    graph = _Graph(affinity, factor)
    if not 1 <= k <= graph.n:
        raise UsageError(f"{k} eigenpairs were asked of a graph of {graph.n} nodes, expected between 1 and {graph.n}.")
    picked = _pick(graph, k) if solver == "auto" else solver
    pairs = None if picked == "dense" or k >= graph.n else _ITERATIVE[picked](graph, k, tol, seed)
    if pairs is not None:
        return _finish(graph, *pairs, laplacian, picked)
    return _finish(graph, *_dense(graph, k), laplacian, "dense" if picked == "dense" else f"{picked}, dense")


class _Graph:
    """An affinity and its M = G^(-1/2) A G^(-1/2) + diag(1 where the degree is 0), which is never stored in float64."""

    def __init__(self, affinity: np.ndarray, factor: Factor | None = None) -> None:
        self.affinity = np.asarray(affinity, np.float64)
        if self.affinity.ndim != 2 or self.affinity.shape[0] != self.affinity.shape[1]:
            raise BadData(f"The affinity has shape {self.affinity.shape}, expected as many rows as columns.")
        self.n = self.affinity.shape[0]
        self.degree = self.affinity.sum(axis=1)
        if not np.isfinite(self.degree).all() or (self.n and self.affinity.min() < 0):
            raise BadData("The affinity holds values that are negative or not finite, expected weights of 0 or more.")
        self.floored = floored(self.degree)
        self.scale = 1 / np.sqrt(self.floored)
        self.alone = 1 - self.degree / self.floored
        self.factor: Factor | None = None
        self.diagonal = np.zeros(0)
        if factor is not None:
            self.factor = Factor(factor.columns * self.scale[:, None], factor.signs)
            self.diagonal = np.einsum("ij,j->i", self.factor.columns**2, factor.signs)

    def times(self, rows: np.ndarray) -> np.ndarray:
        """rows @ M, float64 (b, n)."""
        return (rows * self.scale) @ self.affinity * self.scale + rows * self.alone

    def matrix(self, dtype: type = np.float64) -> np.ndarray:
        """M itself."""
        scaled: np.ndarray = np.empty((self.n, self.n), dtype)
        for start in range(0, self.n, 256):
            part = slice(start, start + 256)
            scaled[part] = self.affinity[part] * self.scale[part, None] * self.scale
        np.einsum("ii->i", scaled)[:] += self.alone.astype(dtype)
        return scaled


def floored(degree: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Weights, none below ``FLOOR`` of the largest of the reference (themselves), for dividing by; 1 where that is 0."""
    return np.maximum(degree, FLOOR * (degree if reference is None else reference).max(initial=0.0) or 1.0)


def positive_peak(vector: np.ndarray) -> np.ndarray:
    """The vector (n,) or its negative, so that the entry of greatest magnitude is positive: eigenvectors have no sign of their own."""
    return vector * (1 if vector[np.argmax(np.abs(vector))] > 0 else -1)


Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""The largest eigenvalues μ of M, descending, (k,), their unit eigenvectors v as rows (k, n), and v M - μ v, (k, n)."""


def _pick(graph: _Graph, k: int) -> str:
    if graph.n < _DENSE_BELOW or 6 * k > graph.n:
        return "dense"
    if _sampled_rank(graph) < min(k, _RANK):
        return "low-rank"
    return "slices" if _crowded(graph, k) else "krylov"


def _crowded(graph: _Graph, k: int) -> bool:
    """Whether some of the first k eigenvalues lie among those that the diagonal of M + H, of low rank, leaves behind."""
    if graph.factor is None or 4 * len(graph.factor.signs) > graph.n or not graph.diagonal.min() > 0:
        return False
    return ShiftedInverse(graph.factor, graph.diagonal, -(1 - 1e-6) * float(graph.diagonal.min())).above() < _with_spare(k)


def _slices(graph: _Graph, k: int, tol: float, seed: int) -> Pairs | None:
    factor = graph.factor
    if factor is None or not graph.diagonal.min() > 0 or graph.alone.any():
        return None

    def times(rows: np.ndarray) -> np.ndarray:
        return ((rows @ factor.columns) * factor.signs) @ factor.columns.T - rows * graph.diagonal

    probe = np.random.default_rng(seed).standard_normal((2, graph.n))
    if np.abs(times(probe) - graph.times(probe)).max() > 1e-11:
        return None  # of another affinity
    rows = largest_by_slices(factor, graph.diagonal, _with_spare(k), seed)
    return None if rows is None else _ritz(times, rows, k, tol)


def _dense(graph: _Graph, k: int) -> Pairs:
    from scipy import linalg

    n, matrix = graph.n, graph.matrix()
    if n <= _FULL_BELOW or 6 * k > n:
        values, vectors = np.linalg.eigh(matrix)
        values, vectors = values[-k:], vectors[:, -k:]
    else:
        values, vectors = linalg.eigh(matrix, subset_by_index=[n - k, n - 1], overwrite_a=True, check_finite=False)
    return _with_residuals(graph, values[::-1], vectors[:, ::-1])


def _with_residuals(graph: _Graph, values: np.ndarray, columns: np.ndarray) -> Pairs:
    rows = np.ascontiguousarray(columns.T)
    return values, rows, graph.times(rows) - values[:, None] * rows


def _krylov(graph: _Graph, k: int, tol: float, seed: int) -> Pairs | None:
    """Block Lanczos with full reorthogonalisation, and a Rayleigh-Ritz step in float64.

    A random block X is multiplied by M again and again; the span of all of it holds, after few products, the ends of the spectrum. A block
    that adds less than its width means that this span is exhausted and that there may be more copies of an eigenvalue than
    it shows: then, and where the space has grown large without convergence, and where eigenvalues lie too close for the
    precision, there is no answer.
    """
    n = graph.n
    kind: type = np.float32 if tol >= 1e-5 else np.float64
    matrix = graph.matrix(kind)
    width = int(np.clip(2 * k // 5, 16, 80))
    wanted = _with_spare(k)
    room = min(n - width, 3 * k + 4 * width + 150)
    check = wanted + 4 * width
    start: np.ndarray = np.random.default_rng(seed).standard_normal((width, n)).astype(kind)
    for basis, projected, factor in block_lanczos(lambda rows: rows @ matrix, start, room):
        size = len(basis)
        if size < check or factor is None:
            continue
        values, small = np.linalg.eigh(projected, UPLO="U")
        values, small = values[: -wanted - 1 : -1], small[:, : -wanted - 1 : -1]
        if not _told_apart(values, np.full(k, np.finfo(kind).eps), tol):
            return None  # rounding alone mixes them
        if not _told_apart(values, lengths(small[-width:, :k].T @ factor), tol / 2):
            check = size + max(width, size // 10)
            continue
        return _ritz(graph.times, (small.astype(kind).T @ basis).astype(np.float64), k, tol)
    return None


def _with_spare(k: int) -> int:
    """How many pairs to compute for k of them: those beyond show whether the k-th is apart from the rest."""
    return k + max(8, k // 10)


def _low_rank(graph: _Graph, k: int, tol: float, seed: int) -> Pairs | None:
    """For cosine affinities of few channels: A + I has their rank, so M = Qᵀ S Q - H with H = G^(-1) diagonal and Q of few rows.

    Beyond the rank all eigenvalues lie in a bundle as narrow as the spread of H, which products with M hardly tell apart. But
    (M - σ)^(-1) is cheap here (Woodbury's formula), and so is the number of eigenvalues above any σ (Sylvester's law of inertia). A σ is
    found with a few more than k above it, block Lanczos with the inverse finds those near it, Q and its products with M hold
    those far above, and the count tells whether any is missing.
    """
    n, own = graph.n, graph.scale**2
    rng = np.random.default_rng(seed)
    sample = graph.times(start := rng.standard_normal((min(_RANK, n), n))) + start * own
    _, sizes, q = np.linalg.svd(sample, full_matrices=False)
    q = q[sizes > 1e-11 * sizes[0]]
    image = graph.times(q) + q * own
    s = image @ q.T
    if len(q) == len(sample) or np.abs(image - s @ q).max() > 1e-11:
        return None
    s = (s + s.T) / 2
    inverse_s = np.linalg.inv(s)
    negative = (np.linalg.eigvalsh(s) < 0).sum()

    def capacitance(sigma: float) -> tuple[np.ndarray, np.ndarray]:
        diagonal = -(own + sigma)
        diagonal[diagonal == 0] = np.finfo(np.float64).tiny
        return diagonal, inverse_s + (q / diagonal) @ q.T

    def above(sigma: float) -> int:
        diagonal, small = capacitance(sigma)
        return int((diagonal > 0).sum() + (np.linalg.eigvalsh(small) < 0).sum() - negative)

    wanted = _with_spare(k)
    low, high = -1.01 * own.max(), 1.01
    for _ in range(60):
        sigma = (low + high) / 2
        count = above(sigma)
        if wanted <= count <= wanted + 4:
            break
        low, high = (sigma, high) if count > wanted else (low, sigma)
    else:
        return None
    diagonal, small = capacitance(sigma)
    weighted, small = q / diagonal, np.linalg.inv(small)
    near = _positive_ritz(lambda rows: rows / diagonal - (rows @ weighted.T) @ small @ weighted, n, 32, 2 * wanted + 256, rng)
    if near is None:
        return None

    def times(rows: np.ndarray) -> np.ndarray:
        return (rows @ q.T) @ s @ q - rows * own

    far = [q]
    for _ in range(int(np.clip(200 // len(q), 2, 8))):
        far.append(np.linalg.qr(times(far[-1]).T)[0].T)
    basis = np.linalg.qr(np.concatenate([near, *far]).T)[0].T
    values, turn = np.linalg.eigh(times(basis) @ basis.T)
    values, rows = values[::-1], turn[:, : -k - 1 : -1].T @ basis
    apart = graph.times(rows) - values[:k, None] * rows
    complete = np.count_nonzero(values > sigma) == count and _told_apart(values[:wanted], lengths(apart), tol)
    return (values[:k], rows, apart) if complete else None


def _positive_ritz(times: Callable[[np.ndarray], np.ndarray], n: int, width: int, room: int, rng: np.random.Generator) -> np.ndarray | None:
    """Ritz vectors, as rows, of all positive Ritz values of a symmetric operator in a block Krylov space of dimension ``room``."""
    size = -(-room // width) * width
    if size > n:
        return None
    steps = list(block_lanczos(times, rng.standard_normal((width, n)), size))
    if len(steps) * width < size:
        return None
    basis, projected, _ = steps[-1]
    values, small = np.linalg.eigh(projected, UPLO="U")
    return small[:, values > 0].T @ basis


def _sampled_rank(graph: _Graph) -> int:
    """Rank of A + I between at most 256 of its nodes: what features of fewer channels leave, once the diagonal is put back."""
    some = np.sort(np.random.default_rng(0).choice(graph.n, min(graph.n, 2 * _RANK), replace=False))
    sizes = np.abs(np.linalg.eigvalsh(graph.affinity[np.ix_(some, some)] + np.eye(len(some))))
    return int(np.count_nonzero(sizes > 1e-10 * sizes.max()))


def _ritz(times: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, k: int, tol: float) -> Pairs | None:
    """The best k pairs in the span of rows (p, n), by one exact product; None where they miss the tolerance."""
    basis, _ = orthonormal(rows)
    if basis is None:
        return None
    product = times(basis)
    values, small = np.linalg.eigh(basis @ product.T, UPLO="U")
    values, small = values[::-1], small[:, ::-1]
    vectors = small[:, :k].T @ basis
    apart = small[:, :k].T @ product - values[:k, None] * vectors
    return (values[:k], vectors, apart) if _told_apart(values, lengths(apart), tol) else None


def _told_apart(values: np.ndarray, residual: np.ndarray, tol: float) -> bool:
    """Whether all residuals (k,) are within ``tol`` and small against the distance to the last of the values (p > k,): the sine of the
    angle between an approximate eigenvector and the space of the first k is at most their ratio (Davis & Kahan 1970).
    """
    gap = np.maximum(values[: len(residual)] - values[-1], np.finfo(np.float64).tiny)
    return bool(residual.max() <= tol and np.sqrt(np.mean((residual / gap) ** 2)) <= _MISSED)


def _finish(graph: _Graph, values: np.ndarray, rows: np.ndarray, apart: np.ndarray, laplacian: str, solver: str) -> Eigen:
    """From pairs of M to pairs of the Laplacian, signed, with residuals."""
    if laplacian == "standard":
        rows, apart = rows * graph.scale, apart / graph.scale
    elif laplacian == "randomwalk":
        rows, apart = rows * graph.scale, apart * graph.scale
        length = lengths(rows)[:, None]
        rows, apart = rows / length, apart / length
    magnitude = np.abs(rows)
    # entries equal but for rounding count as equal, so that the first of them decides on every machine
    peak = np.argmax(magnitude >= (1 - 1e-9) * magnitude.max(axis=1, keepdims=True), axis=1)
    sign = np.where(rows[np.arange(len(rows)), peak] < 0, -1.0, 1.0)
    return Eigen(np.maximum(1 - values, 0.0), np.ascontiguousarray((rows * sign[:, None]).T), solver, lengths(apart))


_ITERATIVE: dict[str, Callable[[_Graph, int, float, int], Pairs | None]] = {"krylov": _krylov, "low-rank": _low_rank, "slices": _slices}
