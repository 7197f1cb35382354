"""Small file systems of their own, for tests of full and read-only disks. Mounting needs root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs on ``folder``, with mount's options; the test is skipped, saying why, where mounting is not allowed."""
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: a full or read-only disk, since mount does not work here ({done.stderr.strip()}). Run as root.")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write one file until the disk that holds ``folder`` is full; delete it to free the space."""
    filling = folder / "filling"
    with open(filling, "wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError:
            return filling
