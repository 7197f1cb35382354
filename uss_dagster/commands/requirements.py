"""What a project and this machine must have for DVC to run."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from dagster_dvc.remotes import EXTRAS, lacks_extra
from uss_dagster.errors import UsageError


def check_tools(root: Path) -> None:
    """Refuse, with what to do, when DVC cannot work in this project."""
    if importlib.util.find_spec("dvc") is None:
        raise UsageError("DVC is not installed beside uss. Run `pip install uss_dagster` (in a clone `make setup`).")
    if not (root / ".dvc").is_dir():
        raise UsageError(f"{root} has no .dvc folder. Run `dvc init` there (`dvc init --no-scm` without git).")
    if not has_git(root) and not no_scm(root):
        why = "git is not installed" if shutil.which("git") is None else f"{root} is not a git repository"
        raise UsageError(f"DVC needs git here, and {why}. Run `git init`, or go without: `dvc config --local core.no_scm true`.")


def unusable_remotes(root: Path) -> Iterator[tuple[str, str]]:
    """(name, sentence) of each remote for which a package is missing."""
    for name, url in remotes(root).items():
        kind = url.partition("://")[0]
        if kind in EXTRAS and importlib.util.find_spec(f"dvc_{kind}") is None:
            yield name, lacks_extra(name, url, kind)


def remotes(root: Path) -> dict[str, str]:
    """Name → address of the project's remotes."""
    from uss_dagster.artifacts.dvc_cache import dvc_settings

    settings = dvc_settings(root)
    named = {section: re.fullmatch(r"""['"]?remote "?(.+?)"?['"]?""", section) for section in settings.sections()}
    return {name[1]: settings.get(section, "url", fallback="") for section, name in named.items() if name}


def has_git(root: Path) -> bool:
    """Whether git is installed and the folder lies in a repository."""
    return shutil.which("git") is not None and any((folder / ".git").exists() for folder in (root, *root.parents))


def no_scm(root: Path) -> bool:
    """Whether DVC is told to work without git, in the shared or the local configuration."""
    from uss_dagster.artifacts.dvc_cache import dvc_settings

    return dvc_settings(root).getboolean("core", "no_scm", fallback=False)
