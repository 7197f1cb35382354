"""A DVC project as a component of Dagster: a few lines of YAML in place of Python."""

# No `from __future__ import annotations` here: Dagster resolves the annotations of a component's fields.
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs, ResolvedDefsStateConfig, Resolver, scaffold_component, scaffold_with
from pydantic import BaseModel, Field

from dagster_dvc.assets import build_dvc_assets, dvc_sync_checks
from dagster_dvc.executors import executor_named
from dagster_dvc.experiments import experiment_job
from dagster_dvc.internals import TranslationFn, TranslationFnResolver
from dagster_dvc.project import DvcProject, StageNode
from dagster_dvc.refresh import Refresh, continue_refresh, refresh_schedule
from dagster_dvc.resource import DvcResource
from dagster_dvc.translator import DvcTranslator

Translation = TranslationFn[StageNode]


class ScaffoldParams(BaseModel):
    """What ``dg scaffold defs`` may be told."""

    project_path: str | None = Field(default=None, description="Folder with dvc.yaml, from the root of the Dagster project.")


class DvcProjectScaffolder(dg.Scaffolder[ScaffoldParams]):
    """Writes the YAML that names a DVC project."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParams]:
        return ScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParams]) -> None:
        path = request.params.project_path or "."
        if request.project_root is not None and os.path.isabs(path):
            path = os.path.relpath(path, request.project_root)
        scaffold_component(request, {"project": f"{{{{ context.project_root }}}}/{path}"})


@scaffold_with(DvcProjectScaffolder)
@dataclass
class DvcProjectComponent(dg.StateBackedComponent, dg.Resolvable):
    """The stages of a DVC project as assets, with a check of each that asks DVC whether it is up to date.

    Without ``executor`` it is whatever the rest of the project's definitions say. A method may be overridden in a subclass:
    ``translator`` names the assets, ``build_assets`` makes them.

    Examples
    --------
    ::

        # defs.yaml
        type: dagster_dvc.DvcProjectComponent
        attributes:
          project: "{{ context.project_root }}/pipeline"
          push: true
          translation:
            group_name: "{{ stage.address.split('/')[0] }}"
    """

    project: Annotated[str, Resolver.default(description="Folder with dvc.yaml.", examples=["{{ context.project_root }}/pipeline"])]
    checks: Annotated[bool, Resolver.default(description="Whether each asset has a check that asks DVC if it is up to date.")] = True
    pull: Annotated[
        bool, Resolver.default(description="Whether stages that do not say it pull what they lack from the default remote.")
    ] = False
    push: Annotated[
        bool | str,
        Resolver.default(description="Whether stages that do not say it push their result: to the default remote, or to the one named."),
    ] = False
    refresh: Annotated[
        str | None, Resolver.default(description="Cron of a schedule that asks DVC what is out of date and requests exactly that.")
    ] = None
    experiments: Annotated[
        bool, Resolver.default(description="Whether there is a job that runs experiments of DVC, with parameters from its run config.")
    ] = False
    executor: Annotated[
        str | None,
        Resolver.default(
            description="Executor of the project's runs: in_process, multiprocess, or where another one is.",
            examples=["in_process", "multiprocess", "dagster_k8s.k8s_job_executor"],
        ),
    ] = None
    max_concurrent: Annotated[
        int, Resolver.default(description="With multiprocess, how many stages of a run at once; 0: as many as there are processors.")
    ] = 0
    env: Annotated[Mapping[str, str], Resolver.default(description="Environment variables to add for DVC and the stages.")] = field(
        default_factory=dict
    )
    resource_key: Annotated[str, Resolver.default(description="Key of the DvcResource that the component defines.")] = "dvc"
    translation: (
        Annotated[Translation, TranslationFnResolver[StageNode](template_vars_for_translation_fn=lambda stage: {"stage": stage})] | None
    ) = None
    defs_state: ResolvedDefsStateConfig = field(default_factory=DefsStateConfigArgs.local_filesystem)

    @property
    def defs_state_config(self) -> DefsStateConfig:
        return DefsStateConfig.from_args(self.defs_state, default_key=f"DvcProjectComponent[{Path(self.project).name}]")

    @property
    def translator(self) -> DvcTranslator:
        """Names and policies of the assets."""
        return _ComponentTranslator(self)

    def build_assets(self, project: DvcProject) -> Sequence[dg.AssetsDefinition]:
        """The assets of the project."""
        return build_dvc_assets(project, self.translator, resource_key=self.resource_key)

    def write_state_to_path(self, state_path: Path) -> None:
        """Store the resolved stages, so that the definitions load where DVC and git are not asked."""
        state_path.write_text(json.dumps(DvcProject(self.project).dump_stages()), encoding="utf-8")

    def build_defs_from_state(self, context: dg.ComponentLoadContext, state_path: Path | None) -> dg.Definitions:
        """The definitions, of the stored stages where there are such, else of the project as it is."""
        stages = None if state_path is None else json.loads(state_path.read_text(encoding="utf-8"))
        project, translator = DvcProject(self.project, stages), self.translator
        dvc = DvcResource(project_dir=self.project, env=dict(self.env))
        schedules: list[dg.ScheduleDefinition] = []
        sensors: list[dg.SensorDefinition] = []
        if self.refresh:
            refresh, name = Refresh(project, dvc, translator), f"{Path(self.project).resolve().name.replace('-', '_')}_refresh"
            purpose = "Asks DVC what is out of date and requests exactly that; nothing where all is up to date."
            schedules.append(refresh_schedule(name, refresh, self.refresh, "UTC", True, purpose))
            sensors.append(continue_refresh(f"{name}_continued", refresh, True))
        experiment = f"{Path(self.project).resolve().name.replace('-', '_')}_experiment"
        return dg.Definitions(
            assets=self.build_assets(project),
            asset_checks=dvc_sync_checks(project, translator, resource_key=self.resource_key) if self.checks else [],
            jobs=[experiment_job(project, translator, name=experiment, resource_key=self.resource_key)] if self.experiments else [],
            schedules=schedules,
            sensors=sensors,
            resources={self.resource_key: dvc},
            executor=executor_named(self.executor, self.max_concurrent) if self.executor else None,
        )


class _ComponentTranslator(DvcTranslator):
    """The default names, then ``translation``, and the policies of the component for stages that say none."""

    def __init__(self, component: DvcProjectComponent) -> None:
        self._component = component

    def asset_key(self, stage: StageNode) -> dg.AssetKey:
        return self._translated(dg.AssetSpec(super().asset_key(stage)), stage).key

    def asset_spec(self, spec: dg.AssetSpec, stages: Sequence[StageNode]) -> dg.AssetSpec:
        return self._translated(spec.replace_attributes(key=super().asset_key(stages[0])), stages[0])

    def pull(self, stage: StageNode) -> bool:
        return super().pull(stage) if "pull" in stage.meta else self._component.pull

    def push(self, stage: StageNode) -> bool | str:
        return super().push(stage) if "push" in stage.meta else self._component.push

    def _translated(self, spec: dg.AssetSpec, stage: StageNode) -> dg.AssetSpec:
        translation = self._component.translation
        return translation(spec, stage) if translation else spec
