"""Publishing an artefact: write into a work folder, check it, rename it into place; or quarantine it.

The work folder's name is a hash of everything the result depends on, so that a killed run resumes: shards in it
were finished (each is written under another name first) by the same code on the same input. A failed check
moves the folder to ``quarantine/`` with the reason, and leaves what was published before untouched.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

from uss_dagster.artifacts.gate import Report
from uss_dagster.artifacts.schemas import SCHEMA_VERSION
from uss_dagster.errors import BadData, TryAgain
from uss_dagster.files import remove, whole_file
from uss_dagster.hashing import sha256_of, sha256_of_file, sha256_of_json

MANIFEST = "manifest.json"
Manifest = dict[str, Any]
"""The manifest of an artefact as plain JSON: ``schema``, ``files``, and what its stage noted."""


class ManifestFile(TypedDict):
    """What a manifest says of a file."""

    size: int
    sha256: str


class Rejected(BadData):
    """The gate refused an artefact. ``report`` is where the full verdict lies, from the project folder."""

    def __init__(self, message: str, report: Path) -> None:
        super().__init__(message)
        self.report = report


class Staging:
    """The work folder of one artefact.

    Parameters
    ----------
    private
        Folder of unfinished and refused results, ``.uss`` of a project.
    name
        Name of the artefact, such as ``segments/slic_merge/scenes``; messages say it.
    depends_on
        Any JSON value that the bytes depend on; another value means another work folder, and older ones are removed.
    """

    def __init__(self, private: Path, name: str, depends_on: object) -> None:
        self.private, self.name = private, name
        home = private / "work" / name
        key = sha256_of_json(depends_on, 16)
        for old in home.iterdir() if home.exists() else ():
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
        with whole_file(final) as partial:
            writer(partial)
        return final

    def publish(self, target: Path, report: Report, manifest: Manifest) -> None:
        """Check, and rename into the folder ``target``.

        ``manifest`` is what the manifest says beside the list of files. It must not change without the data: no times, hosts or library versions.
        """
        for leftover in self.folder.rglob(".*.partial"):
            leftover.unlink(missing_ok=True)
        report.write(self.folder)
        if not report.success:
            raise self._quarantine(report)
        (self.folder / MANIFEST).unlink(missing_ok=True)
        (self.folder / MANIFEST).write_text(manifest_text(self.folder, manifest), encoding="utf-8")
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(self.folder, target)
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _quarantine(self, report: Report) -> Rejected:
        folder = self.private / "quarantine" / self.name
        remove(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self.folder, folder)
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        reasons = report.reasons()
        more = f" (and {len(reasons) - 1} more broken rules)" if len(reasons) > 1 else ""
        relative = folder.relative_to(self.private.parent).as_posix()
        return Rejected(
            f"{self.name} was refused: {reasons[0]}{more} The refused result and its full report lie in {relative}; the last good one stays.",
            Path(relative) / "validation.json",
        )


def manifest_text(folder: Path, manifest: Manifest) -> str:
    """The manifest of a folder: schema version, what the stage notes, and every file with size and sha256, sorted."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256_of_file(path)}
    return json.dumps({"schema": SCHEMA_VERSION, **manifest, "files": files}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_manifest(folder: Path, part: str = "") -> Manifest:
    """The manifest of a published artefact, refused when the artefact is absent, of another schema, or incomplete.

    part: the file or folder of it, with forward slashes, whose files must be there; all by default.
    """
    path = folder / MANIFEST
    try:
        manifest: Manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TryAgain(f"{folder} is not there. Run its stage first (`dvc repro` runs everything in order), or `dvc checkout`.") from None
    except ValueError as error:
        raise BadData(f"{path} is not JSON ({error}). Run `dvc checkout --force` or its stage again.") from error
    except RecursionError:
        raise BadData(f"{path} is nested too deeply to be a manifest. Run `dvc checkout --force` or its stage again.") from None
    if not isinstance(manifest, dict) or not _files_with_sizes(manifest.get("files", {})):
        raise BadData(f"{path} is no manifest of an artefact. Run `dvc checkout --force` or its stage again.")
    if manifest.get("schema") != SCHEMA_VERSION or "files" not in manifest:
        raise BadData(f"{path} is of schema {manifest.get('schema')}, this version reads {SCHEMA_VERSION}. Run its stage again.")
    for name, expected in files_of(manifest, part).items():
        file = folder / name
        size = file.stat().st_size if file.exists() else None
        if size != expected["size"]:
            state = "is missing" if size is None else f"has {size} bytes"
            raise BadData(f"{file} {state}, its manifest says {expected['size']} bytes. Run `dvc checkout --force` or its stage again.")
    return manifest


def _files_with_sizes(files: object) -> bool:
    return isinstance(files, dict) and all(isinstance(facts, dict) and "size" in facts for facts in files.values())


def files_of(manifest: Manifest, part: str = "") -> dict[str, ManifestFile]:
    """Name → size and hash of the files that a manifest lists. part: only this file, or those in this folder."""
    files: dict[str, ManifestFile] = manifest["files"]
    return {name: entry for name, entry in files.items() if not part or name == part or name.startswith(f"{part}/")}


def content_id(folder: Path) -> str:
    """A hash that changes exactly when the artefact's content does."""
    read_manifest(folder)
    return sha256_of((folder / MANIFEST).read_bytes())


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
