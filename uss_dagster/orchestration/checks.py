"""What the checks of this project have in common: they are made for the assets of a stage, and each only warns."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg

from dagster_dvc import DvcProject, LockedOut, Metadata, StageGroup, StageGroups
from uss_dagster.orchestration.translator import groups_of
from uss_dagster.planning.cells import Cell


def checks_of(
    groups: StageGroups, stage: type[Cell], name: str, description: str, judge: Callable[[StageGroup], dg.AssetCheckResult]
) -> list[dg.AssetChecksDefinition]:
    """A check for each asset that a stage builds. judge: its result, of the cells of the asset."""

    def check(group: StageGroup) -> dg.AssetChecksDefinition:
        return dg.asset_check(asset=group.key, name=name, description=description)(lambda: judge(group))

    return [check(group) for group in groups_of(groups, stage)]


def result(passed: bool, description: str | None = None, metadata: Metadata | None = None) -> dg.AssetCheckResult:
    """A result that is a warning where it is not passed."""
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description=description, metadata=metadata)


def earlier_versions(project: DvcProject, address: str) -> Iterator[tuple[str, tuple[LockedOut, ...]]]:
    """(commit, outputs) of the committed versions of a stage that are not the present one, newest first."""
    present = project.outs_version(address)
    return ((commit, outs) for commit, outs in project.committed_outs(address) if outs and {o.path: o.hash for o in outs} != present)
