"""DVC's own commands on a cell: what changed since the last commit, and trying a value without editing a profile."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys

import pytest
import yaml
from projects import Project, executed

CELL = "pipelines/scenes/slic_merge/segments.yaml"
PARAMETER = "method.params.superpixels"


@pytest.fixture
def committed(built: Project) -> Project:
    git(built, "add", "-A")
    git(built, "commit", "-qm", "all")
    return built


def git(project: Project, *words: str) -> None:
    project.run("git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words)


def changed_parameters(project: Project) -> dict:
    return json.loads(project.dvc("params", "diff", "--json").stdout)


@pytest.mark.slow
def test_params_diff_shows_what_changed_in_cells(committed: Project):
    assert changed_parameters(committed) == {}
    committed.edit("profiles/small.yaml", "superpixels: 60", "superpixels: 50")
    committed.uss("plan")
    changes = changed_parameters(committed)
    assert changes.keys() == {CELL, "pipelines/leaderboard.yaml"}, "the leaderboard shows the parameters of entries"
    assert changes[CELL] == {PARAMETER: {"old": 60, "new": 50, "diff": -10}}
    committed.append("uss_dagster/methods/slic_merge.py", "\n_UNUSED = 1\n")
    committed.uss("plan")
    assert changed_parameters(committed)[CELL].keys() == {PARAMETER, "code"}


@pytest.mark.slow
def test_a_value_is_tried_without_a_profile(committed: Project):
    locks = committed.locks()
    words = ("exp", "run", "-S", f"{CELL}:{PARAMETER}=50", "pipelines/scenes/slic_merge/dvc.yaml:scores")
    output = committed.dvc(*words).stdout
    assert executed(output) == ["segments/slic_merge/scenes", "scores/slic_merge/scenes"], "only what depends on it"
    manifest = json.loads((committed.root / "data/segments/slic_merge/scenes/manifest.json").read_text())
    assert manifest["params"]["superpixels"] == 50
    assert changed_parameters(committed) == {CELL: {PARAMETER: {"old": 60, "new": 50, "diff": -10}}}
    metrics = json.loads(committed.dvc("metrics", "diff", "--json").stdout)
    assert metrics.keys() == {"reports/metrics/slic_merge/scenes.json"}
    assert committed.dvc("exp", "list", "--name-only").stdout.split()

    # The next plan restores the profile's value, and its results come from the cache.
    assert "segments/slic_merge/scenes: method" in committed.uss("plan").stdout
    assert yaml.safe_load((committed.root / CELL).read_text())["method"]["params"]["superpixels"] == 60
    assert committed.repro() == []
    assert committed.locks() == locks


EDITS = {
    "a parameter": ("params.yaml", "entries:\n  slic_merge: {params: {superpixels: 250}}\n"),
    "a profile": ("profiles/small.yaml", "  fine: {method: slic_merge, backbone: patches}\n"),
    "a statement": ("uss_dagster/methods/slic_merge.py", "\n_UNUSED = 1\n"),
}


@pytest.mark.parametrize("edit", [pytest.param(edit, marks=[] if edit == "a parameter" else pytest.mark.slow) for edit in EDITS])
def test_dvc_refuses_a_plan_that_an_edit_made_old(built: Project, edit):
    """It says what to do, and nothing is computed; a comment in the code is no such edit."""
    locks = built.locks()
    path, text = EDITS[edit]
    built.append(path, text)
    done = built.dvc("repro", "--all-pipelines", code=255)
    assert re.search(r"error: The plan is out of date \(.+\)\. Run `uss plan`, then this again \(`uss repro` does both\)\.", done.stderr)
    assert executed(done.stdout) == []
    assert built.locks() == locks


@pytest.mark.slow
def test_going_back_to_what_was_computed_before_is_an_edit_too(built: Project):
    """Although DVC has run the check of the plan with these very files; the planned files are others now."""
    before = (built.root / "params.yaml").read_text(encoding="utf-8")
    built.append(*EDITS["a parameter"])
    built.repro("segments/slic_merge/scenes")
    (built.root / "params.yaml").write_text(before, encoding="utf-8")
    done = built.dvc("repro", "--all-pipelines", code=255)
    assert "error: The plan is out of date" in done.stderr
    assert executed(done.stdout) == []


@pytest.mark.slow
def test_an_experiment_on_params_is_refused_and_a_comment_computes_nothing(committed: Project):
    done = committed.dvc("exp", "run", "-S", "+entries.slic_merge.params.superpixels=250", code=255)
    assert "error: The plan is out of date" in done.stderr
    committed.run("git", "checkout", "--quiet", ".")
    committed.append("uss_dagster/methods/slic_merge.py", "\n# a remark\n")
    assert executed(committed.dvc("repro", "--all-pipelines").stdout) == []
    assert list(committed.run("git", "diff", "--name-only").stdout.split()) == ["pipelines/dvc.lock", "uss_dagster/methods/slic_merge.py"]


def test_stages_and_the_merge_driver_need_no_path(built: Project):
    """As from an IDE, or a shell in which nothing was activated."""
    built.uss("plan", cold=True)  # notes its interpreter
    built.edit("pipelines/scenes/kmeans/scores.yaml", "bootstrap: 20", "bootstrap: 10")
    bare = {"PATH": os.defpath}
    target = "pipelines/scenes/kmeans/dvc.yaml:scores"
    done = built.run(sys.executable, "-P", "-m", "dvc", "repro", "--single-item", target, **bare)
    assert executed(done.stdout) == ["scores/kmeans/scenes"]
    assert str(built.root) not in "".join(path.read_text() for path in built.root.glob("pipelines/**/dvc.yaml")), (
        "the same bytes on every machine"
    )

    built.uss("merge-lock", "--install", cold=True)
    driver = built.run("git", "config", "merge.uss-merge-lock.driver").stdout.strip()
    words = driver.replace("%O", "lock").replace("%A", "lock").replace("%B", "lock").replace("%P", "dvc.lock")
    shutil.copyfile(built.root / "dvc.lock", built.root / "lock")
    built.run("sh", "-c", words, **bare)
    (built.root / ".uss/python").unlink()
    missing = built.run("sh", "pipelines/uss", "stage", "pipelines/plan.yaml", code=69, **bare)
    assert missing.stderr.startswith("error: No program `uss` here.")
