"""Errors that reach a person: one sentence each, and the exit code that tells a scheduler what to do.

Exit codes follow ``sysexits.h``. Only those of ``Unavailable`` and ``TryAgain`` are worth another try.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

VERDICT_FILE = "DAGSTER_DVC_VERDICT"
"""Environment variable: a stage that fails writes its exit code into the file of this name, since DVC exits with 255 for every failure."""
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
OF_THIS_MACHINE = (*FULL_DISK, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
"""Numbers of operating-system errors that say nothing of a remote."""


class DagsterDvcError(Exception):
    """Base of every error whose text is written for a person. Raised by itself, it may have any exit code."""

    exit_code = 1

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        if exit_code is not None:
            self.exit_code = exit_code


class UsageError(DagsterDvcError):
    """The request is wrong: a project that DVC cannot read, a name that two stages share."""

    exit_code = 64


class Unavailable(DagsterDvcError):
    """A remote cannot be reached."""

    exit_code = 69


class TryAgain(DagsterDvcError):
    """A passing condition: a full disk, a held lock."""

    exit_code = 75


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` where something known is close, else the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else f" Known: {', '.join(known)}."


def full_disk(error: OSError) -> TryAgain:
    """What to say where the disk is full."""
    where = f" while writing {error.filename}" if error.filename else ""
    return TryAgain(f"The disk is full{where}. Free some space and run the same command again; nothing that was finished is lost.")
