"""The component: YAML, scaffolding, stored state."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster.components.testing import create_defs_folder_sandbox
from foreign import FOREACH, make

from dagster_dvc import DvcProject, DvcProjectComponent

KEYS = {dg.AssetKey(name) for name in ("train", "report", "season")}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("pipeline"), FOREACH)


def test_a_scaffolded_project_loads(pipeline: Path) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=DvcProjectComponent, scaffold_params={"project_path": "pipeline"})
        (written,) = path.glob("*.yaml")
        content = yaml.safe_load(written.read_text())
        assert content == {
            "type": "dagster_dvc.component.DvcProjectComponent",
            "attributes": {"project": "{{ context.project_root }}/pipeline"},
        }
        content["attributes"] |= {
            "project": str(pipeline),
            "push": "shared",
            "refresh": "0 * * * *",
            "experiments": True,
            "executor": "in_process",
            "translation": {
                "key_prefix": "shop",
                "group_name": "{{ stage.address.split('@')[0] }}",
                "tags": {"of": "{{ stage.address.split('@')[0] }}"},
            },
        }
        written.write_text(yaml.safe_dump(content))
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, defs):
            assert isinstance(component, DvcProjectComponent)
            specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
            assert set(specs) == {key.with_prefix("shop") for key in KEYS}
            report = specs[dg.AssetKey(["shop", "report"])]
            assert (report.group_name, report.tags["of"]) == ("report", "report")
            assert [dep.asset_key for dep in report.deps] == [dg.AssetKey(["shop", "train"])]
            stage = next(stage for stage in DvcProject(pipeline).stages.values() if stage.item == "us")
            assert (component.translator.push(stage), component.translator.pull(stage)) == ("shared", False)
            repository = defs.get_repository_def()
            assert len(repository.asset_graph.asset_check_keys) == 3
            experiment = defs.resolve_job_def(f"{pipeline.name.replace('-', '_')}_experiment")
            assert experiment.executor_def is dg.in_process_executor
            assert [schedule.cron_schedule for schedule in repository.schedule_defs] == ["0 * * * *"]


def test_stored_state_needs_no_project(pipeline: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    DvcProjectComponent(project=str(pipeline)).write_state_to_path(state)
    assert {"train@us", "report"} <= {stage["address"] for stage in json.loads(state.read_text())}
    elsewhere = DvcProjectComponent(project=str(tmp_path / "absent"), checks=False)
    defs = elsewhere.build_defs_from_state(dg.ComponentTree.for_test().load_context, state)
    assert {spec.key for spec in defs.resolve_all_asset_specs()} == KEYS


@pytest.mark.slow
def test_dg_checks_lists_and_launches(tmp_path: Path) -> None:
    dg_program = Path(sys.executable).with_name("dg")
    if not dg_program.exists():
        pytest.skip("NOT TESTED: the command dg, which is not installed. Run `pip install dagster-dg-cli`.")
    root = tmp_path / "shop"
    for name, text in {
        "pyproject.toml": '[project]\nname = "shop"\nversion = "0"\n[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "shop"\n'
        'registry_modules = ["dagster_dvc"]\n',
        "shop/__init__.py": "",
        "shop/defs/__init__.py": "",
        "shop/definitions.py": "from pathlib import Path\nfrom dagster import definitions, load_from_defs_folder\n\n\n@definitions\ndef defs():\n"
        "    return load_from_defs_folder(path_within_project=Path(__file__).parent)\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    make(root / "pipeline", FOREACH)

    def run(*words: str) -> str:
        done = subprocess.run([dg_program, *words], cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "DvcProjectComponent" in run("list", "components")
    run("scaffold", "defs", "dagster_dvc.DvcProjectComponent", "pipeline", "--project-path", "pipeline")
    assert "All definitions loaded successfully." in run("check", "defs")
    run("launch", "--assets", "train", "--partition", "us")
    assert (root / "pipeline/models/us.txt").read_text() == "2.0\n"
