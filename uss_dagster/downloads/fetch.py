"""Downloads that survive: in pieces over several connections, resumed where they stopped, from the first mirror that works, verified.

Belongs here: getting one file of an official release over HTTP. Does not belong here: which files a dataset has, and taking them apart.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from uss_dagster.datasets.base import Archive
from uss_dagster.downloads.archives import CHUNK, plain, refuse_web_page
from uss_dagster.errors import BadData, TryAgain, Unavailable, UsageError
from uss_dagster.files import write_whole

CONNECTIONS = 4
PIECE = 64 * 1024**2
"""What one connection asks for at a time."""
TRIES = 5
"""Requests in a row without one new byte, after which a mirror is given up."""
_SAVED = 16 * 1024**2
_TIMEOUT = 30.0
_BROKEN = (OSError, http.client.HTTPException)  # refused, reset, timed out, cut short


@dataclass(frozen=True)
class Fetched:
    """A verified file. url: where it came from."""

    path: Path
    url: str
    size: int
    md5: str
    sha256: str


class _GivenUp(Exception):
    """One mirror will not do; the text says why."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise _GivenUp(f"it sends on to '{plain(newurl)}', which is not on the web")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(archive: Archive, folder: Path, advance: Callable[[int], None] | None = None, piece: int = PIECE, pause: float = 1.0) -> Fetched:
    """Download one file into a folder, or finish a download begun there; its mirrors are tried in order.

    advance: called with the number of new bytes, negative where they had to be thrown away. pause: seconds before the second try
    of a request, doubled with each further one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / archive.name
    if target.exists():
        with suppress(BadData):
            return verify(archive, target, archive.urls[0])
        target.unlink()
    reasons, damaged = [], False
    for url in archive.urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"'{plain(url)}' is no http or https address; {archive.name} can only be fetched from one.")
        download = _Download(archive, url, folder, advance or (lambda _: None), piece, pause)
        try:
            download.run()
        except _GivenUp as error:
            if not download.state_file.exists():  # nothing that a later run could go on with
                download.part.unlink(missing_ok=True)
            reasons.append(f"{url}: {error}")
            continue
        try:
            verified = verify(archive, download.part, url)
        except BadData as error:
            download.discard()
            reasons.append(f"{url}: {error}")
            damaged = True
            continue
        os.replace(download.part, target)
        download.state_file.unlink(missing_ok=True)
        return Fetched(target, url, verified.size, verified.md5, verified.sha256)
    message = f"{archive.name} could not be fetched. {' · '.join(reasons)}"
    if damaged:
        raise BadData(message)
    raise Unavailable(f"{message} · Try again later (it goes on where it stopped), or fetch it by other means and pass it with --from.")


def verify(archive: Archive, path: Path, url: str = "") -> Fetched:
    """Hold a file against what is known of it: not a web page, the right size, the right checksums (read once for both)."""
    size = path.stat().st_size
    if not size:
        raise BadData(f"{archive.name} is empty. Download it again, from the official source.")
    refuse_web_page(path, archive.name)
    if archive.size and size != archive.size:
        raise BadData(
            f"{archive.name} has {size:,} bytes, expected {archive.size:,}: it is cut short, or another release. Download it again."
        )
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
    for kind, expected, actual in (("sha256", archive.sha256, sha256.hexdigest()), ("md5", archive.md5, md5.hexdigest())):
        if expected and actual != expected.lower():
            raise BadData(f"{archive.name} has {kind} {actual}, expected {expected}: it is damaged, or another release. Download it again.")
    return Fetched(path, url, size, md5.hexdigest(), sha256.hexdigest())


class _Download:
    """One file from one address, into ``NAME.part``; ``NAME.part.json`` says which bytes of it are there."""

    def __init__(self, archive: Archive, url: str, folder: Path, advance: Callable[[int], None], piece: int, pause: float) -> None:
        self.archive, self.url, self.advance, self.piece, self.pause = archive, url, advance, piece, pause
        self.part, self.state_file = folder / f"{archive.name}.part", folder / f"{archive.name}.part.json"
        self.opener = urllib.request.build_opener(_Redirects())  # for http and https alone: ``fetch`` and ``_Redirects`` refuse others
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.failures = self.unsaved = 0
        self.size, self.validator, self.done = 0, "", [0]
        """Of the whole file; the ETag or date that tells one version from another; bytes that are there of each piece."""
        self._resume()

    # -- state ------------------------------------------------------------------------------------

    def _resume(self) -> None:
        try:
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
            if state["url"] == self.url and state["piece"] == self.piece and self.part.stat().st_size <= state["size"]:
                self.size, self.validator, self.done = state["size"], state["validator"], list(map(int, state["done"]))
                self.advance(sum(self.done))
        except (OSError, ValueError, KeyError, TypeError):
            pass  # None, or of another mirror: it stays until this one has answered.

    def _save(self) -> None:
        if self.validator:  # without one, another version of the file could not be told from this one
            state = {"url": self.url, "piece": self.piece, "size": self.size, "validator": self.validator, "done": self.done}
            write_whole(self.state_file, json.dumps(state))
        self.unsaved = 0

    def discard(self) -> None:
        """Forget what is there."""
        self.advance(-sum(self.done))
        self.done = [0] * len(self.done)
        self.part.unlink(missing_ok=True)
        self.state_file.unlink(missing_ok=True)

    # -- the transfer -----------------------------------------------------------------------------

    def run(self) -> None:
        """Fetch what is missing; raises ``_GivenUp`` when this address will not do."""
        handle = os.open(self.part, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            while not self._first(handle):
                pass
            missing = [number for number in range(len(self.done)) if self.done[number] < self._length(number)]
            with ThreadPoolExecutor(max(1, min(CONNECTIONS, len(missing)))) as pool:
                try:
                    for finished in [pool.submit(self._piece, handle, number) for number in missing]:
                        finished.result()
                except BaseException:
                    self.stop.set()
                    pool.shutdown(cancel_futures=True)
                    raise
        finally:
            with self.lock, suppress(OSError):  # on a full disk, what was saved last still holds
                if self.size:
                    self._save()
            os.close(handle)

    def _length(self, number: int) -> int:
        return min(self.piece, self.size - number * self.piece) if self.size else self.piece

    def _first(self, handle: int) -> bool:
        """The first answer, which tells size, version and whether pieces can be had; False where it has to be asked again."""
        number = next((n for n in range(len(self.done)) if self.done[n] < self._length(n)), None)
        if number is None:
            return True
        with self._tried():
            with self._ask(number) as answer:
                if answer.status == 206:
                    total = _range(answer)[1]
                    if not self.size:
                        self._plan(total, answer)
                        self.state_file.unlink(missing_ok=True)
                        os.truncate(handle, 0)
                    elif total != self.size:
                        raise _GivenUp(f"its size changed from {self.size:,} to {total:,} bytes")
                    self._take(handle, number, answer)
                else:
                    self._whole(handle, answer)
            return True
        return False

    def _plan(self, total: int, answer: Any) -> None:
        if self.archive.size and total != self.archive.size:
            raise _GivenUp(f"it offers {total:,} bytes, expected {self.archive.size:,}")
        free = shutil.disk_usage(self.part.parent).free
        if total > free:
            raise TryAgain(
                f"{self.archive.name} has {total:,} bytes, {self.part.parent} has {free:,} free. "
                "Free some space and run the same command again."
            )
        self.size = total
        self.validator = _validator(answer)
        self.done = [0] * max(1, -(-total // self.piece))

    def _whole(self, handle: int, answer: Any) -> None:
        """A server that knows no pieces sends the whole file; a second try starts again."""
        self.advance(-sum(self.done))
        os.truncate(handle, 0)
        self.state_file.unlink(missing_ok=True)
        self.size, self.validator, self.done = 0, "", [0]
        length = answer.headers.get("Content-Length")
        if length is not None:
            self._plan(int(length), answer)
            self.validator, self.done = "", [0]
        got = 0
        try:
            while chunk := answer.read(CHUNK):
                _write(handle, chunk, got)
                got += len(chunk)
                self.advance(len(chunk))
                if got > (self.size or got):
                    raise _GivenUp(f"it sends more than the {self.size:,} bytes it announced")
            if self.size and got < self.size:
                raise http.client.IncompleteRead(b"", self.size - got)
        except BaseException:
            self.advance(-got)
            self.size = 0
            raise
        self.size = got
        self.done = [self._length(n) for n in range(max(1, -(-got // self.piece)))]

    def _piece(self, handle: int, number: int) -> None:
        """Fetch what is missing of one piece, asking again where the connection breaks."""
        while self.done[number] < self._length(number) and not self.stop.is_set():
            with self._tried(), self._ask(number) as answer:
                if answer.status != 206:
                    raise _GivenUp("the file changed while it was fetched")
                self._take(handle, number, answer)

    def _ask(self, number: int) -> Any:
        first = number * self.piece + self.done[number]
        last = number * self.piece + self._length(number) - 1
        headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity", "User-Agent": "uss_dagster"}
        if self.validator and self.size:
            headers["If-Range"] = self.validator
        answer = self.opener.open(urllib.request.Request(self.url, headers=headers), timeout=_TIMEOUT)
        if answer.headers.get_content_type() == "text/html" and not self.archive.name.endswith((".html", ".htm")):
            answer.close()
            raise _GivenUp("it answers with a web page, not with the file (perhaps it asks for a login)")
        return answer

    def _take(self, handle: int, number: int, answer: Any) -> None:
        """Write an answer's bytes in their place."""
        start = number * self.piece
        if _range(answer)[0] != start + self.done[number]:
            raise _GivenUp("it sends other bytes than it was asked for")
        length = self._length(number)
        while self.done[number] < length and not self.stop.is_set():
            chunk = answer.read(min(CHUNK, length - self.done[number]))
            if not chunk:
                raise http.client.IncompleteRead(b"", length - self.done[number])
            _write(handle, chunk, start + self.done[number])
            with self.lock:
                self.done[number] += len(chunk)
                self.failures = 0
                self.unsaved += len(chunk)
                self.advance(len(chunk))
                if self.unsaved >= _SAVED:
                    self._save()

    @contextmanager
    def _tried(self) -> Iterator[None]:
        """Swallows a failure that may pass, after a pause; gives the mirror up for one that will not, or after too many."""
        try:
            yield
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # what is there does not fit what they have
                self.discard()
                self.size, self.validator, self.done = 0, "", [0]
            elif error.code not in (408, 425, 429) and error.code < 500:
                raise _GivenUp(f"it answers {error.code} {plain(str(error.reason))}") from None
            self._pause(f"it answers {error.code} {plain(str(error.reason))}")
        except urllib.error.URLError as error:
            self._pause(f"it cannot be reached ({plain(str(error.reason))})")
        except _BROKEN as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS):
                raise
            self._pause(f"the connection broke ({plain(str(error)) or type(error).__name__})")

    def _pause(self, why: str) -> None:
        with self.lock:
            self.failures += 1
            failures = self.failures
        if failures >= TRIES:
            raise _GivenUp(f"{why}, {failures} times in a row")
        self.stop.wait(self.pause * 2 ** (failures - 1))


def _range(answer: Any) -> tuple[int, int]:
    """(first byte, size of the whole file) of an answer with a part of it."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if not match:
        raise _GivenUp("it sends a part of the file without saying which")
    return int(match[1]), int(match[2])


def _validator(answer: Any) -> str:
    """A strong ETag, or the date of the last change, or nothing."""
    tag = answer.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _write(handle: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
