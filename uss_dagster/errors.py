"""Errors that reach a person: one sentence each, and the exit code that tells a scheduler what to do.

Belongs here: the exception types every floor may raise, and the "did you mean" helper. Does not belong
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


class BadData(UssError):
    """Something read or produced breaks its contract."""

    exit_code = 65


class Unavailable(UssError):
    """A source outside this machine cannot be reached, or needs something only a person can give."""

    exit_code = 69


class TryAgain(UssError):
    """A passing condition: a full disk, a held lock."""

    exit_code = 75


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` where something known is close, else the list of what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(known)}." if known else " None are known."


def from_os_error(error: OSError) -> UssError | None:
    """The sentence for an operating-system error that a person can act on, or None."""
    where = f" while writing {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error):
        return TryAgain(f"The disk is full{where}. Free some space and run the same command again; nothing that was finished is lost.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UsageError(f"No permission to use {error.filename}. Choose another place, or change its owner or mode.")
    return None
