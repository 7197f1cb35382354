"""``uss compare``: two entries of the project, metric by metric, and whether their difference is significant."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.commands.options import AsJson, echo_json, echo_lines
from uss_dagster.errors import BadData, UsageError, did_you_mean

if TYPE_CHECKING:
    from uss_dagster.report.compare import Comparison


def compare(
    entry_a: Annotated[str, typer.Argument(metavar="ENTRY_A")],
    entry_b: Annotated[str, typer.Argument(metavar="ENTRY_B")],
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", "-d", metavar="NAME", help="Only this dataset; can be repeated.")
    ] = None,
    metric: Annotated[list[str] | None, typer.Option("--metric", "-m", metavar="NAME", help="Only this metric; can be repeated.")] = None,
    json: AsJson = False,
) -> None:
    """Compare two entries of this project, with paired intervals.

    Both are scored on the same resampled images, so the interval is that of the difference itself. Where it contains 0, the two
    cannot be told apart on this dataset. All pairs of entries with scores on it are judged together, as on the leaderboard.
    """
    from uss_dagster.planning.profiles import find_root

    comparisons = compare_entries(find_root(), entry_a, entry_b, dataset or [], metric or [])
    if json:
        echo_json([_row(comparison, entry_a, entry_b) for comparison in comparisons])
    else:
        echo_lines(table_lines(comparisons, entry_a, entry_b))


def compare_entries(root: Path, first: str, second: str, datasets: Sequence[str] = (), metrics: Sequence[str] = ()) -> list[Comparison]:
    """All scores that two entries have in common; of these datasets and metrics only, where some are named."""
    from uss_dagster.artifacts.staging import read_manifest
    from uss_dagster.report.compare import compare

    if first == second:
        raise UsageError(f"Both entries are '{first}'; name two that differ.")
    folders = _scores(root, first), _scores(root, second)
    comparisons = []
    for dataset in _shared_datasets(first, second, *folders, datasets):
        first_scores, second_scores = (folder[dataset] for folder in folders)
        if read_manifest(first_scores)["truth"] != read_manifest(second_scores)["truth"]:
            raise BadData(
                f"'{first}' and '{second}' were scored on different versions of dataset '{dataset}'. Run `uss repro` and compare again."
            )
        others = [path.parent for path in sorted((root / "data" / "scores").glob(f"*/{glob.escape(dataset)}/scores.parquet"))]
        others = [path for path in others if path not in (first_scores, second_scores)]
        others = [path for path in others if read_manifest(path)["truth"] == read_manifest(first_scores)["truth"]]
        comparisons += compare(first_scores, second_scores, _metric_families(), others)
    known = {comparison.group[1] for comparison in comparisons}
    for name in metrics:
        if name not in known:
            raise UsageError(f"'{first}' and '{second}' share no metric '{name}'.{did_you_mean(name, known)}")
    if not comparisons:
        raise UsageError(f"'{first}' and '{second}' share no score. Run `uss repro`, so that both have the profile's metrics.")
    return [comparison for comparison in comparisons if not metrics or comparison.group[1] in metrics]


def table_lines(comparisons: Sequence[Comparison], first: str, second: str) -> list[str]:
    """The table for a terminal."""
    from uss_dagster.text import aligned, number, span

    head = ["dataset", "metric", "protocol", "scope", "grid", first, second, "difference", "interval", "images", "entries", "verdict"]
    rows = []
    for c in comparisons:
        numbers = [number(c.first), number(c.second), number(c.difference, "+"), span(c.low, c.high, "+"), str(c.images), str(c.entries)]
        rows.append([*c.group, *numbers, c.verdict(first, second) + _direction(c.group[1])])
    lines = aligned(head, rows, right=(first, second, "difference", "images", "entries"))
    lines.append("All pairs of so many entries are judged together: the chance that any is told apart by mistake is 5 %.")
    if not all(c.alike for c in comparisons):
        lines.append("Some numbers are over images that only one of the two has a score for; 'images' counts those that both have.")
    return lines


def _row(comparison: Comparison, first: str, second: str) -> dict[str, object]:
    """A comparison as ``--json`` prints it."""
    c = comparison
    values = {"values": {first: c.first, second: c.second}, "difference": c.difference, "low": c.low, "high": c.high}
    counts = {"images": c.images, "same_images": c.alike, "entries_judged_together": c.entries}
    return (
        dict(zip(("dataset", "metric", "protocol", "scope", "grid"), c.group, strict=True))
        | values
        | counts
        | {"verdict": c.verdict(first, second)}
    )


def _shared_datasets(
    first: str, second: str, first_scores: dict[str, Path], second_scores: dict[str, Path], names: Sequence[str]
) -> Sequence[str]:
    """The named datasets, or all, on which both entries have scores."""
    from uss_dagster.text import few

    shared = sorted(first_scores.keys() & second_scores.keys())
    for name in names:
        if name in shared:
            continue
        if name in first_scores or name in second_scores:
            hint = f"Only '{first if name in first_scores else second}' has scores on it."
        else:
            hint = did_you_mean(name, shared).strip()
        raise UsageError(f"'{first}' and '{second}' have no scores in common on dataset '{name}'. {hint}")
    if not shared:
        raise UsageError(
            f"'{first}' ({few(sorted(first_scores))}) and '{second}' ({few(sorted(second_scores))}) have scores on no common dataset."
        )
    return names or shared


def _metric_families() -> dict[str, str]:
    """Metric → its family."""
    from uss_dagster import registry

    return {metric: family for family in registry.names("metric") for metric in registry.load("metric", family).SPEC.metrics}


def _direction(metric: str) -> str:
    """A reminder, where the higher number is the worse one."""
    from uss_dagster import registry

    family = _metric_families().get(metric)
    better = family is None or registry.load("metric", family).SPEC.metrics[metric].higher_is_better
    return "" if better else " (lower is better)"


def _scores(root: Path, entry: str) -> dict[str, Path]:
    """Dataset → folder of the scores of an entry."""
    folder = root / "data" / "scores"
    entries = sorted(path.name for path in folder.glob("*") if any(path.glob("*/scores.parquet")))
    if not entries:
        raise UsageError(f"{folder} holds no scores yet. Run `uss repro` first.")
    if entry not in entries:
        raise UsageError(f"No entry '{entry}' has scores here.{did_you_mean(entry, entries)}")
    return {path.parent.name: path.parent for path in sorted((folder / entry).glob("*/scores.parquet"))}
