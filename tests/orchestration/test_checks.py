"""Falling scores, missing cells, and the leaderboard they are compared with."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from dagster_dvc import DvcProject
from uss_dagster.orchestration import leaderboard_checks as checks
from uss_dagster.orchestration.leaderboard_checks import falls, gaps, previous_leaderboard


def board(**rows) -> pd.DataFrame:
    """Rows of a leaderboard: entry=(metric, value, low, high, higher is better, data version)."""
    names = ("metric", "value", "low", "high", "higher_is_better", "data_version")
    frame = pd.DataFrame([{"entry": entry, **dict(zip(names, row, strict=True))} for entry, row in rows.items()])
    return frame.assign(dataset="cats", protocol="p", scope="image", grid="full")


def test_a_number_below_its_interval_has_fallen_and_both_are_told():
    before = board(a=("overlap", 0.50, 0.45, 0.55, True, "v"), b=("overlap", 0.50, 0.45, 0.55, True, "v"))
    now = board(a=("overlap", 0.44, 0.40, 0.48, True, "v"), b=("overlap", 0.46, 0.40, 0.50, True, "v"))
    worse, compared = falls(now, before)
    assert compared == 2
    assert [str(fall) for fall in worse] == ["a on cats: overlap was 0.5000 [0.4500, 0.5500] and is 0.4400"]


def test_lower_is_better_rises_and_the_largest_fall_comes_first():
    before = board(a=("bits", 1.0, 0.9, 1.1, False, "v"), b=("bits", 1.0, 0.9, 1.1, False, "v"), c=("bits", 1.0, 0.9, 1.1, False, "v"))
    now = board(a=("bits", 1.2, 1.1, 1.3, False, "v"), b=("bits", 1.5, 1.4, 1.6, False, "v"), c=("bits", 0.5, 0.4, 0.6, False, "v"))
    assert [fall.row[-1] for fall in falls(now, before)[0]] == ["b", "a"]


def test_what_cannot_be_compared_is_left_out():
    nan = float("nan")
    before = board(a=("m", 0.5, 0.4, 0.6, True, "old"), b=("m", 0.5, nan, nan, True, "v"), gone=("m", 0.5, 0.4, 0.6, True, "v"))
    now = board(a=("m", 0.1, 0.0, 0.2, True, "new"), b=("m", 0.1, 0.0, 0.2, True, "v"), new=("m", 0.1, 0.0, 0.2, True, "v"))
    assert falls(now, before) == ([], 0)


def test_gaps_are_cells_and_metrics_that_others_have():
    planned = [("a", "cats"), ("b", "cats"), ("c", "dogs")]
    frame = pd.concat([board(a=("m", 0.5, 0.4, 0.6, True, "v"), b=("m", float("nan"), 0.4, 0.6, True, "v"))])
    assert gaps(planned, frame) == ["c on dogs: no score", "b on cats: m has no value"]
    assert gaps([("a", "cats")], frame) == []


def commit(root: Path, value: str) -> str:
    """A leaderboard as DVC caches it, named in a committed dvc.lock."""
    folder = root / "reports/leaderboard"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "leaderboard.parquet").write_text(value)
    file, listing = f"{value}0" * 4, f"{value}1" * 4 + ".dir"
    for version, text in ((file, value), (listing, json.dumps([{"md5": file, "relpath": "leaderboard.parquet"}]))):
        kept = root / ".dvc/cache/files/md5" / version[:2] / version[2:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(text)
    lock = {"schema": "2.0", "stages": {"leaderboard": {"cmd": "x", "outs": [{"path": "reports/leaderboard", "md5": listing, "size": 1}]}}}
    (root / "dvc.lock").write_text(yaml.safe_dump(lock))
    git(root, "add", "dvc.lock")
    git(root, "commit", "-qm", value)
    return git(root, "log", "-1", "--format=%h").strip()


def git(root: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=root, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n")
    return tmp_path


def test_the_leaderboard_before_is_the_last_committed_one_that_differs(repository):
    assert previous_leaderboard(DvcProject(repository)) is None
    first = commit(repository, "abcdefg")
    assert previous_leaderboard(DvcProject(repository)) is None, "nothing else is committed"
    commit(repository, "bcdefgh")
    found = previous_leaderboard(DvcProject(repository))
    assert found is not None
    assert found[0] == first
    assert found[1] == b"abcdefg"
    (repository / "dvc.lock").write_text((repository / "dvc.lock").read_text().replace("bcdefgh1", "cdefghi1"))
    found = previous_leaderboard(DvcProject(repository))
    assert found is not None
    assert found[1] == b"bcdefgh", "what is not committed is compared with what is"
    cache = repository / ".dvc" / "cache"
    next(path for path in cache.rglob("*") if path.is_file() and path.read_text() == "bcdefgh").unlink()
    assert previous_leaderboard(DvcProject(repository))[1] == b"abcdefg", "what the cache has lost is passed over"  # type: ignore[index]


def test_an_outdated_plan_is_a_warning_that_names_the_first_cell(monkeypatch):
    monkeypatch.setattr(checks, "plan_in_new_process", lambda root, check: ["segments/a/cats: code", "site: code"])
    verdict = checks.plan_verdict(Path())
    assert verdict.passed is False
    assert verdict.severity.value == "WARN"
    assert verdict.description == "The plan is out of date: segments/a/cats: code (and 1 more)"
    monkeypatch.setattr(checks, "plan_in_new_process", lambda root, check: [])
    assert checks.plan_verdict(Path()).passed is True


def test_planning_afresh_sees_the_code_on_the_disk(planned):
    """A plan in this process would know only what it has imported."""
    program = (
        "import pathlib; from uss_dagster.orchestration.planning_process import plan_in_new_process; "
        f"print(plan_in_new_process(pathlib.Path({str(planned.root)!r}), True))"
    )
    path = planned.root / "uss_dagster/methods/felzenszwalb.py"
    text = path.read_text()
    try:
        path.write_text(text + "\n_UNUSED = 1\n")
        assert planned.run(sys.executable, "-c", program).stdout.strip() == "['segments/felzenszwalb/scenes: code']"
    finally:
        path.write_text(text)
    planned.append("params.yaml", "entries: {nobody: {}}\n")
    try:
        said = planned.run(sys.executable, "-c", program, code=None)
        assert "UsageError: params.yaml:2: Unknown method 'nobody'" in said.stderr
    finally:
        (planned.root / "params.yaml").write_text("profile: small\n")
