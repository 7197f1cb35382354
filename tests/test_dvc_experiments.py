"""DVC's own commands on a cell: what changed since the last commit, and trying a value without editing a profile."""

from __future__ import annotations

import json

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
