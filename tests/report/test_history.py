"""The history: versions of a real git repository, with tables from a cache laid out as DVC lays it out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from devtools import Page
from small_benchmark import DATASETS, ENTRIES, METRICS

from uss_dagster.commands.history import history_lines
from uss_dagster.report import history, leaderboard
from uss_dagster.report.lock_files import UNCOMMITTED, Commit, commits


def git(root: Path, *words: str, when: int = 0) -> None:
    day = f"2024-05-{when + 1:02d}T12:00:00+0000"
    names = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org"}
    env = {**os.environ, **names, "GIT_AUTHOR_DATE": day, "GIT_COMMITTER_DATE": day, "GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", *words], cwd=root, env=env, check=True, capture_output=True)


def keep(root: Path, data: bytes, ending: str = "") -> str:
    """Put bytes into the cache; returns their hash."""
    digest = hashlib.md5(data).hexdigest() + ending
    path = root / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


def lock(path: Path, stages: dict[str, dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False), encoding="utf-8")


def entry(path: str, text: str) -> dict[str, str | int]:
    """A dependency or an output as a lock file lists it; its hash is that of ``text``."""
    return {"path": path, "hash": "md5", "md5": hashlib.md5(text.encode()).hexdigest(), "size": 1}


def leaderboard_stages(root: Path, frame: pd.DataFrame, cached: bool = True) -> dict[str, dict[str, Any]]:
    """Stages that write and read the leaderboard, whose files go into the cache."""
    csv = leaderboard.to_csv(frame).encode()
    listing = json.dumps([{"md5": hashlib.md5(csv).hexdigest(), "relpath": "leaderboard.csv"}]).encode()
    version = hashlib.md5(listing).hexdigest() + ".dir"
    if cached:
        keep(root, csv)
        keep(root, listing, ".dir")
    return {
        "leaderboard": {"cmd": "x", "outs": [{"path": "reports/leaderboard", "hash": "md5", "md5": version, "size": 1}]},
        "site": {"cmd": "x", "deps": [{"path": "reports/leaderboard", "hash": "md5", "md5": "0" * 32 + ".dir"}]},
    }


def record_old(root: Path, frame: pd.DataFrame, levels: int, code: str, cached: bool = True) -> None:
    """One lock file for all stages, which holds their parameters."""
    cell = {"grid.segments.alpha__cats": {"code": code, "params": {"levels": levels}, "title": "Alpha", "backbone": "", "reads": "x"}}
    segments = "data/segments/alpha/cats"
    stages = {
        "segments@alpha__cats": {"cmd": "x", "params": {"grid.yaml": cell}, "outs": [entry(segments, f"{levels} {code}")]},
        "scores@alpha__cats": {
            "cmd": "x",
            "deps": [entry(segments, f"{levels} {code}")],
            "params": {"grid.yaml": {"grid.scores.alpha__cats": {"code": "s", "metrics": ["overlap"]}}},
            "outs": [entry("data/scores/alpha/cats", f"{levels} {code}"), entry("reports/metrics/alpha__cats.json", "")],
        },
    }
    lock(root / "dvc.lock", {**leaderboard_stages(root, frame, cached), **stages})


def record_new(root: Path, frame: pd.DataFrame, levels: int, code: str, cached: bool = True, picture: str = "a") -> None:
    """A lock file for each pipeline, and a parameter file for each stage; the dataset reads a folder that no stage writes."""
    home = root / "pipelines" / "cats" / "alpha"
    params = {"family": "method", "name": "alpha", "params": {"levels": levels}}
    cells = {
        "pipelines/cats/datasets.yaml": {"stage": "datasets", "dataset": "cats", "code": "d"},
        "pipelines/cats/alpha/segments.yaml": {"stage": "segments", "method": params, "backbone": None, "title": "Alpha", "code": code},
        "pipelines/cats/alpha/scores.yaml": {"stage": "scores", "metrics": ["overlap"], "code": "s"},
    }
    texts = {path: yaml.safe_dump(cell, sort_keys=False) for path, cell in cells.items()}
    for path, text in texts.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    dataset, segments = entry("data/datasets/cats", picture), entry("data/segments/alpha/cats", f"{levels} {code} {picture}")
    images = entry("data/datasets/cats/images", picture)
    files = {path: entry(path, text) for path, text in texts.items()}
    lock(
        home.parent / "dvc.lock",
        {"datasets": {"cmd": "x", "deps": [files["pipelines/cats/datasets.yaml"], entry("/my/cats", picture)], "outs": [dataset]}},
    )
    lock(
        home / "dvc.lock",
        {
            "segments": {"cmd": "x", "deps": [images, files["pipelines/cats/alpha/segments.yaml"]], "outs": [segments]},
            "scores": {
                "cmd": "x",
                "deps": [dataset, segments, files["pipelines/cats/alpha/scores.yaml"]],
                "outs": [entry("data/scores/alpha/cats", f"{levels} {code} {picture}"), entry("reports/metrics/alpha/cats.json", "")],
            },
        },
    )
    lock(root / "dvc.lock", leaderboard_stages(root, frame, cached))


Record = Callable[..., None]


@pytest.fixture(params=[record_old, record_new], ids=["one lock file", "lock files of pipelines"])
def record(request: pytest.FixtureRequest) -> Record:
    """A function that writes the lock files of a project."""
    function: Record = request.param
    return function


@pytest.fixture
def repository(cells: list[Path], tmp_path: Path, record: Record) -> Path:
    """Five commits: a first leaderboard, another subject, alpha moves, one that the cache lacks, beta gone; and a working copy."""
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q")
    first = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
    moved = first.copy()
    of_alpha = (moved["entry"] == "alpha") & (moved["dataset"] == "cats") & (moved["metric"] == "overlap")
    moved.loc[of_alpha, "value"] += 0.05
    without = moved[moved["entry"] != "beta"]
    lost = first.assign(value=first["value"] + 0.01)
    steps = [(first, 3, True), (first, 3, True), (moved, 4, True), (lost, 5, False), (without, 4, True)]
    for number, (frame, levels, cached) in enumerate(steps):
        record(root, frame, levels, "a", cached)
        (root / "note").write_text(str(number))
        git(root, "add", "*dvc.lock", "*.yaml" if (root / "pipelines").exists() else "note", "note")
        git(root, "commit", "-q", "-m", f"step {number} <b>", when=number)
    record(root, first, 4, "b")
    return root


def test_a_version_is_a_leaderboard_that_differs_from_the_one_before(repository: Path) -> None:
    versions = history.versions(repository)
    assert [v.commit.subject for v in versions] == ["step 0 <b>", "step 2 <b>", "step 3 <b>", "step 4 <b>", "not committed"]
    assert [v.rows is not None for v in versions] == [True, True, False, True, True]
    assert versions[-1].commit.name == UNCOMMITTED
    assert [v.commit.date for v in versions][:2] == ["2024-05-01", "2024-05-03"]


def test_what_moved_and_why(repository: Path) -> None:
    facts = history.compare_versions(history.versions(repository))
    changes = [c for c in facts["changes"] if c["version"] == 1]
    assert changes == [{"version": 1, "entry": "alpha", "dataset": "cats", "state": "moved", "why": ["segments: levels 3 → 4"]}]
    last = [c for c in facts["changes"] if c["version"] == len(facts["versions"]) - 1]
    assert {(c["entry"], c["state"]) for c in last if c["dataset"] == "cats"} >= {("beta", "new"), ("alpha", "moved")}
    assert next(c for c in last if c["entry"] == "alpha" and c["dataset"] == "cats")["why"] == ["segments: code"]
    overlap = next(g for g in facts["groups"] if g["dataset"] == "cats" and g["metric"] == "overlap")
    points = overlap["entries"]["alpha"]
    assert points[1][1] - points[0][1] == pytest.approx(0.05, abs=2e-6)


def commit(root: Path, name: str, when: int) -> Commit:
    """Commit all files; returns the commit as the history reads it."""
    git(root, "add", "*dvc.lock", *(["pipelines"] if (root / "pipelines").exists() else []))
    git(root, "commit", "-q", "-m", name, when=when)
    return list(commits(root))[-2]


def test_reasons_come_from_parameters_and_from_inputs_that_no_stage_writes(cells: list[Path], tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    git(root, "init", "-q")
    frame = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
    steps: list[tuple[Record, int, str, str]] = [
        (record_old, 3, "a", "-"),
        (record_new, 3, "a", "a"),  # the plan is written anew, and nothing else changes
        (record_new, 4, "b", "a"),
        (record_new, 4, "b", "b"),  # a picture of the person's own folder is replaced
    ]
    made = []
    for number, (record, levels, code, picture) in enumerate(steps):
        changed = frame.assign(value=frame["value"] + number)
        record(root, changed, levels, code, **({"picture": picture} if record is record_new else {}))
        made.append(commit(root, f"step {number}", number))
    output = "data/scores/alpha/cats"
    assert history.reasons(made[0], made[1], output) == ["datasets: new"], "the old lock file did not record it"
    assert history.reasons(made[1], made[2], output) == ["segments: code", "segments: levels 3 → 4"]
    assert history.reasons(made[2], made[3], output) == ["datasets: /my/cats"]
    assert history.reasons(made[0], made[2], output) == ["datasets: new", "segments: code", "segments: levels 3 → 4"]
    assert history.reasons(made[1], made[1], output) == []


def test_the_same_repository_gives_the_same_bytes_and_says_it_in_words(repository: Path) -> None:
    lines = list(history_lines(history.write_history(repository)))
    first = (repository / "reports" / "history.js").read_bytes()
    history.write_history(repository)
    assert (repository / "reports" / "history.js").read_bytes() == first
    assert b"<b>" not in first
    assert any(line.startswith("    alpha on cats: Overlap 0.") and "levels 3 → 4" in line for line in lines)
    assert lines[-1].endswith("step 0 <b>"), "newest first"


def test_without_git_cache_or_lock_nothing_is_claimed(tmp_path: Path, cells: list[Path], record: Record) -> None:
    assert history.compare_versions(history.versions(tmp_path)) == {"versions": [], "groups": [], "titles": {}, "changes": []}
    assert "No commit" in next(history_lines(history.write_history(tmp_path)))
    record(tmp_path, leaderboard.build(cells, ENTRIES, DATASETS, METRICS), 3, "a", cached=False)
    facts = history.compare_versions(history.versions(tmp_path))
    assert [v["known"] for v in facts["versions"]] == [False]
    assert "not in DVC's cache" in next(history_lines(history.write_history(tmp_path)))


def test_a_cache_elsewhere_is_found(repository: Path, tmp_path: Path) -> None:
    (repository / ".dvc" / "cache").rename(tmp_path / "far")
    assert all(v.rows is None for v in history.versions(repository))
    (repository / ".dvc" / "config").write_text("[core]\n    analytics = false\n[cache]\n    dir = ../../far\n")
    assert [v.rows is not None for v in history.versions(repository)] == [True, True, False, True, True]


def test_the_page_draws_it(tab: Page, folder: Path, repository: Path) -> None:
    history.write_history(repository)
    shutil.copytree(folder / "assets", repository / "reports" / "site" / "assets")
    shutil.copy(folder / "history.html", repository / "reports" / "site")
    for width in (360, 1280):
        tab.complaints.clear()
        tab.open((repository / "reports" / "site" / "history.html").as_uri(), width=width)
        assert tab.ask("document.documentElement.scrollWidth") == width
        assert tab.ask("document.querySelectorAll('#chart .lines').length") == 4
        assert "segments: levels 3 → 4" in tab.ask("document.getElementById('versions').textContent")
        assert "step 0 <b>" in tab.ask("document.getElementById('versions').textContent")
        first = tab.ask("document.querySelector('#versions li:last-child').textContent")
        assert "The first version whose numbers are here" in first
        assert "Alpha" in first, "its scores, so that one run already shows something"
        assert tab.complaints == []
