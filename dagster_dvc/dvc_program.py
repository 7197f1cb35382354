"""DVC's command line with a setting of fsspec, stages shared with other clones, and answers to a full disk and to a remote that fails.

    python dvc_program.py WORDS …

Where DVC finds the disk full it ends with 255 and leaves temporary files in its cache; here they are removed, and the exit code is that of
a stage which finds the disk full. Imports DVC, its file systems and nothing else, but where stages are shared, and to explain a failure.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster_dvc.errors import DagsterDvcError

SHARED = "DAGSTER_DVC_SHARED"
"""Environment variable of this program alone: the seconds of a lease, where stages are shared through the project's remote."""
_TEMPORARY = ".tmp"
"""Ending of the names of DVC's temporary files."""


def separate_stores() -> None:
    """Let fsspec give each file system in memory a store of its own, by its own setting.

    To hash a folder, DVC writes the list of its files to such a file system. By default all of these share one store, which keeps every list,
    and fsspec looks at each path in it to find one: each stage of a long run would cost more than the one before.
    """
    from fsspec.config import conf

    conf["memory"] = {**conf.get("memory", {}), "global_store": False}


@contextmanager
def temporary_files_removed() -> Iterator[None]:
    """Remove, when the block ends, what is left of the temporary files that this process opened to write in it.

    They are known from Python's own events, so files of other processes that use the same cache are never touched.
    """
    opened: set[str] = set()

    def note(event: str, arguments: tuple[str, str | None, int]) -> None:
        if event == "open" and str(arguments[0]).endswith(_TEMPORARY) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            opened.add(os.path.abspath(arguments[0]))

    sys.addaudithook(note)
    try:
        yield
    finally:
        for path in tuple(opened):
            if os.path.lexists(path):
                os.unlink(path)


def remove_leftovers() -> None:
    """Remove what a run that was killed, or that found the disk full, left in the middle of a write, and with which DVC would end in an error.

    These are empty folders of the run cache, and a file of locks that is cut off. DVC fills both at once; what is the same after a second is left over.
    """
    from dvc.config import Config
    from dvc.repo import Repo

    folder = Repo.find_dvc_dir()
    runs = Path(Config(folder)["cache"].get("dir") or os.path.join(folder, "cache"), "runs")
    empty = [run for run in runs.glob("*/*") if run.is_dir() and not os.listdir(run)]
    locks = Path(folder, "tmp", "rwlock")
    cut = is_cut_off(locks)
    if empty or cut:
        time.sleep(1)
    for run in empty:
        with suppress(OSError):  # no longer empty
            run.rmdir()
    if cut and is_cut_off(locks):
        locks.unlink()


def is_cut_off(file: Path) -> bool:
    """Whether a file exists that should hold JSON, and does not."""
    try:
        json.loads(file.read_bytes())
    except OSError:
        return False
    except ValueError:
        return True
    return False


class Causes(logging.Handler):
    """Listens to what DVC logs, for causes that this program explains better.

    Parameters
    ----------
    full_disk
        A full disk, with a path if any cause has one, else None.
    refused
        An error of this package, else None. DVC's own message, which repeats it, is not shown.
    """

    full_disk: OSError | None = None
    refused: DagsterDvcError | None = None

    def emit(self, record: logging.LogRecord) -> None:
        from dagster_dvc.errors import FULL_DISK, DagsterDvcError

        cause = record.exc_info[1] if record.exc_info else None
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in FULL_DISK and not (self.full_disk and self.full_disk.filename):
                self.full_disk = OSError(cause.errno, cause.strerror, cause.filename2 or cause.filename)  # of a copy, what is written
            if isinstance(cause, DagsterDvcError):
                self.refused = cause
            cause = cause.__cause__ or cause.__context__

    def is_new(self, record: logging.LogRecord) -> bool:
        """Whether DVC should show a message. (A filter of its handlers.)"""
        self.emit(record)
        return self.refused is None

    @property
    def error(self) -> DagsterDvcError | None:
        """What to say."""
        from dagster_dvc.errors import full_disk

        return self.refused if self.full_disk is None else full_disk(self.full_disk)


def answer(error: DagsterDvcError) -> int:
    """Say it as a stage does, to a person and to what runs DVC; returns the exit code."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        print(json.dumps({"event": "error", "exit_code": error.exit_code, "message": str(error)}), flush=True)
    return error.exit_code


def share(lease_s: float) -> None:
    """Share stages with other clones; asked to end, give up the claim first."""
    from dagster_dvc.shared_runs import share_stages

    release = share_stages(lease_s)

    def end(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        release()
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def main() -> int:
    """Run DVC with the words of the command line; its exit code, or that of an error which is explained here."""
    separate_stores()
    lease_s = os.environ.pop(SHARED, "")
    from dvc.cli import main as run
    from dvc.exceptions import DvcException

    sys.argv[0] = "dvc"  # what DVC's locks say of this process
    with suppress(DvcException, OSError):  # which DVC explains below
        remove_leftovers()
    if lease_s:
        share(float(lease_s))
    causes = Causes()
    for handler in logging.getLogger("dvc").handlers:
        handler.addFilter(causes.is_new)
    with temporary_files_removed():
        code = int(run(sys.argv[1:]))
    return answer(causes.error) if code and causes.error else code


if __name__ == "__main__":
    sys.exit(main())
