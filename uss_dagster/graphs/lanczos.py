"""Block Lanczos with full reorthogonalisation: a growing orthonormal basis of a Krylov space, and a symmetric operator in it.

Reference: Golub & Underwood, "The block Lanczos method for computing eigenvalues", 1977.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np


def block_lanczos(
    times: Callable[[np.ndarray], np.ndarray], start: np.ndarray, room: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Block Lanczos with full reorthogonalisation, by growing dimension.

    Each step gives the basis as rows (p, n), the operator in it, (p, p), of which the upper triangle counts, and the factor of the
    next block, see ``orthonormal``. The factor is None where the space is exhausted, in the last step.

    Parameters
    ----------
    times : callable
        Rows (b, n) times a symmetric operator.
    start : ndarray, shape (b, n)
        The first block, not yet orthonormal.
    room : int
        Greatest dimension.
    """
    width, room = len(start), max(room, 0)
    basis = np.empty((room, start.shape[1]), start.dtype)
    projected = np.zeros((room, room))
    block, _ = orthonormal(start)
    for size in range(width, room + 1, width):
        if block is None:
            return
        basis[size - width : size] = block
        following = times(block)
        for _ in range(2):
            parts = basis[:size] @ following.T
            following = following - parts.T @ basis[:size]
            projected[:size, size - width : size] += parts
        block, factor = orthonormal(following)
        yield basis[:size], projected[:size, :size], None if block is None else factor


def orthonormal(rows: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Orthonormal rows of the same span and the factor F, with rows = F @ orthonormal; None where rows depend on one another, or grew
    beyond all measure (an operator shifted onto an eigenvalue).

    Cholesky of the Gram matrix, twice, in float64 whatever the rows are in.
    """
    wide = rows.astype(np.float64)
    factor = np.eye(len(rows))
    if not np.abs(wide).max() < 1e100:
        return None, factor
    for _ in range(2):
        try:
            lower = np.linalg.cholesky(wide @ wide.T)
        except np.linalg.LinAlgError:
            return None, factor
        diagonal = np.diag(lower)
        if diagonal.min() < 1e-6 * diagonal.max():
            return None, factor
        wide = np.linalg.inv(lower) @ wide
        factor = factor @ lower
    return wide.astype(rows.dtype), factor


def lengths(rows: np.ndarray) -> np.ndarray:
    """Euclidean length of each row."""
    return np.sqrt(np.einsum("ij,ij->i", rows, rows))
