"""A child process that never outlives its parent, with all its descendants.

Nothing here knows DVC. The child leads a session of its own, and a small shell process in its group waits on a pipe that only this
process holds open. When this process dies, however it dies, the pipe closes and the shell ends the whole group.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType

# A line on the pipe says that all is well. The watcher ignores the signals that it sends.
_WATCHED = """
exec 3<&0 </dev/null
(trap '' TERM INT HUP; read -r _ <&3 && exit 0; kill -TERM 0; sleep {grace}; kill -KILL 0) >/dev/null 2>&1 &
exec 3<&-
exec "$@"
"""


class ProcessGroup:
    """A child and its descendants as a context manager: leaving the block early, by any exception, ends all of them.

    Parameters
    ----------
    argv
        Program and arguments.
    cwd
        Working folder.
    env
        The whole environment.
    grace_s
        Seconds between SIGTERM and SIGKILL.
    captured
        Whether ``lines`` reads the output (stdout and stderr together); else the child writes where this process does.
    quiescent
        Held while SIGTERM is sent, so that the child is not ended in the middle of a write.
    """

    def __init__(
        self,
        argv: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        grace_s: float,
        captured: bool,
        quiescent: AbstractContextManager[object],
    ) -> None:
        self._argv, self._cwd, self._env = list(argv), cwd, dict(env)
        self._grace_s, self._captured, self._quiescent = grace_s, captured, quiescent

    def __enter__(self) -> ProcessGroup:
        argv = ["/bin/sh", "-c", _WATCHED.format(grace=max(1, round(self._grace_s))), "sh", *self._argv]
        read_end, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                argv,
                cwd=self._cwd,
                env=self._env,
                stdin=read_end,
                stdout=subprocess.PIPE if self._captured else None,
                stderr=subprocess.STDOUT if self._captured else None,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(read_end)
        return self

    def lines(self) -> Iterator[str]:
        """Lines of the output as they come; none where it is not captured."""
        for line in self._process.stdout or ():
            yield line.rstrip("\n")

    def wait(self) -> int:
        """The exit code; negative for a signal, as Python reports it."""
        return self._process.wait()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            with suppress(BrokenPipeError):
                os.write(self._pipe, b"\n")
            if kind is not None:
                with self._quiescent:
                    self._signal(signal.SIGTERM)
                deadline = time.monotonic() + self._grace_s
                while self._alive() and time.monotonic() < deadline:
                    time.sleep(0.05)
        finally:  # also when a second interruption arrives in the loop above
            os.close(self._pipe)
            if kind is not None and self._alive():
                self._signal(signal.SIGKILL)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _alive(self) -> bool:
        """Whether anything still runs in the group. Zombies do not count."""
        import psutil

        if self._process.poll() is None:
            return True
        for process in psutil.process_iter():
            try:
                if os.getpgid(process.pid) == self._process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    return True
            except (psutil.Error, ProcessLookupError, PermissionError):
                continue
        return False
