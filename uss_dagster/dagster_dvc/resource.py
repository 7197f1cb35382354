"""Running DVC: one stage at a time, in a process group of its own that never outlives the run.

Belongs here: the command line of dvc, its locks, its messages, interruption. Does not belong here: assets and checks.

A stage may speak to the run through JSON lines on its output:
``{"event": "progress", "what": "segments", "done": 3, "total": 32, "unit": "images"}`` and, before a non-zero exit,
``{"event": "error", "exit_code": 65, "message": "one sentence", "report": "path/of/the/validation/report.json"}`` (the report may
be left out; its path is taken from the project folder).
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import dagster as dg
from pydantic import Field

from uss_dagster.dagster_dvc.project import DvcProject, StageNode, while_dvc_rests
from uss_dagster.errors import TryAgain, Unavailable, UsageError, UssError

RETRIED = (Unavailable.exit_code, TryAgain.exit_code)
BEING_BUILT = "is being built, or reads what is being built"
BUILT, UNCHANGED, RESTORED = "built", "unchanged", "restored from cache"

_LOCKED = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
_BLOCKER = re.compile(r"\(PID (\d+)\): (.+)")
_EXITED = re.compile(r"failed to run: .*exited with (-?\d+)\s*$")
_CORRUPT_RWLOCK = re.compile(r"Unable to read RWLock-file|RWLock-file '.*' format error")
_DVC_SAYS = re.compile(
    r"Running stage '|Stage '.*' (didn't change, skipping|is cached - skipping run)|> |(Generating|Updating) lock file '"
    r"|Use `dvc push` to|Data and pipelines are up to date|To track the changes with git|\tgit add |To enable auto staging"
    r"|\tdvc config core\.autostage|ERROR: failed to reproduce|Process '.*' had been killed|Waiting to acquire lock"
)
_DVC_PROGRAM = str(Path(__file__).with_name("dvc_program.py"))
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
_KEPT_LINES = 40

# A small shell process in the group of dvc that waits on a pipe only this process holds open. When this process dies,
# however it dies, the pipe closes and the whole group is ended; a line on it says that all is well.
_LEASH = """
exec 3<&0 </dev/null
(trap '' TERM INT HUP; read -r _ <&3 && exit 0; kill -TERM 0; sleep {grace}; kill -KILL 0) >/dev/null 2>&1 &
exec 3<&-
exec "$@"
"""


class HasLog(Protocol):
    """What is needed of a Dagster context."""

    @property
    def log(self) -> Any: ...


@dataclass(frozen=True)
class Invocation:
    """What came of one ``dvc repro --single-item``.

    ``exit_code`` is the stage's own, not dvc's (which is 255 for every failure); it is 1 where the stage never ran.
    ``outcome`` is empty where dvc did not say what it did.
    """

    address: str
    command: str
    exit_code: int
    seconds: float
    outcome: str = ""
    reason: str = ""
    report: str = ""
    last_lines: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        return self.exit_code == 0

    def failure(self) -> dg.Failure:
        """The failure to raise: one sentence, retried only where a second try can help."""
        return dg.Failure(
            description=self.reason,
            metadata={
                "exit_code": self.exit_code,
                "stage": self.address,
                "command": self.command,
                "last_lines": dg.MetadataValue.md("\n".join(["```", *self.last_lines, "```"])),
            },
            allow_retries=self.exit_code in RETRIED,
        )


class DvcResource(dg.ConfigurableResource):
    """The ``dvc`` of this interpreter, in one project folder."""

    project_dir: str = Field(description="Folder with dvc.yaml.")
    lock_timeout_s: float = Field(
        default=3600.0, description="How long to wait while another dvc process holds what a stage needs, in seconds."
    )
    progress_every_s: float = Field(default=5.0, description="Progress of a stage is logged at most this often, in seconds.")
    grace_s: float = Field(default=10.0, description="Seconds between asking an interrupted stage to end and ending it.")
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables to add for dvc and the stages.")

    def repro(self, context: HasLog, address: str) -> Invocation:
        """Bring one stage up to date, its upstream untouched. Waits for locks; returns also when the stage fails.

        An interruption ends the stage with all its processes and is raised again. Outputs that DVC removed before a
        run that did not finish are put back from its cache, so that a failed run leaves the workspace as it was.
        """
        started = time.monotonic()
        wait, told = _FIRST_WAIT_S, False
        untouched = False
        try:
            while True:
                listener = _Listener(context.log, address, self.progress_every_s)
                code = self._run(["-m", "dvc", "--wait-for-lock", "repro", "--single-item", address], listener)
                if code == 0 or not listener.locked:
                    break
                left = self.lock_timeout_s - (time.monotonic() - started)
                if left <= 0:
                    break
                if not told:
                    context.log.info(f"Waiting for another dvc process: {listener.blocker}.")
                    told = True
                # Jitter, so that several waiting runs do not all come back at the same moment.
                time.sleep(min(wait * random.uniform(0.7, 1.3), max(left, 0.0)))
                wait = min(wait * 1.6, _LONGEST_WAIT_S)
            # Blocked by another process: nothing was removed, and what is missing is being built by that one.
            untouched = code == 0 or listener.locked
        finally:
            if not untouched:
                self._put_back(address)
        exit_code, reason = (0, "") if code == 0 else listener.verdict(code, self.lock_timeout_s)
        return Invocation(
            address=address,
            command=listener.command or f"dvc repro --single-item {address}",
            exit_code=exit_code,
            seconds=time.monotonic() - started,
            outcome=listener.outcome,
            reason=reason,
            report=str((listener.error or {}).get("report") or ""),
            last_lines=tuple(listener.last_lines),
        )

    def status(self, stages: Sequence[StageNode]) -> dict[str, list[str]]:
        """Address to what is out of step, in words; a stage that is in step is left out.

        The words are those of ``dvc status``. A stage whose paths another process is writing is reported as being built.
        """
        lines: list[str] = []
        code = self._run([_DVC_PROGRAM, "states", *(stage.address for stage in stages)], lines.append)
        if code != 0 or not lines:
            said = next((line.removeprefix("ERROR: ") for line in reversed(lines) if line.strip()), f"exit code {code}")
            raise UsageError(f"DVC cannot tell the status of {self.project_dir}: {said}")
        found = json.loads(lines[-1])
        return {address: _changes(entries) for address, entries in found.items()}

    def _run(self, arguments: Sequence[str], listen: Callable[[str], None]) -> int:
        # -P: a folder of the project called like a module must not hide that module.
        with _Leashed([sys.executable, "-P", *arguments], self.project_dir, self._environment(), self.grace_s) as process:
            for line in process.lines():
                listen(line)
            return process.wait()

    def _environment(self) -> dict[str, str]:
        # Stage commands find the programs of this environment also where it was never activated.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1", **self.env}

    def _put_back(self, address: str) -> None:
        """Fetch from the cache the recorded outputs that are missing; what is not in the cache stays missing."""
        outs = DvcProject(self.project_dir).outs_version(address)
        if any(not os.path.lexists(os.path.join(self.project_dir, out)) for out in outs):
            self._run(["-m", "dvc", "--wait-for-lock", "checkout", address], lambda line: None)


@dataclass
class _Listener:
    """Reads the output of one ``dvc repro`` line by line: logs it and remembers what it means."""

    log: Any
    address: str
    progress_every_s: float
    outcome: str = ""
    command: str = ""
    locked: bool = False
    blocker: str = "its lock is held"
    corrupt: bool = False
    error: Mapping[str, Any] | None = None
    stage_code: int | None = None
    dvc_error: str = ""
    last_stage_line: str = ""
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    _last_progress: float = float("-inf")

    def __call__(self, line: str) -> None:
        if not line.strip():
            return
        if (event := _event(line)) is not None:
            self._on_event(event)
            return
        self.last_lines.append(line)
        if self._is_dvc(line):
            self.log.debug(line)
        else:
            self.last_stage_line = line.strip()
            self.log.info(line)

    def verdict(self, dvc_code: int, lock_timeout_s: float) -> tuple[int, str]:
        """The stage's exit code and the one sentence that says why it failed."""
        if self.error is not None:
            code = self.error.get("exit_code")
            return (code if isinstance(code, int) and code else self.stage_code or 1), str(
                self.error.get("message") or "The stage gave no reason."
            )
        if self.locked:
            return TryAgain.exit_code, f"Stage '{self.address}' waited {lock_timeout_s:.0f} s for another dvc process: {self.blocker}."
        if self.corrupt:
            return 1, f"{self.dvc_error} If no other dvc process is running, remove .dvc/tmp/rwlock and try again."
        if self.stage_code is not None:
            what = f"exited with {self.stage_code}"
            if (killed := _signal_name(self.stage_code)) is not None:
                what = f"was ended by {killed}" + (", most likely because memory ran out" if killed == "SIGKILL" else "")
            return self.stage_code, f"Stage '{self.address}' {what}" + (f": {self.last_stage_line}" if self.last_stage_line else ".")
        return 1, self.dvc_error or self.last_stage_line or f"dvc exited with {dvc_code} and said nothing."

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "error":
            self.error = event
        elif event["event"] == "progress":
            now = time.monotonic()
            done, total = event.get("done"), event.get("total")
            if now - self._last_progress >= self.progress_every_s or (done is not None and done == total):
                self._last_progress = now
                self.log.info(_progress(event))
        else:
            self.log.debug(json.dumps(event))

    def _is_dvc(self, line: str) -> bool:
        if f"Running stage '{self.address}'" in line:
            self.outcome = BUILT
        elif f"Stage '{self.address}' is cached - skipping run" in line:
            self.outcome = RESTORED
        elif f"Stage '{self.address}' didn't change, skipping" in line:
            self.outcome = UNCHANGED
        elif self.outcome == BUILT and not self.command and line.startswith("> "):
            self.command = line[2:]
        # A stage may print ERROR lines of its own; dvc's, once the stage ran, always begins like this one.
        begins = "ERROR: failed to reproduce" if self.outcome == BUILT else "ERROR: "
        if line.startswith(begins) or self.dvc_error:
            # What follows it belongs to it (the processes that hold a lock, for one).
            self.dvc_error = self.dvc_error or line.removeprefix("ERROR: ")
            self.locked |= _LOCKED.search(line) is not None
            self.corrupt |= _CORRUPT_RWLOCK.search(line) is not None
            if blocker := _BLOCKER.search(line):
                self.blocker = f"process {blocker[1]}, `{blocker[2]}`"
            if exited := _EXITED.search(line):
                self.stage_code = int(exited[1])
            return True
        return _DVC_SAYS.match(line) is not None


class _Leashed:
    """A child in a session of its own, ended with all its descendants when the block is left early or this process dies."""

    def __init__(self, argv: Sequence[str], cwd: str, env: Mapping[str, str], grace_s: float) -> None:
        self._argv, self._cwd, self._env, self._grace_s = list(argv), cwd, dict(env), grace_s

    def __enter__(self) -> _Leashed:
        argv = self._argv
        if os.name == "posix":
            argv = ["/bin/sh", "-c", _LEASH.format(grace=max(1, round(self._grace_s))), "sh", *argv]
        held, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                argv,
                cwd=self._cwd,
                env=self._env,
                stdin=held,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(held)
        return self

    def lines(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield line.rstrip("\n")

    def wait(self) -> int:
        return self._process.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with suppress(BrokenPipeError):
                os.write(self._pipe, b"\n")
            if kind is not None:
                # Never in the middle of writing dvc.lock: that would leave half a file.
                with while_dvc_rests(self._cwd, self._grace_s / 2):
                    self._signal(signal.SIGTERM)
                deadline = time.monotonic() + self._grace_s
                while self._alive() and time.monotonic() < deadline:
                    time.sleep(0.05)
        finally:  # also when a second interruption arrives in the loop above
            os.close(self._pipe)
            if kind is not None and self._alive():
                self._signal(signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if os.name == "posix":
                os.killpg(self._process.pid, number)
            else:
                self._process.terminate()

    def _alive(self) -> bool:
        """Whether anything still runs in the group; what only waits to be reaped does not count."""
        import psutil

        if self._process.poll() is None:
            return True
        if os.name != "posix":
            return False
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self._process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    return True
            except (psutil.Error, ProcessLookupError, PermissionError):
                continue
        return False


def _event(line: str) -> Mapping[str, Any] | None:
    text = line.strip()
    if not text.startswith("{") or '"event"' not in text:
        return None
    try:
        event = json.loads(text)
    except json.JSONDecodeError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _progress(event: Mapping[str, Any]) -> str:
    done, total = event.get("done"), event.get("total")
    text = f"{event.get('what', 'progress')}: {done}" + (f"/{total}" if total else "") + (f" {event['unit']}" if event.get("unit") else "")
    return f"{text} ({100 * done / total:.0f} %)" if isinstance(done, int | float) and isinstance(total, int | float) and total else text


def _changes(entries: Sequence[Any] | str) -> list[str]:
    """What ``dvc_program states`` prints of one stage, in words."""
    if isinstance(entries, str):
        return [BEING_BUILT]
    said: list[str] = []
    for entry in entries:
        if isinstance(entry, str):
            said.append({"changed command": "the command changed", "always changed": "is built every time"}.get(entry, entry))
            continue
        for what, paths in entry.items():
            noun = {"changed deps": "dependency", "changed outs": "output"}.get(what, what)
            for path, state in paths.items():
                if isinstance(state, Mapping):
                    said.extend(f"parameter {name} in {path}: {verb}" for name, verb in state.items())
                else:
                    said.append(f"{noun} {path}: {state}")
    return said


def _signal_name(code: int) -> str | None:
    """The signal behind an exit code: negative as Python reports it, above 128 as a shell does."""
    number = -code if code < 0 else code - 128
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def as_failure(error: UssError) -> dg.Failure:
    """An error written for a person, as Dagster wants it."""
    return dg.Failure(description=str(error), metadata={"exit_code": error.exit_code}, allow_retries=error.exit_code in RETRIED)
