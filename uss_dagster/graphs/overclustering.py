"""One flat spectral clustering of an image into many small parts, and the graph of these parts.

Reference: Ng, Jordan & Weiss, "On spectral clustering", NIPS 2001; as the first stage of Rossetti & Pirri, NeurIPS 2024.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.graphs.eigen import smallest_eigenpairs
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.partition import ROUNDING, scaled
from uss_dagster.graphs.spectrum_slices import Factor


def over_cluster(
    affinity: np.ndarray,
    parts: int = 200,
    *,
    laplacian: str = "symmetrical",
    scaling: str = "unit",
    restarts: int = 10,
    iterations: int = 600,
    tolerance: float = 1e-6,
    seed: int = 1234,
    factor: Factor | None = None,
) -> np.ndarray:
    """The part of each of the n items of an affinity, int32 (n,), 0.. without a gap.

    k-means on the first eigenvectors of the Laplacian, the constant-like first included, scaled row by row. There are never more parts
    than items, and fewer if rows coincide.

    Parameters
    ----------
    affinity : ndarray of float, shape (n, n)
    parts : int, default 200
        Number of parts and of eigenvectors.
    laplacian
        See ``eigen.smallest_eigenpairs``.
    scaling : str, default "unit"
        See ``partition.scaled``.
    restarts, iterations, tolerance, seed
        See ``kmeans.kmeans``.
    factor : Factor, optional
        Of the affinity, which makes eigenpairs faster; see ``eigen.smallest_eigenpairs``.
    """
    n = affinity.shape[0]
    parts = min(parts, n)
    if parts <= 1:
        return np.zeros(n, np.int32)
    pairs = smallest_eigenpairs(affinity, parts, laplacian=laplacian, factor=factor)
    points = scaled(pairs.vectors, scaling)
    apart = np.flatnonzero(pairs.values < pairs.values[-1] * (1 - ROUNDING))
    if parts < n and 0 < len(apart) < parts - 1:
        # Several last eigenvalues are equal, and perhaps those that were not computed: their vectors are rounding, and no part.
        points = scaled(pairs.vectors[:, apart], scaling).round(9)
    return kmeans(points, parts, seed=seed, restarts=restarts, iterations=iterations, tolerance=tolerance).labels


def part_graph(affinity: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Zᵀ A Z without its diagonal, float64 (m, m), Z the membership of items in parts: sums of affinity, so large parts weigh more."""
    from scipy import sparse

    n = affinity.shape[0]
    if labels.shape != (n,) or (n and labels.min() < 0):
        raise BadData(f"Part labels have shape {labels.shape}, expected one label of 0 or more for each of {n} items.")
    belongs = sparse.csr_array((np.ones(n), (np.arange(n), labels)), shape=(n, int(labels.max(initial=-1)) + 1))
    weights = (belongs.T.tocsr() @ affinity) @ belongs
    # both triangles are the same sums in another order
    weights = (weights + weights.T) / 2
    np.fill_diagonal(weights, 0)
    return weights
