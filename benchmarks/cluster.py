"""A stage on Dask workers beside one process and beside worker processes, on a project that has been computed.

    python benchmarks/cluster.py [--project .] [--cell segments/unsam/scenes] [--workers 2] [--rounds 2]

Each way computes the cell anew (nothing is reused) in a process of its own: one process, ``--workers`` processes, as many local Dask workers
that the stage starts, and as many that run already, on this disk and without it (where ``unshare`` can hide the project). Rounds alternate; the
fastest of each way counts. Seconds are those of the whole command, and those that the stage says; bytes are compared with what was there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uss_dagster.hashing import dvc_hash
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import read_plan


@contextmanager
def running_cluster(workers: int, prefix: list[str]) -> Iterator[str]:
    """Address of a scheduler with workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    module = [sys.executable, "-m"]
    commands = [[*module, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]]
    worker = [*prefix, *module, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", "/tmp"]
    commands += [worker] * workers
    servers = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) for command in commands
    ]
    try:
        time.sleep(8)
        yield address
    finally:
        for server in servers:
            os.killpg(server.pid, 15)
            server.wait()


def without(folder: Path) -> list[str]:
    """Words before a command that hide the results of a project from it; none where that is not possible."""
    mounts = " && ".join(f"mount -t tmpfs none {folder / name}" for name in ("data", ".uss"))
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    possible = shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0
    return words if possible else []


def main() -> None:
    parser = argparse.ArgumentParser(description="A stage on Dask workers beside one process and beside worker processes.")
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--cell", default="segments/unsam/scenes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    root, number = arguments.project.resolve(), arguments.workers
    cell = next(cell for cell in read_plan(root).cells if cell.name == arguments.cell)
    layout = Layout(root)
    expected = dvc_hash(cell.artefact(layout))
    ways: dict[str, dict[str, str]] = {
        "one process": {"USS_WORKERS": "1"},
        f"{number} processes": {"USS_WORKERS": str(number)},
        f"{number} Dask workers, started by the stage": {"USS_CLUSTER": f"local:{number}"},
    }
    hidden = without(root)
    with running_cluster(number, []) as shared, running_cluster(number, hidden) as apart:
        ways[f"{number} Dask workers that run"] = {"USS_CLUSTER": shared}
        if hidden:
            ways[f"{number} Dask workers that run, without the disk"] = {"USS_CLUSTER": apart}
        fastest: dict[str, tuple[float, float]] = {}
        for _ in range(arguments.rounds):
            for way, environment in ways.items():
                started = time.perf_counter()
                command = [sys.executable, "-m", "uss_dagster.cli", "stage", cell.file]
                subprocess.run(
                    command, cwd=root, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "USS_REUSE": "0", **environment}
                )
                seconds = time.perf_counter() - started
                said = json.loads(layout.run_facts(cell.name).read_text(encoding="utf-8"))["seconds"]
                assert dvc_hash(cell.artefact(layout)) == expected, f"{way}: other bytes"
                fastest[way] = min(fastest.get(way, (seconds, said)), (seconds, said))
    one = fastest["one process"]
    print(f"{cell.name}, the same bytes each time\n{'':46}{'command':>9}{'ratio':>7}{'stage':>9}{'ratio':>7}")
    for way, (seconds, said) in fastest.items():
        print(f"{way:46}{seconds:8.1f} s{one[0] / seconds:7.2f}{said:8.1f} s{one[1] / said:7.2f}")


if __name__ == "__main__":
    main()
