"""Everything Dagster loads, built from the project folder; each part can be replaced by a caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg

from uss_dagster import plan
from uss_dagster.dagster_dvc import DvcProject, DvcResource, DvcTranslator, StageNode, dvc_assets, dvc_sync_checks


class UssTranslator(DvcTranslator):
    """Names as dvc.yaml gives them; every stage is a Python program."""

    def kinds(self, stages: Any) -> set[str]:
        return super().kinds(stages) | {"python"}


def refresh_plan(root: Path) -> Any:
    """A hook that plans again before a stage runs, so that code edited since the page was loaded is what runs."""

    def before(stage: StageNode) -> None:
        plan.write_plan(root)

    return before


def build_defs(root: Path | None = None, **overrides: Any) -> dg.Definitions:
    """Assets, checks and resources of the project in ``root`` (the nearest one upwards by default).

    There is no job for everything: a job must have one set of partitions, and here datasets meet in the leaderboard. The asset
    graph's "Materialize all", "All", "Launch" does it, in one run for one dataset, else in a backfill: a run for each dataset
    (another where an entry is limited to some datasets), then one for the leaderboard and the site.
    """
    root = root or plan.find_root()
    if not (root / plan.GRID).exists():
        plan.write_plan(root)
    project = DvcProject(root)
    translator = UssTranslator()
    parts: dict[str, Any] = {
        "assets": dvc_assets(project, translator, before=refresh_plan(root)),
        "asset_checks": dvc_sync_checks(project, translator),
        "jobs": [],
        "resources": {"dvc": DvcResource(project_dir=str(root))},  # type: ignore[call-arg]
        # A step is a process of its own already (dvc, then the stage): another one around it would only cost seconds.
        "executor": dg.in_process_executor,
    }
    return dg.Definitions(**{**parts, **overrides})
