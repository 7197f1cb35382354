"""How far a stage has come: a bar on a terminal, JSON lines otherwise.

The JSON lines are the protocol between a stage and whatever runs it (a scheduler's log, the Dagster bridge)::

    {"event": "progress", "what": "features/patches/scenes", "done": 3, "total": 32, "unit": "images"}
    {"event": "error", "exit_code": 65, "message": "…", "report": "…"}
"""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType

LEAST_SECONDS = 1.0


class Progress:
    """Counts finished units. Use as a context manager; ``advance`` after each unit.

    Parameters
    ----------
    what
        What is computed; each line says it.
    total
        Number of units; 0 where it is not known.
    unit
        Name of a unit, in the plural.
    silent
        Count only.
    """

    def __init__(self, what: str, total: int, unit: str = "images", silent: bool = False) -> None:
        self.what, self.total, self.unit, self.silent = what, total, unit, silent
        self.done = 0
        self._last = -LEAST_SECONDS
        self._bar: object | None = None

    def __enter__(self) -> Progress:
        if not self.silent and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self._task = bar.add_task(self.what, total=self.total or None)
            bar.start()
            self._bar = bar
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()  # type: ignore[attr-defined]

    def advance(self, units: int = 1) -> None:
        """Count finished units; a JSON line is written at most once a second, and for the last."""
        self.done += units
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)  # type: ignore[attr-defined]
        elif not self.silent and (self.done == self.total or time.monotonic() - self._last >= LEAST_SECONDS):
            self._last = time.monotonic()
            emit("progress", what=self.what, done=self.done, total=self.total or None, unit=self.unit)


def emit(event: str, **facts: object) -> None:
    """Write one JSON line to standard output."""
    print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)
