"""Assets and checks from a DVC project.

A backfill runs one partition at a time: then each partition has its own data version, checks, retries and stop button,
which Dagster cannot tell apart within one run. That costs a process start a partition, seconds beside stages of minutes.
"""

# No `from __future__ import annotations` here: Dagster wants the context's annotation as a class, not as text.
import re
from collections.abc import Callable, Iterator

import dagster as dg

from dagster_dvc.errors import DagsterDvcError, UsageError
from dagster_dvc.grouping import AssetOfStage, StageGroup, StageGroups, asset_deps, assets_by_stage, group_stages
from dagster_dvc.materialization import VALIDATION, table
from dagster_dvc.project import DvcProject
from dagster_dvc.resource import DvcResource, error_failure
from dagster_dvc.runner import BEING_BUILT
from dagster_dvc.stage_run import RETRY, AssetOptions, Before, Describe, Result, StageRun
from dagster_dvc.translator import DvcTranslator

IN_SYNC = "in_sync_with_dvc"
REPORTED = "What the stage reported through Dagster Pipes."

Body = Callable[[dg.AssetExecutionContext, StageRun], Iterator[Result]]


def build_dvc_assets(
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
    options = AssetOptions(project, translator or DvcTranslator(), resource_key, before, describe, retry_policy)
    return _assets(options, lambda context, run: run.stream())


def dvc_assets(
    project: DvcProject,
    translator: DvcTranslator | None = None,
    *,
    resource_key: str = "dvc",
    retry_policy: dg.RetryPolicy | None = RETRY,
) -> Callable[[Body], list[dg.AssetsDefinition]]:
    """``build_dvc_assets`` as a decorator, where something is to be done around each stage.

    The function gets Dagster's context and a ``StageRun``; it yields what that yields, changed or not. The parameters are those of
    ``build_dvc_assets``; the result is a list of assets.

    Examples
    --------
    ::

        @dvc_assets(DvcProject("."))
        def stages(context, run):
            context.log.info(f"{run.stage.address} reads {', '.join(run.stage.deps)}")
            yield from run.stream()

        defs = dg.Definitions(assets=stages, resources={"dvc": DvcResource(project_dir=".")})
    """
    options = AssetOptions(project, translator or DvcTranslator(), resource_key, retry_policy=retry_policy)
    return lambda body: _assets(options, body)


def dvc_sync_checks(
    project: DvcProject, translator: DvcTranslator | None = None, *, resource_key: str = "dvc"
) -> list[dg.AssetChecksDefinition]:
    """For each asset a check that asks DVC which of its partitions are out of step, and why.

    Dagster calls an asset stale by what it saw itself; this sees files edited, outputs deleted and stages run outside it.
    """
    return [_sync_check(group, project, resource_key) for group in group_stages(project, translator).values()]


def _assets(options: AssetOptions, body: Body) -> list[dg.AssetsDefinition]:
    groups = group_stages(options.project, options.translator)
    asset_of = assets_by_stage(groups)
    return [_asset(group, _spec(group, groups, asset_of, options), options, body) for group in groups.values()]


def _spec(group: StageGroup, groups: StageGroups, asset_of: AssetOfStage, options: AssetOptions) -> dg.AssetSpec:
    stages, translator = group.nodes, options.translator
    try:
        spec = dg.AssetSpec(
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
        return translator.asset_spec(spec, stages).replace_attributes(key=group.key)
    except dg.DagsterInvalidDefinitionError as error:
        raise UsageError(f"Asset '{group.key.to_user_string()}' (stage '{stages[0].address}'): {error}") from error


def _asset(group: StageGroup, spec: dg.AssetSpec, options: AssetOptions, body: Body) -> dg.AssetsDefinition:
    validated = any(stage.text("report") for stage in group.nodes)
    found = "What the stage itself found when it checked its result before putting it in place."
    validation = [dg.AssetCheckSpec(VALIDATION, asset=group.key, blocking=True, description=found)] if validated else []
    reported = sorted({name for stage in group.nodes for name in stage.items("checks")})

    @dg.multi_asset(
        name=re.sub(r"\W", "_", "__".join(group.key.path)),
        specs=[spec],
        check_specs=[*validation, *(dg.AssetCheckSpec(name, asset=group.key, description=REPORTED) for name in reported)],
        pool=options.translator.pool(group.nodes),
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1) if group.partitions_def else None,
        required_resource_keys={options.resource_key},
    )
    def materialize(context: dg.AssetExecutionContext) -> Iterator[Result]:
        stage = group.stages[context.partition_key if group.partitions_def else None]
        yield from body(context, StageRun(context, stage, group.key, validated, options, tuple(reported)))

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
