"""Errors that reach a person: one sentence each, and the exit code that tells a scheduler what to do.

Belongs here: the exception types every package may raise, and the "did you mean" helper. Does not belong
here: catching them (the command line and the Dagster bridge do that).

Exit codes follow ``sysexits.h``. Only ``Unavailable`` and ``TryAgain`` are worth retrying.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UssError(Exception):
    """Base of every error whose text is written for a person."""

    exit_code = 1


class UsageError(UssError):
    """The request is wrong: an unknown name, a broken parameter file, a stale plan."""

    exit_code = 64


class ParameterError(UsageError):
    """A parameter that does not exist, or a value that one cannot take. path: names of its sections and its own; empty where unknown."""

    def __init__(self, message: str, path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class BadData(UssError):
    """Something read or produced breaks its contract."""

    exit_code = 65


class Unavailable(UssError):
    """A source outside this machine cannot be reached, or needs something only a person can give."""

    exit_code = 69


class TryAgain(UssError):
    """A passing condition: a full disk, a held lock."""

    exit_code = 75


class OutOfMemory(UssError):
    """The machine has too little memory for what was asked: the same again would end the same way."""

    exit_code = 71


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` where something known is close, else the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(known)}." if known else " None are known."


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
    """Refuse a value that is none of the known ones; ``what`` says what it is, as in "graph"."""
    known = tuple(known)
    if value not in known:
        raise UsageError(f"Unknown {what} '{value}'.{did_you_mean(str(value), known)}")


def from_os_error(error: OSError) -> UssError | None:
    """The sentence for an operating-system error that a person can act on, or None."""
    where = f" while writing {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return TryAgain(f"The disk is full{where}. Free some space and run the same command again; nothing that was finished is lost.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UsageError(f"No permission to use {error.filename}. Choose another place, or change its owner or mode.")
    place = error.filename2 or error.filename
    if place and isinstance(error, IsADirectoryError):
        return UsageError(f"{place} is a folder, but a file belongs there. Move it away.")
    if place and isinstance(error, NotADirectoryError | FileExistsError):
        return UsageError(f"{place}: a file is where a folder belongs, here or above it. Move it away.")
    return None


def from_lack_of_memory(error: BaseException) -> UssError | None:
    """The sentence for what Python, numpy, torch or a pool of workers raise when memory runs out; None for anything else."""
    said = str(error)
    if type(error).__name__ == "BrokenProcessPool":
        what = "A worker process was ended from outside, most likely because memory ran out"
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in said:
        what = "Memory ran out" + (f" ({' '.join(said.split())[:160].rstrip('.')})" if said else "")
    else:
        return None
    return OutOfMemory(
        f"{what}. Use fewer workers (USS_WORKERS=1), smaller pictures (long_side) or a larger machine; nothing finished is lost."
    )
