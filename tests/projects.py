"""A real project in a temporary folder: the package's source, dvc.yaml, a small profile, git, DVC."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

import uss_dagster

SOURCE = Path(uss_dagster.__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
COPIED = ("dvc.yaml", "workspace.yaml", "dagster.yaml", ".dvcignore", ".gitignore")

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
            **self.env,
        }

    def run(self, *words: str, code: int | None = 0, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the project; its exit code must be ``code`` (any, where None)."""
        done = subprocess.run(words, cwd=self.root, env={**self.env, **env}, capture_output=True, text=True, timeout=timeout)
        if code is not None and done.returncode != code:
            raise AssertionError(f"{' '.join(words)} exited with {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}")
        return done

    def uss(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(str(BIN / "uss"), *words, code=code, **env)

    def dvc(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "dvc", *words, code=code, **env)

    def dagster(self, *words: str, code: int | None = 0, **env: str) -> subprocess.CompletedProcess[str]:
        home = self.root / ".dagster"
        home.mkdir(exist_ok=True)
        shutil.copyfile(self.root / "dagster.yaml", home / "dagster.yaml")
        return self.run(sys.executable, "-m", "dagster", *words, code=code, DAGSTER_HOME=str(home), **env)

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert old in text, f"{path} does not contain {old!r}"
        file.write_text(text.replace(old, new, 1), encoding="utf-8")

    def append(self, path: str, text: str) -> None:
        file = self.root / path
        file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")

    def lock(self) -> dict[str, dict]:
        """Stage → what dvc.lock records of its outputs."""
        path = self.root / "dvc.lock"
        if not path.exists():
            return {}
        return {name: stage.get("outs", []) for name, stage in yaml.safe_load(path.read_text(encoding="utf-8"))["stages"].items()}

    def repro(self, *targets: str, code: int | None = 0, **env: str) -> list[str]:
        """`uss repro`; returns the stages that DVC executed, in order."""
        return executed(self.uss("repro", *targets, code=code, **env).stdout)


def executed(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def make_project(root: Path, profile: str = SMALL) -> Project:
    """An empty project (nothing computed yet) around a copy of the package."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(SOURCE / "uss_dagster", root / "uss_dagster", ignore=shutil.ignore_patterns("*.pyc"))
    for name in COPIED:
        shutil.copyfile(SOURCE / name, root / name)
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copyfile(SOURCE / ".dvc" / name, root / ".dvc" / name)
    (root / "profiles").mkdir()
    (root / "profiles" / "small.yaml").write_text(profile, encoding="utf-8")
    (root / "params.yaml").write_text("profile: small\n", encoding="utf-8")
    project = Project(root)
    project.run("git", "init", "-q")
    project.uss("plan")
    return project


def copy_project(source: Project, root: Path) -> Project:
    """A copy with everything computed; the cache is shared through hard links, as DVC itself would."""
    subprocess.run(["cp", "-al", str(source.root), str(root)], check=True)
    # What tests and stages write in place must not be linked to the original.
    for part in ("uss_dagster", "profiles", ".git", ".dvc/config", ".dvc/tmp"):
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
