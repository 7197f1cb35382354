"""Shards of one artefact: resumed, restored or computed, counted, and the same bytes whichever it was."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner, ShardTotals
from uss_dagster.artifacts.shard_store import ShardStore
from uss_dagster.artifacts.staging import Staging
from uss_dagster.errors import BadData

CELL = "stage/entry/dataset"
SHARDS = 4


def runner_of(private: Path, depends_on: object = 1) -> ShardRunner:
    return ShardRunner(Staging(private, CELL, depends_on), ShardStore(private / "shards" / CELL))


def jobs_of(keys: str = "abcd") -> list[ShardJob[int]]:
    """Four shards of two files each; the last has one image, the others two."""
    return [
        ShardJob((f"{number}.bin", f"parts/{number}.txt"), key and f"key-{key}", number, 1 if number == SHARDS - 1 else 2)
        for number, key in enumerate(keys)
    ]


def write_shard(item: int, staging: Staging, log: Path, fail_at: int = -1, slow_at: int = -1) -> float:
    """Both files of a shard; notes in ``log`` that it was computed."""
    if item == fail_at:
        raise BadData(f"shard {item} is bad")
    if item == slow_at:
        time.sleep(60)
    staging.write(f"{item}.bin", lambda path: path.write_bytes(bytes([item]) * 9))
    staging.write(f"parts/{item}.txt", lambda path: path.write_text(f"part {item}"))
    with log.open("a") as stream:
        stream.write(f"{item}\n")
    return 0.5


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def computed(log: Path) -> list[int]:
    """Numbers of the shards that were computed since the last call, sorted."""
    numbers = sorted(int(line) for line in log.read_text().split())
    log.write_text("")
    return numbers


@pytest.mark.parametrize("workers", [1, 2])
def test_computed_then_resumed_then_restored(tmp_path, log, workers):
    work = functools.partial(write_shard, log=log)
    runner = runner_of(tmp_path)
    assert runner.run(jobs_of(), work, workers) == ShardTotals(images=7, seconds_computing=2.0)
    assert computed(log) == [0, 1, 2, 3]
    first = bytes_of(runner.staging.folder)
    assert len(first) == 2 * SHARDS

    assert runner_of(tmp_path).run(jobs_of(), work, 1) == ShardTotals(resumed=7)
    again = runner_of(tmp_path, "another input")
    assert again.run(jobs_of(), work, 1) == ShardTotals(reused=7)
    assert computed(log) == []
    assert bytes_of(again.staging.folder) == first

    changed = runner_of(tmp_path, "one shard changed")
    assert changed.run(jobs_of("axcd"), work, 1) == ShardTotals(images=2, reused=5, seconds_computing=0.5)
    assert computed(log) == [1]
    changed.evict_others(jobs_of("axcd"))
    assert {path.name for path in changed.store.folder.iterdir()} == {"key-a", "key-x", "key-c", "key-d"}


def test_a_shard_with_only_some_of_its_files_is_computed_again(tmp_path, log):
    runner = runner_of(tmp_path)
    runner.run(jobs_of(["", "", "", ""]), functools.partial(write_shard, log=log), 1)
    (runner.staging.folder / "parts" / "2.txt").unlink()
    computed(log)
    totals = runner_of(tmp_path).run(jobs_of(["", "", "", ""]), functools.partial(write_shard, log=log), 1)
    assert (totals.images, totals.resumed, totals.reused) == (2, 5, 0)
    assert computed(log) == [2]
    assert not runner.store.folder.exists(), "an empty key is never stored"


def test_without_reuse_the_same_bytes_are_computed(tmp_path, log, monkeypatch):
    work = functools.partial(write_shard, log=log)
    runner = runner_of(tmp_path)
    runner.run(jobs_of(), work, 1)
    before = bytes_of(runner.staging.folder)
    monkeypatch.setenv("USS_REUSE", "0")
    other = runner_of(tmp_path, 2)
    assert other.run(jobs_of(), work, 1).images == 7
    assert bytes_of(other.staging.folder) == before


def test_seconds_are_measured_where_the_work_does_not_say(tmp_path):
    def nap(item: int, staging: Staging) -> None:
        time.sleep(0.02)
        for name in jobs_of()[item].files:
            staging.write(name, lambda path: path.write_text("x"))

    totals = runner_of(tmp_path).run(jobs_of(), nap, 1)
    assert 0.08 <= totals.seconds_computing < 5


def test_progress_is_told_in_order(tmp_path, log, capsys):
    work = functools.partial(write_shard, log=log)
    runner = runner_of(tmp_path)
    runner.run(jobs_of()[:2], work, 1)
    capsys.readouterr()
    steps = []
    runner.run(jobs_of(), work, 1, advance=lambda job, totals: steps.append((job.item, totals.resumed, totals.images)))
    assert steps == [(0, 2, 0), (1, 2, 0), (2, 0, 2), (3, 0, 1)]
    assert capsys.readouterr().out == "", "whoever counts the shards prints no line as well"
    runner_of(tmp_path).run(jobs_of(), work, 1)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["event"], last["what"], last["done"], last["total"]) == ("progress", CELL, 7, 7)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_shard_ends_the_run_and_the_finished_ones_stay(tmp_path, log, workers):
    with pytest.raises(BadData, match="shard 2 is bad"):
        runner_of(tmp_path).run(jobs_of(), functools.partial(write_shard, log=log, fail_at=2), workers)
    finished = computed(log)
    assert {0, 1} <= set(finished)
    totals = runner_of(tmp_path).run(jobs_of(), functools.partial(write_shard, log=log), workers)
    assert computed(log) == sorted(set(range(SHARDS)) - set(finished))
    assert totals.resumed == sum(jobs_of()[number].images for number in finished)


PROGRAM = """\
import functools, sys
from pathlib import Path
from artifacts.test_shard_runner import jobs_of, runner_of, write_shard
private = Path(sys.argv[1])
runner_of(private).run(jobs_of(), functools.partial(write_shard, log=private / "log", slow_at=2), 1)
"""


def test_killed_in_the_middle_it_goes_on_at_the_first_missing_shard(tmp_path, log):
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    run = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], env={**os.environ, "PYTHONPATH": path})
    deadline = time.monotonic() + 60
    while len(log.read_text().split()) < 2:
        assert run.poll() is None
        assert time.monotonic() < deadline, "the first shards were never finished"
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert computed(log) == [0, 1]
    runner = runner_of(tmp_path)
    half = runner.staging.folder / "0.bin"
    written = half.stat().st_mtime_ns
    assert runner.run(jobs_of(), functools.partial(write_shard, log=log), 1) == ShardTotals(images=3, resumed=4, seconds_computing=1.0)
    assert computed(log) == [2, 3]
    assert half.stat().st_mtime_ns == written, "a finished shard is not written again"
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    whole = runner_of(fresh)
    whole.run(jobs_of(), functools.partial(write_shard, log=log), 1)
    assert bytes_of(runner.staging.folder) == bytes_of(whole.staging.folder)
