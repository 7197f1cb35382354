"""Everything Dagster loads, built from the project folder; each part can be replaced by a caller."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from uss_dagster.dagster_dvc import (
    DvcProject,
    DvcResource,
    DvcTranslator,
    Refresh,
    StageNode,
    continue_refresh,
    dvc_assets,
    dvc_sync_checks,
    lock_sensor,
    refresh_schedule,
)
from uss_dagster.orchestration.checks import leaderboard_checks, spot_checks
from uss_dagster.orchestration.drift_checks import drift_checks
from uss_dagster.orchestration.metadata import describe
from uss_dagster.orchestration.model_checks import model_checks
from uss_dagster.orchestration.planning import plan_afresh
from uss_dagster.orchestration.sensors import folder_sensor, plan_sensor
from uss_dagster.orchestration.settings import Settings, read_settings
from uss_dagster.orchestration.webhook import failure_webhook
from uss_dagster.planning import plan
from uss_dagster.planning import profiles as profile

FOLLOWING = ("scores", "leaderboard", "site")
"""Cheap families, which may follow by themselves what they are made from. Features and segments are asked for by people or the schedule."""


class UssTranslator(DvcTranslator):
    """Names as dvc.yaml gives them; every stage is a Python program."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()

    def kinds(self, stages: Sequence[StageNode]) -> set[str]:
        return super().kinds(stages) | {"python"}

    def owners(self, stages: Sequence[StageNode]) -> list[str]:
        return super().owners(stages) or [self.settings.owner]

    def tags(self, stages: Sequence[StageNode]) -> dict[str, str]:
        """The stage, and what runs where: assets can be searched by them."""
        return {"stage": stages[0].address.partition("@")[0], "runs_on": self.pool(stages) or "cpu", **super().tags(stages)}

    def automation_condition(self, stages: Sequence[StageNode]) -> dg.AutomationCondition | None:
        cheap = stages[0].asset_key[0] in FOLLOWING and self.pool(stages) != "gpu"
        return dg.AutomationCondition.eager() if cheap else None

    def freshness_policy(self, stages: Sequence[StageNode]) -> dg.FreshnessPolicy | None:
        hours = self.settings.stale_after_hours
        if not hours or stages[0].asset_key != ("leaderboard",):
            return None
        return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=hours))


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
    root = root or profile.find_root()
    if not (root / plan.GRID).exists():
        plan.write_plan(root)
    project = DvcProject(root)
    settings = read_settings(root)
    translator = UssTranslator(settings)
    dvc = DvcResource(project_dir=str(root))  # type: ignore[call-arg]
    refresh = Refresh(
        project,
        dvc,
        translator,
        prepare=lambda: plan_afresh(root),
        allowed=lambda stage: stage.text("pool") != "gpu" or settings.gpu_allowed(datetime.now(UTC)),
    )
    parts: dict[str, Any] = {
        "assets": dvc_assets(project, translator, before=refresh_plan(root), describe=describe(root)),
        "asset_checks": [
            *dvc_sync_checks(project, translator),
            *drift_checks(project, translator),
            *model_checks(project, translator),
            *leaderboard_checks(root),
            *spot_checks(project, translator),
        ],
        "jobs": [],
        "schedules": [
            refresh_schedule(
                "leaderboard_refresh",
                refresh,
                settings.cron,
                settings.timezone,
                settings.refresh,
                "Asks DVC what is out of date and requests exactly that; nothing where all is in step.",
            )
        ],
        "sensors": [
            continue_refresh("leaderboard_refresh_continued", refresh, settings.refresh),
            lock_sensor("built_outside_dagster", project, translator, settings.watch),
            plan_sensor("grid_yaml_out_of_date", root, settings.watch),
            folder_sensor("image_folders", project, translator, settings.folders),
            failure_webhook(),
            dg.AutomationConditionSensorDefinition(
                "follow",
                target=dg.AssetSelection.all(),
                default_status=dg.DefaultSensorStatus.RUNNING if settings.follow else dg.DefaultSensorStatus.STOPPED,
                description="Scores, leaderboard and site follow by themselves what they are made from.",
            ),
        ],
        "resources": {"dvc": dvc},
        # A step is a process of its own already (dvc, then the stage): another one around it would only cost seconds.
        "executor": dg.in_process_executor,
    }
    return dg.Definitions(**{**parts, **overrides})
