"""Eigenpairs of Laplacians: every solver against dense ones, residuals, repeated eigenvalues, signs."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from scipy import sparse
from sparse_affinity import knn_affinity

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.affinity import dense_affinity
from uss_dagster.graphs.eigen import _finish, _Graph, smallest_eigenpairs


def features(n: int, channels: int = 64, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(20, channels))[np.sort(rng.integers(20, size=n))] + rng.normal(size=(n, channels))


def symmetrical(affinity: np.ndarray) -> np.ndarray:
    degree = affinity.sum(axis=1)
    root = 1 / np.sqrt(np.maximum(degree, 1e-12))
    return root[:, None] * (np.diag(degree) - affinity) * root


def grid_graph(side: int, seed: int = 0) -> sparse.csr_array:
    number = np.arange(side * side).reshape(side, side)
    pairs = np.concatenate(
        [np.stack([number[:, :-1], number[:, 1:]], -1).reshape(-1, 2), np.stack([number[:-1], number[1:]], -1).reshape(-1, 2)]
    )
    weight = np.random.default_rng(seed).uniform(0.1, 1, len(pairs))
    half = sparse.coo_array((weight, pairs.T), shape=(side * side, side * side))
    return (half + half.T).tocsr()


AFFINITY = dense_affinity(features(700))
VALUES, VECTORS = scipy.linalg.eigh(symmetrical(AFFINITY))


def same_space(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the largest angle between two spaces."""
    return float(np.linalg.svd(np.linalg.qr(a)[0].T @ np.linalg.qr(b)[0], compute_uv=False).min())


@pytest.mark.parametrize("solver", ["auto", "dense", "krylov"])
@pytest.mark.parametrize("k", [5, 40])
def test_solvers_agree_with_the_full_decomposition(solver: str, k: int) -> None:
    got = smallest_eigenpairs(AFFINITY, k, solver=solver)
    assert got.solver == ("krylov" if solver == "auto" else solver), "no fallback was needed"
    np.testing.assert_allclose(got.values, VALUES[:k], atol=1e-8)
    assert same_space(got.vectors, VECTORS[:, :k]) > 0.9999
    apart = symmetrical(AFFINITY) @ got.vectors - got.vectors * got.values
    np.testing.assert_allclose(np.linalg.norm(apart, axis=0), got.residual, atol=1e-12)
    assert got.residual.max() < 1e-4


def test_a_tight_tolerance_is_kept() -> None:
    got = smallest_eigenpairs(AFFINITY, 12, solver="krylov", tol=1e-10)
    assert got.residual.max() <= 1e-10
    np.testing.assert_allclose(got.values, VALUES[:12], atol=1e-13)


@pytest.mark.parametrize("laplacian", ["symmetrical", "randomwalk", "standard"])
@pytest.mark.parametrize("solver", ["dense", "krylov"])
def test_each_laplacian_has_its_own_vectors(laplacian: str, solver: str) -> None:
    got = smallest_eigenpairs(AFFINITY, 6, laplacian=laplacian, solver=solver, tol=1e-9)
    degree = AFFINITY.sum(axis=1)
    G, difference = np.diag(degree), np.diag(degree) - AFFINITY
    np.testing.assert_allclose(got.values, VALUES[:6], atol=1e-12)
    if laplacian == "standard":
        apart = difference @ got.vectors - G @ got.vectors * got.values
        np.testing.assert_allclose(got.vectors.T @ G @ got.vectors, np.eye(6), atol=1e-9)
    else:
        L = symmetrical(AFFINITY) if laplacian == "symmetrical" else difference / degree[:, None]
        apart = L @ got.vectors - got.vectors * got.values
        np.testing.assert_allclose(np.linalg.norm(got.vectors, axis=0), 1)
    np.testing.assert_allclose(np.linalg.norm(apart, axis=0), got.residual, atol=1e-11)
    assert got.residual.max() < 1e-6


def test_the_entry_of_largest_magnitude_is_positive_whatever_the_solver() -> None:
    for solver in ("dense", "krylov"):
        vectors = smallest_eigenpairs(AFFINITY, 10, solver=solver, tol=1e-9).vectors
        peak = np.abs(vectors).argmax(axis=0)
        assert (vectors[peak, np.arange(10)] > 0).all()
        np.testing.assert_allclose(vectors, smallest_eigenpairs(AFFINITY, 10, solver="dense").vectors, atol=1e-4)
    # of equal magnitudes the first decides
    assert smallest_eigenpairs(np.kron(np.eye(2), np.ones((2, 2))) + 0.1 - 1.1 * np.eye(4), 2).vectors[0, 1] > 0


def test_negated_solutions_are_signed_alike() -> None:
    graph = _Graph(AFFINITY)
    rows = np.ascontiguousarray(VECTORS[:, :5].T)
    apart = graph.times(rows) - (1 - VALUES[:5, None]) * rows
    plus, minus = (_finish(graph, 1 - VALUES[:5], sign * rows, sign * apart, "symmetrical", "x") for sign in (1, -1))
    np.testing.assert_array_equal(plus.vectors, minus.vectors)


def test_same_seed_same_bytes() -> None:
    first, again = (smallest_eigenpairs(AFFINITY, 40, solver="krylov", seed=7) for _ in range(2))
    assert first.vectors.tobytes() == again.vectors.tobytes()


@pytest.mark.parametrize("bridge", [0.0, 1e-9])
def test_eigenvalues_repeated_more_often_than_a_block_is_wide(bridge: float) -> None:
    """120 groups that nothing, or next to nothing, connects: 120 eigenvalues of 0, of which a block sees only as many as it is wide."""
    affinity = np.kron(np.eye(120), np.ones((8, 8))) + bridge
    np.fill_diagonal(affinity, 0)
    got = smallest_eigenpairs(affinity, 130, solver="krylov")
    assert got.values[119] < 1e-5
    assert got.values[120] > 0.9
    assert np.linalg.matrix_rank(got.vectors[::8, :120]) == 120


@pytest.mark.parametrize(("channels", "k"), [(10, 60), (3, 100), (40, 45)])
def test_features_of_few_channels(channels: int, k: int) -> None:
    """Beyond the rank of the features the spectrum is one tight bundle, which only its structure tells apart."""
    affinity = dense_affinity(features(900, channels))
    values, vectors = scipy.linalg.eigh(symmetrical(affinity), subset_by_index=[0, k - 1])
    got = smallest_eigenpairs(affinity, k)
    assert got.solver == "low-rank"
    np.testing.assert_allclose(got.values, values, atol=1e-10)
    assert same_space(got.vectors, vectors) > 0.99
    assert got.residual.max() < 1e-5
    other = smallest_eigenpairs(affinity, k, solver="krylov")
    assert other.solver == "krylov, dense" or channels == 40, "krylov knows where it cannot"
    np.testing.assert_allclose(other.values, values, atol=1e-9)


def test_a_full_rank_or_repeated_bundle_is_not_taken_for_low_rank() -> None:
    noise = np.triu(np.random.default_rng(0).random((700, 700)), 1)
    assert smallest_eigenpairs(noise + noise.T, 20, solver="low-rank").solver == "low-rank, dense"
    repeated = dense_affinity(np.repeat(features(10, 4), 70, axis=0))
    got = smallest_eigenpairs(repeated, 60)
    np.testing.assert_allclose(got.values, scipy.linalg.eigvalsh(symmetrical(repeated))[:60], atol=1e-12)


def test_a_node_without_edges_adds_an_eigenvalue_of_zero() -> None:
    affinity = np.zeros((5, 5))
    affinity[:3, :3] = 1 - np.eye(3)
    got = smallest_eigenpairs(affinity, 5)
    np.testing.assert_allclose(got.values, [0, 0, 0, 1.5, 1.5], atol=1e-12)
    np.testing.assert_allclose(smallest_eigenpairs(np.zeros((4, 4)), 4).values, 0)
    assert smallest_eigenpairs(np.zeros((1, 1)), 1).vectors.tolist() == [[1.0]]


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_multiples_of_an_affinity_have_the_same_eigenpairs(scale: float) -> None:
    small = AFFINITY[:60, :60]
    first, other = smallest_eigenpairs(small, 8), smallest_eigenpairs(scale * small, 8)
    np.testing.assert_allclose(other.values, first.values, atol=1e-12)
    np.testing.assert_allclose(other.vectors, first.vectors, atol=1e-9)


def test_a_graph_of_few_neighbours() -> None:
    graph = grid_graph(30).toarray()
    got = smallest_eigenpairs(graph, 25)
    np.testing.assert_allclose(got.values, scipy.linalg.eigvalsh(symmetrical(graph))[:25], atol=1e-9)
    assert got.residual.max() < 1e-5


@pytest.mark.parametrize("solver", ["dense", "krylov"])
def test_a_graph_of_nearest_neighbours(solver: str) -> None:
    graph = knn_affinity(features(700), 30).toarray()
    got = smallest_eigenpairs(graph, 6, solver=solver)
    np.testing.assert_allclose(got.values, scipy.linalg.eigvalsh(symmetrical(graph))[:6], atol=1e-7)


def test_refusals_say_what_to_change() -> None:
    with pytest.raises(UsageError, match=r"Unknown solver 'krilov'\. Did you mean 'krylov'\?"):
        smallest_eigenpairs(AFFINITY, 2, solver="krilov")
    with pytest.raises(UsageError, match="Unknown Laplacian 'random'"):
        smallest_eigenpairs(AFFINITY, 2, laplacian="random")
    with pytest.raises(UsageError, match="expected between 1 and 700"):
        smallest_eigenpairs(AFFINITY, 701)
    with pytest.raises(BadData, match="as many rows as columns"):
        smallest_eigenpairs(np.ones((2, 3)), 1)
    for bad in (np.nan, np.inf, -1.0):
        with pytest.raises(BadData, match="negative or not finite"):
            smallest_eigenpairs(np.array([[0, bad], [bad, 0]]), 1)
