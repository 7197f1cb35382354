"""Sensors of this project: an outdated plan is told, and a folder of images that is new or changed becomes a partition to build.

Both look at names, sizes and times of files first, and plan only when these changed.
"""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg

import uss_dagster
from uss_dagster.dagster_dvc import DvcProject, DvcTranslator, families
from uss_dagster.errors import UssError
from uss_dagster.orchestration.checks import LEADERBOARD, PLANNED, planned
from uss_dagster.orchestration.planning import plan_afresh
from uss_dagster.planning import plan
from uss_dagster.planning import profiles as profile
from uss_dagster.planning.contents import seen_at

DATASETS = dg.AssetKey("datasets")
FOLDER = "folder"
_EVERY_S = 60


def plan_sensor(name: str, root: Path, on: bool) -> dg.SensorDefinition:
    """Warns when grid.yaml is not what params.yaml, profiles/ and the code imply: by the result of the leaderboard's check, which is
    reported anew after each edit. Its cursor says when it looked last."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        watched = (Path(profile.PARAMS), Path(profile.PROFILES), Path(plan.GRID), *sorted(Path(uss_dagster.__file__).parent.rglob("*.py")))
        cursor = seen_at(root, watched)
        if cursor == context.cursor:
            return dg.SensorResult(skip_reason="Nothing was edited since the last look.")
        verdict = planned(root)
        event = dg.AssetCheckEvaluation(
            asset_key=LEADERBOARD,
            check_name=PLANNED,
            passed=verdict["passed"],
            severity=verdict["severity"],
            description=verdict.get("description"),
            metadata=verdict.get("metadata") or {},
        )
        said = "grid.yaml is up to date." if verdict["passed"] else verdict["description"]
        (context.log.info if verdict["passed"] else context.log.warning)(said)
        return dg.SensorResult(asset_events=[event], cursor=cursor)

    return dg.SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        description="Warns, by a check of the leaderboard, when grid.yaml is out of date.",
    )


def folder_sensor(
    name: str,
    project: DvcProject,
    translator: DvcTranslator,
    on: bool,
    replan: Callable[[Path], object] = plan_afresh,
) -> dg.SensorDefinition:
    """Builds the dataset of a folder of images when the folder is new or changed. Its cursor is what it saw of each folder."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen: dict[str, str] = json.loads(context.cursor or "{}")
        try:
            now = {dataset: seen_at(project.root, paths) for dataset, paths in folders(project.root).items()}
            changed = [dataset for dataset in now if now[dataset] != seen.get(dataset)]
            if not changed:
                return dg.SensorResult(skip_reason=f"{len(now)} folders of images, none of them new or changed.", cursor=json.dumps(now))
            replan(project.root)
        except UssError as error:
            return dg.SensorResult(skip_reason=str(error))
        family = families(project, translator).get(DATASETS)
        built = DvcProject(project.root)
        requests, unknown = [], []
        for dataset in changed:
            stage = family.stages.get(dataset) if family else None
            if stage is None:
                unknown.append(dataset)
                del now[dataset]  # looked at again, until the definitions know it
            elif dataset in seen or not built.outs_version(stage.address):  # else: built before this sensor first looked
                requests.append(dg.RunRequest(run_key=f"{dataset}-{now[dataset]}", partition_key=dataset, asset_selection=[DATASETS]))
        why = None
        if unknown:
            why = f"Dataset '{unknown[0]}' is planned, but not loaded here: reload the definitions, and it is built."
        elif not requests:
            why = "All folders of images are built."
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else why, cursor=json.dumps(now))

    return dg.SensorDefinition(
        name=name,
        asset_selection=[DATASETS],
        evaluation_fn=evaluate,
        minimum_interval_seconds=_EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        description="Plans and builds a dataset of kind 'folder' when its folder is new or its files changed.",
    )


def folders(root: Path) -> dict[str, list[Path]]:
    """Dataset → what it is read from, for the datasets of kind ``folder`` in the active profile."""
    found = {}
    for dataset, given in profile.read_profile(root).datasets.items():
        if given.get("kind", dataset) == FOLDER:
            found[dataset] = [Path(str(given[part])) for part in ("path", "masks", "classes") if given.get(part)]
    return found
