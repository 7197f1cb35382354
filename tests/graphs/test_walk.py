"""Attention as a Markov chain: lumping, upsampling, aggregation, powers, the stationary distribution, and the four graphs."""

import numpy as np
import pytest
from grid_chains import aggregate, refine_grid, to_grid
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.walk import (
    GRAPHS,
    LEAST,
    blocks_of,
    coarsen,
    stationary,
    transition,
    walk,
    walk_graph,
)


def chain(n: int, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).gamma(0.5, size=(n, n)) + 1e-3
    return (matrix / matrix.sum(axis=1, keepdims=True)).astype(np.float32)


def doubly_stochastic(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(6))
    return sum(share * np.eye(n)[rng.permutation(n)] for share in shares).astype(np.float32)


def rows_sum_to_one(matrix: np.ndarray) -> bool:
    return bool(np.abs(np.asarray(matrix.sum(axis=1)).ravel() - 1).max() < 1e-5)


sizes = st.integers(1, 5)


@given(h=sizes, w=sizes, rows=sizes, columns=sizes, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_rows_keep_summing_to_one_between_any_two_grids(h, w, rows, columns, seed):
    moved = to_grid(chain(h * w, seed), (h, w), (rows, columns))
    assert moved.shape == (rows * columns,) * 2
    assert moved.dtype == np.float32
    assert moved.min() >= 0
    assert rows_sum_to_one(moved)


def test_lumping_is_sum_over_columns_and_mean_over_rows():
    step, grid, target = chain(7 * 5), (7, 5), (3, 2)
    block = blocks_of(grid, target)
    wanted = np.array([[step[block == a][:, block == b].sum(axis=1).mean() for b in range(6)] for a in range(6)])
    np.testing.assert_allclose(coarsen(step, grid, target), wanted, atol=1e-6)
    thin = coarsen(sparse.csr_array(step), grid, target)
    assert sparse.issparse(thin)
    np.testing.assert_allclose(thin.toarray(), wanted, atol=1e-6)


@pytest.mark.parametrize("target", [(4, 4), (2, 4), (3, 3)])
def test_lumping_a_block_constant_chain_returns_the_chain_of_blocks(target):
    grid = (8, 8) if target != (3, 3) else (7, 8)  # blocks of unequal size as well
    block, coarse = blocks_of(grid, target), chain(target[0] * target[1], 3)
    fine = coarse[np.ix_(block, block)] / np.bincount(block)[block]
    np.testing.assert_allclose(coarsen(fine, grid, target), coarse, atol=1e-6)
    # a chain that can be lumped exactly walks alike before and after
    np.testing.assert_allclose(coarsen(walk(fine, 4), grid, target), walk(coarse, 4), atol=1e-5)


def test_a_refined_row_is_its_map_upsampled_and_shared_by_the_cells_below():
    step = chain(6, 1)
    fine = refine_grid(step, (2, 3), (4, 9))
    maps = fine.reshape(4, 9, 4, 9)
    assert np.array_equal(maps[0, 0], maps[1, 2])
    assert not np.array_equal(maps[0, 0], maps[0, 3])
    row = step[0].reshape(2, 3).astype(np.float64)
    # pixel (1, 4) of (4, 9) lies at (0.25, 1.0) among (2, 3) cells
    raw = 0.75 * row[0, 1] + 0.25 * row[1, 1]
    corner = row[0, 0]
    assert maps[0, 0, 1, 4] / maps[0, 0, 0, 0] == pytest.approx(raw / corner, rel=1e-5)


def test_aggregation_weighs_by_side_and_by_hand():
    maps = [((4, 4), chain(16, 1)), ((2, 2), chain(4, 2)), ((8, 8), chain(64, 3))]
    parts = [to_grid(matrix, grid, (4, 4)) for grid, matrix in maps]
    np.testing.assert_allclose(aggregate(maps, (4, 4)), (4 * parts[0] + 2 * parts[1] + 8 * parts[2]) / 14, atol=1e-6)
    np.testing.assert_allclose(aggregate(maps, (4, 4), "uniform"), sum(parts) / 3, atol=1e-6)
    np.testing.assert_allclose(aggregate(maps, (4, 4), {2: 0.0, 4: 1.0, 8: 0.0}), parts[0], atol=1e-6)
    with pytest.raises(UsageError, match="No weight is given for the grid of 2 rows"):
        aggregate(maps, (4, 4), {4: 1.0})
    with pytest.raises(UsageError, match="Did you mean 'uniform'"):
        aggregate(maps, (4, 4), "unifrom")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="Nothing to aggregate"):
        aggregate([], (4, 4))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 8])
def test_powers_and_their_eigenvalues(k):
    step = chain(30)
    exact = np.linalg.matrix_power(step.astype(np.float64), k)
    power = walk(step, k)
    np.testing.assert_allclose(power, exact, atol=1e-6)
    assert rows_sum_to_one(power)
    # eigenvalues of a reversible chain are real, and those of the power are their powers
    weights = np.random.default_rng(1).random((20, 20))
    weights += weights.T
    reversible = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    values = np.sort(np.linalg.eigvals(reversible.astype(np.float64)).real ** k)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(walk(reversible, k).astype(np.float64)).real), values, atol=1e-5)


def test_the_stationary_distribution_is_that_of_every_power():
    step = chain(40)
    share = stationary(step)
    np.testing.assert_allclose(share @ step, share, atol=1e-7)
    for k in (2, 4, 8):
        np.testing.assert_allclose(stationary(walk(step, k)), share, atol=1e-6)


def test_stationary_of_periodic_slow_and_split_chains():
    np.testing.assert_allclose(stationary(np.array([[0, 1], [1, 0]], np.float32)), [0.5, 0.5])
    n = 300  # a corridor with a bias to one end: two hundred steps do not settle it
    step = np.zeros((n, n))
    step[np.arange(n), np.minimum(np.arange(n) + 1, n - 1)] += 0.51
    step[np.arange(n), np.maximum(np.arange(n) - 1, 0)] += 0.49
    wanted = (0.51 / 0.49) ** np.arange(n)
    np.testing.assert_allclose(stationary(step), wanted / wanted.sum(), atol=1e-6)
    two = np.kron(np.eye(2), np.full((3, 3), 1 / 3)).astype(np.float32)
    np.testing.assert_allclose(stationary(two), np.full(6, 1 / 6), atol=1e-7)
    slow = np.kron(np.eye(2), step / step.sum(axis=1, keepdims=True))
    assert stationary(slow)[:n].sum() == pytest.approx(0.5)


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_are_symmetric_and_connected(graph):
    weights = walk_graph(walk(chain(25), 2), graph)
    assert weights.dtype == np.float64
    assert np.array_equal(weights, weights.T)
    assert weights.min() >= LEAST


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs_follow_a_renaming_of_the_cells(graph):
    power = walk(chain(25), 2)
    turn = np.random.default_rng(2).permutation(25)
    np.testing.assert_allclose(walk_graph(power[np.ix_(turn, turn)], graph), walk_graph(power, graph)[np.ix_(turn, turn)], atol=1e-5)


def test_flow_is_the_symmetric_graph_for_a_doubly_stochastic_chain():
    step = doubly_stochastic(24)
    np.testing.assert_allclose(walk_graph(step, "rw"), walk_graph(step, "sym"), atol=1e-6)
    uneven = chain(24)
    assert np.abs(walk_graph(uneven, "rw") - walk_graph(uneven, "sym")).max() > 0.01


@pytest.mark.parametrize("seed", range(4))
def test_ncut_of_the_flow_is_the_probability_of_leaving(seed):
    step = chain(30, seed)
    share, side = stationary(step), np.random.default_rng(seed).random(30) < 0.4
    weights = walk_graph(step, "rw")
    cut = weights[side][:, ~side].sum()
    leave = (share[side] @ step[side][:, ~side]).sum() / share[side].sum(), (share[~side] @ step[~side][:, side]).sum() / share[~side].sum()
    assert cut / weights[side].sum() + cut / weights[~side].sum() == pytest.approx(sum(leave), abs=1e-5)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_lumpable_cut_costs_one_less_its_complement_to_the_power(k):
    """Two blocks with c = 0.35 costs 0.35, 0.578 and 0.821 at one, two and four steps."""
    n, c = 12, 0.35
    leave = np.array([[1 - c / 2, c / 2], [c / 2, 1 - c / 2]])
    step = np.kron(leave, np.full((n // 2, n // 2), 2 / n)).astype(np.float32)
    weights, side = walk_graph(walk(step, k), "rw"), np.arange(n) < n // 2
    cut = weights[side][:, ~side].sum()
    assert cut / weights[side].sum() + cut / weights[~side].sum() == pytest.approx(1 - (1 - c) ** k, abs=1e-6)


def test_cosines_run_from_nothing_to_one_and_equal_rows_make_ones():
    power = chain(20)
    units = power / np.linalg.norm(power, axis=1, keepdims=True)
    cosines = units.astype(np.float64) @ units.T
    wanted = ((cosines - cosines.min()) / (cosines.max() - cosines.min())) ** 3
    np.testing.assert_allclose(walk_graph(power, "cos", alpha=3.0), np.maximum(wanted, LEAST), atol=1e-5)
    assert (walk_graph(np.full((9, 9), 1 / 9, np.float32), "cos") == 1).all()


def test_bad_input_is_refused():
    for broken in (np.full((3, 3), np.nan), np.eye(3) * 2, np.eye(3) - 0.1, np.ones((2, 3)) / 3, np.zeros((0, 0))):
        with pytest.raises(BadData, match="Attention"):
            transition(broken)
    with pytest.raises(BadData, match="does not fit a grid"):
        coarsen(chain(6), (2, 2), (1, 1))
    with pytest.raises(UsageError, match="finer"):
        coarsen(chain(6), (2, 3), (4, 3))
    with pytest.raises(UsageError, match="coarser"):
        refine_grid(chain(6), (2, 3), (1, 3))
    with pytest.raises(UsageError, match="1 or more"):
        walk(chain(4), 0)
    with pytest.raises(UsageError, match="Did you mean 'cos'"):
        walk_graph(chain(4), "coss")


def test_half_precision_attention_is_rescaled():
    matrix = transition(chain(500).astype(np.float16))
    assert matrix.dtype == np.float32
    assert rows_sum_to_one(matrix)
