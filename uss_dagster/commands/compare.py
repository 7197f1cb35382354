"""``uss compare``: two entries of the project, number by number, with what may be concluded from the difference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uss_dagster import registry
from uss_dagster.artifacts.staging import read_manifest
from uss_dagster.commands.text import aligned, few, number, span
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.report.compare import Comparison, compare


def compare_entries(root: Path, first: str, second: str, datasets: Sequence[str] = (), metrics: Sequence[str] = ()) -> list[Comparison]:
    """What two entries have in common, dataset by dataset; datasets, metrics: only these, or all."""
    if first == second:
        raise UsageError(f"Both entries are '{first}'; name two that differ.")
    folders = [_scored(root, entry) for entry in (first, second)]
    shared = sorted(folders[0].keys() & folders[1].keys())
    for name in datasets:
        if name not in shared:
            known = folders[0].keys() | folders[1].keys()
            why = (
                f"Only '{first if name in folders[0] else second}' has scores on it."
                if name in known
                else did_you_mean(name, shared).strip()
            )
            raise UsageError(f"'{first}' and '{second}' have no scores in common on dataset '{name}'. {why}")
    if not shared:
        raise UsageError(
            f"'{first}' ({few(sorted(folders[0]))}) and '{second}' ({few(sorted(folders[1]))}) have scores on no common dataset."
        )
    family_of = {metric: family for family in registry.names("metric") for metric in registry.load("metric", family).SPEC.metrics}
    found = []
    for dataset in datasets or shared:
        mine, theirs = folders[0][dataset], folders[1][dataset]
        if read_manifest(mine)["truth"] != read_manifest(theirs)["truth"]:
            raise BadData(
                f"'{first}' and '{second}' were scored on different versions of dataset '{dataset}'. Run `uss repro` and compare again."
            )
        found += compare(mine, theirs, family_of)
    known_metrics = {c.group[1] for c in found}
    for name in metrics:
        if name not in known_metrics:
            raise UsageError(f"'{first}' and '{second}' share no metric '{name}'.{did_you_mean(name, known_metrics)}")
    found = [c for c in found if not metrics or c.group[1] in metrics]
    if not found:
        raise UsageError(f"'{first}' and '{second}' share no number. Run `uss repro`, so that both have the profile's metrics.")
    return found


def lines_of(comparisons: Sequence[Comparison], first: str, second: str) -> list[str]:
    """The table for a terminal."""
    head = ["dataset", "metric", "protocol", "scope", "grid", first, second, "difference", "95 % interval", "images", "verdict"]
    rows = []
    for c in comparisons:
        numbers = [number(c.first), number(c.second), number(c.difference, "+"), span(c.low, c.high, "+"), str(c.images)]
        rows.append([*c.group, *numbers, c.verdict(first, second) + _lower(c)])
    lines = aligned(head, rows, right=(first, second, "difference", "images"))
    if not all(c.alike for c in comparisons):
        lines.append("Some numbers are over images that only one of the two has a score for; 'images' counts those that both have.")
    return lines


def _lower(comparison: Comparison) -> str:
    """A reminder, where the higher number is the worse one."""
    metric = comparison.group[1]
    for family in registry.names("metric"):
        spec = registry.load("metric", family).SPEC.metrics.get(metric)
        if spec is not None:
            return "" if spec.higher_is_better else " (lower is better)"
    return ""


def _scored(root: Path, entry: str) -> dict[str, Path]:
    """Dataset → scores folder of an entry."""
    home = root / "data" / "scores"
    known = sorted(p.name for p in home.glob("*") if p.is_dir() and any(p.glob("*/scores.parquet")))
    if not known:
        raise UsageError(f"{home} holds no scores yet. Run `uss repro` first.")
    if entry not in known:
        raise UsageError(f"No entry '{entry}' has scores here.{did_you_mean(entry, known)}")
    return {p.parent.name: p.parent for p in sorted((home / entry).glob("*/scores.parquet"))}
