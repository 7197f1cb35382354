"""Whether outputs and DVC's cache hold what dvc.lock records, by hashing every byte; and how to get back what is lost.

DVC itself looks at size and time. With hard links the file in the cache is the damaged one too, so ``dvc checkout`` brings nothing back.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dagster_dvc.project import DvcProject, LockedOut
from dagster_dvc.runner import DvcRunner

_FOLDER = ".dir"
_NOT_DVC_S = (".partial", ".old")
"""Endings of hidden files that an unfinished run leaves; DVC's hash of a folder does count hidden files."""


@dataclass(frozen=True)
class Difference:
    """What is not as dvc.lock records it.

    Parameters
    ----------
    address
        The stage that writes it.
    path
        The file or folder, from the root; of the cache where ``in_cache``.
    what
        'is missing', 'is damaged', or 'was added'.
    in_cache
        It lies in DVC's cache.
    """

    address: str
    path: str
    what: str
    in_cache: bool = False

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


@dataclass
class Verifier:
    """Hashes the outputs of a project and their files in the cache.

    Parameters
    ----------
    root
        Folder with .dvc.
    cache
        DVC's cache.
    threads
        How many files are hashed at once.
    files, bytes
        What was hashed so far; a file and its hard link in the cache count once.
    """

    root: Path
    cache: Path
    threads: int = 1
    files: int = field(default=0, init=False)
    bytes: int = field(default=0, init=False)
    _digests: dict[Path, str] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.root = self.root.resolve()

    def differences(self, addresses: Sequence[str]) -> list[Difference]:
        """All that differs, of the outputs that dvc.lock records of these stages."""
        project, self._digests = DvcProject(self.root), {}
        outs = [(address, out) for address in addresses for out in project.locked_outs(address)]
        wanted = {path for _, out in outs for path in self._paths(out)}
        with ThreadPoolExecutor(max(1, self.threads)) as threads:
            one_of = {_identity(path): path for path in wanted}
            digests = dict(zip(one_of, threads.map(_md5, one_of.values()), strict=True))
        self._digests = {path: digests[_identity(path)] for path in wanted}
        self.files += len(one_of)
        self.bytes += sum(path.stat().st_size for path in one_of.values())
        return [difference for address, out in outs for difference in self._compare(address, out)]

    @cached_property
    def _objects(self) -> Path:
        return self.cache / "files" / "md5"

    def _object(self, digest: str) -> Path:
        return self._objects / digest[:2] / digest[2:]

    def _paths(self, out: LockedOut) -> Iterator[Path]:
        """Every file to hash: of the output, and of the cache."""
        for path in (*_files(self.root / out.path), self._object(out.hash), *map(self._object, self._listing(out.hash).values())):
            if path.is_file():
                yield path

    def _listing(self, digest: str) -> dict[str, str]:
        """Name → hash of the files of a folder, from its listing in the cache; empty for a file, and where the listing is gone or damaged."""
        path = self._object(digest)
        if not digest.endswith(_FOLDER) or not path.is_file():
            return {}
        text = path.read_bytes()
        if hashlib.md5(text, usedforsecurity=False).hexdigest() != digest.removesuffix(_FOLDER):
            return {}
        return {item["relpath"]: item["md5"] for item in json.loads(text)}

    def _compare(self, address: str, out: LockedOut) -> Iterator[Difference]:
        top = self.root / out.path
        listing = self._listing(out.hash)
        present = {path.relative_to(top).as_posix() if path != top else "": self._digests[path] for path in _files(top)}
        if not os.path.lexists(top):
            yield Difference(address, out.path, "is missing")
        elif not out.hash.endswith(_FOLDER):
            if present.get("") != out.hash:
                yield Difference(address, out.path, "is damaged")
        elif listing:
            for name in sorted({*listing, *present}):
                if present.get(name) != listing.get(name):
                    what = "is missing" if name not in present else "is damaged" if name in listing else "was added"
                    yield Difference(address, f"{out.path}/{name}", what)
        elif _hash_of_folder(present) != out.hash:
            yield Difference(address, out.path, "is damaged (which of its files cannot be said: DVC's cache has no list of them)")
        for digest in dict.fromkeys((out.hash, *listing.values())):
            path = self._object(digest)
            if path in self._digests and self._digests[path] != digest.removesuffix(_FOLDER):
                yield Difference(
                    address, path.relative_to(self.root).as_posix() if self.root in path.parents else str(path), "is damaged", True
                )


def repair(verifier: Verifier, runner: DvcRunner, differences: Sequence[Difference], has_remote: bool, say: Callable[[str], None]) -> int:
    """Bring back what differs: from a remote, from the cache, or by computing it again; returns 0, or the exit code of what failed.

    Parameters
    ----------
    verifier
        Of the project.
    runner
        Of the project.
    differences
        What the verifier found.
    has_remote
        The project has a remote, which is asked first.
    say
        Called with a sentence for each step.
    """

    def left() -> list[Difference]:
        return verifier.differences(addresses)

    addresses = list(dict.fromkeys(difference.address for difference in differences))
    _remove(verifier.root, differences)
    if has_remote:
        say("asking the remote for what is damaged or missing")
        runner.run("--quiet", "--wait-for-lock", "fetch", *addresses, read=lambda line: None)
        _remove(verifier.root, [difference for difference in left() if difference.in_cache])  # a remote may be damaged too
    for address in addresses:
        runner.run("--quiet", "--wait-for-lock", "checkout", "--force", address, read=lambda line: None)
    lost = list(dict.fromkeys(difference.address for difference in left() if not difference.in_cache))
    if not lost:
        return 0
    say(f"computing again: {', '.join(lost)}")
    return runner.repro(lost, say)


def _remove(root: Path, differences: Sequence[Difference]) -> None:
    """Delete what is damaged or was added."""
    for difference in differences:
        path = root / difference.path
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _files(top: Path) -> Iterator[Path]:
    """The files below a folder by path, or the file itself."""
    if top.is_file():
        yield top
        return
    for folder, folders, names in os.walk(top):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names) if not (name.startswith(".") and name.endswith(_NOT_DVC_S)))


def _identity(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


def _md5(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _hash_of_folder(files: dict[str, str]) -> str:
    """DVC's hash of a folder. files: name → hash."""
    listing = [{"md5": digest, "relpath": name} for name, digest in sorted(files.items())]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + _FOLDER
