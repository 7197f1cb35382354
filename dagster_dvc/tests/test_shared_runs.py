"""Clones that share a remote: each stage is computed in one of them, also at the same time, also when one of them is killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dvc_command import dvc, wait_for

from dagster_dvc import DvcRunner

BUILD = """
import sys
from pathlib import Path
from dagster_dvc import DvcRunner
from dagster_dvc.errors import DagsterDvcError
behave, lease_s, *targets = sys.argv[1:]
try: sys.exit(DvcRunner(Path("."), {"BEHAVE": behave}, shared=True, lease_s=float(lease_s)).repro(targets, print))
except DagsterDvcError as error: print(error); sys.exit(error.exit_code)
"""
STAGES = ["lc__toy", "lc__voc", "leaderboard", "toy", "un__toy", "voc"]


@pytest.fixture
def clones(template: Path, tmp_path: Path) -> list[Path]:
    """Two clones with one remote, a folder; nothing built."""
    first, second = (Path(shutil.copytree(template, tmp_path / name)) for name in ("first", "second"))
    for root in (first, second):
        dvc(root, "remote", "add", "-d", "shared", str(tmp_path / "shared"))
    return [first, second]


def build(root: Path, behave: str = "", lease_s: float = 5, targets: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, behave, str(lease_s), *targets]
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ran(root: Path) -> list[str]:
    """Names of the stages that ran in a clone."""
    log = root / "runs.log"
    return log.read_text().split() if log.exists() else []


def claims(root: Path) -> list[Path]:
    return list((root.parent / "shared" / "claims").glob("*"))


def results(root: Path) -> dict[str, bytes]:
    files = [root / "dvc.lock", *(path for part in ("data", "reports") for path in sorted((root / part).rglob("*.txt")))]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_two_clones_at_once_compute_each_stage_once(clones: list[Path]):
    said = [done.communicate(timeout=120)[0] for done in [build(root) for root in clones]]
    assert sorted(ran(clones[0]) + ran(clones[1])) == STAGES, said
    assert results(clones[0]) == results(clones[1])
    assert len(results(clones[0])) == 7
    assert claims(clones[0]) == []


@pytest.mark.slow
def test_both_work_and_what_is_computed_elsewhere_is_left_until_nothing_else_can_be_done(clones: list[Path]):
    said = [done.communicate(timeout=120)[0] for done in [build(root, "slow-2s") for root in clones]]
    assert sorted(ran(clones[0]) + ran(clones[1])) == STAGES, said
    assert min(len(ran(root)) for root in clones) >= 2, said
    assert any("Waiting for process" in text for text in said), said
    assert results(clones[0]) == results(clones[1])
    assert all(DvcRunner(root).status() == {} for root in clones)
    for root in clones:  # a third look computes nothing, and puts nothing
        before = {path: path.stat().st_mtime_ns for path in (root.parent / "shared").rglob("*")}
        assert build(root).wait(timeout=60) == 0
        assert {path: path.stat().st_mtime_ns for path in (root.parent / "shared").rglob("*")} == before


@pytest.mark.slow
def test_a_clone_that_was_killed_is_taken_over_and_one_that_was_stopped_at_once(clones: list[Path]):
    first, second = clones
    target = ("datasets@toy",)
    killed = build(first, "slow-60s", 4, target)
    wait_for(lambda: ran(first), 60)
    for process in [*psutil.Process(killed.pid).children(recursive=True), psutil.Process(killed.pid)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    killed.wait()
    assert len(claims(first)) == 1
    started = time.monotonic()
    other = build(second, "", 4, target)
    assert other.wait(timeout=60) == 0
    assert time.monotonic() - started > 4
    assert "Waiting for process" in other.stdout.read()
    assert ran(second) == ["toy"]
    assert claims(first) == []

    stopped = build(second, "slow-60s", 60, ("datasets@voc",))
    wait_for(lambda: len(ran(second)) == 2, 60)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(timeout=30) == 128 + signal.SIGTERM
    assert claims(first) == []


@pytest.mark.slow
def test_a_stage_that_fails_is_given_up_and_what_was_built_alone_is_published(clones: list[Path]):
    first, second = clones
    assert build(first, targets=("datasets@toy",)).wait(timeout=60) == 0
    failed = build(first, "fail-65", targets=("segments@lc__toy",))
    assert failed.wait(timeout=60) == 255
    assert claims(first) == []
    assert ran(first) == ["toy", "lc__toy"]
    assert DvcRunner(first).repro(["segments@lc__toy"], print) == 0  # not shared
    assert build(first, targets=("segments@lc__toy",)).wait(timeout=60) == 0
    assert ran(first) == ["toy", "lc__toy", "lc__toy"]
    assert build(second, targets=("segments@lc__toy",)).wait(timeout=60) == 0
    assert ran(second) == []


@pytest.mark.slow
def test_objects_that_a_remote_lost_or_damaged_are_named_computed_and_put_again(clones: list[Path]):
    first, second = clones
    targets = ("segments@lc__toy", "segments@un__toy")
    assert build(first, targets=targets).wait(timeout=60) == 0
    objects = {path.read_text(): path for path in (first.parent / "shared/files").rglob("*") if path.is_file()}
    objects["lc__toy:toy"].unlink()
    objects["un__toy:toy"].chmod(0o644)
    objects["un__toy:toy"].write_text("un__toy:tox")
    other = build(second, targets=targets)
    said = other.communicate(timeout=60)[0]
    assert other.returncode == 0, said
    for text in ("lc__toy:toy", "un__toy:toy"):
        assert f"{objects[text]} is missing in the remote, or damaged." in said
        assert objects[text].read_text() == text
    assert ran(second) == ["lc__toy", "un__toy"]
    assert results(second) == results(first)


@pytest.mark.slow
def test_without_a_default_remote_the_sentence_says_what_to_do(root: Path):
    done = build(root)
    said = done.communicate(timeout=60)[0]
    assert said.strip().splitlines()[0] == (
        "error: No default remote is named. Add the one that the clones share: `dvc remote add --default shared ADDRESS`."
    )
    assert done.returncode == 64
    assert ran(root) == []
