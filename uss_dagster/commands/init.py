"""``uss init``: a new project, with this package as its dependency."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import echo
from uss_dagster.errors import UsageError

FILES = {
    "params.yaml": "params.yaml",
    "first.yaml": "profiles/first.yaml",
    "checkerboard.txt": "uss_plugins/methods/checkerboard.py",
    "workspace.yaml": "workspace.yaml",
    "dagster.yaml": "dagster.yaml",
    "dvc_config": ".dvc/config",
    "dvcignore": ".dvcignore",
    "leaderboard.json": ".dvc/plots/leaderboard.json",
    "gitignore": ".gitignore",
    "gitattributes": ".gitattributes",
    "ci.yml": ".github/workflows/ci.yml",
    "readme.txt": "README.md",
}
"""Files of ``uss_dagster/new_project`` → where they lie in a project."""
MAY_BE_THERE = {".git", ".venv"}
"""What a folder may hold: that of a repository that was just made, or of an environment."""


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Made if it is not there; it must be empty.", show_default=False)],
) -> None:
    """Make a project of your own.

    The folder gets a profile, an own method as an example, what git, DVC, Dagster and CI need, and its plan. `uss repro` in it computes a first
    comparison, `uss demo` the demo.
    """
    from uss_dagster.files import find_project
    from uss_dagster.planning.plan import write_plan

    root = folder.absolute()
    _check_empty(root, folder)
    if above := find_project(root.parent):
        raise UsageError(f"{folder} would lie in the project {above}. Choose a folder outside of it.")
    with_git = _init_tools(root)
    write_files(root, with_git)
    with contextlib.chdir(root):  # its own plug-ins are those of the present folder
        write_plan(root)
    echo(f"{folder} is a project. Next:")
    echo(f"  cd {folder}")
    echo("  uss repro     a first comparison; then open reports/site/index.html")
    echo("  uss demo      the demo")


def write_files(root: Path, with_git: bool = True) -> None:
    """Write the files of a new project. with_git: if not, DVC is told to go without."""
    from uss_dagster import __version__
    from uss_dagster.files import write_whole

    source = resources.files("uss_dagster") / "new_project"
    for name, place in FILES.items():
        text = source.joinpath(name).read_text(encoding="utf-8")
        if place == "README.md":
            text = text.replace("{name}", root.name)
        elif place == ".dvc/config" and not with_git:
            text = text.replace("[core]\n", "[core]\n    no_scm = true\n")
        write_whole(root / place, text)
    write_whole(root / "requirements.txt", f"uss_dagster=={__version__}\n")
    write_whole(root / "dvc.yaml", "stages: {}\n")


def _check_empty(root: Path, folder: Path) -> None:
    from uss_dagster.text import few

    if root.exists() and not root.is_dir():
        raise UsageError(f"{folder} is a file. Name a folder; it is made if it is not there.")
    names = sorted(path.name for path in root.iterdir() if path.name not in MAY_BE_THERE) if root.is_dir() else []
    if names:
        raise UsageError(f"{folder} is not empty (it holds {few(names)}). Choose another folder; nothing was changed.")


def _init_tools(root: Path) -> bool:
    """``git init``, unless the folder lies in a repository, and ``dvc init``; returns whether there is git."""
    from uss_dagster.commands.requirements import has_git
    from uss_dagster.files import make_folder

    make_folder(root)
    if shutil.which("git") and not has_git(root):
        _run(root, "git", "init", "--quiet")
    with_git = has_git(root)
    how = ["--no-scm"] if not with_git else [] if (root / ".git").exists() else ["--subdir"]
    _run(root, sys.executable, "-m", "dvc", "init", "--quiet", *how)
    return with_git


def _run(root: Path, *words: str) -> None:
    process = subprocess.run(words, cwd=root, capture_output=True, text=True)
    if process.returncode:
        reason = (process.stderr.strip() or process.stdout.strip()).splitlines()[-1:]
        raise UsageError(f"`{' '.join(words[-3:])}` failed in {root}: {''.join(reason)}")
