"""One machine at a time builds in a clone.

DVC's locks name processes by their number and drop those that they do not see. So two machines, or two containers with process numbers of
their own, would build the same stage at once in one clone. Whoever builds writes who it is into a file and renews it; another refuses while
the file is fresh. A run that was killed leaves it to age.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dagster_dvc.errors import TryAgain
from dagster_dvc.whole_files import read_json, write_json

OWNER = Path(".dvc") / "tmp" / "owner.json"
RENEWED_EVERY_S, FRESH_S = 5.0, 60.0
"""Fresh for much longer than it takes to renew, as DVC hashes results after a stage has ended, when nobody renews."""


@contextmanager
def only_machine(root: Path) -> Iterator[None]:
    """Build in a project, as the only machine, in the block.

    Raises
    ------
    TryAgain
        Another machine builds in it, or did until a moment ago.
    """
    if not (root / ".dvc").is_dir():
        yield
        return
    _claim(root)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(RENEWED_EVERY_S):
            with suppress(OSError):
                os.utime(root / OWNER)

    threading.Thread(target=renew, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def identity() -> dict[str, str]:
    """What tells this machine from others: its name, its boot, and the space of its process numbers, which containers have of their own."""
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")
    return {"host": socket.gethostname(), "boot": boot, "processes": namespace}


def _claim(root: Path) -> None:
    """Write into the file who builds, or refuse."""
    path, me = root / OWNER, identity()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(path.with_suffix(".lock")) as clock:
        other = read_json(path)
        if other == me:
            os.utime(path)
            return
        age = clock - path.stat().st_mtime if other else FRESH_S
        if age < FRESH_S:
            raise TryAgain(
                f"Another machine or container builds in this clone: {other.get('host')} ({max(age, 0):.0f} s ago). DVC's locks do not hold between "
                "machines. Give each its own clone, and share results through a remote (`dvc push --run-cache`); if that run has ended, try "
                f"again in {FRESH_S - max(age, 0):.0f} s."
            )
        write_json(path, me)


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[float]:
    """Hold a lock, where the file system has locks; gives the time by the clock of the file system."""
    with open(path, "w") as handle:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        os.utime(path)
        yield path.stat().st_mtime
