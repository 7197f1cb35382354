"""The check of segments assets: a few images of each partition, computed again, give the same bytes."""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from dagster_dvc import DvcTranslator, StageGroup, StageGroups, table
from uss_dagster.orchestration.checks import result
from uss_dagster.orchestration.planning_process import run_uss
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
        computed = table(("stage", "", "result"), [(address, "✓" if same else "✗", message) for address, same, message in rows])
        yield result(not different, "; ".join(different) or None, {"computed_again": computed})

    return compute_again


def _compare(root: Path, address: str) -> tuple[bool, str]:
    """``uss spot-check`` in a process of its own: this one stays light, and reads no old code."""
    code, lines, error = run_uss(root, "spot-check", address, "--images", str(IMAGES))
    return code == 0, error if code else lines[-1]
