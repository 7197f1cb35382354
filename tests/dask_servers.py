"""A scheduler of Dask and its workers, as processes; and words that hide folders from a process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from processes import free_port, wait_for


@dataclass
class Servers:
    """The processes; the scheduler is the first.

    Parameters
    ----------
    port
        Of the scheduler.
    folder
        Where they work and log.
    prefix
        Words before the command of each worker.
    environment
        Of all of them.
    """

    port: int
    folder: Path
    prefix: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start_scheduler(self) -> None:
        self._start("scheduler", ["--host", "127.0.0.1", "--port", str(self.port)])
        wait_for("the scheduler", self._answers)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start_worker(self) -> None:
        self._start("worker", [self.address, "--nthreads", "1", "--local-directory", str(self.folder)], self.prefix)

    def _start(self, kind: str, words: list[str], prefix: list[str] | None = None) -> None:
        command = [*(prefix or []), sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard", *words]
        with open(self.folder / f"{kind}.log", "ab") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True, env=self.environment)
        self.processes.append(process)

    def kill(self, number: int) -> None:
        """Kill a server and all its processes (-9)."""
        os.killpg(self.processes[number].pid, signal.SIGKILL)
        self.processes[number].wait()

    @contextmanager
    def killed_after(self, seconds: float, number: int) -> Iterator[None]:
        """Kill a server while the block runs."""

        def kill() -> None:
            time.sleep(seconds)
            self.kill(number)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            yield
        finally:
            killer.join()


@contextmanager
def servers(folder: Path, prefix: list[str] | None = None, environment: dict[str, str] | None = None) -> Iterator[Servers]:
    """A scheduler; it and what is started with it end with the block."""
    folder.mkdir(exist_ok=True)
    started = Servers(free_port(), folder, prefix or [], environment or dict(os.environ))
    try:
        started.start_scheduler()
        yield started
    finally:
        for number, process in enumerate(started.processes):
            if process.poll() is None:
                started.kill(number)


def hiding(*folders: Path) -> list[str]:
    """Words before a command that hide folders from it; none where that is not possible."""
    mounts = " && ".join(f"mount -t tmpfs none {folder}" for folder in folders)
    words = ["unshare", "--mount", "--map-root-user", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
    possible = shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0
    return words if possible else []
