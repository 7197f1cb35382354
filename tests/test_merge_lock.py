"""``uss merge-lock``: two branches that each add an entry merge into locks that DVC understands."""

import json
import subprocess

import pytest
import yaml
from projects import Project, cell_name, make_project

from uss_dagster.commands.merge_lock import merge_files
from uss_dagster.errors import BadData
from uss_dagster.planning.plan import HEADER

BOTH = "{}: both branches changed {}; run `uss repro` to build it anew."


def written(folder, **sides):
    paths = []
    for side in ("base", "ours", "theirs"):
        paths.append(folder / side)
        paths[-1].write_text(yaml.safe_dump(sides.get(side, {}), sort_keys=False))
    return paths


def entry(code):
    return {"cmd": f"run {code}", "outs": [{"path": "data/x", "md5": code}]}


def test_stages_of_both_sides_are_kept(tmp_path):
    base = {"schema": "2.0", "stages": {"a": entry("1"), "b": entry("1"), "gone": entry("1")}}
    ours = {"schema": "2.0", "stages": {"a": entry("2"), "b": entry("1"), "mine": entry("1"), "gone": entry("1")}}
    theirs = {"schema": "2.0", "stages": {"a": entry("1"), "b": entry("3"), "theirs": entry("1")}}
    paths = written(tmp_path, base=base, ours=ours, theirs=theirs)
    assert merge_files(*paths, "dvc.lock") == []
    merged = yaml.safe_load(paths[1].read_text())
    assert merged == {"schema": "2.0", "stages": {"a": entry("2"), "b": entry("3"), "mine": entry("1"), "theirs": entry("1")}}


def test_a_stage_both_changed_is_named_and_never_mixed(tmp_path):
    base, ours, theirs = ({"stages": {"leaderboard": entry(code), "x": entry("1")}} for code in "123")
    paths = written(tmp_path, base=base, ours=ours, theirs=theirs)
    assert merge_files(*paths, "dvc.lock") == [BOTH.format("dvc.lock", "leaderboard")]
    assert yaml.safe_load(paths[1].read_text())["stages"]["leaderboard"] == entry("2")
    paths = written(tmp_path, base=ours, ours=base, theirs=base)
    assert merge_files(*paths, "dvc.lock") == []  # both did the same


def test_no_common_ancestor_and_deleted_against_changed(tmp_path):
    paths = written(tmp_path, ours={"stages": {"a": entry("1")}}, theirs={"stages": {"b": entry("1")}})
    assert merge_files(*paths, "dvc.lock") == []
    assert set(yaml.safe_load(paths[1].read_text())["stages"]) == {"a", "b"}
    paths = written(tmp_path, base={"stages": {"a": entry("1")}}, ours={"stages": {}}, theirs={"stages": {"a": entry("2")}})
    assert merge_files(*paths, "pipelines/d/e/dvc.lock") == [BOTH.format("pipelines/d/e/dvc.lock", "a")]
    assert yaml.safe_load(paths[1].read_text())["stages"] == {"a": entry("2")}


def test_conflict_markers_are_refused(tmp_path):
    paths = written(tmp_path)
    paths[2].write_text("<<<<<<< HEAD\nstages: {\n")
    with pytest.raises(BadData, match=r"One side's dvc.lock is not valid YAML"):
        merge_files(*paths, "dvc.lock")


def texts(folder, *sides):
    paths = [folder / side for side in ("base", "ours", "theirs")]
    for path, text in zip(paths, sides, strict=True):
        path.write_text(text)
    return paths


def test_a_planned_file_stays_ours_and_is_planned_again(tmp_path):
    paths = texts(tmp_path, HEADER + "a: 1\n", HEADER + "a: 2\n", HEADER + "a: 3\n")
    name = "pipelines/leaderboard.yaml"
    assert merge_files(*paths, name) == [f"{name}: both branches planned it; run `uss plan` to write it anew."]
    assert paths[1].read_text() == HEADER + "a: 2\n"


def test_a_file_of_somebody_s_own_is_merged_as_text(tmp_path):
    base = "".join(f"line{number}: 0\n" for number in range(9))
    paths = texts(tmp_path, base, base.replace("line1: 0", "line1: 1"), base.replace("line7: 0", "line7: 1"))
    assert merge_files(*paths, "pipelines/own/dvc.yaml") == []
    assert paths[1].read_text() == base.replace("line1: 0", "line1: 1").replace("line7: 0", "line7: 1")
    paths = texts(tmp_path, "a: 0\n", "a: 1\n", "a: 2\n")
    with pytest.raises(BadData, match=r"own/dvc.yaml: both branches changed the same lines"):
        merge_files(*paths, "pipelines/own/dvc.yaml")
    assert "<<<<<<<" in paths[1].read_text()


@pytest.fixture
def project(tmp_path) -> Project:
    return make_project(
        tmp_path / "project",
        profile="""\
title: One entry
settings: {shard_images: 4, bootstrap: 5, samples: 1}
datasets: {scenes: {images: 2}}
metrics: [covering]
entries:
  felzenszwalb: {params: {scales: 2}}
""",
    )


def git(project, *words):
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=project.root, env=project.env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_two_branches_that_each_add_an_entry(project):
    project.uss("repro")
    project.uss("merge-lock", "--install")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "base")
    branch = git(project, "branch", "--show-current").strip()
    own = project.root / "params.yaml"
    text = own.read_text()
    profile = next(project.root.glob("profiles/*.yaml"))
    planned = profile.read_text()
    for name, scales in (("left", 3), ("right", 4)):
        git(project, "checkout", "-q", "-b", name, branch)
        lines = planned.splitlines()
        at = len(lines) if name == "right" else lines.index("entries:") + 1
        lines.insert(at, f"  {name}: {{method: felzenszwalb, title: {name}, params: {{scales: {scales}}}}}")
        profile.write_text("\n".join(lines) + "\n")
        project.uss("repro")
        git(project, "add", "-A")
        git(project, "commit", "-qm", name)
    assert own.read_text() == text
    said = git(project, "merge", "left")
    for stage in ("leaderboard", "site"):
        assert BOTH.format("dvc.lock", stage) in said
    assert "pipelines/leaderboard.yaml: both branches planned it; run `uss plan` to write it anew." in said
    assert "dvc.yaml: both branches planned it" in said
    assert git(project, "diff", "--name-only", "--diff-filter=U") == "", "nothing is left to resolve by hand"
    project.uss("plan", "--check", code=64)
    project.uss("plan")
    project.uss("plan", "--check")
    project.run("dvc", "checkout", code=None)
    status = json.loads(project.run("dvc", "status", "--json").stdout)
    assert {cell_name(address) for address in status} <= {"plan", "leaderboard", "site"}
    assert "leaderboard" in status
    project.uss("repro")
    assert json.loads(project.run("dvc", "status", "--json").stdout) == {}
    table = (project.root / "reports/leaderboard/leaderboard.md").read_text()
    assert "left" in table
    assert "right" in table
