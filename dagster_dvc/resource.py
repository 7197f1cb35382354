"""The runner as a Dagster resource, and errors as Dagster's failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg
from pydantic import Field

from dagster_dvc.errors import DagsterDvcError, TryAgain, Unavailable
from dagster_dvc.project import StageNode
from dagster_dvc.runner import DvcRunner, Invocation

RETRIED = (Unavailable.exit_code, TryAgain.exit_code)
"""Exit codes after which a second try can help."""


class DvcResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The ``dvc`` of this interpreter, in one project folder."""

    project_dir: str = Field(description="Folder with dvc.yaml.")
    lock_timeout_s: float = Field(
        default=3600.0, description="How long to wait while another dvc process holds what a stage needs, in seconds."
    )
    progress_every_s: float = Field(default=5.0, description="Progress of a stage is logged at most this often, in seconds.")
    grace_s: float = Field(default=10.0, description="Seconds between asking an interrupted stage to end and ending it.")
    shared: bool = Field(default=False, description="Stages are shared with other clones through the project's remote.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables to add for dvc and the stages.")

    @property
    def runner(self) -> DvcRunner:
        return DvcRunner(Path(self.project_dir), self.env, self.lock_timeout_s, self.progress_every_s, self.grace_s, self.shared)

    def repro(
        self,
        context: dg.AssetExecutionContext,
        address: str,
        prerequisites: Sequence[str] = (),
        *,
        pull: bool = False,
        push: bool | str = False,
        env: Mapping[str, str] | None = None,
    ) -> Invocation:
        """See ``DvcRunner.repro_stage``."""
        return self.runner.repro_stage(address, context.log, prerequisites, pull=pull, push=push, env=env)

    def cli(self, *words: str, context: dg.AssetExecutionContext | dg.OpExecutionContext | None = None) -> list[str]:
        """Run any command of DVC, such as ``metrics diff``, and return the lines of its output; with a context they are logged as they come.

        Raises
        ------
        dg.Failure
            DVC ended with an exit code other than 0.
        """
        lines: list[str] = []

        def read(line: str) -> None:
            lines.append(line)
            if context is not None:
                context.log.info(line)

        if code := self.runner.run(*words, read=read):
            said = next((line.removeprefix("ERROR: ") for line in reversed(lines) if line.startswith("ERROR: ")), "it printed no error")
            raise dg.Failure(f"`dvc {' '.join(words)}` exited with {code}: {said}", metadata={"exit_code": code})
        return lines

    def status(self, stages: Sequence[StageNode]) -> dict[str, list[str]]:
        """See ``DvcRunner.status``."""
        return self.runner.status([stage.address for stage in stages])


def stage_failure(invocation: Invocation) -> dg.Failure:
    """The failure to raise for a stage: one sentence, retried only where a second try can help."""
    return dg.Failure(
        description=invocation.reason,
        metadata={
            "exit_code": invocation.exit_code,
            "stage": invocation.address,
            "command": invocation.command,
            "last_lines": dg.MetadataValue.md("\n".join(["```", *invocation.last_lines, "```"])),
        },
        allow_retries=invocation.exit_code in RETRIED,
    )


def error_failure(error: DagsterDvcError) -> dg.Failure:
    """An error written for people, as Dagster wants it."""
    return dg.Failure(description=str(error), metadata={"exit_code": error.exit_code}, allow_retries=error.exit_code in RETRIED)
