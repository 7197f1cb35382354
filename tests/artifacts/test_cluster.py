"""Jobs on the workers of a Dask cluster: real schedulers and workers, with and without the project's disk."""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from dask_servers import hiding, servers
from projects import make_project, of_results

from uss_dagster.artifacts.cluster import CLUSTER, Cluster
from uss_dagster.artifacts.cluster_worker import FilePart, Order, dumps, identity, run_order
from uss_dagster.artifacts.reads import Piece, Reads
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner, ShardTotals
from uss_dagster.artifacts.shard_store import ShardStore
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import Staging
from uss_dagster.errors import BadData, OutOfMemory, TryAgain, Unavailable, UsageError

SHARDS = 6


# -- what the jobs of these tests do ------------------------------------------------------------------------


def joined(job: int, folder: Path, text: str) -> str:
    """What two files hold, one of them named by text."""
    return (folder / "common.txt").read_text() + Path(text).read_text()[job : job + 1]


def read_all(job: int, folder: Path) -> bytes:
    return (folder / "letters.txt").read_bytes()


def say(job: int) -> int:
    print(f"job {job} speaks")
    if job == 2:
        raise BadData("job 2 is bad")
    return job


def write_shard(item: int, staging: Staging, folder: Path, seconds: float = 0.0) -> float:
    """One file that depends on what is read; its name is noted where the workers can write."""
    time.sleep(seconds)
    data = (folder / "data.bin").read_bytes()
    staging.write(f"{item}.bin", lambda path: path.write_bytes(data * (item + 1)))
    return 0.5


def end_worker(job: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise UsageError("the weights differ")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "common.txt").write_text("same ")
    (folder / "data" / "letters.txt").write_text("abcdef")
    (folder / "data" / "data.bin").write_bytes(bytes(range(256)) * 8)
    return folder


def reads_of(root: Path, check: Callable[[], None] | None = None) -> Reads[int]:
    return Reads(root, [root / "data" / "common.txt"], lambda job: [Piece(root / "data" / "letters.txt", job, 1)], check)


# -- one job, as a worker does it ---------------------------------------------------------------------------


def order_of(root: Path, function: Callable[[int], object], job: int, call: str = "call", check: Callable[[], None] | None = None) -> Order:
    """An order for a worker that does not see the project's disk."""
    return Order(call, dumps((function, job), root), dumps(check, root), identity(), str(root), (str(root / "absent"), "x"))


def parts_of(root: Path, job: int) -> tuple[list[FilePart], list[FilePart]]:
    reads = reads_of(root)
    return [FilePart.read(p, root) for p in reads.common_pieces()], [FilePart.read(p, root) for p in reads.of_job(job)]


def test_a_worker_without_the_disk_asks_for_files_and_gets_the_same_result(root):
    function = functools.partial(joined, folder=root / "data", text=str(root / "data" / "letters.txt"))
    order = order_of(root, function, 3)
    assert run_order(order).needs_files
    outcome = run_order(order, *parts_of(root, 3))
    assert (outcome.result, outcome.error) == (function(3), None) == ("same d", None)


def test_the_mirror_has_only_what_the_job_reads(root):
    function = functools.partial(read_all, folder=root / "data")
    assert run_order(order_of(root, function, 2), *parts_of(root, 2)).result == b"\0\0c\0\0\0"
    assert run_order(order_of(root, function, 4), *parts_of(root, 4)).result == b"\0\0\0\0e\0", "what another job read is gone"


def test_a_file_outside_the_project_cannot_be_sent(root, tmp_path):
    (tmp_path / "masks.json").write_text("[]")
    with pytest.raises(UsageError, match=r"masks\.json lies outside the project"):
        FilePart.read(Piece(tmp_path / "masks.json"), root)


def test_a_worker_with_other_code_or_libraries_is_refused(root):
    order = replace(order_of(root, say, 1), identity={**identity(), "torch": "0.1"})
    error = run_order(order, [], []).error
    assert isinstance(error, UsageError)
    assert "instead of 0.1" in str(error)
    assert "torch" in str(error)


def test_a_worker_with_other_weights_is_refused(root):
    error = run_order(order_of(root, say, 1, "other", refuse), [], []).error
    assert isinstance(error, UsageError)
    assert "of the cluster: the weights differ" in str(error)


def test_errors_come_with_what_was_printed(root):
    outcome = run_order(order_of(root, say, 2), [], [])
    assert outcome.printed == "job 2 speaks\n"
    assert isinstance(outcome.error, BadData)
    assert pickle.loads(pickle.dumps(outcome)).error.args == ("job 2 is bad",)


# -- clusters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["local", "local:0", "local:two", "ray:2", "slurm"])
def test_an_unknown_cluster_is_refused(root, address):
    with pytest.raises(UsageError, match="expected local:<workers>, tcp://"):
        list(Cluster(say, reads_of(root)).run([1], address))


def test_a_scheduler_that_is_not_there_is_said(root, monkeypatch):
    monkeypatch.setattr("uss_dagster.artifacts.cluster._SECONDS_TO_CONNECT", 0.5)
    with pytest.raises(Unavailable, match=r"there is no scheduler at tcp://127\.0\.0\.1:1 "):
        list(Cluster(say, reads_of(root)).run([1], "tcp://127.0.0.1:1"))


@pytest.mark.skipif(importlib.util.find_spec("dask_kubernetes") is not None, reason="dask-kubernetes is installed")
def test_a_missing_package_is_named(root):
    with pytest.raises(UsageError, match=r"pip install 'uss_dagster\[kubernetes\]'"):
        list(Cluster(say, reads_of(root)).run([1], "kubernetes:1"))


def shard_jobs() -> list[ShardJob[int]]:
    return [ShardJob((f"{number}.bin",), f"key-{number}", number, 2) for number in range(SHARDS)]


def run_shards(root: Path, name: str, seconds: float = 0.0) -> tuple[ShardTotals, dict[str, bytes]]:
    """What was done, and the bytes of all shards."""
    staging = Staging(root / ".uss", name, None)
    runner = ShardRunner(staging, ShardStore(root / ".uss" / "shards" / name))
    work = functools.partial(write_shard, folder=root / "data", seconds=seconds)
    totals = runner.run(shard_jobs(), work, workers=1, reads=Reads(root, [root / "data" / "data.bin"], lambda job: []))
    return totals, {path.name: path.read_bytes() for path in sorted(staging.folder.iterdir())}


def test_local_workers_give_the_same_bytes_and_go_on_where_a_run_stopped(root, monkeypatch, capfd):
    totals, here = run_shards(root, "here")
    assert totals.images == 2 * SHARDS
    monkeypatch.setenv(CLUSTER, "local:2")
    totals, there = run_shards(root, "there")
    assert totals == ShardTotals(images=2 * SHARDS, seconds_computing=0.5 * SHARDS)
    assert there == here
    (root / ".uss" / "work" / "there").rename(root / ".uss" / "work" / "gone")
    assert run_shards(root, "there")[0] == ShardTotals(reused=2 * SHARDS), "stored shards need no cluster"

    capfd.readouterr()
    with pytest.raises(BadData, match="job 2 is bad"):
        list(map_shards(say, range(4), reads=reads_of(root)))
    assert "job 2 speaks" in capfd.readouterr().err
    assert not list((root / ".uss").glob("cluster-*"))


def _environment() -> dict[str, str]:
    """One in which other processes find this module and its helpers."""
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}


def without(folder: Path) -> list[str]:
    """Words before a command that hide a folder from it."""
    words = hiding(folder)
    if not words:
        pytest.skip("NOT TESTED: workers without the project's disk, since unshare does not work here. Run as root.")
    return words


@pytest.mark.slow
def test_a_project_is_computed_the_same_by_workers_without_its_disk(tmp_path, monkeypatch):
    """Datasets, features, segments (one method is fitted, one reads pixels only), labels and scores."""
    one, two = (make_project(tmp_path / name) for name in ("one", "two"))
    one.uss_here("repro")
    with servers(tmp_path / "servers", without(two.root), _environment()) as cluster:
        cluster.start_worker()
        cluster.start_worker()
        done = two.uss_here("repro", **{CLUSTER: cluster.address})
        assert "warning" not in done.stderr
    assert of_results(two.locks()) == of_results(one.locks())


@pytest.mark.slow
def test_repro_starts_local_workers_once(tmp_path):
    one, two = (make_project(tmp_path / name) for name in ("one", "two"))
    one.uss_here("repro")
    two.uss("repro", cold=True, **{CLUSTER: "local:2"})
    assert of_results(two.locks()) == of_results(one.locks())


@pytest.mark.slow
@pytest.mark.parametrize("sees_disk", [True, False])
def test_a_killed_worker_changes_no_byte(root, tmp_path, monkeypatch, sees_disk):
    _, here = run_shards(root, "here")
    with servers(tmp_path / "servers", [] if sees_disk else without(root), _environment()) as cluster:
        cluster.start_worker()
        cluster.start_worker()
        monkeypatch.setenv(CLUSTER, cluster.address)
        with cluster.killed_after(4, 1):
            totals, there = run_shards(root, "there", seconds=2)
    assert totals.images == 2 * SHARDS
    assert there == here


@pytest.mark.slow
def test_a_lost_scheduler_is_one_sentence_and_what_is_finished_stays(root, tmp_path, monkeypatch):
    _, here = run_shards(root, "here")
    with servers(tmp_path / "servers", environment=_environment()) as cluster:
        cluster.start_worker()
        monkeypatch.setenv(CLUSTER, cluster.address)
        lost = r"The scheduler of the cluster, tcp://127.0.0.1:\d+, is lost\. Run the same command again"
        with cluster.killed_after(8, 0), pytest.raises(TryAgain, match=lost):
            run_shards(root, "there", seconds=2)
        cluster.start_scheduler()
        cluster.start_worker()
        totals, there = run_shards(root, "there")
    assert totals.resumed > 0
    assert totals.all_images == 2 * SHARDS
    assert there == here


@pytest.mark.slow
def test_a_job_that_ends_its_workers_is_given_up(root):
    with pytest.raises(OutOfMemory, match="ended several workers of the cluster"):
        list(Cluster(end_worker, reads_of(root)).run([1], "local:2"))


@pytest.mark.slow
def test_a_killed_stage_leaves_no_local_worker(root):
    """The process that started local workers is killed (-9): they end too."""
    program = f"""
    import sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from pathlib import Path
    import test_cluster
    if __name__ == "__main__":
        test_cluster.run_shards(Path({str(root)!r}), "there", seconds=30)
    """
    script = root / "program.py"
    script.write_text(textwrap.dedent(program))
    process = subprocess.Popen([sys.executable, script], env={**_environment(), CLUSTER: "local:2"}, start_new_session=True)
    time.sleep(8)
    workers = _session(process.pid)
    assert len(workers) >= 3
    process.kill()
    process.wait()
    deadline = time.monotonic() + 15
    while _session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not _session(process.pid)


def _session(leader: int) -> list[int]:
    """The living processes of a session."""
    done = subprocess.run(["ps", "-o", "pid=,stat=", "--sid", str(leader)], capture_output=True, text=True)
    return [int(line.split()[0]) for line in done.stdout.splitlines() if not line.split()[1].startswith("Z")]


SBATCH = """\
#!/bin/sh
# In place of Slurm: keeps a copy of the job's script, as Slurm does, and runs it at once in the background.
cp "$1" "$0.$$"
setsid sh "$0.$$" >/dev/null 2>&1 &
echo "Submitted batch job $!"
"""


@pytest.mark.slow
def test_slurm_jobs_are_submitted_and_cancelled(root, tmp_path, monkeypatch):
    """With programs in place of Slurm's that run a job's script on this machine."""
    _, here = run_shards(root, "here")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", '#!/bin/sh\necho "$@" >> "$0.log"\nfor job; do kill -- "-$job"; done\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", _environment()["PYTHONPATH"])
    import dask

    with dask.config.set({"jobqueue.slurm.cores": 1, "jobqueue.slurm.memory": "2GB", "jobqueue.slurm.interface": "lo"}):
        monkeypatch.setenv(CLUSTER, "slurm:2")
        totals, there = run_shards(root, "there", seconds=0.2)
    assert totals.images == 2 * SHARDS
    assert there == here
    assert len((programs / "scancel.log").read_text().split()) == 2
