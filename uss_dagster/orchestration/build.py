"""Everything Dagster loads, built from the project folder; each part can be replaced by a caller."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from dagster_dvc import (
    DvcProject,
    DvcResource,
    Refresh,
    build_dvc_assets,
    continue_refresh,
    dvc_sync_checks,
    executor_named,
    group_stages,
    lock_sensor,
    refresh_schedule,
)
from dagster_dvc.errors import DagsterDvcError
from uss_dagster.errors import UssError
from uss_dagster.orchestration.drift_checks import drift_checks
from uss_dagster.orchestration.leaderboard_checks import leaderboard_checks
from uss_dagster.orchestration.metadata import describe
from uss_dagster.orchestration.model_checks import model_checks
from uss_dagster.orchestration.planning_process import plan_in_new_process
from uss_dagster.orchestration.sensors import folder_sensor, plan_sensor
from uss_dagster.orchestration.settings import Settings, read_settings
from uss_dagster.orchestration.spot_checks import spot_checks
from uss_dagster.orchestration.translator import UssTranslator
from uss_dagster.orchestration.webhook import failure_webhook
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import write_plan
from uss_dagster.planning.profiles import find_root


def build_defs(root: Path | None = None, **overrides: Any) -> dg.Definitions:
    """Assets, checks and resources of the project in ``root`` (the nearest one upwards by default).

    There is no job for everything: a job must have one set of partitions, and here datasets meet in the leaderboard. The asset
    graph's "Materialize all", "All", "Launch" does it, in one run for one dataset, else in a backfill: a run for each dataset
    (another where an entry is limited to some datasets), then one for the leaderboard and the site.
    """
    root = root or find_root()
    if not Layout(root).pipelines.is_dir():
        write_plan(root)
    project = DvcProject(root)
    settings = read_settings(root)
    translator = UssTranslator(settings)
    dvc = DvcResource(project_dir=str(root), shared=settings.shared)
    groups = group_stages(project, translator)
    parts: dict[str, Any] = {
        # Before a stage runs the plan is made again, so that code edited since the definitions were loaded is what runs.
        "assets": build_dvc_assets(
            project, translator, before=lambda stage: _said_by_the_bridge(lambda: write_plan(root)), describe=describe(root)
        ),
        "asset_checks": [
            *dvc_sync_checks(project, translator),
            *drift_checks(groups, root),
            *model_checks(groups, project),
            *leaderboard_checks(groups, root),
            *spot_checks(groups, root, translator),
        ],
        "resources": {"dvc": dvc},
        # By default in_process: a step is a process of its own already (dvc, then the stage), and another one around it costs seconds.
        "executor": executor_named(settings.executor, settings.max_concurrent),
        **_automation(project, settings, translator, dvc),
    }
    return dg.Definitions(**{**parts, **overrides})


def _automation(project: DvcProject, settings: Settings, translator: UssTranslator, dvc: DvcResource) -> dict[str, Any]:
    """Schedules and sensors; what the settings do not switch on is stopped."""
    root = project.root
    refresh = Refresh(
        project,
        dvc,
        translator,
        prepare=lambda: _said_by_the_bridge(lambda: plan_in_new_process(root)),
        allowed=lambda stage: stage.text("pool") != "gpu" or settings.gpu_allowed(datetime.now(UTC)),
    )
    purpose = "Asks DVC what is out of date and requests exactly that; nothing where all is in step."
    schedule = refresh_schedule("leaderboard_refresh", refresh, settings.cron, settings.timezone, settings.refresh, purpose)
    follow = dg.AutomationConditionSensorDefinition(
        "follow",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING if settings.follow else dg.DefaultSensorStatus.STOPPED,
        description="Scores, leaderboard and site follow by themselves what they are made from.",
    )
    sensors = [
        continue_refresh("leaderboard_refresh_continued", refresh, settings.refresh),
        lock_sensor("built_outside_dagster", project, translator, settings.watch),
        plan_sensor("plan_out_of_date", root, settings.watch),
        folder_sensor("image_folders", project, translator, settings.folders),
        failure_webhook(),
        follow,
    ]
    return {"schedules": [schedule], "sensors": sensors}


def _said_by_the_bridge(call: Callable[[], object]) -> None:
    """Call; an error goes on as one of ``dagster_dvc``, which shows its sentence and tries again where the exit code says so."""
    try:
        call()
    except UssError as error:
        raise DagsterDvcError(str(error), error.exit_code) from error
