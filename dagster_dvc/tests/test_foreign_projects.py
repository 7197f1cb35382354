"""Projects that know nothing of Dagster, read and run as they are."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dvc_command import dvc
from foreign import FOREACH, GET_STARTED, MATRIX, commit, git, make

from dagster_dvc import DvcProject, DvcResource, DvcTranslator, StageNode, StageRun, build_dvc_assets, dvc_assets, dvc_sync_checks


def definitions(root: Path, translator: DvcTranslator | None = None) -> dg.Definitions:
    project = DvcProject(root)
    return dg.Definitions(
        assets=build_dvc_assets(project, translator),
        asset_checks=dvc_sync_checks(project, translator),
        resources={"dvc": DvcResource(project_dir=str(root))},
    )


def specs(defs: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}


def partitions(spec: dg.AssetSpec) -> tuple[str, ...]:
    assert spec.partitions_def is not None
    return tuple(spec.partitions_def.get_partition_keys())


def materialize(root: Path, *names: str, partition: str | None = None, translator: DvcTranslator | None = None) -> dict[str, dict]:
    """Run assets in one run that must end well; asset → its metadata as plain values."""
    assets = build_dvc_assets(DvcProject(root), translator)
    chosen = [asset for asset in assets if asset.key.to_user_string() in names] if names else assets
    result = dg.materialize(chosen, resources={"dvc": DvcResource(project_dir=str(root))}, partition_key=partition, selection=chosen)
    return {
        event.asset_key.to_user_string(): {name: value.value for name, value in event.materialization.metadata.items()}
        for event in result.get_asset_materialization_events()
    }


def out_of_step(root: Path, *names: str) -> dict[str, str | None]:
    """Asset → what its check says, where it does not pass."""
    checks = [check for check in dvc_sync_checks(DvcProject(root)) if not names or check.check_key.asset_key.to_user_string() in names]
    result = (
        dg.Definitions(
            asset_checks=checks,
            jobs=[dg.define_asset_job("ask", dg.AssetSelection.checks(*checks))],
            resources={"dvc": DvcResource(project_dir=str(root))},
        )
        .resolve_job_def("ask")
        .execute_in_process()
    )
    return {e.asset_key.to_user_string(): e.description for e in result.get_asset_check_evaluations() if not e.passed}


@pytest.fixture(scope="module")
def get_started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("get-started"), GET_STARTED)


@pytest.fixture
def foreach(tmp_path: Path) -> Path:
    return make(tmp_path / "foreach", FOREACH)


# -- names, partitions, dependencies --------------------------------------------------------------------------------


def test_stages_in_a_row(get_started: Path) -> None:
    found = specs(definitions(get_started))
    assert {key: [dep.asset_key.to_user_string() for dep in spec.deps] for key, spec in found.items()} == {
        "prepare": [],
        "featurize": ["prepare"],
        "train": ["featurize"],
        "evaluate": ["train"],
    }
    assert found["train"].description == "The model, as numbers"
    evaluate = DvcProject(get_started).stages["evaluate"]
    assert (evaluate.metrics, evaluate.plots) == (("eval/metrics.json",), ("eval/importance.png", "eval/plots/roc.json"))


def test_items_of_foreach_are_partitions(foreach: Path) -> None:
    found = specs(definitions(foreach))
    assert set(found) == {"train", "report", "season"}
    assert partitions(found["train"]) == ("uk", "us")
    assert found["report"].partitions_def is None
    (dep,) = found["report"].deps
    assert (dep.asset_key.to_user_string(), dep.partition_mapping) == ("train", dg.AllPartitionMapping())

    class Apart(DvcTranslator):
        def asset_key(self, stage: StageNode) -> dg.AssetKey:
            return dg.AssetKey([*stage.asset_key, stage.item] if stage.item else list(stage.asset_key))

        def partition(self, stage: StageNode) -> str | None:
            return None

    assert set(specs(definitions(foreach, Apart()))) == {"train/uk", "train/us", "report", "season/1", "season/2"}


def test_items_that_read_each_other_are_assets_of_their_own(foreach: Path) -> None:
    content = yaml.safe_load((foreach / "dvc.yaml").read_text())
    content["stages"]["fold"] = {
        "foreach": {"b": {"reads": "data/us.txt"}, "c": {"reads": "folds/b.txt"}},
        "do": {"cmd": "python step.py ${item.reads} --out folds/${key}.txt", "deps": ["${item.reads}"], "outs": ["folds/${key}.txt"]},
    }
    (foreach / "dvc.yaml").write_text(yaml.safe_dump(content))
    found = specs(definitions(foreach))
    assert {key for key in found if key.startswith("fold")} == {"fold/b", "fold/c"}
    assert [dep.asset_key.to_user_string() for dep in found["fold/c"].deps] == ["fold/b"]
    assert found["fold/c"].partitions_def is None


def test_pairs_of_a_matrix_are_partitions(tmp_path: Path) -> None:
    root = make(tmp_path / "matrix", MATRIX)
    found = specs(definitions(root))
    assert partitions(found["train"]) == ("cnn-cifar", "cnn-mnist", "xgb-cifar", "xgb-mnist")
    (dep,) = found["score"].deps
    assert dep.partition_mapping == dg.IdentityPartitionMapping()


@pytest.mark.slow
def test_one_pair_of_a_matrix_is_built(tmp_path: Path) -> None:
    root = make(tmp_path / "matrix", MATRIX)
    materialize(root, "train", partition="cnn-mnist")
    metadata = materialize(root, "score", partition="cnn-mnist")["score"]
    assert (metadata["outcome"], metadata["stage"]) == ("built", "score@cnn-mnist")
    assert (root / "scores/cnn-mnist.yaml").read_text() == "1.0\n"
    assert not (root / "models/xgb-mnist.txt").exists()


# -- runs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_what_dvc_repro_does(get_started: Path, tmp_path: Path) -> None:
    root, plain = make(tmp_path / "dagster", GET_STARTED), make(tmp_path / "dvc", GET_STARTED)
    metadata = materialize(root)
    dvc(plain, "repro", "-q")
    ours, theirs = (yaml.safe_load((folder / "dvc.lock").read_text()) for folder in (root, plain))
    assert ours == theirs
    assert dvc(root, "status") == "Data and pipelines are up to date.\n"
    evaluate = metadata["evaluate"]
    assert (evaluate["mean"], evaluate["test.count"]) == (13.0, 3)
    assert evaluate["eval/importance.png"].startswith("![importance](data:image/png;base64,")
    assert evaluate["eval/plots/roc.json"].splitlines()[0] == "| fpr | tpr |"
    assert len(evaluate["eval/plots/roc.json"].splitlines()) == 2 + 3
    assert out_of_step(root) == {}


@pytest.mark.slow
def test_a_stage_edited_outside_is_seen_and_built(foreach: Path) -> None:
    for item in ("us", "uk"):
        materialize(foreach, "train", partition=item)
    materialize(foreach, "report")
    assert out_of_step(foreach, "train", "report") == {}
    (foreach / "params.yaml").write_text(FOREACH["params.yaml"].replace("add: 2", "add: 5"))
    assert out_of_step(foreach, "train", "report") == {
        "train": "1 of 2 out of step. train@uk: parameter models.uk in params.yaml: modified; the command changed"
    }
    assert materialize(foreach, "train", partition="us")["train"]["outcome"] == "unchanged"
    assert materialize(foreach, "train", partition="uk")["train"]["content_changed"]
    assert (foreach / "models/uk.txt").read_text() == "7.0\n"
    assert list(out_of_step(foreach, "train", "report")) == ["report"]


@pytest.mark.slow
def test_a_merged_lock_is_read_and_what_neither_branch_built_is_built(foreach: Path) -> None:
    """Each branch builds its model with other numbers; git merges their locks, and each model is taken from where it was built."""
    materialize(foreach, "train", partition="us")
    materialize(foreach, "train", partition="uk")
    commit(foreach, "Both")
    for item, before, after in (("us", "add: 1", "add: 3"), ("uk", "add: 2", "add: 4")):
        git(foreach, "checkout", "-q", "-b", item, "main")
        dvc(foreach, "checkout", "-q", "train")
        (foreach / "params.yaml").write_text(FOREACH["params.yaml"].replace(before, after))
        materialize(foreach, "train", partition=item)
        commit(foreach, item)
    git(foreach, "merge", "-q", "us", "-m", "Both models")
    assert set(out_of_step(foreach, "train")) == {"train"}, "the files of one branch are not here yet"
    dvc(foreach, "checkout", "-q", "train")
    assert out_of_step(foreach, "train") == {}
    assert materialize(foreach, "train", partition="us")["train"]["outcome"] == "unchanged"
    materialize(foreach, "report")
    assert (foreach / "report.txt").read_text() == "4.0\n6.0\n"
    (foreach / "dvc.lock").write_text("<<<<<<< HEAD\n" + (foreach / "dvc.lock").read_text())
    with pytest.raises(dg.Failure, match=r"dvc\.lock"):
        materialize(foreach, "report")


@pytest.mark.slow
def test_policies_of_stages_push_and_pull(foreach: Path, tmp_path: Path) -> None:
    """Only what may be pushed is; another clone gets it and computes nothing."""

    class Policy(DvcTranslator):
        def push(self, stage: StageNode) -> bool | str:
            return "shared" if stage.item == "us" else False

        def pull(self, stage: StageNode) -> bool:
            return True

    dvc(foreach, "remote", "add", "-q", "--default", "shared", str(tmp_path / "remote"))
    commit(foreach, "A remote")
    for item in ("us", "uk"):
        materialize(foreach, "train", partition=item, translator=Policy())
    commit(foreach, "The models")
    assert len([path for path in (tmp_path / "remote/files").rglob("*") if path.is_file()]) == 1
    git(tmp_path, "clone", "-q", str(foreach), "clone")
    clone = tmp_path / "clone"
    (clone / "step.py").write_text("raise SystemExit('computed')")
    assert materialize(clone, "train", partition="us", translator=Policy())["train"]["outcome"] == "restored from cache"
    assert (clone / "models/us.txt").read_text() == "2.0\n"
    with pytest.raises(dg.Failure, match="computed"):
        materialize(clone, "train", partition="uk", translator=Policy())


@pytest.mark.slow
def test_a_result_that_cannot_be_pushed_is_tried_again(foreach: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    dvc(foreach, "remote", "add", "-q", "--default", "shared", str(tmp_path / "file" / "remote"))
    invocation = DvcResource(project_dir=str(foreach)).runner.repro_stage("train@us", dg.build_asset_context().log, push=True)
    assert invocation.exit_code == 69
    assert invocation.reason.startswith("Stage 'train@us' is built, but its result could not be pushed: ")
    assert (foreach / "models/us.txt").exists()


@pytest.mark.slow
def test_a_body_of_one_s_own_wraps_every_stage(foreach: Path) -> None:
    @dvc_assets(DvcProject(foreach))
    def stages(context: dg.AssetExecutionContext, run: StageRun):  # type: ignore[no-untyped-def]
        for result in run.stream():
            assert isinstance(result, dg.MaterializeResult)
            yield result._replace(metadata={**(result.metadata or {}), "reads": ", ".join(run.stage.deps)})

    resources = {"dvc": DvcResource(project_dir=str(foreach))}
    chosen: Sequence[dg.AssetsDefinition] = [asset for asset in stages if asset.key.to_user_string() == "train"]
    (event,) = dg.materialize(chosen, resources=resources, partition_key="us").get_asset_materialization_events()
    assert event.materialization.metadata["reads"].value == "data/us.txt"


@pytest.mark.slow
def test_any_command_of_dvc_can_be_run(get_started: Path, tmp_path: Path) -> None:
    dvc_resource = DvcResource(project_dir=str(get_started))
    assert "evaluate" in " ".join(dvc_resource.cli("stage", "list"))
    with pytest.raises(dg.Failure, match=r"^`dvc metrics shew` exited with 254"):
        dvc_resource.cli("metrics", "shew")
