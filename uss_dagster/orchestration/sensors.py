"""Sensors of this project: a warning when the plan is out of date, and runs for folders of images that are new or changed.

Both compare names, sizes and times of files first, and plan only when these changed.
"""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg

import uss_dagster
from dagster_dvc import DvcProject, DvcTranslator, group_stages, make_sensor
from uss_dagster.errors import UssError
from uss_dagster.orchestration.leaderboard_checks import LEADERBOARD, PLANNED, plan_verdict
from uss_dagster.orchestration.planning_process import plan_in_new_process
from uss_dagster.planning.contents import seen_at
from uss_dagster.planning.layout import PACKAGE_PROFILES, PARAMS, PIPELINES, PROFILES
from uss_dagster.planning.profiles import read_profile
from uss_dagster.registry import OWN
from uss_dagster.stages.datasets import Datasets

DATASETS = dg.AssetKey(Datasets.stage)
FOLDER = "folder"
_EVERY_S = 60


def plan_sensor(name: str, root: Path, on: bool) -> dg.SensorDefinition:
    """Warns when the plan is not what params.yaml, profiles/ and the code imply: by the result of the leaderboard's check, which is
    reported anew after each edit. Its cursor says when it looked last."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        package = Path(uss_dagster.__file__).parent
        own = [Path(name) for name in (PARAMS, PROFILES, PIPELINES, OWN) if (root / name).exists()]
        cursor = seen_at(root, [*own, PACKAGE_PROFILES, *sorted(package.rglob("*.py"))])
        if cursor == context.cursor:
            return dg.SensorResult(skip_reason="Nothing was edited since the last look.")
        verdict = plan_verdict(root)
        event = dg.AssetCheckEvaluation(
            asset_key=LEADERBOARD,
            check_name=PLANNED,
            passed=verdict.passed,
            severity=verdict.severity,
            description=verdict.description,
            metadata=verdict.metadata,
        )
        if verdict.passed:
            context.log.info("The plan is up to date.")
        else:
            context.log.warning(verdict.description)
        return dg.SensorResult(asset_events=[event], cursor=cursor)

    return make_sensor(name, evaluate, on, _EVERY_S, "Warns, by a check of the leaderboard, when the plan is out of date.")


def folder_sensor(
    name: str,
    project: DvcProject,
    translator: DvcTranslator,
    on: bool,
    replan: Callable[[Path], object] = plan_in_new_process,
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
        group = group_stages(project, translator).get(DATASETS)
        built = DvcProject(project.root)
        requests, unknown = [], []
        for dataset in changed:
            stage = group.stages.get(dataset) if group else None
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

    description = "Plans and builds a dataset of kind 'folder' when its folder is new or its files changed."
    return make_sensor(name, evaluate, on, _EVERY_S, description, dg.AssetSelection.assets(DATASETS))


def folders(root: Path) -> dict[str, list[Path]]:
    """Dataset → what it is read from, for the datasets of kind ``folder`` in the active profile."""
    datasets = read_profile(root).datasets
    return {
        name: [Path(str(path)) for part in ("path", "masks", "classes") if (path := section.params.get(part))]
        for name, section in datasets.items()
        if (section.kind or name) == FOLDER
    }
