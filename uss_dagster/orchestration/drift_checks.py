"""The check of curated sets: how far the last run moved from the version before it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from uss_dagster.dagster_dvc import StageGroup, read_json, table
from uss_dagster.dagster_dvc.grouping import StageGroups
from uss_dagster.orchestration.translator import groups_of
from uss_dagster.stages.curated import CuratedSet

DRIFT = "drift"
COLUMNS = ("measure", "before", "now", "moved", "limit", "within")


def drift_checks(groups: StageGroups, root: Path) -> list[dg.AssetChecksDefinition]:
    """For each curated set a check that reads the comparison in the facts of its last run; a warning, since a change may be meant."""
    return [_drift_check(group, root) for group in groups_of(groups, CuratedSet)]


def _drift_check(group: StageGroup, root: Path) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=group.key,
        name=DRIFT,
        description="Whether masks and images of the last run are distributed as in the version before it.",
    )
    def drift() -> dg.AssetCheckResult:
        facts = {stage.address: read_json(root / path) for stage in group.nodes if (path := stage.text("facts"))}
        compared = {address: values for address, values in facts.items() if "drift" in values}
        rows = [row for values in compared.values() if isinstance(drift := values.get("drift_rows"), list) for row in drift]
        cells = [["–" if row.get(column) is None else row[column] for column in COLUMNS] for row in rows]
        return dg.AssetCheckResult(
            passed=all(bool(values.get("drift_within_limits", True)) for values in compared.values()),
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(f"{address}: {values['drift']}" for address, values in compared.items())
            or "No run on this machine has compared it with a version before.",
            metadata={"comparison": table(COLUMNS, cells)} if rows else {},
        )

    return drift
