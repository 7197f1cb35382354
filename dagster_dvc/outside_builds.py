"""A sensor that reports what was built outside Dagster: new versions in the dvc.lock files, as materialisations without a run.

After ``dvc repro`` in a shell, ``git checkout`` with ``dvc checkout``, or a pull, the assets' versions are then those of the lock files.
"""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
import hashlib

import dagster as dg

from dagster_dvc.grouping import assets_by_stage, group_stages, upstream_first
from dagster_dvc.materialization import data_version
from dagster_dvc.project import DvcProject
from dagster_dvc.refresh import UNFINISHED, make_sensor
from dagster_dvc.translator import DvcTranslator

DATA_VERSION = "dagster/data_version"
PROVIDED = "dagster/data_version_is_user_provided"
AssetEvent = dg.AssetMaterialization | dg.AssetObservation | dg.AssetCheckEvaluation


def lock_sensor(name: str, project: DvcProject, translator: DvcTranslator, on: bool, every_s: int = 30) -> dg.SensorDefinition:
    """The sensor. Its cursor is a hash of the lock files it saw last. It waits while runs are in progress: they report for themselves."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = _locks_hash(project)
        if cursor == (context.cursor or ""):
            return dg.SensorResult(skip_reason="dvc.lock is as it was.")
        if context.instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED), limit=1):
            return dg.SensorResult(skip_reason="dvc.lock changed while a run is in progress; looked at again when it has ended.")
        events = changed_versions(context.instance, DvcProject(project.root), translator)
        reason = None if events else "dvc.lock changed, but Dagster knows all its versions."
        return dg.SensorResult(asset_events=events, skip_reason=reason, cursor=cursor)

    description = "Reports what was built outside Dagster: the versions in dvc.lock that no run here has recorded."
    return make_sensor(name, evaluate, on, every_s, description)


def changed_versions(instance: dg.DagsterInstance, project: DvcProject, translator: DvcTranslator) -> list[AssetEvent]:
    """A materialisation for every stage whose recorded version is not the last that Dagster knows, upstream first.

    A stage that DVC built again from a reported one, with the same result, is reported too: Dagster would call it stale, as it goes by
    time where nothing tells which versions were read.
    """
    asset_of = assets_by_stage(group_stages(project, translator))
    events: list[AssetEvent] = []
    reported: set[str] = set()
    for address in upstream_first(list(project.stages), project.upstream):
        if project.stages[address].prerequisite:
            continue
        outs = project.locked_outs(address)
        version = data_version(outs)
        group, partition = asset_of[address]
        if version is None:
            continue
        last = _last_version(instance, group.key, partition)
        rebuilt = last is not None and not reported.isdisjoint(project.upstream[address]) and _read_recorded_outputs(project, address)
        if version.value == last and not rebuilt:
            continue
        reported.add(address)
        events.append(
            dg.AssetMaterialization(
                asset_key=group.key,
                partition=partition,
                description="Built outside Dagster; read from dvc.lock.",
                metadata={
                    "outcome": "built outside Dagster",
                    "stage": address,
                    "size_bytes": sum(out.size for out in outs),
                    "files": sum(out.files for out in outs),
                },
                tags={DATA_VERSION: version.value, PROVIDED: "true"},
            )
        )
    return events


def _locks_hash(project: DvcProject) -> str:
    """A hash over the lock files; empty where there are none."""
    digest = hashlib.sha256()
    locks = [path for path in project.lock_files if path.is_file()]
    for path in locks:
        digest.update(str(path).encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest() if locks else ""


def _last_version(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None) -> str | None:
    record = instance.get_latest_data_version_record(key, partition_key=partition)
    event = record.asset_materialization if record else None
    return (event.tags or {}).get(DATA_VERSION) if event else None


def _read_recorded_outputs(project: DvcProject, address: str) -> bool:
    """Whether the recorded dependencies of a stage are the recorded outputs of the stages above it. (A folder that holds several outputs
    has a hash of its own, which says nothing here.)"""
    written = {out.path: out.hash for source in project.upstream[address] for out in project.locked_outs(source)}
    return all(written.get(path, read) == read for path, read in project.locked_deps(address).items())
