"""The history: versions of a real git repository, with tables from a cache laid out as DVC lays it out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from devtools import Page
from small_benchmark import DATASETS, ENTRIES, METRICS

from uss_dagster.commands.history import history_lines
from uss_dagster.report import history, leaderboard


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


def record(root: Path, frame: pd.DataFrame, levels: int, code: str, cached: bool = True) -> None:
    """A dvc.lock that names this leaderboard."""
    csv = leaderboard.to_csv(frame).encode()
    listing = json.dumps([{"md5": hashlib.md5(csv).hexdigest(), "relpath": "leaderboard.csv"}]).encode()
    version = hashlib.md5(listing).hexdigest() + ".dir"
    if cached:
        keep(root, csv)
        keep(root, listing, ".dir")
    cell = {"grid.segments.alpha__cats": {"code": code, "params": {"levels": levels}, "title": "Alpha", "backbone": ""}}
    stages = {
        "leaderboard": {"cmd": "x", "outs": [{"path": "reports/leaderboard", "hash": "md5", "md5": version, "size": 1}]},
        "segments@alpha__cats": {"cmd": "x", "params": {"grid.yaml": cell}},
        "site": {"cmd": "x", "deps": [{"path": "reports/leaderboard", "hash": "md5", "md5": "0" * 32 + ".dir"}]},
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False), encoding="utf-8")


@pytest.fixture
def repository(cells: list[Path], tmp_path: Path) -> Path:
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
        git(root, "add", "dvc.lock", "note")
        git(root, "commit", "-q", "-m", f"step {number} <b>", when=number)
    record(root, first, 4, "b")
    return root


def test_a_version_is_a_leaderboard_that_differs_from_the_one_before(repository: Path) -> None:
    found = history.versions(repository)
    assert [v.subject for v in found] == ["step 0 <b>", "step 2 <b>", "step 3 <b>", "step 4 <b>", "not committed"]
    assert [v.frame is not None for v in found] == [True, True, False, True, True]
    assert found[-1].commit == history.NOW
    assert [v.date for v in found][:2] == ["2024-05-01", "2024-05-03"]


def test_what_moved_and_why(repository: Path) -> None:
    said = history.told(history.versions(repository))
    changes = [c for c in said["changes"] if c["version"] == 1]
    assert changes == [{"version": 1, "entry": "alpha", "dataset": "cats", "state": "moved", "why": ["segments: levels 3 → 4"]}]
    last = [c for c in said["changes"] if c["version"] == len(said["versions"]) - 1]
    assert {(c["entry"], c["state"]) for c in last if c["dataset"] == "cats"} >= {("beta", "new"), ("alpha", "moved")}
    assert next(c for c in last if c["entry"] == "alpha" and c["dataset"] == "cats")["why"] == ["segments: code"]
    overlap = next(g for g in said["groups"] if g["dataset"] == "cats" and g["metric"] == "overlap")
    points = overlap["entries"]["alpha"]
    assert points[1][1] - points[0][1] == pytest.approx(0.05, abs=2e-6)


def test_the_same_repository_gives_the_same_bytes_and_says_it_in_words(repository: Path) -> None:
    lines = list(history_lines(repository))
    first = (repository / "reports" / "history.js").read_bytes()
    history.write_history(repository)
    assert (repository / "reports" / "history.js").read_bytes() == first
    assert b"<b>" not in first
    assert any(line.startswith("    alpha on cats: Overlap 0.") and "levels 3 → 4" in line for line in lines)
    assert lines[-1].endswith("step 0 <b>"), "newest first"


def test_without_git_cache_or_lock_nothing_is_claimed(tmp_path: Path, cells: list[Path]) -> None:
    assert history.told(history.versions(tmp_path)) == {"versions": [], "groups": [], "titles": {}, "changes": []}
    assert "No commit" in next(history_lines(tmp_path))
    record(tmp_path, leaderboard.build(cells, ENTRIES, DATASETS, METRICS), 3, "a", cached=False)
    said = history.told(history.versions(tmp_path))
    assert [v["known"] for v in said["versions"]] == [False]
    assert "not in DVC's cache" in next(history_lines(tmp_path))


def test_a_cache_elsewhere_is_found(repository: Path, tmp_path: Path) -> None:
    (repository / ".dvc" / "cache").rename(tmp_path / "far")
    assert all(v.frame is None for v in history.versions(repository))
    (repository / ".dvc" / "config").write_text("[core]\n    analytics = false\n[cache]\n    dir = ../../far\n")
    assert [v.frame is not None for v in history.versions(repository)] == [True, True, False, True, True]


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
        assert tab.complaints == []
