"""Experiments of DVC, run by a job whose run config sets their parameters."""

import json
from pathlib import Path

import dagster as dg
import pytest
from dvc_command import dvc
from foreign import GET_STARTED, commit, git, make

from dagster_dvc import DvcProject, DvcResource, experiment_job

pytestmark = pytest.mark.slow


@pytest.fixture
def built(tmp_path: Path) -> Path:
    root = make(tmp_path, GET_STARTED)
    dvc(root, "repro", "-q")
    commit(root, "Built")
    return root


def run(root: Path, instance: dg.DagsterInstance, **config: object) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions(jobs=[experiment_job(DvcProject(root))], resources={"dvc": DvcResource(project_dir=str(root))})
    run_config = {"ops": {"dvc_experiment_run": {"config": config}}}
    return definitions.resolve_job_def("dvc_experiment").execute_in_process(run_config, instance=instance, raise_on_error=False)


def test_an_experiment_has_its_numbers_and_leaves_the_workspace_alone(built: Path) -> None:
    before = {name: (built / name).read_text() for name in ("params.yaml", "dvc.lock", "model.txt", "eval/metrics.json")}
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(built, instance, set_params={"train.add": 20.5, "params.yaml:prepare.add": 2}, name="bigger", message="More")
        assert result.success
        observations = {
            record.asset_key.to_user_string(): {name: value.value for name, value in record.asset_observation.metadata.items()}
            for key in ("prepare", "train", "evaluate")
            for record in instance.fetch_observations(dg.AssetKey(key), limit=1).records
        }
        assert instance.get_latest_materialization_event(dg.AssetKey("train")) is None
    assert set(observations) == {"prepare", "train", "evaluate"}
    assert (observations["evaluate"]["mean"], observations["evaluate"]["test.count"]) == (24.5, 3)
    assert "mean" not in observations["train"]
    assert observations["train"]["experiment"] == "bigger"
    (handled,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    metadata = handled.step_output_data.metadata
    assert (metadata["mean"].value, metadata["stages_run"].value) == (24.5, "prepare, featurize, train, evaluate")
    assert "| eval/metrics.json | mean | 13.0 | 24.5 |" in metadata["metrics"].value
    assert git(built, "log", "-1", "--format=%s", metadata["commit"].value) == "More\n"
    assert {name: (built / name).read_text() for name in before} == before
    assert git(built, "status", "--porcelain") == ""
    dvc(built, "exp", "apply", "bigger")
    assert json.loads((built / "eval/metrics.json").read_text()) == {"mean": 24.5, "test": {"count": 3}}


def test_a_failed_experiment_says_which_stage_and_why(built: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(built, instance, set_params={"train.add": "many"}, stages=["train"], name="failed")
        failed = result.failure_data_for_node("dvc_experiment_run")
        assert failed is not None
        assert failed.error is not None
        assert "Stage 'train' exited with 2: " in str(failed.user_failure_data and failed.user_failure_data.description)
        refused = run(built, instance, set_params={"no.such": 1}).failure_data_for_node("dvc_experiment_run")
        assert "no.such" in str(refused and refused.user_failure_data and refused.user_failure_data.description)
    assert "failed" not in dvc(built, "exp", "list", "--name-only"), "a failed experiment leaves none"
