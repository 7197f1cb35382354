"""What is out of step with DVC, and the Dagster runs that bring it up to date, a wave at a time.

Belongs here: asking DVC, grouping stages into runs, the keys that keep a run from being asked for twice. Does not belong here: when to
ask (a schedule of the project says so).

Dagster takes one set of partitions a run, and does not order runs. So stages are asked for in waves: one run for each partition with what
can be built in it now, in order; what reads the result of another run waits for the next wave, which ``continue_refresh`` asks for when
the runs of this one have ended.
"""

# No `from __future__ import annotations` here: Dagster wants the annotation of a context as a class, not as text.
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import yaml

from uss_dagster.dagster_dvc.assets import AssetFamily, families
from uss_dagster.dagster_dvc.project import DvcProject, StageNode
from uss_dagster.dagster_dvc.resource import DvcResource
from uss_dagster.dagster_dvc.translator import DvcTranslator
from uss_dagster.errors import UssError

TAG = "dvc/refresh"
_EVERYTHING = "__ASSET_JOB"
"""The job that Dagster makes of all assets, and the only one whose assets may have different partitions."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

Allowed = Callable[[StageNode], bool]


@dataclass(frozen=True)
class Refresh:
    """One project's refresh. prepare: called before DVC is asked, for example to plan again. allowed: whether a stage may run now; what
    reads a stage that may not waits with it."""

    project: DvcProject
    dvc: DvcResource
    translator: DvcTranslator
    prepare: Callable[[], object] = lambda: None
    allowed: Allowed = lambda stage: True

    def stale(self) -> dict[str, list[str]]:
        """Address to why, for every stage that is out of step or reads, directly or not, what one that is writes; in DVC's order."""
        self.prepare()
        project = DvcProject(self.project.root)  # as dvc.yaml and grid.yaml are now, not as they were when the page was loaded
        changed = self.dvc.status(list(project.stages.values()))
        found: dict[str, list[str]] = {}
        waiting = [address for address in project.stages if address in changed]
        readers: dict[str, list[str]] = {}
        for address, above in project.upstream.items():
            for source in above:
                readers.setdefault(source, []).append(address)
        while waiting:
            address = waiting.pop()
            if address in found:
                continue
            found[address] = changed.get(address, ["reads what is built anew"])
            waiting.extend(readers.get(address, ()))
        return {address: found[address] for address in project.stages if address in found}

    def wave(self, instance: dg.DagsterInstance) -> tuple[list[dg.RunRequest], str]:
        """The runs that can be asked for now, and where there are none, a sentence that says why."""
        if runs := instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED), limit=1):
            return [], f"Run {runs[0].dagster_run.run_id[:8]} is in progress; what it builds is seen when it has ended."
        try:
            stale = self.stale()
        except UssError as error:
            return [], str(error)
        if not stale:
            return [], "Everything is in step with DVC."
        project = DvcProject(self.project.root)
        known = families(self.project, self.translator)
        home = {stage.address: (family, partition) for family in known.values() for partition, stage in family.stages.items()}
        groups: dict[tuple[tuple[str, ...], str | None], list[StageNode]] = {}
        placed: dict[str, tuple[tuple[str, ...], str | None]] = {}
        held, unknown = [], []
        for address in upstream_first(list(stale), project.upstream):
            if address not in home:
                unknown.append(address)
                continue
            stage = project.stages[address]
            group = _group(*home[address])
            above = [source for source in project.upstream[address] if source in stale]
            if not self.allowed(stage):
                held.append(address)
            elif all(placed.get(source) == group for source in above):
                groups.setdefault(group, []).append(stage)
                placed[address] = group
        requests = [self._request(instance, project, stages, partition, home) for (_, partition), stages in sorted(groups.items(), key=str)]
        if requests:
            return requests, ""
        if unknown:
            return [], f"{unknown[0]} is planned, but not loaded here: reload the definitions."
        return [], f"{len(held)} stages wait for the hours in which they may run: {', '.join(held[:5])}."

    def _request(
        self,
        instance: dg.DagsterInstance,
        project: DvcProject,
        stages: Sequence[StageNode],
        partition: str | None,
        home: Mapping[str, tuple[AssetFamily, str | None]],
    ) -> dg.RunRequest:
        keys = [home[stage.address][0].key for stage in stages]
        return dg.RunRequest(
            run_key=_run_key(instance, project, stages, partition, keys),
            partition_key=partition,
            asset_selection=keys,
            tags={TAG: ", ".join(stage.address for stage in stages[:5]) + (" …" if len(stages) > 5 else "")},
        )


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

    return dg.SensorDefinition(
        name=name,
        asset_selection=dg.AssetSelection.all(),
        evaluation_fn=evaluate,
        minimum_interval_seconds=every_s,
        default_status=dg.DefaultSensorStatus.RUNNING if on else dg.DefaultSensorStatus.STOPPED,
        description="Goes on with a refresh when the runs it asked for have ended, until nothing is left to do.",
    )


def _group(family: AssetFamily, partition: str | None) -> tuple[tuple[str, ...], str | None]:
    """What one run can hold: assets with one set of partitions, and one partition of it."""
    return tuple(str(p) for p in family.stages if p is not None), partition


def upstream_first(addresses: list[str], upstream: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """The addresses, each after those of them that it reads; otherwise in the order given."""
    wanted, done = set(addresses), set()

    def visit(address: str) -> Iterator[str]:
        if address in done:
            return
        done.add(address)
        for source in upstream[address]:
            if source in wanted:
                yield from visit(source)
        yield address

    for address in addresses:
        yield from visit(address)


def _run_key(
    instance: dg.DagsterInstance, project: DvcProject, stages: Sequence[StageNode], partition: str | None, keys: Sequence[dg.AssetKey]
) -> str:
    """A hash over what the stages will read (their command, parameters, and the recorded hashes above them), and over what was last
    built of them: the same work is asked for once, also where it failed, and again after anything changed."""
    read: dict[str, Any] = {}
    said = []
    for stage, key in zip(stages, keys, strict=True):
        record = instance.get_latest_data_version_record(key, partition_key=partition)
        sources = {out.path: out.hash for source in project.upstream[stage.address] for out in project.locked_outs(source)}
        values = [_parameters(project, file, names, read) for file, names in stage.params]
        said.append([stage.address, stage.cmd, values, sources, record.storage_id if record else 0])
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:24]


def _parameters(project: DvcProject, file: str, names: Sequence[str], read: dict[str, Any]) -> list[Any]:
    if file not in read:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        read[file] = yaml.load((project.root / file).read_text(encoding="utf-8"), Loader=loader)
    values = []
    for name in names:
        value: Any = read[file]
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        values.append(value)
    return values
