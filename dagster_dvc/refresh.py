"""The Dagster runs that bring up to date what is out of step with DVC, a wave at a time.

Belongs here: asking DVC, grouping stages into runs, the keys that keep a run from being asked for twice. Does not belong here: when to
ask (a schedule of the project says so).

Dagster takes one set of partitions a run, and does not order runs. So stages are asked for in waves: one run for each partition with what
can be built in it now, in order; what reads the result of another run waits for the next wave, which ``continue_refresh`` asks for when
the runs of this one have ended.
"""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from dagster_dvc.errors import DagsterDvcError
from dagster_dvc.grouping import StageGroup, assets_by_stage, group_stages, upstream_first
from dagster_dvc.project import DvcProject, StageNode
from dagster_dvc.resource import DvcResource
from dagster_dvc.translator import DvcTranslator

TAG = "dvc/refresh"
_EVERYTHING = "__ASSET_JOB"
"""The job that Dagster makes of all assets, and the only one whose assets may have different partitions."""
_HASHED_BYTES = 1_000_000
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

RunGroup = tuple[tuple[str, ...], str | None]
"""What one run can hold: assets with one set of partitions, and one partition of it."""


@dataclass(frozen=True)
class Refresh:
    """One project's refresh.

    Parameters
    ----------
    project
        The project as the definitions know it.
    dvc
        The resource that asks DVC.
    translator
        Names of assets.
    prepare
        Called before DVC is asked, for example to plan again.
    allowed
        Whether a stage may run now. What reads a stage that may not waits with it.
    """

    project: DvcProject
    dvc: DvcResource
    translator: DvcTranslator
    prepare: Callable[[], object] = lambda: None
    allowed: Callable[[StageNode], bool] = lambda stage: True

    def stale(self) -> dict[str, list[str]]:
        """Address to why, for every stage that is out of step or reads, directly or not, what such a stage writes; in DVC's order."""
        self.prepare()
        project = DvcProject(self.project.root)  # as the files are now, not as they were when the definitions were loaded
        changed = self.dvc.status([stage for stage in project.stages.values() if not stage.prerequisite])
        readers: dict[str, list[str]] = {}
        for address, sources in project.upstream.items():
            for source in sources:
                readers.setdefault(source, []).append(address)
        reasons: dict[str, list[str]] = {}
        pending = [address for address in project.stages if address in changed]
        while pending:
            address = pending.pop()
            if address not in reasons:
                reasons[address] = changed.get(address, ["reads what is built anew"])
                pending.extend(readers.get(address, ()))
        return {address: reasons[address] for address in project.stages if address in reasons}

    def wave(self, instance: dg.DagsterInstance) -> tuple[list[dg.RunRequest], str]:
        """The runs that can be asked for now, and where there are none, a sentence that says why."""
        if runs := instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED), limit=1):
            return [], f"Run {runs[0].dagster_run.run_id[:8]} is in progress; what it builds is seen when it has ended."
        try:
            stale = list(self.stale())
        except DagsterDvcError as error:
            return [], str(error)
        if not stale:
            return [], "Everything is in step with DVC."
        project = DvcProject(self.project.root)
        asset_of = assets_by_stage(group_stages(self.project, self.translator))
        runs_of: dict[RunGroup, list[StageNode]] = {}
        placed: dict[str, RunGroup] = {}
        held, unknown = [], []
        for address in upstream_first(stale, project.upstream):
            if address not in asset_of:
                unknown.append(address)
                continue
            stage, run = project.stages[address], _run_group(*asset_of[address])
            if not self.allowed(stage):
                held.append(address)
            elif all(placed.get(source) == run for source in set(project.upstream[address]).intersection(stale)):
                runs_of.setdefault(run, []).append(stage)
                placed[address] = run
        requests = [
            _run_request(instance, project, stages, partition, [asset_of[stage.address][0].key for stage in stages])
            for (_, partition), stages in sorted(runs_of.items(), key=lambda item: str(item[0]))
        ]
        if requests:
            return requests, ""
        if unknown:
            return [], f"{unknown[0]} is planned, but not loaded here: reload the definitions."
        return [], f"{len(held)} stages wait for the hours in which they may run: {', '.join(held[:5])}."


def refresh_schedule(name: str, refresh: Refresh, cron: str, timezone: str, on: bool, description: str) -> dg.ScheduleDefinition:
    """A schedule that asks for the first wave of what is out of step, and for nothing where all is in step or a run is in progress."""

    def evaluate(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        requests, why_not = refresh.wave(context.instance)
        yield from requests
        if not requests:
            yield dg.SkipReason(why_not)

    return dg.ScheduleDefinition(
        name=name,
        job_name=_EVERYTHING,
        cron_schedule=cron,
        execution_timezone=timezone,
        execution_fn=evaluate,
        default_status=dg.DefaultScheduleStatus.RUNNING if on else dg.DefaultScheduleStatus.STOPPED,
        description=description,
    )


def continue_refresh(name: str, refresh: Refresh, on: bool, every_s: int = 30) -> dg.SensorDefinition:
    """A sensor that asks for the next wave when the last runs of a refresh have ended well; its cursor is the last run it looked at."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        latest = context.instance.get_run_records(dg.RunsFilter(tags={TAG: []}), limit=1)
        if not latest or latest[0].dagster_run.run_id == context.cursor:
            return dg.SensorResult(skip_reason="No run of a refresh has ended since the last look.")
        run = latest[0].dagster_run
        if run.status in UNFINISHED:
            return dg.SensorResult(skip_reason=f"Run {run.run_id[:8]} of the refresh is in progress.")
        requests, why_not = refresh.wave(context.instance)
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else why_not, cursor=run.run_id)

    description = "Goes on with a refresh when the runs it asked for have ended, until nothing is left to do."
    return make_sensor(name, evaluate, on, every_s, description, dg.AssetSelection.all())


def make_sensor(
    name: str,
    evaluate: Callable[[dg.SensorEvaluationContext], dg.SensorResult],
    on: bool,
    every_s: int,
    description: str,
    selection: dg.AssetSelection | None = None,
) -> dg.SensorDefinition:
    """A sensor that runs from the start where it is on. selection: the assets that it may ask for."""
    return dg.SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        asset_selection=selection,
        minimum_interval_seconds=every_s,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        description=description,
    )


def _run_group(group: StageGroup, partition: str | None) -> RunGroup:
    return tuple(str(name) for name in group.stages if name is not None), partition


def _run_request(
    instance: dg.DagsterInstance, project: DvcProject, stages: Sequence[StageNode], partition: str | None, keys: Sequence[dg.AssetKey]
) -> dg.RunRequest:
    """The run that builds these stages. Its key is a hash over what they will read (their command, their files, and the recorded hashes
    above them), and over what was last built of them: the same work is asked for once, also where it failed, and again after anything
    changed."""
    parts: list[object] = []
    for stage, key in zip(stages, keys, strict=True):
        record = instance.get_latest_data_version_record(key, partition_key=partition)
        sources = {out.path: out.hash for source in project.upstream[stage.address] for out in project.locked_outs(source)}
        files = {file: _file_hash(project, file) for file in (*stage.deps, *(file for file, _ in stage.params)) if file not in sources}
        parts.append([stage.address, stage.cmd, files, sources, record.storage_id if record else 0])
    run_key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
    tags = {TAG: ", ".join(stage.address for stage in stages[:5]) + (" …" if len(stages) > 5 else "")}
    return dg.RunRequest(run_key=run_key, partition_key=partition, asset_selection=keys, tags=tags)


def _file_hash(project: DvcProject, file: str) -> str:
    """Content of a small file, time and size of a large one; empty for anything else."""
    path = project.root / file
    if not path.is_file():
        return ""
    stat = path.stat()
    return f"{stat.st_mtime_ns} {stat.st_size}" if stat.st_size > _HASHED_BYTES else hashlib.sha256(path.read_bytes()).hexdigest()
