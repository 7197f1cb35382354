"""What DVC and a stage print while the stage runs, and what it means.

A stage may report to its run with JSON lines on its output:
``{"event": "progress", "what": "segments", "done": 3, "total": 32, "unit": "images"}`` and, before a non-zero exit,
``{"event": "error", "exit_code": 65, "message": "one sentence", "report": "path/of/the/validation/report.json"}``. The report may
be left out; its path is relative to the project folder.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections import deque
from typing import Protocol, TypedDict, cast

from dagster_dvc.errors import TryAgain

BUILT, UNCHANGED, RESTORED = "built", "unchanged", "restored from cache"
_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
_RUNNING = re.compile(r"Running stage '(.+?)'")
_BLOCKER = re.compile(r"\(PID (\d+)\): (.+)")
_EXITED = re.compile(r"failed to run: .*exited with (-?\d+)\s*$")
_CORRUPT_RWLOCK = re.compile(r"Unable to read RWLock-file|RWLock-file '.*' format error")
_DVC_LINE = re.compile(
    r"Running stage '|Pulling data for stage: '|Stage '.*' (didn't change, skipping|is cached - skipping run)|> |(Generating|Updating) lock file '"
    r"|Use `dvc push` to|Data and pipelines are up to date|To track the changes with git|\tgit add |To enable auto staging"
    r"|\tdvc config core\.autostage|ERROR: failed to reproduce|Process '.*' had been killed|Waiting to acquire lock"
)
_LAST_LINES = 40


class Log(Protocol):
    """Where messages go: a logger, or the log of a Dagster context."""

    def info(self, message: str, /) -> None: ...
    def debug(self, message: str, /) -> None: ...


class Event(TypedDict, total=False):
    """A JSON line of a stage."""

    event: str
    what: str
    done: float
    total: float
    unit: str
    exit_code: int
    message: str
    report: str | None


class StageOutput:
    """Reads the output of one ``dvc repro --single-item`` line by line: logs it, and keeps what decides the verdict.

    Parameters
    ----------
    log
        Lines of the stage go to its ``info``, lines of DVC to its ``debug``.
    address
        The stage.
    progress_every_s
        Seconds between two messages of progress, at least.
    """

    def __init__(self, log: Log, address: str, progress_every_s: float) -> None:
        self.address = address
        self.outcome = self.command = ""
        self.ran: list[str] = []
        self.locked = False
        self.blocker = "its lock is held"
        self.error: Event | None = None
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._log, self._progress_every_s = log, progress_every_s
        self._last_progress = float("-inf")
        self._corrupt = False
        self._stage_code: int | None = None
        self._dvc_error = self._last_stage_line = ""

    @property
    def report(self) -> str:
        """The validation report that the stage named with its error."""
        return str((self.error or {}).get("report") or "")

    def read(self, line: str) -> None:
        """Take the next line."""
        if not line.strip():
            return
        if (event := parse_event(line)) is not None:
            self._read_event(event)
            return
        self.last_lines.append(line)
        if self._read_dvc_line(line):
            self._log.debug(line)
        else:
            self._last_stage_line = line.strip()
            self._log.info(line)

    def verdict(self, dvc_code: int, lock_timeout_s: float) -> tuple[int, str]:
        """The stage's exit code, and the sentence that says why it failed."""
        if self.error is not None:
            code = self.error.get("exit_code")
            exit_code = code if isinstance(code, int) and code else self._stage_code or 1
            return exit_code, str(self.error.get("message") or "The stage gave no reason.")
        if self.locked:
            return TryAgain.exit_code, f"Stage '{self.address}' waited {lock_timeout_s:.0f} s for another dvc process: {self.blocker}."
        if self._corrupt:
            return 1, f"{self._dvc_error} If no other dvc process is running, remove .dvc/tmp/rwlock and try again."
        if self._stage_code is not None:
            end = f"exited with {self._stage_code}"
            if (name := _signal_name(self._stage_code)) is not None:
                end = f"was ended by {name}" + (", most likely because memory ran out" if name == "SIGKILL" else "")
            return self._stage_code, f"Stage '{self.address}' {end}" + (f": {self._last_stage_line}" if self._last_stage_line else ".")
        return 1, self._dvc_error or self._last_stage_line or f"dvc exited with {dvc_code} and printed nothing."

    def _read_event(self, event: Event) -> None:
        if event["event"] == "error":
            self.error = event
        elif event["event"] == "progress":
            now = time.monotonic()
            last = "done" in event and event.get("done") == event.get("total")
            if last or now - self._last_progress >= self._progress_every_s:
                self._last_progress = now
                self._log.info(_progress_text(event))
        else:
            self._log.debug(json.dumps(event))

    def _read_dvc_line(self, line: str) -> bool:
        """Whether DVC printed the line, not the stage."""
        if running := _RUNNING.match(line):
            self.ran.append(running[1])
        if f"Running stage '{self.address}'" in line:
            self.outcome = BUILT
        elif f"Stage '{self.address}' is cached - skipping run" in line or f"Pulling data for stage: '{self.address}'" in line:
            self.outcome = RESTORED
        elif f"Stage '{self.address}' didn't change, skipping" in line:
            self.outcome = UNCHANGED
        elif self.outcome == BUILT and not self.command and line.startswith("> "):
            self.command = line[2:]
        # A stage may print ERROR lines of its own; DVC's, once the stage ran, always begins like this one.
        begin = "ERROR: failed to reproduce" if self.outcome == BUILT else "ERROR: "
        if line.startswith(begin) or self._dvc_error:
            # Lines after it belong to it, for example the processes that hold a lock.
            self._dvc_error = self._dvc_error or line.removeprefix("ERROR: ")
            self.locked |= _LOCKED.search(line) is not None
            self._corrupt |= _CORRUPT_RWLOCK.search(line) is not None
            if blocker := _BLOCKER.search(line):
                self.blocker = f"process {blocker[1]}, `{blocker[2]}`"
            if exited := _EXITED.search(line):
                self._stage_code = int(exited[1])
            return True
        return _DVC_LINE.match(line) is not None


def parse_event(line: str) -> Event | None:
    """The event of a JSON line; None for any other line."""
    text = line.strip()
    if not text.startswith("{") or '"event"' not in text:
        return None
    try:
        event = json.loads(text)
    except json.JSONDecodeError:
        return None
    return cast(Event, event) if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _progress_text(event: Event) -> str:
    done, total = event.get("done"), event.get("total")
    text = f"{event.get('what', 'progress')}: {done}" + (f"/{total}" if total else "") + (f" {event['unit']}" if event.get("unit") else "")
    return f"{text} ({100 * done / total:.0f} %)" if isinstance(done, int | float) and isinstance(total, int | float) and total else text


def _signal_name(code: int) -> str | None:
    """The signal behind an exit code: negative as Python reports it, above 128 as a shell does."""
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
