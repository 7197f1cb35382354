"""One stage in one run of Dagster: DVC brings it up to date, and what happened is reported."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import dagster as dg

from dagster_dvc.errors import DagsterDvcError
from dagster_dvc.materialization import Metadata, data_version, report_stamp, stage_metadata, validation
from dagster_dvc.pipes import reports_of_stage, results_of_checks
from dagster_dvc.project import DvcProject, StageNode
from dagster_dvc.resource import RETRIED, DvcResource, error_failure, stage_failure
from dagster_dvc.runner import Invocation
from dagster_dvc.stage_output import BUILT
from dagster_dvc.translator import DvcTranslator

RETRY = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

Before = Callable[[StageNode], object]
Describe = Callable[[StageNode, dg.DagsterInstance], Metadata]
Result = dg.MaterializeResult[None] | dg.AssetCheckResult


@dataclass(frozen=True)
class AssetOptions:
    """What all assets of a project share; see ``build_dvc_assets``."""

    project: DvcProject
    translator: DvcTranslator
    resource_key: str
    before: Before | None = None
    describe: Describe | None = None
    retry_policy: dg.RetryPolicy | None = RETRY


@dataclass(frozen=True)
class StageRun:
    """One stage in one run of Dagster, as the body of ``dvc_assets`` gets it.

    Parameters
    ----------
    context
        Of Dagster.
    stage
        The stage of the run's partition.
    key
        The asset.
    validated
        Whether the asset has a check of the stage's own report.
    options
        What all assets of the project share.
    checks
        Names of the checks that the stage reports through Dagster Pipes.
    """

    context: dg.AssetExecutionContext
    stage: StageNode
    key: dg.AssetKey
    validated: bool
    options: AssetOptions
    checks: tuple[str, ...] = ()

    @property
    def project(self) -> DvcProject:
        return self.options.project

    @property
    def dvc(self) -> DvcResource:
        resource: DvcResource = getattr(self.context.resources, self.options.resource_key)
        return resource

    def stream(self) -> Iterator[Result]:
        """Bring the stage up to date; yields its materialisation and the results of its checks.

        Raises
        ------
        dg.Failure
            The stage failed: its one sentence, its exit code and its last lines.
        dg.RetryRequested
            It failed in a way in which another try can help.
        """
        project, stage = self.project, self.stage
        report_before = report_stamp(project, stage)
        try:
            version_before = project.outs_version(stage.address)
            if self.options.before is not None:
                self.options.before(stage)
            translator = self.options.translator
            with reports_of_stage(self.context) as reports:
                invocation = self.dvc.repro(
                    self.context,
                    stage.address,
                    project.prerequisites(stage.address),
                    pull=translator.pull(stage),
                    push=translator.push(stage),
                    env=reports.env,
                )
        except DagsterDvcError as error:
            self._raise(error_failure(error))
        if not invocation.succeeded:
            wrote_report = invocation.report or report_stamp(project, stage) != report_before
            if self.validated and invocation.exit_code not in RETRIED and wrote_report:
                verdict = validation(project, stage, invocation)
                if not verdict.passed:
                    yield verdict
            yield from (check for name, check in reports.checks.items() if name in self.checks)
            self._raise(stage_failure(_with_missing_upstream(invocation, stage.address, project)))
        yield dg.MaterializeResult(
            asset_key=self.key,
            metadata={**reports.metadata, **stage_metadata(project, stage, invocation, version_before), **self._described()},
            data_version=data_version(project.locked_outs(stage.address)),
            check_results=[
                *([validation(project, stage, invocation)] if self.validated else []),
                *self._reported(reports.checks, invocation),
            ],
        )

    def _reported(self, checks: Mapping[str, dg.AssetCheckResult], invocation: Invocation) -> list[dg.AssetCheckResult]:
        """The results of the checks of Dagster Pipes. One that dvc.yaml does not name cannot be stored, so it is told."""
        for name in sorted(checks.keys() - set(self.checks)):
            self.context.log.warning(
                f"Stage '{self.stage.address}' reports the check '{name}': add it to meta.dagster.checks, or it is lost."
            )
        if not self.checks:
            return []
        return results_of_checks(self.project, self.stage, self.key, self.checks, checks, bool(checks) or invocation.outcome == BUILT)

    def _described(self) -> Metadata:
        try:
            return self.options.describe(self.stage, self.context.instance) if self.options.describe else {}
        except Exception as error:  # metadata for people must not fail a stage that did its work
            self.context.log.warning(f"The metadata of '{self.stage.address}' could not be made: {type(error).__name__}: {error}")
            return {}

    def _raise(self, failure: dg.Failure) -> NoReturn:
        """Ask for another try where that can help, else fail.

        The policy is not given to Dagster itself: with one, it starts a stage again that a person has just stopped.
        """
        policy, tries = self.options.retry_policy, self.context.retry_number
        if policy is not None and failure.allow_retries and tries < policy.max_retries:
            raise dg.RetryRequested(max_retries=policy.max_retries, seconds_to_wait=policy.calculate_delay(tries + 1)) from failure
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
