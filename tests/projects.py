"""A real project in a temporary folder: the package's source, dvc.yaml, a small profile, git, DVC."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import warm
import yaml

import uss_dagster
from uss_dagster import cli
from uss_dagster.planning.cells import Cell
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Plan, make_plan
from uss_dagster.planning.profiles import read_profile

SOURCE = Path(uss_dagster.__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PACKAGES = ("uss_dagster", "dagster_dvc")
COPIED = ("workspace.yaml", "dagster.yaml", ".dvcignore", ".gitignore")

SMALL = """\
title: A few small pictures, for tests
settings: {shard_images: 2, bootstrap: 20, samples: 2}
datasets:
  scenes: {images: 4}
backbones:
  patches: {dictionary: false}
metrics: [covering]
entries:
  kmeans: {backbone: patches, params: {k: 4}}
  felzenszwalb: {params: {scales: 3}}
  slic_merge: {backbone: patches, params: {superpixels: 60}}
"""


@dataclass
class Project:
    """A project folder and the ways people run it."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("DVC_", "DAGSTER_", "USS_"))}
        path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
        # The copy of the package in the project is what runs, not the installed one.
        self.env = {
            **kept,
            "PATH": path,
            "PYTHONPATH": str(self.root),
            "DVC_NO_ANALYTICS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "USS_WORKERS": "1",
            "USS_FORK": "0",  # `_program` does the same, sooner
            **self.env,
        }

    def run(self, *words: str, code: int | None = 0, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the project; its exit code must be ``code`` (any, where None)."""
        done = subprocess.run(words, cwd=self.root, env={**self.env, **env}, capture_output=True, text=True, timeout=timeout)
        return _checked(done, code)

    def uss(self, *words: str, code: int | None = 0, cold: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
        return self._program("uss", *words, code=code, cold=cold, **env)

    def uss_here(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        """The same in this process, which has the libraries and plug-ins: for projects whose copy of the package is not edited.

        Warnings go to standard error, those that Python shows by default.
        """
        out, err, number = io.StringIO(), io.StringIO(), 0
        handlers = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
        with (
            contextlib.chdir(self.root),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.dict(os.environ, {**self.env, **env}, clear=True),
            mock.patch.object(sys, "argv", ["uss", *words]),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.resetwarnings()
            for hidden in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", hidden)
            try:
                cli.main()
            except SystemExit as ended:
                number = int(ended.code or 0)
            finally:
                for name, handler in handlers.items():
                    signal.signal(name, handler)
        said = err.getvalue() + "".join(f"{warning.category.__name__}: {warning.message}\n" for warning in caught)
        return _checked(subprocess.CompletedProcess(["uss", *words], number, out.getvalue(), said), code)

    def dvc(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        return self._program("dvc", *words, code=code, **env)

    def dagster(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        home = self.root / ".dagster"
        home.mkdir(exist_ok=True)
        shutil.copyfile(self.root / "dagster.yaml", home / "dagster.yaml")
        self.env["DAGSTER_HOME"] = str(home)
        return self._program("dagster", *words, code=code, **env)

    def _program(self, *words: str, code: int | None, cold: bool = False, **env: str) -> subprocess.CompletedProcess[str]:
        """From a process with the libraries imported (see ``warm``), unless ``cold`` or in an environment that they may look at."""
        if cold or any(not name.startswith(("USS_", "HF_")) for name in env):
            return self.run(str(BIN / words[0]), *words[1:], code=code, **env)
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            folder, environment = str(_warm_server().folder), {**self.env, **env}
            number = warm.call(folder, list(words), str(self.root), environment, out.fileno(), err.fileno(), timeout=900)
            out.seek(0)
            err.seek(0)
            return _checked(subprocess.CompletedProcess(words, number, out.read(), err.read()), code)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} does not contain {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        file = self.root / path
        file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")

    def locks(self) -> dict[str, bytes]:
        """Every dvc.lock by its path in the project."""
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in sorted(self.root.rglob("dvc.lock"))}

    def locked(self) -> dict[str, dict]:
        """Name of a cell → what its dvc.lock records of it."""
        stages = {}
        for path, text in self.locks().items():
            folder = path.removesuffix("dvc.lock")
            for name, stage in yaml.safe_load(text)["stages"].items():
                stages[cell_name(f"{folder}dvc.yaml:{name}" if folder else name)] = stage
        return stages

    def lock(self) -> dict[str, list]:
        """Name of a cell → what dvc.lock records of its outputs."""
        return {name: stage.get("outs", []) for name, stage in self.locked().items()}

    def repro(self, *targets: str, code: int | None = 0, cold: bool = False, **env: str) -> list[str]:
        """`uss repro`; returns the names of the cells that DVC ran, in order."""
        return executed(self.uss("repro", *targets, code=code, cold=cold, **env).stdout)


def tree_hash(folder: Path) -> dict[str, str]:
    """Digest of every file in a folder, by its path there."""
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def run_cells(root: Path, *stages: type[Cell]) -> Plan:
    """Plan a project and compute, in this process, the cells of these stages that have no artefact yet."""
    plan, layout = make_plan(read_profile(root), root), Layout(root)
    for stage in stages:
        for cell in plan.of(stage):
            if not cell.artefact(layout).exists():
                cell.run(layout)
    return plan


def of_results(locks: dict[str, bytes]) -> dict[str, bytes]:
    """Locks without that of the plan, which changes with every edit of the code, also where nothing is computed."""
    return {path: text for path, text in locks.items() if path != "pipelines/dvc.lock"}


def executed(output: str) -> list[str]:
    """Names of the cells that DVC ran, in order; the check of the plan, which runs after every edit, is left out."""
    names = [cell_name(address) for address in re.findall(r"Running stage '([^']+)'", output)]
    return [name for name in names if name != "plan"]


def cell_name(address: str) -> str:
    """'pipelines/scenes/kmeans/dvc.yaml:scores' → 'scores/kmeans/scenes'."""
    file, _, stage = address.rpartition(":")
    parts = file.split("/")[1:-1]  # dataset, and perhaps entry
    if len(parts) == 2:
        return f"{stage}/{parts[1]}/{parts[0]}"
    if parts and stage == "datasets":
        return f"datasets/{parts[0]}"
    kind, _, name = stage.partition("-")
    return f"features/{name}/{parts[0]}" if kind == "features" else stage.replace("-", "/")


def _checked(done: subprocess.CompletedProcess[str], code: int | None) -> subprocess.CompletedProcess[str]:
    if code is not None and done.returncode != code:
        raise AssertionError(f"{' '.join(done.args)} exited with {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}")
    return done


@functools.cache
def _warm_server() -> warm.Warm:
    return warm.Warm()


def make_project(root: Path, profile: str = SMALL) -> Project:
    """An empty project (nothing computed yet) around a copy of the package."""
    root.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(_planned(profile), root, dirs_exist_ok=True)
    return Project(root)


@functools.cache
def _planned(profile: str) -> Path:
    """The project to copy, once for each profile."""
    folder = tempfile.mkdtemp(prefix="project-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    root = Path(folder)
    for package in PACKAGES:
        shutil.copytree(SOURCE / package, root / package, ignore=shutil.ignore_patterns("tests"))
    for name in COPIED:
        shutil.copyfile(SOURCE / name, root / name)
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copyfile(SOURCE / ".dvc" / name, root / ".dvc" / name)
    (root / "profiles").mkdir()
    (root / "profiles" / "small.yaml").write_text(profile, encoding="utf-8")
    (root / "params.yaml").write_text("profile: small\n", encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    project = Project(root)
    project.run("git", "init", "-q")
    project.uss("plan")
    return root


def copy_project(source: Project, root: Path) -> Project:
    """A copy with everything computed; the cache is shared through hard links, as DVC itself would."""
    subprocess.run(["cp", "-al", str(source.root), str(root)], check=True)
    # What tests and stages write in place must not be linked to the original.
    for part in (*PACKAGES, "profiles", "pipelines", ".git", ".dvc/config", ".dvc/tmp"):
        path, original = root / part, source.root / part
        if original.is_dir():
            shutil.rmtree(path)
            shutil.copytree(original, path)
        elif original.exists():
            path.unlink()
            shutil.copyfile(original, path)
    for path in root.iterdir():
        if path.is_file():
            path.unlink()
            shutil.copyfile(source.root / path.name, path)
    return Project(root)
