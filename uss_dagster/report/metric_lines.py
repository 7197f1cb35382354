"""What each metric measures, in one line, and the group that it stands in on pages.

The lines are in ``metric_lines.yaml``, a section a metric family, and not in the metrics' own files: those are part of what scores are computed
from, so that another wording would compute them all again. A family that is not there, such as one of another package, makes a group
under its own title, without lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from uss_dagster.files import parse_yaml
from uss_dagster.report.facts import MetricFacts


@dataclass(frozen=True)
class FamilyLines:
    """One family.

    Parameters
    ----------
    group : str
        Title of its group.
    line : str
        What its metrics have in common.
    equal : str
        Metric that compares entries at about the same number of regions, where these metrics do not; '' for none.
    metrics : mapping of str to str
        Metric to what it measures.
    """

    group: str
    line: str
    equal: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)


class MetricLine(NamedTuple):
    """What pages say about a metric: title of its group, the line ('' for none), and ``FamilyLines.equal``."""

    group: str
    line: str
    equal: str


@cache
def families() -> Mapping[str, FamilyLines]:
    """All families that have lines, in the order of the file."""
    return {name: FamilyLines(**section) for name, section in parse_yaml(Path(__file__).with_suffix(".yaml").read_bytes()).items()}


def metric_line(name: str, facts: MetricFacts) -> MetricLine:
    """What pages say about a metric. name: its name, by which lines are found."""
    family = families().get(facts.family)
    if family is None:
        return MetricLine(facts.family.replace("_", " ").capitalize() or "Metrics", "", "")
    return MetricLine(family.group, family.metrics.get(name, family.line), family.equal)
