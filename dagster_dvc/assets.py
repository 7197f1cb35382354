"""Assets and checks from a DVC project.

A backfill runs one partition at a time: then each partition has its own data version, checks, retries and stop button,
which Dagster cannot tell apart within one run. That costs a process start a partition, seconds beside stages of minutes.
"""

# No `from __future__ import annotations` here: Dagster wants the context's annotation as a class, not as text.
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

import dagster as dg

from dagster_dvc.errors import DagsterDvcError, UsageError
from dagster_dvc.grouping import AssetOfStage, StageGroup, StageGroups, asset_deps, assets_by_stage, group_stages
from dagster_dvc.materialization import VALIDATION, Metadata, data_version, report_stamp, stage_metadata, table, validation
from dagster_dvc.project import DvcProject, StageNode
from dagster_dvc.resource import RETRIED, DvcResource, error_failure, stage_failure
from dagster_dvc.runner import BEING_BUILT, Invocation
from dagster_dvc.stage_output import BUILT
from dagster_dvc.translator import DvcTranslator

IN_SYNC = "in_sync_with_dvc"
RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

Before = Callable[[StageNode], object]
Describe = Callable[[StageNode, dg.DagsterInstance], Metadata]


@dataclass(frozen=True)
class _Options:
    """What all assets of a project share; see ``dvc_assets``."""

    project: DvcProject
    translator: DvcTranslator
    resource_key: str
    before: Before | None
    describe: Describe | None
    retry_policy: dg.RetryPolicy | None


def dvc_assets(
    project: DvcProject,
    translator: DvcTranslator | None = None,
    *,
    resource_key: str = "dvc",
    before: Before | None = None,
    describe: Describe | None = None,
    retry_policy: dg.RetryPolicy | None = RETRY,
) -> list[dg.AssetsDefinition]:
    """One asset for each asset key of the project, sorted by key.

    Materialising one brings its stage (of the run's partition) up to date.

    Parameters
    ----------
    project
        The DVC project.
    translator
        Names of assets.
    resource_key
        Key of the ``DvcResource``.
    before
        Called with the stage first, for example to refresh a generated file that the stage reads.
    describe
        Returns more metadata of what was built, for people to look at.
    retry_policy
        For failures with exit code 69 or 75; others are not tried again.
    """
    translator = translator or DvcTranslator()
    options = _Options(project, translator, resource_key, before, describe, retry_policy)
    groups = group_stages(project, translator)
    asset_of = assets_by_stage(groups)
    return [_asset(group, _spec(group, groups, asset_of, options), options) for group in groups.values()]


def dvc_sync_checks(
    project: DvcProject, translator: DvcTranslator | None = None, *, resource_key: str = "dvc"
) -> list[dg.AssetChecksDefinition]:
    """For each asset a check that asks DVC which of its partitions are out of step, and why.

    Dagster calls an asset stale by what it saw itself; this sees files edited, outputs deleted and stages run outside it.
    """
    return [_sync_check(group, project, resource_key) for group in group_stages(project, translator).values()]


def _spec(group: StageGroup, groups: StageGroups, asset_of: AssetOfStage, options: _Options) -> dg.AssetSpec:
    stages, translator = group.nodes, options.translator
    try:
        return dg.AssetSpec(
            key=group.key,
            deps=asset_deps(group, groups, asset_of, options.project),
            description=translator.description(stages),
            metadata=translator.metadata(stages),
            group_name=translator.group(stages),
            code_version=translator.code_version(stages),
            owners=translator.owners(stages),
            tags=translator.tags(stages),
            kinds=translator.kinds(stages),
            partitions_def=group.partitions_def,
            automation_condition=translator.automation_condition(stages),
            freshness_policy=translator.freshness_policy(stages),
        )
    except dg.DagsterInvalidDefinitionError as error:
        raise UsageError(f"Asset '{group.key.to_user_string()}' (stage '{stages[0].address}'): {error}") from error


def _asset(group: StageGroup, spec: dg.AssetSpec, options: _Options) -> dg.AssetsDefinition:
    project, policy = options.project, options.retry_policy
    validated = any(stage.text("report") for stage in group.nodes)
    check = dg.AssetCheckSpec(
        VALIDATION,
        asset=group.key,
        blocking=True,
        description="What the stage itself found when it checked its result before putting it in place.",
    )

    @dg.multi_asset(
        name=re.sub(r"\W", "_", "__".join(group.key.path)),
        specs=[spec],
        check_specs=[check] if validated else [],
        pool=options.translator.pool(group.nodes),
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1) if group.partitions_def else None,
        required_resource_keys={options.resource_key},
    )
    def materialize(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
        stage = group.stages[context.partition_key if group.partitions_def else None]
        report_before = report_stamp(project, stage)
        version_before = project.outs_version(stage.address)
        try:
            if options.before is not None:
                options.before(stage)
            invocation = getattr(context.resources, options.resource_key).repro(
                context, stage.address, project.prerequisites(stage.address)
            )
        except DagsterDvcError as error:
            _raise(error_failure(error), context.retry_number, policy)
        if not invocation.succeeded:
            wrote_report = invocation.report or report_stamp(project, stage) != report_before
            if validated and invocation.exit_code not in RETRIED and wrote_report:
                verdict = validation(project, stage, invocation)
                if not verdict.passed:
                    yield verdict
            _raise(stage_failure(_with_missing_upstream(invocation, stage.address, project)), context.retry_number, policy)
        yield dg.MaterializeResult(
            asset_key=group.key,
            metadata={**stage_metadata(project, stage, invocation, version_before), **_described(options.describe, stage, context)},
            data_version=data_version(project.locked_outs(stage.address)),
            check_results=[validation(project, stage, invocation)] if validated else [],
        )

    return materialize


def _sync_check(group: StageGroup, project: DvcProject, resource_key: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=group.key,
        name=IN_SYNC,
        description="Whether DVC agrees that every partition is up to date with its dependencies, parameters and outputs.",
        required_resource_keys={resource_key},
    )
    def in_sync(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        dvc: DvcResource = getattr(context.resources, resource_key)
        try:
            changes = dvc.status(group.nodes)
        except DagsterDvcError as error:
            raise error_failure(error) from error
        rows = []
        for partition, stage in group.stages.items():
            if sentences := changes.get(stage.address):
                # A stage that never ran differs in everything it names: one phrase says it better.
                ran = project.locked_outs(stage.address) or sentences == [BEING_BUILT]
                rows.append((partition or "–", stage.address, "; ".join(sentences) if ran else "never built"))
        if not rows:
            return dg.AssetCheckResult(passed=True, metadata={"stages": len(group.stages)})
        first = f"{rows[0][1]}: {rows[0][2]}" + (f" (and {len(rows) - 1} more)" if len(rows) > 1 else "")
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{len(rows)} of {len(group.stages)} out of step. {first}",
            metadata={
                "stages": len(group.stages),
                "out_of_step": len(rows),
                "changes": table(("partition", "stage", "what changed"), rows),
            },
        )

    return in_sync


def _described(describe: Describe | None, stage: StageNode, context: dg.AssetExecutionContext) -> Metadata:
    try:
        return describe(stage, context.instance) if describe else {}
    except Exception as error:  # metadata for people must not fail a stage that did its work
        context.log.warning(f"The metadata of '{stage.address}' could not be made: {type(error).__name__}: {error}")
        return {}


def _raise(failure: dg.Failure, tried: int, policy: dg.RetryPolicy | None) -> NoReturn:
    """Ask for another try where that can help, else fail.

    The policy is not given to Dagster itself: with one, it starts a stage again that a person has just stopped.
    """
    if policy is not None and failure.allow_retries and tried < policy.max_retries:
        raise dg.RetryRequested(max_retries=policy.max_retries, seconds_to_wait=policy.calculate_delay(tried + 1)) from failure
    raise failure


def _with_missing_upstream(invocation: Invocation, address: str, loaded: DvcProject) -> Invocation:
    """Where the stage could not start because a dependency does not exist, name the stages that make it.

    loaded: the project as it was when its assets were defined; its files may have other stages by now.
    """
    project = DvcProject(loaded.root)
    if invocation.outcome == BUILT or address not in project.stages:
        return invocation
    missing = next((dep for dep in project.stages[address].deps if "://" not in dep and not (project.root / dep).exists()), None)
    if missing is None:
        return invocation
    # Such a stage has the dependency as output, holds it in one, or has outputs inside it.
    makers = [a for a in project.upstream[address] if any(_nested(missing, out) for out in project.stages[a].outs)]
    first = "load the definitions again, which are older than the files of DVC, and " if {*makers} - {*loaded.stages} else ""
    advice = (
        f"{first}materialise {' or '.join(repr(maker) for maker in makers[:3])} first"
        if makers
        else "no stage makes it, so it must be put there"
    )
    return replace(invocation, reason=f"Stage '{address}' needs {missing}, which does not exist: {advice}.")


def _nested(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")
