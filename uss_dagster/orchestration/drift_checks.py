"""The one check that curated sets have beside their validation: how far the last run moved from the version before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg

from uss_dagster.dagster_dvc import AssetFamily, DvcProject, DvcTranslator, families, table

DRIFT = "drift"
CURATED = "curated"
ROWS = ("measure", "before", "now", "moved", "limit", "within")


def drift_checks(project: DvcProject, translator: DvcTranslator) -> list[dg.AssetChecksDefinition]:
    """For each curated set a check that reads the comparison in the facts of its last run; a warning, since a change may be meant."""
    found = families(project, translator)
    return [_drift_check(family, project.root) for key, family in found.items() if key.path[0] == CURATED]


def _drift_check(family: AssetFamily, root: Path) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=family.key,
        name=DRIFT,
        description="Whether masks and images of the last run are distributed as in the version before it.",
    )
    def drift() -> dg.AssetCheckResult:
        rows = [(stage.address, _facts(root / str(stage.text("facts")))) for stage in family.nodes if stage.text("facts")]
        known = {address: facts for address, facts in rows if "drift" in facts}
        compared = [row for facts in known.values() for row in facts.get("drift_rows", [])]
        said = "; ".join(f"{address}: {facts['drift']}" for address, facts in known.items())
        return dg.AssetCheckResult(
            passed=all(facts.get("drift_within_limits", True) for facts in known.values()),
            severity=dg.AssetCheckSeverity.WARN,
            description=said or "No run on this machine has compared it with a version before.",
            metadata={"comparison": table(ROWS, [["–" if row.get(n) is None else row[n] for n in ROWS] for row in compared])}
            if compared
            else {},
        )

    return drift


def _facts(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
