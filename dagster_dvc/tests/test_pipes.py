"""A stage that uses ``dagster_pipes``: its metadata, checks and log lines are those of its asset."""

from pathlib import Path

import dagster as dg
import pytest
from foreign import make

from dagster_dvc import DvcProject, DvcResource, build_dvc_assets
from dagster_dvc.pipes import CHECKS

pytestmark = pytest.mark.slow

TRAIN = """\
import json, os, sys
from pathlib import Path
from dagster_pipes import open_dagster_pipes

data = Path("data.txt").read_text().split()
with open_dagster_pipes() as pipes:
    pipes.log.info(f"{len(data)} rows for {pipes.asset_key}")
    print(json.dumps({"event": "progress", "what": "epochs", "done": 1, "total": 1}))
    pipes.report_asset_materialization(metadata={"rows": len(data), "note": {"raw_value": "**good**", "type": "md"}}, data_version="mine")
    pipes.report_asset_check("enough_rows", passed=len(data) > 1, severity="WARN", metadata={"rows": len(data)})
    pipes.report_asset_check("unnamed", passed=True)
    if "bad" in data:
        sys.exit(3)
Path("model.txt").write_text(" ".join(data))
"""
FILES = {
    "data.txt": "1 2 3\n",
    "train.py": TRAIN,
    "dvc.yaml": """\
stages:
  train:
    cmd: python train.py
    deps: [data.txt, train.py]
    outs: [model.txt]
    meta: {dagster: {checks: "enough_rows, never_reported"}}
""",
}


def run(root: Path, raise_on_error: bool = True) -> tuple[dg.ExecuteInProcessResult, dict[str, dg.AssetCheckEvaluation], list[str]]:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            build_dvc_assets(DvcProject(root)),
            resources={"dvc": DvcResource(project_dir=str(root), env={"PYTHONDONTWRITEBYTECODE": "1"})},
            instance=instance,
            raise_on_error=raise_on_error,
        )
        messages = [record.user_message for record in instance.all_logs(result.run_id)]
    return result, {check.check_name: check for check in result.get_asset_check_evaluations()}, messages


def test_reports_of_a_stage_are_those_of_its_asset(tmp_path: Path) -> None:
    root = make(tmp_path, FILES)
    result, checks, messages = run(root)
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert (metadata["rows"].value, metadata["note"]) == (3, dg.MetadataValue.md("**good**"))
    assert metadata["outcome"].value == "built"
    assert (event.materialization.tags or {})["dagster/data_version"] == DvcProject(root).outs_version("train")["model.txt"]
    assert "3 rows for train" in messages
    assert "epochs: 1/1 (100 %)" in messages, "JSON lines are read beside Pipes"
    assert (checks["enough_rows"].passed, checks["enough_rows"].metadata["rows"].value) == (True, 3)
    assert (checks["never_reported"].passed, checks["never_reported"].severity) == (False, dg.AssetCheckSeverity.WARN)
    assert checks["never_reported"].description == "The stage ran and did not report this check."
    assert "Stage 'train' reports the check 'unnamed': add it to meta.dagster.checks, or it is lost." in messages

    result, again, _ = run(root)
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["outcome"].value == "unchanged"
    assert again["enough_rows"].passed
    assert again["enough_rows"].description == "Reported when the result was built; it is the same since."
    assert again["enough_rows"].metadata["rows"].value == 3

    (file,) = (root / CHECKS).iterdir()
    file.unlink()
    _, lost, _ = run(root)
    assert not lost["enough_rows"].passed
    assert "run it with `dvc repro --force`" in str(lost["enough_rows"].description)


def test_a_stage_that_fails_reports_its_checks(tmp_path: Path) -> None:
    result, checks, messages = run(make(tmp_path, {**FILES, "data.txt": "bad"}), raise_on_error=False)
    assert not result.success
    assert not checks["enough_rows"].passed
    assert "1 rows for train" in messages
    assert not any("did not end its Dagster Pipes session" in message for message in messages)


def test_a_stage_without_pipes_is_not_warned_of(tmp_path: Path) -> None:
    files = {"dvc.yaml": "stages:\n  one: {cmd: echo 1 > one.txt, outs: [one.txt]}\n"}
    result, checks, messages = run(make(tmp_path, files))
    assert result.success
    assert checks == {}
    assert not any("pipes" in message.lower() for message in messages)
