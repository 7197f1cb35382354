"""The lines that pages have on metrics, and their groups."""

from __future__ import annotations

import pytest

from uss_dagster import registry
from uss_dagster.report.facts import MetricFacts
from uss_dagster.report.metric_lines import MetricLine, families, metric_line

METRICS = {name: registry.load("metric", name).SPEC.metrics for name in registry.names("metric")}


@pytest.mark.parametrize("family", sorted(METRICS))
def test_every_metric_has_a_line_of_at_most_two_of_text(family: str) -> None:
    for name in METRICS[family]:
        line = metric_line(name, MetricFacts(name, "", family=family))
        assert line.group
        assert 20 < len(line.line) < 200, name
        assert line.line.endswith(".")


def test_lines_name_only_what_there_is() -> None:
    everything = {name for metrics in METRICS.values() for name in metrics}
    for family, lines in families().items():
        assert set(lines.metrics) <= set(METRICS[family])
        assert not lines.equal or lines.equal in everything


def test_a_family_of_another_package_has_a_group_and_no_line() -> None:
    assert metric_line("depth", MetricFacts("Depth", "", family="my_family")) == MetricLine("My family", "", "")


def test_nm_covering_says_that_it_takes_the_best_of_all_regions() -> None:
    line = metric_line("nm_covering", MetricFacts("NMCovering", "", family="covering"))
    assert "best match (highest IoU) among all regions" in line.line
    assert line.equal == "oracle_diffseg_miou"
