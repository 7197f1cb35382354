"""Stages that run in forks of one process: the same errors, bytes and ends as stages that are started anew."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from projects import SMALL, make_project, tree_hash

from uss_dagster.stage_server import stage_server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="forks are used on Linux only")]


def test_a_stage_in_a_fork_fails_and_ends_as_a_stage_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    project = make_project(tmp_path / "project")
    project.edit(
        "uss_dagster/stages/datasets.py",
        "        module, params = self.adapter",
        "        import time\n\n        time.sleep(60)\n        module, params = self.adapter",
    )
    project.uss("plan")
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("USS_FORK")
    monkeypatch.chdir(project.root)
    with stage_server() as environment:
        env = {**project.env, **environment}
        missing = ["sh", "pipelines/uss", "stage", "pipelines/none.yaml"]
        in_fork, anew = (subprocess.run(missing, env=e, capture_output=True, text=True) for e in (env, project.env))
        assert (in_fork.returncode, in_fork.stdout, in_fork.stderr) == (anew.returncode, anew.stdout, anew.stderr)
        assert in_fork.returncode == 64

        server = next(p for p in psutil.Process().children() if "uss_dagster.stage_server" in p.cmdline())
        for number in (signal.SIGTERM, signal.SIGKILL):
            caller = subprocess.Popen(["sh", "pipelines/uss", "stage", "pipelines/scenes/datasets.yaml"], env=env)
            wait_until(lambda: len(server.children(recursive=True)) == 2)  # one waits for the other
            os.kill(caller.pid, number)
            assert caller.wait(timeout=30) != 0
            wait_until(lambda: not [p for p in server.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE])
    assert not psutil.pid_exists(server.pid)


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_forks_give_the_same_bytes(tmp_path: Path):
    results = []
    for fork in ("0", "1"):
        project = make_project(tmp_path / fork, SMALL)
        project.repro(cold=True, USS_FORK=fork)
        results.append((tree_hash(project.root / "data"), tree_hash(project.root / "reports" / "site"), project.locks()))
    assert results[0] == results[1]
