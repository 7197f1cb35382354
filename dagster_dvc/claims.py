"""Claims: which of several clones computes what, said by objects in the remote that they share.

A claim is an object that only one clone can create. Its owner writes it anew again and again; where it stays the same for the time of a lease,
by the clock of whoever waits, its owner is gone. Then the next claim of the same key can be created, by one clone again: the claim with the
highest number counts. Nobody compares the clocks of two machines, and nobody deletes the claim of another while that one may still count.
Nothing here knows DVC.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from dagster_dvc.errors import UsageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

RENEWALS, LOOKS = 6, 30
"""In the time of a lease: how often a claim is written anew, and how often one who waits looks."""


class Claims:
    """The claims in a folder of a remote.

    Parameters
    ----------
    files
        File system of the remote.
    folder
        Where they lie.
    lease_s
        Seconds after which a claim that is not renewed no longer counts.
    """

    def __init__(self, files: AbstractFileSystem, folder: str, lease_s: float) -> None:
        self._files, self._folder, self.lease_s = files, folder.rstrip("/"), lease_s
        self._me = {"host": socket.gethostname(), "process": str(os.getpid()), "id": uuid4().hex}
        self._seen: dict[str, tuple[bytes | None, float]] = {}
        self._mine: str | None = None
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._tried = False

    def take(self, key: str) -> bool:
        """Claim a key, if nobody has; the claim is renewed until ``release``."""
        self.release()
        last = max(self._names(key), default=None)
        if last is not None and not self._is_over(last):
            return False
        name = f"{key}-{int(last.rpartition('-')[2]) + 1 if last else 1:06d}"  # of two that saw the same last one, one creates the next
        if not self._create(name):
            return False
        self._mine, self._ended = name, threading.Event()
        if last is not None and not self._is_over(last):  # since then it was removed, and claimed anew
            self.release()
            return False
        if not self._tried and self._create(name):
            self.release()
            raise UsageError("it replaces an object where it should refuse to create it again, so two clones could claim the same cell")
        self._tried = True
        threading.Thread(target=self._renew, args=(name, self._ended), daemon=True).start()
        return True

    def release(self) -> None:
        """Give up what this process has claimed; claims before it, of clones that are gone, are removed too."""
        if self._mine is None:
            return
        self._ended.set()
        name, self._mine = self._mine, None
        with self._writing:  # a renewal that has begun would create the claim again after it was removed
            for each in sorted(self._names(name.rpartition("-")[0])):
                if each <= name:
                    with suppress(FileNotFoundError):
                        self._files.rm_file(self._path(each))

    def holder(self, key: str) -> str | None:
        """Who has claimed a key, in words; None where nobody has, or where that claim was not renewed for the time of a lease."""
        name = max(self._names(key), default=None)
        return None if name is None or self._is_over(name) else _in_words(self._read(name))

    def wait(self, keys: Iterable[str]) -> None:
        """Return when nobody else holds one of these keys any longer."""
        keys = tuple(keys)
        while all(self.holder(key) is not None for key in keys):
            time.sleep(self.lease_s / LOOKS)

    def _is_over(self, name: str) -> bool:
        """Whether a claim exists, and has been the same for the time of a lease."""
        content, now = self._read(name), time.monotonic()
        known, since = self._seen.get(name, (None, now))
        if content is None or content != known:
            self._seen[name] = content, now
            return False
        return now - since >= self.lease_s

    def _read(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return bytes(self._files.cat_file(self._path(name)))
        return None

    def _renew(self, name: str, ended: threading.Event) -> None:
        count = 0
        while not ended.wait(self.lease_s / RENEWALS):
            count += 1
            with suppress(Exception), self._writing:  # a remote that does not answer: the next time, or the lease ends
                if ended.is_set() or max(self._names(name.rpartition("-")[0]), default="") != name:
                    return  # it was given up, or another clone took over
                self._files.pipe_file(self._path(name), self._content(count))

    def _names(self, key: str) -> list[str]:
        try:
            paths = self._files.ls(self._folder, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        names = (path.replace("\\", "/").rstrip("/").rpartition("/")[2] for path in paths)
        return [name for name in names if name.rpartition("-")[0] == key]

    def _create(self, name: str) -> bool:
        """Whether this process created the object; False where it exists."""
        from fsspec import AbstractFileSystem

        path = self._path(name)
        with suppress(FileExistsError):
            if (
                type(self._files).pipe_file is AbstractFileSystem.pipe_file
            ):  # which looks first and then writes; of folders, here and over SSH
                self._files.makedirs(self._folder, exist_ok=True)
                with self._files.open(path, "xb") as stream:
                    stream.write(self._content(0))
            else:
                self._files.pipe_file(path, self._content(0), mode="create")
            return True
        return False

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _content(self, count: int) -> bytes:
        return json.dumps({**self._me, "renewed": count}).encode()


def _in_words(content: bytes | None) -> str:
    try:
        owner = json.loads(content or b"")
        return f"process {owner['process']} on {owner['host']}"
    except (ValueError, KeyError, TypeError):  # being written
        return "another clone"
