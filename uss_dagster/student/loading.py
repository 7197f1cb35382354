"""How examples are read. Imports nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MOST_LOADERS = 8
"""Of one process that trains, by default."""


@dataclass(frozen=True)
class Loading:
    """How examples are read; no byte of a student depends on it.

    Parameters
    ----------
    processes : int, default 0
        That read examples and compute batches; 0 does it in a thread.
    folder : Path, optional
        Of reduced examples, which stay for further runs.
    most : int, default 20 GB
        Greatest size of the folder in bytes.
    """

    processes: int = 0
    folder: Path | None = None
    most: int = 20 * 10**9


def loader_count(device: str) -> int:
    """Number of processes by default: none on a CPU, which has no core left, else the cores that each process of ``torchrun`` has, at most 8."""
    if not device.startswith("cuda"):
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_LOADERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
