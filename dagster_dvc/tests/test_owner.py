"""Two machines, or two containers with process numbers of their own, in one clone: the second one is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dagster_dvc import DvcRunner
from dagster_dvc.errors import TryAgain
from dagster_dvc.owner import FRESH_S, OWNER, identity, only_machine

BUILD = (
    "import sys; from pathlib import Path; from dagster_dvc import DvcRunner; from dagster_dvc.errors import DagsterDvcError\n"
    "try: sys.exit(DvcRunner(Path('.'), {'BEHAVE': sys.argv[1]}).repro(['segments@lc__toy'], print))\n"
    "except DagsterDvcError as error: print(error); sys.exit(error.exit_code)"
)


def of_another_machine(root: Path, age_s: float) -> None:
    path = root / OWNER
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**identity(), "host": "other"}))
    then = time.time() - age_s
    os.utime(path, (then, then))


def test_another_machine_is_refused_while_its_sign_is_fresh(fed: Path):
    of_another_machine(fed, 12)
    with pytest.raises(TryAgain, match=r"^Another machine or container builds in this clone: other \(1\d s ago\)\..*again in 4\d s\.$"):
        DvcRunner(fed).repro(["segments@lc__toy"], print)
    assert not (fed / "data/segments/lc/toy").exists()
    of_another_machine(fed, FRESH_S + 1)
    assert DvcRunner(fed).repro(["segments@lc__toy"], print) == 0
    assert json.loads((fed / OWNER).read_text()) == identity()


def test_runs_of_one_machine_share_it(fed: Path):
    with only_machine(fed), only_machine(fed):
        assert DvcRunner(fed).repro(["segments@lc__toy"], print) == 0


@pytest.mark.parametrize("text", ["", "[]", "\xff", "{}"])
def test_a_broken_file_is_replaced(fed: Path, text: str):
    (fed / OWNER).parent.mkdir(parents=True, exist_ok=True)
    (fed / OWNER).write_bytes(text.encode("latin-1"))
    with only_machine(fed):
        assert json.loads((fed / OWNER).read_text()) == identity()


def test_two_spaces_of_process_numbers_do_not_build_at_once(fed: Path):
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("NOT TESTED: two spaces of process numbers, since unshare does not work here. Run as root.")
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    log = fed / "runs.log"
    first = subprocess.Popen([*unshare, sys.executable, "-c", BUILD, "slow-4s"], cwd=fed, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        second = subprocess.run([sys.executable, "-c", BUILD, ""], cwd=fed, env=environment, capture_output=True, text=True)
        assert second.returncode == 75
        assert second.stdout.startswith("Another machine or container builds in this clone")
        assert first.wait(timeout=60) == 0
    finally:
        first.kill()
    assert log.read_text() == "lc__toy\n", "built once"
