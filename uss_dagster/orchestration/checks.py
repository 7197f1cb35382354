"""Checks of this project, beside the bridge's own: falling scores, missing cells, an outdated plan, and whether a cell gives its bytes again.

Belongs here: what to compare, and when a difference is worth a warning. Does not belong here: the gate of a stage (``artifacts.gate``),
which refuses a result; these only warn.
"""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from uss_dagster.commands.repro import tool_environment
from uss_dagster.dagster_dvc import AssetFamily, DvcProject, DvcTranslator, families, table
from uss_dagster.errors import UssError
from uss_dagster.orchestration.planning import plan_afresh
from uss_dagster.planning import plan

LEADERBOARD = dg.AssetKey("leaderboard")
REGRESSIONS, COVERAGE, PLANNED, AGAIN = "score_regressions", "every_planned_cell", "plan_is_current", "same_bytes_again"
SPOT_IMAGES = 2
_LISTED = 50
_ROWS = ("dataset", "metric", "protocol", "scope", "grid", "entry")


@dataclass(frozen=True)
class Fall:
    """A number that is worse than the interval it had before: which one, then and now."""

    what: tuple[str, ...]
    before: float
    low: float
    high: float
    now: float

    def __str__(self) -> str:
        dataset, metric, *_, entry = self.what
        return f"{entry} on {dataset}: {metric} was {self.before:.4f} [{self.low:.4f}, {self.high:.4f}] and is {self.now:.4f}"


def falls(now: Any, before: Any) -> tuple[list[Fall], int]:
    """Numbers of a leaderboard that lie beyond the worse end of the 95 % interval they had before, largest fall first, and how many
    were compared. now, before: leaderboards as data frames. A number of other ground truth is another number and is left out, as is one without an
    interval."""
    both = now.merge(before, on=list(_ROWS), suffixes=("", "_before"))
    both = both[both["data_version"] == both["data_version_before"]]
    both = both.dropna(subset=["value", "value_before", "low_before", "high_before"])
    found = []
    for row in both.to_dict("records"):
        worse = row["value"] < row["low_before"] if row["higher_is_better"] else row["value"] > row["high_before"]
        if worse:
            what = tuple(str(row[name]) for name in _ROWS)
            found.append(Fall(what, row["value_before"], row["low_before"], row["high_before"], row["value"]))
    return sorted(found, key=lambda fall: -abs(fall.now - fall.before)), len(both)


def gaps(grid: Mapping[str, Any], frame: Any) -> list[str]:
    """What the plan asks for and the leaderboard has no number of: whole cells, then metrics that others on the dataset have."""
    there = set(zip(frame["entry"], frame["dataset"], strict=True))
    planned = [tuple(cell.split("__")) for cell in grid["leaderboard"]["cells"]]
    found = [f"{entry} on {dataset}: no score" for entry, dataset in planned if (entry, dataset) not in there]
    for convention, group in frame.dropna(subset=["value"]).groupby(list(_ROWS[:-1]), sort=True):
        dataset, metric = convention[:2]
        have = set(group["entry"])
        found += [f"{e} on {d}: {metric} has no value" for e, d in planned if d == dataset and (e, d) in there and e not in have]
    return list(dict.fromkeys(found))


def previous_leaderboard(project: DvcProject) -> tuple[str, Path] | None:
    """(commit, table) of the newest committed leaderboard that is not the present one, where DVC's cache still has it."""
    present = project.outs_version("leaderboard")
    for commit, outs in project.committed_outs("leaderboard"):
        if outs and {out.path: out.hash for out in outs} != present:
            kept = project.cached(outs[0].hash, "leaderboard.parquet")
            if kept is not None:
                return commit, kept
    return None


def leaderboard_checks(root: Path) -> list[dg.AssetChecksDefinition]:
    """The checks of the leaderboard; each only warns."""

    @dg.asset_check(
        asset=LEADERBOARD,
        name=REGRESSIONS,
        description="Whether a number fell below the 95 % interval it had on the last committed leaderboard that differs from this one.",
    )
    def score_regressions() -> dg.AssetCheckResult:
        from uss_dagster.report import leaderboard

        previous = previous_leaderboard(DvcProject(root))
        if previous is None:
            return dg.AssetCheckResult(passed=True, description="No other leaderboard is committed (or DVC's cache no longer has it).")
        commit, kept = previous
        worse, compared = falls(leaderboard.read(root / "reports" / "leaderboard"), _read(kept))
        metadata: dict[str, Any] = {"compared_with": commit, "numbers_compared": compared, "fallen": len(worse)}
        if not worse:
            return dg.AssetCheckResult(passed=True, metadata=metadata, description=f"None of {compared} numbers fell since {commit}.")
        rows = [(*fall.what, f"{fall.before:.4f} [{fall.low:.4f}, {fall.high:.4f}]", f"{fall.now:.4f}") for fall in worse[:_LISTED]]
        return _warning(
            f"{len(worse)} of {compared} numbers fell since {commit}. {worse[0]}.",
            {**metadata, "falls": table((*_ROWS, f"at {commit}", "now"), rows)},
        )

    @dg.asset_check(asset=LEADERBOARD, name=COVERAGE, description="Whether every planned cell has its numbers on the leaderboard.")
    def every_planned_cell() -> dg.AssetCheckResult:
        from uss_dagster.report import leaderboard

        grid = plan.read_grid(root)
        missing = gaps(grid, leaderboard.read(root / "reports" / "leaderboard"))
        metadata: dict[str, Any] = {"cells": len(grid["leaderboard"]["cells"]), "missing": len(missing)}
        if not missing:
            return dg.AssetCheckResult(passed=True, metadata=metadata)
        listed = table(("missing",), [(line,) for line in missing[:_LISTED]])
        return _warning(f"{len(missing)} missing. {missing[0]}.", {**metadata, "list": listed})

    @dg.asset_check(asset=LEADERBOARD, name=PLANNED, description="Whether grid.yaml is what params.yaml, profiles/ and the code imply.")
    def plan_is_current() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(**planned(root))

    return [score_regressions, every_planned_cell, plan_is_current]


def planned(root: Path) -> dict[str, Any]:
    """The verdict on grid.yaml, as the arguments of a check's result."""
    try:
        changes = plan_afresh(root, check=True)
    except UssError as error:
        return {"passed": False, "severity": dg.AssetCheckSeverity.WARN, "description": str(error)}
    if not changes:
        return {"passed": True, "severity": dg.AssetCheckSeverity.WARN}
    return {
        "passed": False,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": f"grid.yaml is out of date: {changes[0]}" + (f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""),
        "metadata": {"changes": table(("cell",), [(line,) for line in changes[:_LISTED]])},
    }


def spot_checks(project: DvcProject, translator: DvcTranslator) -> list[dg.AssetChecksDefinition]:
    """For each segments asset a check that computes a few images of each partition again. Asked for by itself only: in a run that builds
    assets it has no opinion."""
    known = families(project, translator)
    return [_spot_check(family, project.root, translator) for key, family in known.items() if key.path[0] == "segments"]


def _spot_check(family: AssetFamily, root: Path, translator: DvcTranslator) -> dg.AssetChecksDefinition:
    spec = dg.AssetCheckSpec(
        AGAIN,
        asset=family.key,
        description=f"Whether {SPOT_IMAGES} images of each partition, computed again, give the same bytes. Runs only where it is asked for "
        "by itself: select it under Checks, then Execute.",
    )

    @dg.multi_asset_check(name=f"{'__'.join(family.key.path)}_{AGAIN}", specs=[spec], can_subset=True, pool=translator.pool(family.nodes))
    def again(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        if context.job_def.asset_layer.selected_asset_keys:  # this run builds something
            return
        rows = [(stage.address, *_again(root, stage.address)) for stage in family.nodes]
        different = [f"{address}: {said}" for address, same, said in rows if not same]
        yield dg.AssetCheckResult(
            asset_key=family.key,
            check_name=AGAIN,
            passed=not different,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(different) or None,
            metadata={"computed_again": table(("stage", "", "said"), [(a, "✓" if same else "✗", said) for a, same, said in rows])},
        )

    return again


def _again(root: Path, address: str) -> tuple[bool, str]:
    """``uss spot-check`` in a process of its own: this one stays light, and reads no old code."""
    words = [sys.executable, "-m", "uss_dagster.cli", "spot-check", address, "--images", str(SPOT_IMAGES)]
    done = subprocess.run(words, cwd=root, env=tool_environment(), capture_output=True, text=True, encoding="utf-8", check=False)
    lines = [line for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines() if line.strip()]
    return done.returncode == 0, lines[-1].removeprefix("error: ") if lines else f"exited with {done.returncode} and said nothing"


def _warning(description: str, metadata: Mapping[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description=description, metadata=metadata)


def _read(path: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(path)
