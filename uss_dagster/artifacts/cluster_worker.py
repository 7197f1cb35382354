"""What a worker of a cluster does with a job.

The bytes of a job never depend on the worker: it must have the same code, libraries and weights, computes on one thread, and does one job
at a time. A worker that does not see the project's disk gets what a job reads as bytes, and puts it into a mirror: a temporary folder with
the same files at the same places, of which only those bytes exist that its job reads.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import pickle
import platform
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from uss_dagster.artifacts.reads import Piece
from uss_dagster.errors import UsageError, UssError
from uss_dagster.hashing import sha256_of_file, sha256_of_json
from uss_dagster.runtime import quiet_environment, single_thread

_LIBRARIES = ("numpy", "scipy", "scikit-image", "scikit-learn", "torch", "timm", "pillow", "pyarrow", "numba")
"""Libraries whose version may change a result."""


@cache
def identity() -> dict[str, str]:
    """What must be the same on all machines that compute one artefact: name → version; the package by a hash of its files."""
    package = Path(__file__).resolve().parent.parent
    files = sorted(p for p in package.rglob("*") if p.suffix in (".py", ".yaml", ".safetensors", ".npz") and p.is_file())
    code = sha256_of_json([[p.relative_to(package).as_posix(), sha256_of_file(p)] for p in files], 16)
    versions = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"uss_dagster": code, "python": platform.python_version(), "processor": platform.machine(), **versions}


# -- what is sent -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FilePart:
    """Bytes of a file below the project folder. size: of the whole file."""

    name: str
    offset: int
    size: int
    data: bytes

    @classmethod
    def read(cls, piece: Piece, root: Path) -> FilePart:
        """The bytes of a piece. root: the project folder."""
        if not piece.path.is_relative_to(root):
            raise UsageError(
                f"{piece.path} lies outside the project, so workers that do not see its disk cannot read it. Copy it into the project folder."
            )
        with open(piece.path, "rb") as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(piece.offset)
            data = stream.read() if piece.size is None else stream.read(piece.size)
        return cls(piece.path.relative_to(root).as_posix(), piece.offset, size, data)


@dataclass(frozen=True)
class Order:
    """One job as it is sent.

    Parameters
    ----------
    call
        Names the owner's call; a worker has one mirror a call.
    task
        The function and its argument, pickled by ``dumps``.
    check
        Pickled like it: refuses the worker, or None.
    identity
        What the worker must be, see ``identity``.
    root
        The project folder of the owner.
    token
        A file that only workers on the project's disk can read, and what it holds.
    """

    call: str
    task: bytes
    check: bytes
    identity: dict[str, str]
    root: str
    token: tuple[str, str]


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Parameters
    ----------
    result
        What the function returned.
    error
        What it raised, None for nothing.
    trace
        Where it was raised, as text.
    printed
        What it printed.
    needs_files
        The worker does not see the project's disk: send the job with what it reads.
    """

    result: Any = None
    error: BaseException | None = None
    trace: str = ""
    printed: str = ""
    needs_files: bool = False


class _Pickler(pickle.Pickler):
    """Paths below the project folder, and text that begins with one, become places in the worker's mirror."""

    def __init__(self, file: io.BytesIO, root: Path) -> None:
        super().__init__(file, protocol=5)
        self._root = str(root)

    def persistent_id(self, value: object) -> tuple[str, str] | None:
        if isinstance(value, PurePath) and value.is_relative_to(self._root):
            return "path", value.relative_to(self._root).as_posix()
        if isinstance(value, str) and value.startswith(self._root + "/"):
            return "text", value[len(self._root) + 1 :]
        return None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, root: Path) -> None:
        super().__init__(file)
        self._root = root

    def persistent_load(self, place: tuple[str, str]) -> object:
        kind, relative = place
        return self._root / relative if kind == "path" else str(self._root / relative)


def dumps(value: object, root: Path) -> bytes:
    """Pickled, with paths below ``root`` relative to it."""
    stream = io.BytesIO()
    _Pickler(stream, root).dump(value)
    return stream.getvalue()


def loads(data: bytes, root: Path) -> Any:
    """What ``dumps`` wrote, with paths below another ``root``. Only for what the owner of a project sent to its workers."""
    return _Unpickler(io.BytesIO(data), root).load()


# -- on the worker ------------------------------------------------------------------------------------------


@dataclass
class _Mirror:
    """The files of one call on this worker."""

    call: str
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=lambda: tempfile.TemporaryDirectory(prefix="uss-mirror-"))
    has_common: bool = False
    is_checked: bool = False

    @property
    def root(self) -> Path:
        return Path(self.folder.name)

    def add(self, parts: Iterable[FilePart]) -> None:
        for part in parts:
            path = self.root / part.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "r+b" if path.exists() else "wb") as stream:
                stream.truncate(part.size)
                stream.seek(part.offset)
                stream.write(part.data)

    def remove(self, parts: Iterable[FilePart]) -> None:
        for name in {part.name for part in parts}:
            (self.root / name).unlink(missing_ok=True)


_one_job = threading.Lock()
"""Methods may share state within a process: a worker with several threads still does one job at a time."""
_mirror: _Mirror | None = None


def run_order(order: Order, common: list[FilePart] | None = None, parts: list[FilePart] | None = None) -> Outcome:
    """Do one job. common and parts: what it reads, where the worker does not see the project's disk."""
    global _mirror
    with _one_job:
        if order.identity != identity():
            return Outcome(error=UsageError(_difference(order.identity)))
        if _mirror is None or _mirror.call != order.call:
            _mirror = _Mirror(order.call)
        quiet_environment()
        single_thread()
        path, content = order.token
        if parts is None:
            if not _holds(Path(path), content):
                return Outcome(needs_files=True)
            return _run(order, _mirror, Path(order.root))
        if not _mirror.has_common:
            _mirror.add(common or [])
            _mirror.has_common = True
        _mirror.add(parts)
        try:
            return _run(order, _mirror, _mirror.root)
        finally:
            _mirror.remove(parts)


def _run(order: Order, mirror: _Mirror, root: Path) -> Outcome:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            if not mirror.is_checked:
                _check(loads(order.check, root))
            mirror.is_checked = True
            function, job = loads(order.task, root)
            result, error, trace = function(job), None, ""
        except Exception as raised:
            result, error, trace = None, raised if _pickles(raised) else UssError(str(raised)), traceback.format_exc()
    return Outcome(result, error, trace, printed.getvalue())


def _check(check: Callable[[], None] | None) -> None:
    try:
        if check is not None:
            check()
    except UssError as error:
        raise type(error)(f"Worker {platform.node()} of the cluster: {error}") from None


def _pickles(error: Exception) -> bool:
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:
        return False


def _holds(path: Path, content: str) -> bool:
    try:
        return path.read_text(encoding="ascii") == content
    except (OSError, UnicodeDecodeError):
        return False


def _difference(expected: dict[str, str]) -> str:
    mine = identity()
    names = sorted(name for name in {*expected, *mine} if expected.get(name) != mine.get(name))
    parts = ", ".join(f"{name} {mine.get(name, 'absent')} instead of {expected.get(name, 'absent')}" for name in names)
    return f"Worker {platform.node()} of the cluster has {parts}. Install the same versions there, and start it again."
