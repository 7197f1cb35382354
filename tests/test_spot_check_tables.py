"""What a spot check takes for the same."""

import numpy as np
import pyarrow as pa

from uss_dagster.commands.spot_check import same


def test_missing_levels_equal_themselves_and_other_bytes_do_not():
    def table(level, rle=b"1", rows=2):
        return pa.table({"level": pa.array(np.array([0.5, level][:rows], np.float32), from_pandas=False), "rle": [b"0", rle][:rows]})

    nothing = float("nan")
    assert same(table(nothing), table(nothing))
    assert not same(table(nothing), table(0.25))
    assert not same(table(nothing), table(nothing, b"2"))
    assert not same(table(nothing), table(nothing, rows=1))
    assert same(
        pa.concat_tables([table(1.0, rows=1), table(1.0, rows=1)]),
        pa.table({"level": pa.array([0.5, 0.5], pa.float32()), "rle": [b"0", b"0"]}),
    )
