"""Archives from elsewhere, taken apart with suspicion: nothing is written outside the target, and nothing without limit.

Members must be plain files and folders below the target, each once; links, devices, sparse files and encrypted members are refused, as is
an archive that is cut short, that grows beyond reason, or that is a web page. Owners, modes and times of members are not taken over.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from uss_dagster.errors import BadData, TryAgain
from uss_dagster.text import printable

CHUNK = 1 << 20
_BLOCK = 512
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_AGAIN = "Download it again, from the official source."
_OPENERS: tuple[tuple[bytes, Any], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,
    ValueError,
)


@dataclass(frozen=True)
class Limits:
    """How far one archive may grow. total: bytes of all members. ratio: of those to the archive's own size, once ``free`` bytes are
    written. members: files and folders."""

    total: int = 2 * 1024**4
    ratio: int = 150
    free: int = 256 * 1024**2
    members: int = 20_000_000


LIMITS = Limits()


def is_archive(name: str) -> bool:
    """A file of this name is taken apart; any other is put in its place as it is."""
    return name.lower().endswith((".zip", *_TAR))


def plain(name: str) -> str:
    """A name from outside as it may be printed: at most 120 characters, none of them a control character."""
    text = printable(name.encode("ascii", "backslashreplace").decode())
    return text if len(text) <= 120 else f"{text[:117]}..."


def refuse_web_page(path: Path, name: str) -> None:
    """Refuse a file that begins like HTML: what a server sends in place of an archive when it wants a login."""
    with open(path, "rb") as stream:
        start = stream.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) and not name.lower().endswith((".html", ".htm", ".xml")):
        raise BadData(f"{name} is a web page, not an archive: the source perhaps asks for a login. {_AGAIN}")


def extract(path: Path, target: Path, limits: Limits = LIMITS, advance: Callable[[int], None] | None = None) -> int:
    """Take a zip or tar archive (.gz, .bz2, .xz) apart into a folder; returns the number of files written.

    advance: called with the bytes written, chunk by chunk. What was written before a refusal stays: the caller throws the folder away.
    """
    refuse_web_page(path, path.name)
    writer = _Writer(path, target, limits, advance or (lambda _: None))
    try:
        if path.name.lower().endswith(".zip"):
            _extract_zip(path, writer)
        else:
            _extract_tar(path, writer)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the archive
            raise
        raise BadData(f"{path.name} is truncated or damaged ({plain(str(error)) or type(error).__name__}). {_AGAIN}") from error
    if not writer.files:
        raise BadData(f"{path.name} holds no files. {_AGAIN}")
    return writer.files


class _Writer:
    """Writes members below one folder, and counts."""

    def __init__(self, archive: Path, target: Path, limits: Limits, advance: Callable[[int], None]) -> None:
        self.archive, self.limits, self.advance = archive, limits, advance
        self.target = target.resolve()
        self.target.mkdir(parents=True, exist_ok=True)
        self.packed = archive.stat().st_size
        self.written = self.files = self.members = 0

    def refuse(self, name: str, why: str) -> BadData:
        return BadData(f"{self.archive.name} was refused: its member '{plain(name)}' {why}. {_AGAIN}")

    def place(self, name: str, folder: bool) -> Path | None:
        """Where a member goes, or None for what operating systems leave in archives."""
        self.members += 1
        if self.members > self.limits.members:
            raise self.refuse(name, f"is one of more than {self.limits.members:,}")
        if "\x00" in name or "\\" in name or any(ord(c) < 32 for c in name):
            raise self.refuse(name, "has a backslash or a control character in its name")
        if name.startswith("/") or name[1:2] == ":":
            raise self.refuse(name, "has an absolute name")
        path = PurePosixPath(name)
        if ".." in path.parts:
            raise self.refuse(name, "points outside ('..')")
        if any(len(part.encode("utf-8", "surrogateescape")) > 255 for part in path.parts) or len(name) > 2048:
            raise self.refuse(name, "has a name longer than file systems allow")
        if path.parts[:1] == ("__MACOSX",) or path.name == ".DS_Store":
            return None
        if not folder and (not path.parts or name.endswith("/")):
            raise self.refuse(name, "has an empty name")
        return self.target / path

    def make_folder(self, name: str) -> None:
        place = self.place(name, folder=True)
        if place is not None:
            self._folder(name, place)

    def write(self, name: str, chunks: Iterator[bytes]) -> None:
        """One plain file. It is created anew: neither a link nor an earlier member can stand in its place."""
        place = self.place(name, folder=False)
        if place is None:
            for chunk in chunks:
                self._count(name, len(chunk))
            return
        self._folder(name, place.parent)
        try:
            handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except FileExistsError:
            raise self.refuse(name, "occurs twice (or differs from another one only in case)") from None
        with os.fdopen(handle, "wb") as out:
            for chunk in chunks:
                self._count(name, len(chunk))
                out.write(chunk)
                self.advance(len(chunk))
        self.files += 1

    def _folder(self, name: str, place: Path) -> None:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise self.refuse(name, "needs a folder where another member is a file") from None

    def _count(self, name: str, size: int) -> None:
        self.written += size
        self.check_size(self.written, f"its member '{plain(name)}' takes it")

    def check_size(self, written: int, what: str) -> None:
        limits = self.limits
        if written > limits.total or (written > limits.free and written > limits.ratio * self.packed):
            raise BadData(
                f"{self.archive.name} was refused: {what} to {written:,} bytes, from {self.packed:,} in the archive, which only an "
                f"archive bomb needs (allowed: {limits.ratio} times, and {limits.total:,}). {_AGAIN}"
            )

    def need(self, size: int) -> None:
        """Refuse early what the disk cannot hold."""
        usage = os.statvfs(self.target)
        if size > usage.f_bavail * usage.f_frsize:
            raise TryAgain(
                f"{self.archive.name} takes {size:,} bytes extracted, {self.target.parent} has {usage.f_bavail * usage.f_frsize:,} free. "
                "Free some space and run the same command again."
            )


def _chunks(stream: IO[bytes], name: str, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes."""
    while size:
        chunk = stream.read(min(CHUNK, size))
        if not chunk:
            raise EOFError(f"'{plain(name)}' ends {size:,} bytes too early")
        size -= len(chunk)
        yield chunk


def _extract_zip(path: Path, writer: _Writer) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        declared = sum(member.file_size for member in members)
        writer.check_size(declared, "its members declare")
        writer.need(declared)
        for member in members:
            kind = member.external_attr >> 16 & 0o170000
            if kind not in (0, 0o100000, 0o040000):
                raise writer.refuse(member.filename, "is a link or a device")
            if member.flag_bits & 1:
                raise writer.refuse(member.filename, "is encrypted")
            if member.is_dir():
                writer.make_folder(member.filename)
                continue
            with archive.open(member) as stream:
                writer.write(member.filename, _chunks(stream, member.filename, member.file_size))


def _extract_tar(path: Path, writer: _Writer) -> None:
    with ExitStack() as stack:
        raw = stack.enter_context(open(path, "rb"))
        start = raw.read(8)
        raw.seek(0)
        opener = next((o for magic, o in _OPENERS if start.startswith(magic)), None)
        whole = _Forward(stack.enter_context(opener(raw)) if opener else raw, writer)
        archive = stack.enter_context(tarfile.open(fileobj=whole, mode="r|", bufsize=_BLOCK * 128, tarinfo=_Member))
        for member in archive:
            if member.issym() or member.islnk():
                raise writer.refuse(member.name, f"is a link to '{plain(member.linkname)}'")
            if member.isdir():
                writer.make_folder(member.name)
            elif not member.isreg() or member.issparse():
                raise writer.refuse(member.name, "is a device or another special file")
            else:
                stream = archive.extractfile(member)
                assert stream is not None
                writer.write(member.name, _chunks(stream, member.name, member.size))
            archive.members = []  # type: ignore[attr-defined]  # a million members must not pile up in memory
        while whole.read(CHUNK):  # on to the end, so that the checksum of a compressed stream is seen too
            pass


class _Member(tarfile.TarInfo):
    """A member whose broken or missing header is an error; tarfile itself takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros: this is the end
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error}, where a member or the end should be") from error


class _Forward(io.RawIOBase):
    """A stream read once, forwards, whose bytes count towards the limits: those of headers too."""

    def __init__(self, stream: IO[bytes], writer: _Writer) -> None:
        self._stream, self._writer, self._size = stream, writer, 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._size += len(data)
        self._writer.check_size(self._size, "it unpacks")
        return data
