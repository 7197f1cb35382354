"""``uss repro``: plan, then `dvc repro`, with one sentence for each way the tools around it can be missing or busy."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from uss_dagster.errors import UsageError


def tool_environment() -> dict[str, str]:
    """The environment in which stages find the programs of this interpreter, quiet and without analytics."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment.update({"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"})
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment


def check_tools(root: Path) -> None:
    """Refuse, with what to do, when DVC cannot work here."""
    if importlib.util.find_spec("dvc") is None:
        raise UsageError("DVC is not installed beside uss. Run `make setup`, or `pip install -c constraints.txt -e .`.")
    if not (root / ".dvc").is_dir():
        raise UsageError(f"{root} has no .dvc folder. Run `dvc init` there (`dvc init --no-scm` without git).")
    if not has_git(root) and not no_scm(root):
        why = "git is not installed" if shutil.which("git") is None else f"{root} is not a git repository"
        raise UsageError(f"DVC needs git here, and {why}. Run `git init`, or go without: `dvc config --local core.no_scm true`.")


def has_git(root: Path) -> bool:
    return shutil.which("git") is not None and any((p / ".git").exists() for p in (root, *root.parents))


def no_scm(root: Path) -> bool:
    """Whether DVC is told to work without git, in the shared or the local configuration."""
    import configparser

    parser = configparser.ConfigParser()
    parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    return parser.getboolean("core", "no_scm", fallback=False)


def dvc(root: Path, *words: str) -> int:
    """Run DVC in the project folder, output passed through; returns its exit code."""
    return subprocess.call([sys.executable, "-m", "dvc", *words], cwd=root, env=tool_environment())


def repro(root: Path, targets: list[str]) -> int:
    """Bring targets (all, when none are named) up to date; a lock held by another run is waited for."""
    check_tools(root)
    return dvc(root, "--wait-for-lock", "repro", *targets)
