"""What an asset's page shows."""

import pytest

from uss_dagster.orchestration.metadata import spark


@pytest.mark.parametrize(
    ("values", "line"),
    [([0, 1], "▁█"), ([2, 2, 2], "▅▅▅"), ([], ""), ([float("nan"), 1, 2], "▁█"), ([0, 0.5, 1, 0.25], "▁▅█▃"), ([float("nan")], "")],
)
def test_spark(values, line):
    assert spark(values) == line
