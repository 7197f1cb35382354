"""What the lock files of DVC record in the commits of a project: which stage wrote what, from which inputs and which parameters.

Belongs here: reading git. Does not belong here: what changed from one commit to the next (``history``), DVC's cache (``artifacts.dvc_cache``).

Two layouts are read. Now each pipeline has a lock file, and a stage's parameters are in a file of its own, which is one of its inputs.
Older commits have one ``dvc.lock``, which holds the parameters of each stage itself.
"""

from __future__ import annotations

import datetime
import io
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from uss_dagster.files import parse_yaml
from uss_dagster.planning.layout import PIPELINES

LOCK = "dvc.lock"
MOST_COMMITS = 60
"""Commits that are read, the newest."""
UNCOMMITTED = "now"


@dataclass(frozen=True)
class RecordedStage:
    """A stage as a lock file records it.

    Parameters
    ----------
    output : str
        Path of its artefact, for example ``data/segments/kmeans/scenes``.
    version : str
        DVC's hash of the artefact.
    inputs : mapping of str to str
        Path of each dependency to its hash.
    parameters : mapping
        Its parameters, where the lock file itself holds them.
    """

    output: str
    version: str
    inputs: Mapping[str, str]
    parameters: Mapping[str, object]

    @property
    def name(self) -> str:
        """Name of the stage: ``segments`` for the artefact ``data/segments/kmeans/scenes``."""
        return (*PurePosixPath(self.output).parts, "", "")[1]

    @property
    def file(self) -> str:
        """Path of its parameter file; empty where the lock file holds the parameters."""
        return next((path for path in self.inputs if path.startswith(f"{PIPELINES}/") and path.endswith(".yaml")), "")


@dataclass(frozen=True)
class Commit:
    """A commit of a project, or its files on the disk.

    Parameters
    ----------
    root : Path
        The project.
    name : str
        Short hash, or ``UNCOMMITTED``.
    date, subject : str
        Of the commit; the date as YYYY-MM-DD, empty where uncommitted.
    """

    root: Path
    name: str
    date: str
    subject: str

    @cached_property
    def files(self) -> Mapping[str, str]:
        """The texts of the lock files and parameter files, by path."""
        if self.name == UNCOMMITTED:
            paths = [self.root / LOCK, *(self.root / PIPELINES).rglob(LOCK), *(self.root / PIPELINES).rglob("*.yaml")]
            return {path.relative_to(self.root).as_posix(): path.read_text(encoding="utf-8") for path in paths if path.exists()}
        parts = _git(self.root, "ls-tree", "--name-only", self.name, "--", LOCK, PIPELINES).decode().splitlines()
        archive = _git(self.root, "archive", "--format=tar", self.name, "--", *parts) if parts else b""
        if not archive:
            return {}
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return {member.name: tar.extractfile(member).read().decode() for member in tar if member.isfile()}  # type: ignore[union-attr]

    @cached_property
    def stages(self) -> Mapping[str, RecordedStage]:
        """The recorded stages by the path of their artefact."""
        locks = [text for path, text in sorted(self.files.items()) if path.rpartition("/")[2] == LOCK]
        return {stage.output: stage for text in locks for stage in _stages_of(text)}

    @cached_property
    def leaderboard(self) -> str:
        """DVC's hash of the leaderboard; empty where none is recorded. Found without parsing the file, which can be long."""
        lock = _git(self.root, "show", f"{self.name}:./{LOCK}").decode() if self.name != UNCOMMITTED else self.files[LOCK]
        match = re.search(r"^    outs:\n    - path: reports/leaderboard\n(?:      .*\n)*?      md5: (\w+\.dir)$", lock, re.MULTILINE)
        return match.group(1) if match else ""

    def parameters(self, stage: RecordedStage) -> dict[str, object]:
        """The parameters of a stage, sections as ``section.name``; the words of the file's structure are left out."""
        return dict(_flat(parse_yaml(self.files.get(stage.file, "")) or {} if stage.file else stage.parameters))


def commits(root: Path) -> Iterator[Commit]:
    """The commits that changed the project's lock file, oldest first, and the files on the disk last."""
    log = _git(root, "log", f"-n{MOST_COMMITS}", "--format=%h%x1f%ct%x1f%s", "--", LOCK).decode("utf-8", "replace")
    for line in reversed(log.splitlines()):
        name, seconds, subject = line.split("\x1f", 2)
        yield Commit(root, name, datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).date().isoformat(), subject)
    if (root / LOCK).exists():
        yield Commit(root, UNCOMMITTED, "", "not committed")


def _stages_of(lock: str) -> Iterator[RecordedStage]:
    for stage in ((parse_yaml(lock) or {}).get("stages") or {}).values():
        if outputs := stage.get("outs"):
            inputs = {_today(item["path"]): str(item.get("md5", "")) for item in stage.get("deps") or []}
            parameters: Mapping[str, object] = next(iter(((stage.get("params") or {}).get("grid.yaml") or {}).values()), {})
            yield RecordedStage(_today(outputs[0]["path"]), str(outputs[0].get("md5", "")), inputs, parameters)


def _today(path: str) -> str:
    """A path of an old commit as it is called today."""
    return re.sub(r"^data/pool/", "data/mask_pool/", path)


def _flat(values: Mapping[str, object], section: str = "") -> Iterator[tuple[str, object]]:
    """Names and values without nesting. ``params`` and ``name`` are structure: ``method.params.k`` is k, ``method.name`` is method."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, "" if key == "params" else f"{section}{key}.")
        else:
            yield section.rstrip(".") if key == "name" and section else section + key, None if value == "" else value


def _git(root: Path, *words: str) -> bytes:
    """The output of git; empty where there is no git, no repository, or no such file."""
    try:
        run = subprocess.run(["git", *words], cwd=root, capture_output=True, check=False)
    except OSError:
        return b""
    return run.stdout if run.returncode == 0 else b""
