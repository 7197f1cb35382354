"""What jobs read, so that workers of a cluster that do not see the project's disk can be sent it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

J = TypeVar("J")


@dataclass(frozen=True)
class Piece:
    """Bytes of a file. size: None for all to its end."""

    path: Path
    offset: int = 0
    size: int | None = None


@dataclass(frozen=True)
class Reads(Generic[J]):
    """The files that jobs read.

    Parameters
    ----------
    root
        The project folder. Paths below it are sent to workers relative to it, wherever they occur in a job.
    common
        Files and folders that all jobs read.
    of_job
        What one job reads beside them.
    check
        Refuses a worker that cannot give the same result, for example for its weights; called there before the first job. Must pickle.
    on_device
        The jobs run on a GPU where there is one: workers with the resource ``GPU`` are preferred.
    """

    root: Path
    common: Sequence[Path]
    of_job: Callable[[J], Sequence[Piece]]
    check: Callable[[], None] | None = None
    on_device: bool = False

    def common_pieces(self) -> list[Piece]:
        """The files of ``common``, sorted."""
        return [
            Piece(file)
            for path in self.common
            for file in ([path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()))
        ]
