"""Atoms from run-length codes are those of the masks, and need no mask of the full size."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.artifacts.tables import regions_from_table, regions_to_table
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions, rle


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 6), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_codes_give_the_atoms_of_their_masks(count: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((count, height, width)) < rng.choice([0, 0.2, 0.9, 1], (count, 1, 1))
    coded, drawn = Regions.from_codes(rle.encode(masks), (height, width)), Regions.from_masks(masks, shape=(height, width))
    np.testing.assert_array_equal(coded.atoms, drawn.atoms)
    np.testing.assert_array_equal(coded.members, drawn.members)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 5), st.integers(1, 16), st.integers(1, 16), st.integers(0, 2**32 - 1))
def test_codes_at_a_smaller_size_are_those_of_the_resized_regions(count: int, height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rle.encode(rng.random((count, height, width)) < rng.choice([0, 0.2, 0.9, 1], (count, 1, 1)))
    small = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
    reduced = Regions.from_codes(codes, (height, width), size=small)
    expected = Regions.from_codes(codes, (height, width)).resized(*small).compact()
    np.testing.assert_array_equal(reduced.atoms, expected.atoms)
    np.testing.assert_array_equal(reduced.members, expected.members)


def test_runs_of_no_pixel_and_codes_of_another_size() -> None:
    code = rle.encode_runs(np.array([2, 3, 0, 4, 0, 0, 3]))
    assert Regions.from_codes([code], (3, 4)).masks().ravel(order="F").tolist() == [False] * 2 + [True] * 7 + [False] * 3
    with pytest.raises(BadData, match="covers 12 pixels, its image has 3×5 = 15"):
        Regions.from_codes([code], (3, 5))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_a_tree_has_the_same_atoms_after_it_was_stored(nodes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parent = [-1, *(int(rng.integers(n)) for n in range(1, nodes))]
    tree = Regions.from_tree(rng.integers(-1, nodes, (7, 9)), parent)
    stored = regions_from_table(regions_to_table("x", tree))
    np.testing.assert_array_equal(stored.atoms, tree.atoms)
    np.testing.assert_array_equal(stored.members, tree.members)


def band_runs(first: int, last: int, height: int, width: int) -> np.ndarray:
    """Run lengths of the rows from ``first`` to before ``last``."""
    return np.array([first, *[last - first, height - last + first] * (width - 1), last - first, height - last])


@pytest.mark.parametrize("nested", [True, False])
def test_memory_does_not_grow_with_the_number_of_masks(nested: bool) -> None:
    """Two hundred masks of two megapixels: 400 MB if each were drawn."""
    height, width, count = 1200, 1700, 200
    firsts = np.arange(count) * 3
    lasts = np.full(count, height) if nested else firsts + 600
    codes = [rle.encode_runs(band_runs(int(a), int(b), height, width)) for a, b in zip(firsts, lasts, strict=True)]
    rows = regions_to_table("x", Regions.from_codes(codes, (height, width)))
    tracemalloc.start()
    regions = regions_from_table(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert regions.area.tolist() == ((lasts - firsts) * width).tolist()
    assert peak <= 40 * height * width
