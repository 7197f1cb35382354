"""Checks of the leaderboard: falling scores, missing cells, an outdated plan. Each only warns.

Belongs here: what to compare, and when a difference is worth a warning. Does not belong here: the checks of a stage (``artifacts.gate``),
which refuse a result.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from dagster_dvc import DvcProject, Metadata, StageGroups, table
from uss_dagster.artifacts.dvc_cache import cache_folder, cached_member
from uss_dagster.errors import UssError
from uss_dagster.orchestration.checks import checks_of, earlier_versions, result
from uss_dagster.orchestration.planning_process import plan_in_new_process
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import read_plan
from uss_dagster.stages.leaderboard import Leaderboard

if TYPE_CHECKING:
    import pandas as pd

LEADERBOARD = dg.AssetKey(Leaderboard.stage)
REGRESSIONS, COVERAGE, PLANNED = "score_regressions", "every_planned_cell", "plan_is_current"
_LISTED = 50
_GROUP = ("dataset", "metric", "protocol", "scope", "grid")
_ROW = (*_GROUP, "entry")


@dataclass(frozen=True)
class Fall:
    """A number that is worse than the interval it had before.

    Parameters
    ----------
    row
        Dataset, metric, protocol, scope, grid and entry.
    before, low, high
        The number before, and its interval.
    now
        The number now.
    """

    row: tuple[str, ...]
    before: float
    low: float
    high: float
    now: float

    def __str__(self) -> str:
        dataset, metric, *_, entry = self.row
        return f"{entry} on {dataset}: {metric} was {self.interval} and is {self.now:.4f}"

    @property
    def interval(self) -> str:
        return f"{self.before:.4f} [{self.low:.4f}, {self.high:.4f}]"


def falls(now: pd.DataFrame, before: pd.DataFrame) -> tuple[list[Fall], int]:
    """Numbers of a leaderboard beyond the worse end of the 95 % interval they had before, largest fall first, and how many were compared.

    Numbers of other ground truth, and numbers without an interval, are not compared.
    """
    both = now.merge(before, on=list(_ROW), suffixes=("", "_before"))
    both = both[both["data_version"] == both["data_version_before"]]
    both = both.dropna(subset=["value", "value_before", "low_before", "high_before"])
    worse = []
    for row in both.to_dict("records"):
        if row["value"] < row["low_before"] if row["higher_is_better"] else row["value"] > row["high_before"]:
            name = tuple(str(row[column]) for column in _ROW)
            worse.append(Fall(name, row["value_before"], row["low_before"], row["high_before"], row["value"]))
    return sorted(worse, key=lambda fall: -abs(fall.now - fall.before)), len(both)


def gaps(planned: Sequence[tuple[str, str]], frame: pd.DataFrame) -> list[str]:
    """Planned (entry, dataset) without a score on the leaderboard, then metrics without a value that others on the dataset have."""
    scored = set(zip(frame["entry"], frame["dataset"], strict=True))
    lines = [f"{entry} on {dataset}: no score" for entry, dataset in planned if (entry, dataset) not in scored]
    for (name, metric, *_), rows in frame.dropna(subset=["value"]).groupby(list(_GROUP), sort=True):
        valued = set(rows["entry"])
        lines += [
            f"{entry} on {dataset}: {metric} has no value"
            for entry, dataset in planned
            if dataset == name and (entry, dataset) in scored and entry not in valued
        ]
    return list(dict.fromkeys(lines))


def previous_leaderboard(project: DvcProject) -> tuple[str, bytes] | None:
    """(commit, bytes of the table) of the newest committed leaderboard that is not the present one, where DVC's cache still has it."""
    for commit, outs in earlier_versions(project, Leaderboard.stage):
        if file := cached_member(cache_folder(project.root), outs[0].hash, "leaderboard.parquet"):
            return commit, file
    return None


def leaderboard_checks(groups: StageGroups, root: Path) -> list[dg.AssetChecksDefinition]:
    """The checks of the leaderboard of the project in ``root``."""
    fallen = "Whether a number fell below the 95 % interval it had on the last committed leaderboard that differs from this one."
    complete = "Whether every planned cell has its numbers on the leaderboard."
    planned = "Whether the plan is what params.yaml, profiles/ and the code imply."
    return [
        *checks_of(groups, Leaderboard, REGRESSIONS, fallen, lambda group: _regressions(root)),
        *checks_of(groups, Leaderboard, COVERAGE, complete, lambda group: _coverage(root)),
        *checks_of(groups, Leaderboard, PLANNED, planned, lambda group: plan_verdict(root)),
    ]


def _regressions(root: Path) -> dg.AssetCheckResult:
    import pandas as pd

    from uss_dagster.report import leaderboard

    previous = previous_leaderboard(DvcProject(root))
    if previous is None:
        return result(True, "No other leaderboard is committed (or DVC's cache no longer has it).")
    commit, table_bytes = previous
    worse, compared = falls(leaderboard.read(Layout(root).leaderboard), pd.read_parquet(io.BytesIO(table_bytes)))
    metadata: Metadata = {"compared_with": commit, "numbers_compared": compared, "fallen": len(worse)}
    if not worse:
        return result(True, f"None of {compared} numbers fell since {commit}.", metadata)
    rows = [(*fall.row, fall.interval, f"{fall.now:.4f}") for fall in worse[:_LISTED]]
    falls_table = table((*_ROW, f"at {commit}", "now"), rows)
    return result(False, f"{len(worse)} of {compared} numbers fell since {commit}. {worse[0]}.", {**metadata, "falls": falls_table})


def _coverage(root: Path) -> dg.AssetCheckResult:
    from uss_dagster.report import leaderboard

    (cell,) = read_plan(root).of(Leaderboard)
    missing = gaps(cell.scores, leaderboard.read(Layout(root).leaderboard))
    metadata: Metadata = {"cells": len(cell.scores), "missing": len(missing)}
    if not missing:
        return result(True, None, metadata)
    lines = table(("missing",), [(line,) for line in missing[:_LISTED]])
    return result(False, f"{len(missing)} missing. {missing[0]}.", {**metadata, "list": lines})


def plan_verdict(root: Path) -> dg.AssetCheckResult:
    """Whether the planned files are what `uss plan` would write."""
    try:
        changes = plan_in_new_process(root, check=True)
    except UssError as error:
        return result(False, str(error))
    if not changes:
        return result(True)
    more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
    cells = table(("cell",), [(line,) for line in changes[:_LISTED]])
    return result(False, f"The plan is out of date: {changes[0]}{more}", {"changes": cells})
