"""Publishing an artefact: write into a work folder, gate it, rename it into place; or quarantine it.

The work folder's name is a hash of everything the result depends on, so that a killed run resumes: shards found there
were finished (each is written under another name first) by the same code on the same input. A failed gate
moves the folder to ``.uss/quarantine`` with the reason, and leaves what was published before untouched.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uss_dagster.artifacts.gate import Report
from uss_dagster.artifacts.schemas import SCHEMA_VERSION
from uss_dagster.errors import BadData, TryAgain

MANIFEST = "manifest.json"
PRIVATE = Path(".uss")
"""Holds work folders, quarantine and facts about runs; never hashed, never committed, safe to delete."""


class Rejected(BadData):
    """The gate refused an artefact. ``report`` is where the full verdict lies, from the project folder."""

    def __init__(self, message: str, report: Path) -> None:
        super().__init__(message)
        self.report = report


class Staging:
    """The work folder of one artefact.

    what: 'segments slic_merge__scenes', for messages. depends_on: anything JSON that the bytes depend on; another
    value means another work folder, and older ones of the same artefact are removed.
    """

    def __init__(self, root: Path, what: str, depends_on: Any) -> None:
        self.root, self.what = root, what
        self.slug = what.replace(" ", "-")
        key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
        home = root / PRIVATE / "work" / self.slug
        if home.exists():
            for old in home.iterdir():
                if old.name != key:
                    shutil.rmtree(old, ignore_errors=True)
        self.folder = home / key
        self.folder.mkdir(parents=True, exist_ok=True)

    def has(self, name: str) -> bool:
        """A file (and, for shards, what came before it) was finished by an earlier, interrupted run."""
        return (self.folder / name).exists()

    def write(self, name: str, writer: Callable[[Path], None]) -> Path:
        """Write one file so that it exists only when whole."""
        final = self.folder / name
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
        try:
            writer(partial)
            os.replace(partial, final)
        finally:
            partial.unlink(missing_ok=True)
        return final

    def publish(self, target: Path, report: Report, facts: dict[str, Any]) -> None:
        """Gate and rename into ``target`` (a folder). ``facts``: what the manifest says beside the list of files.

        Facts must not change without the data: no times, hosts or library versions.
        """
        for leftover in self.folder.rglob(".*.partial"):
            leftover.unlink(missing_ok=True)
        report.write(self.folder)
        if not report.success:
            raise self._quarantine(report)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        (self.folder / MANIFEST).write_text(manifest_text(self.folder, facts), encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(self.folder, target)
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _quarantine(self, report: Report) -> Rejected:
        where = self.root / PRIVATE / "quarantine" / self.slug
        remove(where)
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self.folder, where)
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        reasons = report.reasons()
        more = f" (and {len(reasons) - 1} more broken rules)" if len(reasons) > 1 else ""
        shown = where.relative_to(self.root).as_posix()
        return Rejected(
            f"{self.what} was refused: {reasons[0]}{more} The bad artefact and its full report lie in {shown}; dvc.lock still names the last good one.",
            Path(shown) / "validation.json",
        )


def manifest_text(folder: Path, facts: dict[str, Any]) -> str:
    """The manifest of a folder: schema version, facts, and every file with size and sha256, sorted."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with open(path, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": digest}
    return json.dumps({"schema": SCHEMA_VERSION, **facts, "files": files}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published artefact, refused when the artefact is absent, of another schema, or incomplete."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TryAgain(f"{folder} is not there. Run its stage first (`dvc repro` runs everything in order), or `dvc checkout`.") from None
    except ValueError as error:
        raise BadData(f"{path} is not JSON ({error}). Run `dvc checkout --force` or its stage again.") from error
    if manifest.get("schema") != SCHEMA_VERSION:
        raise BadData(f"{path} is of schema {manifest.get('schema')}, this version reads {SCHEMA_VERSION}. Run its stage again.")
    for name, expected in manifest["files"].items():
        file = folder / name
        size = file.stat().st_size if file.exists() else None
        if size != expected["size"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise BadData(f"{file} {found}, its manifest says {expected['size']} bytes. Run `dvc checkout --force` or its stage again.")
    return manifest


def content_id(folder: Path) -> str:
    """A hash that changes exactly when the artefact's content does."""
    read_manifest(folder)
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def replace_folder(folder: Path, target: Path) -> None:
    """Put a folder in the place of another. What was there is only moved aside until the new one stands."""
    beside, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    remove(beside)
    remove(old)
    try:
        try:
            os.replace(folder, beside)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copytree(folder, beside)  # another file system
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(beside, target)
        except BaseException:
            if old.exists():
                os.replace(old, target)
            raise
    except BaseException:
        remove(beside)
        raise
    remove(old)
    remove(folder)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there; links are cut, not followed."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
