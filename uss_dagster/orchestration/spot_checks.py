"""The check of segments assets: a few images of each partition, computed again, give the same bytes."""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from uss_dagster.dagster_dvc import DvcTranslator, StageGroup, table
from uss_dagster.dagster_dvc.grouping import StageGroups
from uss_dagster.dagster_dvc.runner import tool_environment
from uss_dagster.orchestration.translator import groups_of
from uss_dagster.stages.segments import Segments

SPOT_CHECK = "same_bytes_again"
IMAGES = 2


def spot_checks(groups: StageGroups, root: Path, translator: DvcTranslator) -> list[dg.AssetChecksDefinition]:
    """One check for each segments asset. It runs only where it is selected by itself, not in a run that builds assets."""
    return [_spot_check(group, root, translator) for group in groups_of(groups, Segments)]


def _spot_check(group: StageGroup, root: Path, translator: DvcTranslator) -> dg.AssetChecksDefinition:
    spec = dg.AssetCheckSpec(
        SPOT_CHECK,
        asset=group.key,
        description=f"Whether {IMAGES} images of each partition, computed again, give the same bytes. Runs only where it is asked for "
        "by itself: select it under Checks, then Execute.",
    )

    @dg.multi_asset_check(
        name=f"{'__'.join(group.key.path)}_{SPOT_CHECK}", specs=[spec], can_subset=True, pool=translator.pool(group.nodes)
    )
    def compute_again(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        if context.job_def.asset_layer.selected_asset_keys:  # this run builds something
            return
        rows = [(stage.address, *_compare(root, stage.address)) for stage in group.nodes]
        different = [f"{address}: {message}" for address, same, message in rows if not same]
        yield dg.AssetCheckResult(
            asset_key=group.key,
            check_name=SPOT_CHECK,
            passed=not different,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(different) or None,
            metadata={"computed_again": table(("stage", "", "result"), [(a, "✓" if same else "✗", message) for a, same, message in rows])},
        )

    return compute_again


def _compare(root: Path, address: str) -> tuple[bool, str]:
    """``uss spot-check`` in a process of its own: this one stays light, and reads no old code."""
    words = [sys.executable, "-m", "uss_dagster.cli", "spot-check", address, "--images", str(IMAGES)]
    done = subprocess.run(words, cwd=root, env=tool_environment(), capture_output=True, text=True, encoding="utf-8", check=False)
    lines = [line for line in (done.stdout if done.returncode == 0 else done.stderr).splitlines() if line.strip()]
    return done.returncode == 0, lines[-1].removeprefix("error: ") if lines else f"exited with {done.returncode} and printed nothing"
