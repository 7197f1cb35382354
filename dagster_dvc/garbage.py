"""What of DVC's files no stage uses any more: objects of its cache, entries of its run cache, results of stages that are gone.

Nothing here removes anything. DVC's own ``gc`` says neither how large its objects are nor how much of the disk they free: with hard links,
a file is freed with its last name.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from dagster_dvc.errors import TryAgain, UsageError
from dagster_dvc.lock_copies import all_locks
from dagster_dvc.owner import only_machine
from dagster_dvc.project import LockedOut, locked_items
from dagster_dvc.runner import lock_holders
from dagster_dvc.whole_files import JsonObject

if TYPE_CHECKING:
    from dvc.repo import Repo

_FOLDER = ".dir"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
History = Mapping[str, bool | str | None]
"""Arguments of ``Repo.used_objs`` that add branches, tags, commits and experiments to the workspace."""


@contextmanager
def nobody_builds(roots: Sequence[Path]) -> Iterator[list[Repo]]:
    """Hold DVC's lock of some projects in the block, while no stage runs in any of them.

    Raises
    ------
    TryAgain
        Something is built in one of them.
    """
    from dvc.lock import LockError
    from dvc.repo import Repo

    from dagster_dvc.internals import lock_repo

    with ExitStack() as stack:
        repos = []
        for root in roots:
            stack.enter_context(only_machine(root))
            repo = stack.enter_context(Repo(str(root)))
            try:
                stack.enter_context(lock_repo(repo))
            except LockError:
                raise TryAgain(f"A process of DVC works in {root}. Try again when it has ended.") from None
            if holders := lock_holders(root):
                raise TryAgain(f"Process {next(iter(holders))} is building results in {root}. Try again when it has ended.")
            repos.append(repo)
        yield repos


def used_by(repo: Repo, history: History) -> set[str]:
    """The hashes that the stages and tracked files of a project use, in the workspace and in what ``history`` adds."""
    from dvc.exceptions import DvcException

    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of each stage that was never built
    try:
        used = repo.used_objs(force=True, **history)
    except DvcException as error:
        raise UsageError(f"DVC cannot tell what {repo.root_dir} uses: {error}.") from error
    finally:
        logger.setLevel(level)
    return {str(info.value) for infos in used.values() for info in infos}


def recorded(root: Path) -> dict[str, tuple[LockedOut, ...]]:
    """Address of a stage → its outputs, as some dvc.lock records them, also of stages that are in no dvc.yaml any more.

    Paths are taken from the root.
    """
    stages = {}
    for lock in filter(Path.is_file, all_locks(root)):
        folder = lock.parent.relative_to(root).as_posix()
        entries = (yaml.load(lock.read_bytes(), Loader=_LOADER) or {}).get("stages") or {}
        for name, entry in entries.items():
            stages[name if folder == "." else f"{folder}/dvc.yaml:{name}"] = locked_items(entry, "outs", ".")
    return stages


class Cache:
    """DVC's cache as files. folder: where it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def _tops(self) -> tuple[Path, Path]:
        """Where DVC 3 has objects, and where DVC 2 had them."""
        return self.folder / "files" / "md5", self.folder

    def objects(self) -> Iterator[tuple[str, Path]]:
        """(hash, file) of every object, and of what an interrupted write left."""
        for top in self._tops:
            for prefix in sorted(top.glob("[0-9a-f][0-9a-f]")):
                yield from ((prefix.name + path.name, path) for path in sorted(prefix.iterdir()))

    def members(self, digest: str) -> set[str] | None:
        """The hash of an output and those of the files in it; None where the cache lacks their list."""
        if not digest.endswith(_FOLDER):
            return {digest}
        paths = (top / digest[:2] / digest[2:] for top in self._tops)
        listing = next((path for path in paths if path.is_file()), None)
        return {digest, *(item["md5"] for item in json.loads(listing.read_bytes()))} if listing else None

    def dead_runs(self, present: Container[str]) -> Iterator[Path]:
        """Entries of the run cache that can restore nothing, as one of their results is not ``present``; a folder where all in it are."""
        for folder in sorted((self.folder / "runs").glob("??/*")):
            entries = sorted(folder.iterdir())
            dead = [path for path in entries if not all(out.hash in present for out in locked_items(_yaml(path), "outs", "."))]
            yield from [folder] if len(dead) == len(entries) else dead


def _yaml(path: Path) -> JsonObject:
    """The mapping in a file of YAML; empty where there is none."""
    try:
        content = yaml.load(path.read_bytes(), Loader=_LOADER)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Space:
    """Number of files, and the bytes of the disk that are free without them."""

    files: int = 0
    bytes: int = 0


class Removal:
    """Adds up what removing files and folders frees: a file that has several names is freed with the last of them."""

    def __init__(self) -> None:
        self._names: Counter[tuple[int, int]] = Counter()
        self._seen: set[Path] = set()

    def copy(self) -> Removal:
        other = Removal()
        other._names, other._seen = self._names.copy(), set(self._seen)
        return other

    def add(self, paths: Sequence[Path]) -> Space:
        """What these free in addition."""
        files = size = 0
        for path in (entry for top in paths for entry in _entries(top)):
            state = path.lstat()
            if path in self._seen:
                continue
            self._seen.add(path)
            if stat.S_ISDIR(state.st_mode):
                size += _blocks(state)
                continue
            files += 1
            self._names[state.st_dev, state.st_ino] += 1
            if self._names[state.st_dev, state.st_ino] == state.st_nlink:
                size += _blocks(state)
        return Space(files, size)


def _entries(top: Path) -> Iterator[Path]:
    """A file, or a folder with all in it; links are not followed."""
    yield top
    if top.is_dir() and not top.is_symlink():
        for folder, folders, names in os.walk(top):
            yield from (Path(folder, name) for name in (*folders, *names))


def _blocks(state: os.stat_result) -> int:
    """Bytes on the disk, which are more than the size of a short file, and fewer than that of one with holes."""
    return state.st_blocks * 512 if hasattr(state, "st_blocks") else state.st_size
