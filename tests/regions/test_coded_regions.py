"""Regions kept as run-length codes answer like regions that are drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions
from uss_dagster.regions.coded import CodedRegions


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_same_answers(count, height, width, seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((count, height, width)) < rng.random((count, 1, 1))
    columns = {"label": rng.integers(-1, 4, count), "score": rng.random(count, np.float32), "source": [f"s{n}" for n in range(count)]}
    parent = np.where(np.arange(count) % 3 == 2, 0, -1)
    drawn = Regions.from_masks(masks, parent, **columns) if count else Regions.from_masks(masks, shape=(height, width))
    coded = CodedRegions(drawn.rles(), (height, width), parent, **columns)
    for regions, other in ((coded, drawn), (coded.pruned(), drawn.pruned())):
        assert (len(regions), regions.shape, regions.rles(), regions.source) == (len(other), other.shape, other.rles(), other.source)
        for name in ("parent", "label", "score", "area", "boxes", "depth", "is_root"):
            np.testing.assert_array_equal(getattr(regions, name), getattr(other, name), err_msg=name)
        np.testing.assert_array_equal(regions.masks(), other.masks())
        table, expected = regions_to_table("x", regions), regions_to_table("x", other)
        assert table.drop_columns("level").equals(expected.drop_columns("level"))
        assert np.array_equal(np.reshape(table["bbox"].to_pylist(), (-1, 4)), other.boxes), "a box read off the runs is that of the pixels"


def test_codes_of_another_size_and_columns_of_another_length_are_refused():
    code = Regions.from_masks(np.ones((1, 3, 4), bool)).rles()
    with pytest.raises(BadData, match="Region 0: its run-length code covers 12 pixels, the image has 3×5 = 15"):
        CodedRegions(code, (3, 5))
    with pytest.raises(BadData, match="1 regions, but 2 values of 'label'"):
        CodedRegions(code, (3, 4), label=[1, 2])
    with pytest.raises(BadData, match="Region 0 has parent 0"):
        CodedRegions(code, (3, 4), [0])
