"""A sparse affinity, as other programs may hand one to the solvers: the entries of ``dense_affinity`` between nearest neighbours."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from uss_dagster.errors import UsageError
from uss_dagster.graphs.affinity import _ROWS, _points, _to_distances, _to_similarities


def knn_affinity(
    features: np.ndarray, neighbours: int, *, distance: str = "cosine", similarity: str = "minmax", sigma: float = 1.0
) -> sparse.csr_array:
    """The entries of ``dense_affinity`` between items one of which is among the nearest neighbours of the other, sparse (n, n).

    No matrix (n, n) is held. Of neighbours at equal distance any may be taken, the same at every call.

    Parameters
    ----------
    features, distance, similarity, sigma
        As for ``dense_affinity``.
    neighbours : int
        Neighbours of each item, 1..n-1.
    """
    points, squares = _points(features, distance, similarity)
    n = len(points)
    if not 1 <= neighbours < n:
        raise UsageError(f"{neighbours} neighbours were asked of {n} items, expected between 1 and {n - 1}.")
    nearest, apart = np.empty((n, neighbours), np.int64), np.empty((n, neighbours))
    low, high = np.inf, 0.0
    for start in range(0, n, _ROWS):
        rows = points[start : start + _ROWS] @ points.T
        _to_distances(rows, squares, start)
        low, high = min(low, float(rows.min())), max(high, float(rows.max()))
        rows[np.arange(len(rows)), np.arange(start, start + len(rows))] = np.inf
        nearest[start : start + _ROWS] = np.argpartition(rows, neighbours - 1, axis=1)[:, :neighbours]
        apart[start : start + _ROWS] = np.take_along_axis(rows, nearest[start : start + _ROWS], axis=1)
    _to_similarities(apart, similarity, low, high, sigma)
    graph = sparse.csr_array((apart.ravel(), nearest.ravel(), np.arange(0, n * neighbours + 1, neighbours)), shape=(n, n))
    both = graph.maximum(graph.T).tocsr()
    both.eliminate_zeros()
    both.sort_indices()
    return both
