"""Running DVC: for people, who see its output, and for a scheduler, which wants one stage and a verdict.

Belongs here: the command line of dvc, its locks, its exit codes, interruption, outputs that a failed run removed. Does not belong here:
Dagster. Command lines import this module, so it stays light.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from dagster_dvc.dvc_program import SHARED
from dagster_dvc.errors import VERDICT_FILE, DagsterDvcError, Unavailable, UsageError
from dagster_dvc.lock_copies import check_locks, sort_locks
from dagster_dvc.owner import only_machine
from dagster_dvc.process_group import ProcessGroup
from dagster_dvc.project import DvcProject, dvc_idle
from dagster_dvc.stage_output import Log, StageOutput
from dagster_dvc.status_program import BUSY

BEING_BUILT = "is being built, or reads what is being built"
_DVC_PROGRAM, _STATUS_PROGRAM = (str(Path(__file__).with_name(name)) for name in ("dvc_program.py", "status_program.py"))
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WORDS = {
    "changed command": "the command changed",
    "always changed": "is built every time",
    "changed deps": "dependency",
    "changed outs": "output",
}

StageChanges = Sequence[str | Mapping[str, Mapping[str, str | Mapping[str, str]]]]
"""What DVC's status holds of a stage: sentences, and kinds of change with path → state (or parameter → state)."""


@dataclass(frozen=True)
class Invocation:
    """The result of one ``dvc repro --single-item``.

    Parameters
    ----------
    address
        The stage.
    command
        The command that the stage ran; DVC's own where it did not run.
    exit_code
        The stage's exit code, not DVC's; 1 where the stage never ran.
    seconds
        Duration, waiting included.
    outcome
        'built', 'unchanged' or 'restored from cache'; empty where DVC did not say.
    reason
        One sentence about a failure.
    report
        Path of the validation report that a failed stage named.
    last_lines
        End of the output.
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


@dataclass(frozen=True)
class DvcRunner:
    """The ``dvc`` of this interpreter, in one project folder.

    Parameters
    ----------
    root
        Folder with .dvc.
    env
        Environment variables to add for DVC and the stages.
    lock_timeout_s
        How long one stage waits while another process holds what it needs, in seconds.
    progress_every_s
        Seconds between two messages of a stage's progress, at least.
    grace_s
        Seconds between asking an interrupted stage to end and killing it.
    shared
        Stages are shared with other clones through the project's remote: see ``shared_runs``.
    lease_s
        Seconds after which other clones take over what a clone that is gone was computing.
    """

    root: Path
    env: Mapping[str, str] = field(default_factory=dict)
    lock_timeout_s: float = 3600.0
    progress_every_s: float = 5.0
    grace_s: float = 10.0
    shared: bool = False
    lease_s: float = 60.0

    def run(self, *words: str, read: Callable[[str], None] | None = None, env: Mapping[str, str] | None = None) -> int:
        """Run DVC with these arguments; returns its exit code.

        ``read`` gets each line of its output, which else goes where this process writes. Any exception ends DVC and its stages.
        """
        return self._python(_DVC_PROGRAM, *words, read=read, env=env)

    def repro(self, targets: Sequence[str], wait_message: Callable[[str], None]) -> int:
        """Bring targets up to date, all pipelines where there are none; the output passes through.

        Waits for other runs in the project. Outputs that a failed or interrupted run removed are restored from the cache, and damaged
        dvc.lock files from their copies.

        Returns
        -------
        int
            0, the exit code of the stage that failed, DVC's own, or 128 and the number of the signal that ended the run.
        """
        with tempfile.TemporaryDirectory() as folder:
            verdict, interrupted = Path(folder) / "exit_code", 0
            try:
                with _signals_raise(), only_machine(self.root):
                    for sentence in check_locks(self.root):
                        wait_message(sentence)
                    if not targets and not self.shared and self.up_to_date():
                        print("Every stage is up to date.")
                        return 0
                    code = self._repro_when_free(targets, verdict, wait_message)
            except _Interrupted as interruption:
                code = interrupted = 128 + interruption.number
            text = verdict.read_text(encoding="utf-8") if verdict.exists() else ""
        check_locks(self.root)
        sort_locks(self.root)
        if code == 0:
            return 0
        with suppress(DagsterDvcError):  # a project that cannot be read has nothing to restore
            self.restore_missing(DvcProject(self.root).stages)
        if interrupted or not text.isdecimal():
            return code if code > 0 else 128 - code
        return int(text)

    def repro_stage(
        self,
        address: str,
        log: Log,
        prerequisites: Sequence[str] = (),
        *,
        pull: bool = False,
        push: bool | str = False,
        env: Mapping[str, str] | None = None,
    ) -> Invocation:
        """Bring one stage up to date after its ``prerequisites``, its other upstream untouched; returns also when the stage fails.

        An interruption ends the stage with all its processes and is raised again. Outputs that an unfinished run removed are restored.

        Parameters
        ----------
        address
            The stage.
        log
            Where its lines and DVC's go.
        prerequisites
            Stages that are brought up to date before it.
        pull
            Whether its missing inputs, and its result where the remote has it, are got from the default remote.
        push
            Whether its result is put into the default remote, or the name of a remote.
        env
            Environment variables to add.
        """
        with only_machine(self.root):
            for sentence in check_locks(self.root):
                log.info(sentence)
        started = time.monotonic()
        wait, waiting, intact = _FIRST_WAIT_S, False, False
        options = ["--pull"] if pull else []
        try:
            while True:
                output = StageOutput(log, address, self.progress_every_s)
                with only_machine(self.root):
                    code = self.run(
                        "--wait-for-lock", "repro", "--single-item", *options, *prerequisites, address, read=output.read, env=env
                    )
                left = self.lock_timeout_s - (time.monotonic() - started)
                if code == 0 or not output.locked or left <= 0:
                    break
                if not waiting:
                    log.info(f"Waiting for another dvc process: {output.blocker}.")
                    waiting = True
                # Jitter, so that several waiting runs do not all come back at the same moment.
                time.sleep(min(wait * random.uniform(0.7, 1.3), left))
                wait = min(wait * 1.6, _LONGEST_WAIT_S)
            # Blocked by another process: nothing was removed, and what is missing is being built by that one.
            intact = code == 0 or output.locked
        finally:
            if not intact:
                self.restore_missing([address])
        sort_locks(self.root)
        exit_code, reason = (0, "") if code == 0 else output.verdict(code, self.lock_timeout_s)
        if exit_code == 0 and push:
            exit_code, reason = self._push(address, push, log)
        return Invocation(
            address=address,
            command=output.command or f"dvc repro --single-item {address}",
            exit_code=exit_code,
            seconds=time.monotonic() - started,
            outcome=output.outcome,
            reason=reason,
            report=output.report,
            last_lines=tuple(output.last_lines),
        )

    def experiment(
        self, name: str, assignments: Sequence[str], stages: Sequence[str], message: str, log: Log
    ) -> tuple[Invocation, list[str]]:
        """Run stages, and what they read, as an experiment in a copy of what git knows; returns also when a stage fails.

        Parameters
        ----------
        name
            Of the experiment.
        assignments
            Parameters, as ``train.lr=0.1``.
        stages
            Their addresses; all where there are none.
        message
            Of the experiment's commit; DVC's own where it is empty.
        log
            Where lines of the stages and of DVC go.

        Returns
        -------
        Invocation, list of str
            Of the whole experiment, and the addresses of the stages that ran.
        """
        params = [word for assignment in assignments for word in ("--set-param", assignment)]
        said = ["--message", message] if message else []
        output, started = StageOutput(log, name, self.progress_every_s), time.monotonic()
        words = ["exp", "run", "--temp", "--name", name, *params, *said, *(stages or ["--all-pipelines"])]
        with only_machine(self.root):
            code = self.run("--wait-for-lock", *words, read=output.read)
        if output.ran and code:
            output.address = output.ran[-1]
        exit_code, reason = (0, "") if code == 0 else output.verdict(code, self.lock_timeout_s)
        command, seconds = f"dvc {' '.join(words)}", time.monotonic() - started
        return Invocation(output.address, command, exit_code, seconds, reason=reason, last_lines=tuple(output.last_lines)), output.ran

    def _push(self, address: str, remote: bool | str, log: Log) -> tuple[int, str]:
        """Put the result of a stage into a remote; 0 and nothing, or the exit code and a sentence that says what failed."""
        lines: list[str] = []
        named = ["--remote", remote] if isinstance(remote, str) else []
        if self.run("--wait-for-lock", "push", *named, address, read=lines.append) == 0:
            log.debug(lines[-1] if lines else "")
            return 0, ""
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        reason = errors[-1] if errors else "dvc push printed no error"
        return Unavailable.exit_code, f"Stage '{address}' is built, but its result could not be pushed: {reason}."

    def up_to_date(self) -> bool:
        """Whether no stage has anything to do; False also where the project cannot be read, which ``repro`` explains.

        The project is read once, in this process, without the lock of each path that ``dvc repro`` takes and releases: 1.2 s of processor
        time in place of 2.2 s at 201 stages (benchmarks/pipeline.py).
        """
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        from dagster_dvc.internals import lock_repo

        try:
            with Repo(str(self.root), _wait_for_lock=True) as repo, lock_repo(repo):
                if lock_holders(self.root):
                    return False
                return not any(
                    stage.changed_stage() or any(item.status() for item in (*stage.deps, *stage.outs)) for stage in repo.index.stages
                )
        except DvcException:
            return False

    def status(self, addresses: Sequence[str] = ()) -> dict[str, list[str]]:
        """Address to what is out of step, in words, for these stages or all; stages in step are left out.

        A stage whose paths another process is writing is reported as being built.
        """
        lines: list[str] = []
        code = self._python(_STATUS_PROGRAM, *addresses, read=lines.append)
        if code != 0 or not lines:
            reason = next((line.removeprefix("ERROR: ") for line in reversed(lines) if line.strip()), f"exit code {code}")
            raise UsageError(f"DVC cannot tell the status of {self.root}: {reason}")
        changes: dict[str, StageChanges] = json.loads(lines[-1])
        return {address: [BEING_BUILT] if entries == BUSY else _sentences(entries) for address, entries in changes.items()}

    def restore_missing(self, addresses: Iterator[str] | Sequence[str] | Mapping[str, object]) -> None:
        """Check out the recorded outputs of these stages that are missing. What is not in the cache stays missing."""
        project = DvcProject(self.root)
        missing = [a for a in addresses if any(not os.path.lexists(self.root / out) for out in project.outs_version(a))]
        if missing:
            self.run("--quiet", "--wait-for-lock", "checkout", *missing, read=lambda line: None)

    def _python(self, *arguments: str, read: Callable[[str], None] | None, env: Mapping[str, str] | None = None) -> int:
        # -P: a folder of the project that is named like a module must not hide that module.
        argv = [sys.executable, "-P", *arguments]
        environment = {**tool_environment(), **self.env, **(env or {}), SHARED: str(self.lease_s) if self.shared else ""}
        # DVC is not ended while it writes dvc.lock: that would leave half a file.
        quiescent = dvc_idle(self.root, self.grace_s / 2)
        with ProcessGroup(argv, self.root, environment, self.grace_s, read is not None, quiescent) as process:
            for line in process.lines() if read else ():
                read(line)  # type: ignore[misc]
            return process.wait()

    def _repro_when_free(self, targets: Sequence[str], verdict: Path, wait_message: Callable[[str], None]) -> int:
        waiting = False
        while True:
            if holders := lock_holders(self.root):
                if not waiting:
                    pid, command = next(iter(holders.items()))
                    wait_message(f"Waiting for another run in this project: process {pid} ({command}).")
                    waiting = True
                time.sleep(_FIRST_WAIT_S)
                continue
            code = self.run("--wait-for-lock", "repro", *(targets or ["--all-pipelines"]), env={VERDICT_FILE: str(verdict)})
            # DVC waits for its main lock only; it fails where another run holds a stage.
            if code == 0 or verdict.exists() or not lock_holders(self.root):
                return code


def tool_environment() -> dict[str, str]:
    """The environment in which stages find the programs of this interpreter, without buffering and analytics."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", os.defpath)])
    environment.update({"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"})
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment


def lock_holders(root: Path) -> dict[int, str]:
    """Process id → command of the living DVC processes that hold paths of the project."""
    import psutil

    try:
        held = json.loads((root / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8"))
        holders = [*held.get("write", {}).values(), *(holder for readers in held.get("read", {}).values() for holder in readers)]
        return {int(h["pid"]): str(h["cmd"]) for h in holders if psutil.pid_exists(int(h["pid"]))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent, or being written
        return {}


def _sentences(changes: StageChanges) -> list[str]:
    sentences: list[str] = []
    for entry in changes:
        if isinstance(entry, str):
            sentences.append(_WORDS.get(entry, entry))
            continue
        for kind, paths in entry.items():
            for path, state in paths.items():
                if isinstance(state, str):
                    sentences.append(f"{_WORDS.get(kind, kind)} {path}: {state}")
                else:
                    sentences.extend(f"parameter {name} in {path}: {verb}" for name, verb in state.items())
    return sentences


class _Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Inside the block, signals to end raise ``_Interrupted``. A second one, while the first is handled, is ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise _Interrupted(number)

    handlers = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
