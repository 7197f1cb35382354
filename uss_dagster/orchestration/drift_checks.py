"""The check of curated sets: how far the last run moved from the version before it."""

from __future__ import annotations

from pathlib import Path

import dagster as dg

from dagster_dvc import StageGroup, StageGroups, table
from uss_dagster.files import read_json
from uss_dagster.orchestration.checks import checks_of, result
from uss_dagster.stages.curated import CuratedSet

DRIFT = "drift"
COLUMNS = ("measure", "before", "now", "moved", "limit", "within")


def drift_checks(groups: StageGroups, root: Path) -> list[dg.AssetChecksDefinition]:
    """For each curated set a check that reads the comparison in the facts of its last run; a warning, since a change may be meant."""
    description = "Whether masks and images of the last run are distributed as in the version before it."
    return checks_of(groups, CuratedSet, DRIFT, description, lambda group: _drift(group, root))


def _drift(group: StageGroup, root: Path) -> dg.AssetCheckResult:
    facts = {stage.address: read_json(root / path) for stage in group.nodes if (path := stage.text("facts"))}
    compared = {address: values for address, values in facts.items() if "drift" in values}
    rows = [row for values in compared.values() if isinstance(drift := values.get("drift_rows"), list) for row in drift]
    cells = [["–" if row.get(column) is None else row[column] for column in COLUMNS] for row in rows]
    return result(
        all(bool(values.get("drift_within_limits", True)) for values in compared.values()),
        "; ".join(f"{address}: {values['drift']}" for address, values in compared.items())
        or "No run on this machine has compared it with a version before.",
        {"comparison": table(COLUMNS, cells)} if rows else {},
    )
