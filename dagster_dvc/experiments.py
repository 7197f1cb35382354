"""Experiments of DVC as a job. Its run config says which parameters have which values; the result is one that ``dvc exp`` knows.

An experiment runs in a copy of what git knows, so the workspace, and what is recorded of the assets, stay as they are. The assets of the
stages that ran get an observation each, with their numbers.
"""

# No `from __future__ import annotations` here: Dagster wants the annotations of an op as classes, not as text.
import json
from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from dagster_dvc.errors import DagsterDvcError
from dagster_dvc.figures import inside
from dagster_dvc.grouping import assets_by_stage, group_stages
from dagster_dvc.materialization import Metadata, table
from dagster_dvc.project import DvcProject, StageNode
from dagster_dvc.resource import DvcResource, error_failure, stage_failure
from dagster_dvc.translator import DvcTranslator

Metrics = Mapping[str, Mapping[str, Mapping[str, object]]]
"""File → name → the value before (``old``) and in the experiment (``new``), as DVC compares them."""


class ExperimentConfig(dg.Config):
    """The run config of an experiment."""

    set_params: dict[str, Any] = Field(
        default_factory=dict,
        description="Parameter to value, such as {'train.lr': 0.1}; 'other.yaml:train.lr' where it is not in params.yaml.",
    )
    stages: list[str] = Field(default_factory=list, description="Stages to run, with what they read; all where there are none.")
    name: str = Field(default="", description="Name of the experiment; made from the number of the run where there is none.")
    message: str = Field(default="", description="Message of its commit.")


def experiment_job(
    project: DvcProject, translator: DvcTranslator | None = None, *, name: str = "dvc_experiment", resource_key: str = "dvc"
) -> dg.JobDefinition:
    """A job that runs one experiment of DVC.

    Examples
    --------
    ::

        defs = dg.Definitions(jobs=[experiment_job(DvcProject("."))], resources={"dvc": DvcResource(project_dir=".")})

    and its run config::

        ops:
          dvc_experiment_run:
            config:
              set_params: {train.power: 3}
    """

    @dg.op(name=f"{name}_run", required_resource_keys={resource_key}, description="Runs the stages with the parameters of the config.")
    def run_experiment(context: dg.OpExecutionContext, config: ExperimentConfig) -> None:
        dvc: DvcResource = getattr(context.resources, resource_key)
        experiment = config.name or f"{name}-{context.run_id[:8]}"
        try:
            invocation, ran = dvc.runner.experiment(experiment, _assignments(config.set_params), config.stages, config.message, context.log)
        except DagsterDvcError as error:
            raise error_failure(error) from error
        if not invocation.succeeded:
            raise stage_failure(invocation)
        metrics = _metrics(dvc, experiment)
        about: Metadata = {
            "experiment": experiment,
            "set_params": dg.MetadataValue.json(config.set_params),
            "commit": project.experiment_commit(experiment),
        }
        asset_of = assets_by_stage(group_stages(project, translator))
        for address in (address for address in ran if address in asset_of):
            group, partition = asset_of[address]
            numbers = _numbers(metrics, project.stages[address])
            context.log_event(dg.AssetObservation(group.key, partition=partition, metadata={**numbers, **about}))
        rows = [
            (file, metric, values.get("old", "–"), values.get("new", "–")) for file, of in metrics.items() for metric, values in of.items()
        ]
        compared = {"metrics": table(("file", "metric", "HEAD", experiment), rows)} if rows else {}
        context.add_output_metadata({**_numbers(metrics), **compared, **about, "stages_run": ", ".join(ran)})

    @dg.job(
        name=name, description="An experiment of DVC: stages run with other parameters, in a copy. `dvc exp apply` takes its result over."
    )
    def job() -> None:
        run_experiment()

    return job


def _assignments(params: Mapping[str, object]) -> list[str]:
    """Parameters as ``dvc exp run --set-param`` takes them."""
    return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in params.items()]


def _metrics(dvc: DvcResource, experiment: str) -> Metrics:
    (*_, line) = dvc.cli("metrics", "diff", "--all", "--json", "HEAD", experiment)
    metrics: Metrics = json.loads(line)
    return metrics


def _numbers(metrics: Metrics, stage: StageNode | None = None) -> dict[str, float]:
    """The numbers of an experiment by name, of one stage or all."""
    numbers: dict[str, float] = {}
    for file, of_file in metrics.items():
        if stage is None or inside(file, stage.metrics):
            for name, values in of_file.items():
                value = values.get("new")
                if isinstance(value, int | float) and not isinstance(value, bool):
                    numbers[f"{name} ({file})" if name in numbers else name] = value
    return numbers
