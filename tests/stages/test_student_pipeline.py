"""A student in a whole project, from pictures to the leaderboard, through DVC."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from projects import SMALL, Project, make_project
from students import FEW

PROFILE = (
    SMALL.replace("  felzenszwalb: {params: {scales: 3}}\n", "").replace("metrics: [covering]", "metrics: [covering, proposals, prompts]")
    + """\
  learnt: {method: student, params: {model: second}}
curated:
  masks: {dataset: scenes, entry: kmeans, params: {splits: [1.0, 0.0, 0.0]}}
students:
  first: {curated: masks, params: %s}
  second: {curated: masks, self_train: first, params: %s}
"""
    % ((json.dumps(FEW),) * 2)
)
AFTER = ["segments/learnt/scenes", "prompted/learnt/scenes", "scores/learnt/scenes", "leaderboard", "site"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = make_project(tmp_path_factory.mktemp("student") / "project", PROFILE)
    project.repro()
    return project


@pytest.mark.slow
def test_everything_is_built_once_and_in_step(built: Project):
    assert "up to date" in built.dvc("status").stdout
    assert built.repro() == []
    board = (built.root / "reports/leaderboard/leaderboard.md").read_text()
    assert "learnt" in board or "Student" in board
    of_metric = {entry: json.loads((built.root / f"reports/metrics/{entry}/scenes.json").read_text()) for entry in ("kmeans", "learnt")}
    assert not [name for name in of_metric["kmeans"] if name.startswith("prompt_")], "a method that cannot be asked"
    asked = {name: value for name, value in of_metric["learnt"].items() if name.startswith("prompt_")}
    assert asked.keys() == {f"prompt_{name}" for name in ("noc85", "noc90", "iou1", "iou3", "iou5", "oracle", "box")}
    assert 1 <= asked["prompt_noc85"] <= asked["prompt_noc90"] <= 20
    assert asked["prompt_iou1"] <= asked["prompt_oracle"] <= 1
    assert "IoU after 5 clicks" in board
    locked = {out["path"]: out["md5"] for outs in built.lock().values() for out in outs}
    manifest = json.loads((built.root / "data/models/first/manifest.json").read_text())
    assert manifest["training_data"] == locked["data/curated/masks"]
    assert locked["data/curated/masks"] in (built.root / "data/models/first/README.md").read_text()


@pytest.mark.slow
def test_other_steps_reach_only_what_comes_after(built: Project):
    text = (built.root / "profiles/small.yaml").read_text()
    first, second = (
        f"{name}: {{curated: masks, {more}params: {json.dumps(FEW)}}}" for name, more in (("first", ""), ("second", "self_train: first, "))
    )
    other = '"steps": 3'
    assert text.count(second) == 1
    built.edit("profiles/small.yaml", second, second.replace('"steps": 2', other))
    computed = built.repro()
    assert computed[0] == "models/second"
    assert sorted(computed[1:]) == sorted(AFTER), "answers to prompts and segments are computed in either order"
    built.edit("profiles/small.yaml", first, first.replace('"steps": 2', other))
    assert built.repro()[:2] == ["models/first", "models/second"], (
        "a student of three steps is sure of nothing, so the second may stay as it was"
    )
    assert "up to date" in built.dvc("status").stdout


@pytest.mark.slow
def test_a_few_images_are_the_same_again(built: Project):
    assert "same bytes again" in built.uss("spot-check", "segments/learnt/scenes").stdout


@pytest.mark.slow
def test_without_a_gpu_machine_nothing_is_trained(built: Project, tmp_path: Path):
    built.edit("profiles/small.yaml", '"batch": 2', '"batch": 1')
    done = built.uss("repro", "models/first", code=None, USS_NO_GPU="1")
    assert done.returncode == 69
    assert "is not computed here (USS_NO_GPU is set)" in done.stdout + done.stderr
    built.edit("profiles/small.yaml", '"batch": 1', '"batch": 2')
    assert built.repro("models/first") == []
