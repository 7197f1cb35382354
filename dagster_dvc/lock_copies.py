"""The last good copy of every dvc.lock, its return where the file was damaged, and the order of its stages.

DVC empties a dvc.lock before it writes it. A kill or a full disk in between leaves an empty file, or one without its last stages; DVC then
reads no stage at all, or computes again what was computed. DVC appends the stages of a new lock in an order that depends on
PYTHONHASHSEED.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from dagster_dvc.errors import UsageError
from dagster_dvc.project import dvc_idle
from dagster_dvc.whole_files import whole_file

LOCK = "dvc.lock"
COPIES = Path(".dvc") / "tmp" / "lock-copies"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NO_HASH = {"path", "hash", "size", "nfiles"}
_CONFLICT = b"<<<<<<<"
_NEVER_ENTERED = ("data", "reports", "node_modules", "__pycache__")


def check_locks(root: Path) -> list[str]:
    """Copy every dvc.lock that changed, and restore every one that is damaged; returns a sentence for each one restored.

    Raises
    ------
    UsageError
        Something that is no file has the name of a lock.
    """
    sentences = []
    with dvc_idle(root):  # nobody is writing one now
        for lock in _locks(root):
            if sentence := _check(root, lock):
                sentences.append(sentence)
    return sentences


def copy_lock(root: Path, lock: Path) -> None:
    """Copy one dvc.lock where it changed and is good; does nothing where it is absent or damaged, or copies cannot be written."""
    copy = _copy_of(root, lock)
    try:
        if lock.is_file() and not _same(lock, copy) and _is_good(lock.read_bytes(), _read(copy)):
            _replace(lock, copy)
    except OSError:
        return


def _check(root: Path, lock: Path) -> str:
    copy = _copy_of(root, lock)
    name = lock.relative_to(root).as_posix()
    if lock.is_dir():
        raise UsageError(
            f"{name} is a folder, but DVC writes a file of this name. Remove it; `git checkout {name}` brings a committed one back."
        )
    for partial in lock.parent.glob(f".{LOCK}.*.partial"):  # of a run that was killed
        partial.unlink(missing_ok=True)
    if _same(lock, copy):
        return ""
    text, good = lock.read_bytes(), _read(copy)
    if _is_good(text, good):
        copy_lock(root, lock)
        return ""
    if _CONFLICT in text:  # a merge that a person has to end; DVC says so
        return ""
    if good:
        _replace(copy, lock)
        return f"{name} was damaged, most likely by a killed run or a full disk; its last good copy was restored."
    damaged = copy.with_suffix(".damaged")
    damaged.parent.mkdir(parents=True, exist_ok=True)
    os.replace(lock, damaged)
    return (
        f"{name} was damaged and has no good copy; it was moved to {damaged.relative_to(root)}. `git checkout {name}` gets a committed one."
    )


def sort_locks(root: Path) -> None:
    """Order the stages of every good dvc.lock by their names, and copy what changed; does nothing while DVC may be writing one."""
    with dvc_idle(root) as idle:
        for lock in _locks(root) if idle else ():
            text = _read(lock)
            if lock.is_file() and _is_good(text, b"") and (ordered := _in_order(text)) != text:
                with whole_file(lock) as partial:
                    partial.write_bytes(ordered)
                _replace(lock, _copy_of(root, lock))


def _in_order(text: bytes) -> bytes:
    """A lock as DVC writes it, with its stages by name: each begins with its name, indented by two spaces, on a line of its own."""
    section = re.search(rb"^stages:\n((?: .*\n)*)", text, re.M)
    if section is None:
        return text
    stages = re.split(rb"^(?=  [^ ])", section[1], flags=re.M)
    ordered = sorted(stages, key=lambda stage: stage.partition(b":\n")[0].strip(b" '\""))
    return text[: section.start(1)] + b"".join(ordered) + text[section.end(1) :]


def _is_good(text: bytes, before: bytes) -> bool:
    """Whether a lock is whole. before: its last good version; the beginning of that one alone is what an unfinished write leaves."""
    try:
        content = yaml.load(text, Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError):
        return False
    if not isinstance(content, dict) or not isinstance(stages := content.get("stages"), dict):
        return False
    if len(text) < len(before) and before.startswith(text):
        return False
    return text.endswith(b"\n") and bool(stages or content.get("datasets")) and all(map(_is_whole, stages.values()))


def _is_whole(stage: object) -> bool:
    """Whether each file of a stage's entry has its path and a hash."""
    if not isinstance(stage, dict) or not stage.get("cmd"):
        return False
    items = [item for section in ("deps", "outs") for item in stage.get(section) or ()]
    return all(isinstance(item, dict) and "path" in item and item.keys() - _NO_HASH for item in items)


def _locks(root: Path) -> Iterator[Path]:
    """Everything called dvc.lock in folders with a dvc.yaml, see ``all_locks``."""
    return (lock for lock in all_locks(root) if lock.with_name("dvc.yaml").is_file())


def old_copies(root: Path) -> list[Path]:
    """Copies of locks that are gone, and damaged locks that were set aside; sorted."""
    top = root / COPIES
    copies = {path: root / path.relative_to(top).with_suffix("") for path in sorted(top.rglob("*")) if path.is_file()}
    return [path for path, lock in copies.items() if path.suffix == ".damaged" or not lock.exists()]


def all_locks(root: Path) -> Iterator[Path]:
    """Everything called dvc.lock, sorted; hidden folders and those of results are not entered."""
    for folder, folders, names in os.walk(root):
        if LOCK in (*names, *folders):
            yield Path(folder, LOCK)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _NEVER_ENTERED and name != LOCK)


def _copy_of(root: Path, lock: Path) -> Path:
    copy = root / COPIES / lock.relative_to(root)
    return copy.with_name(f"{copy.name}.copy")  # no search for dvc.lock meets it


def _same(lock: Path, copy: Path) -> bool:
    """Whether size and time of both are equal, as after copying."""
    try:
        one, other = lock.stat(), copy.stat()
    except OSError:
        return False
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _replace(source: Path, target: Path) -> None:
    """Copy a file with its time, so that the target exists only when whole."""
    with whole_file(target) as partial:
        shutil.copy2(source, partial)
