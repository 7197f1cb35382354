"""``uss merge-lock``: git's merge driver for the dvc.lock files and for the files that ``uss plan`` writes.

In a lock, what one side changed is taken stage by stage; where both changed the same stage, ours is kept and the stage is named: DVC sees
that its recorded dependencies are not those of the merged tree, and runs it. Of a planned file that both sides changed, ours is kept:
``uss plan`` writes it again from the merged profile and code.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import echo_lines
from uss_dagster.errors import BadData, UsageError

DRIVER = "uss-merge-lock"
LOCK = "dvc.lock"
MERGED = (LOCK, "/dvc.yaml", "/pipelines/**/*.yaml")
"""Patterns of git: every lock, the project's own dvc.yaml, and what is planned below pipelines/."""
_MISSING = object()
_STAGE_LEVEL = 2
"""``stages`` and the names below it are merged; the entry of a stage is taken whole."""


def merge_lock(
    files: Annotated[list[str] | None, typer.Argument(metavar="BASE OURS THEIRS PATH", help="As git calls it.", show_default=False)] = None,
    install: Annotated[bool, typer.Option("--install", help="Tell git, in this clone, to merge with this.")] = False,
) -> None:
    """Merge dvc.lock and planned files, stage by stage (for git)."""
    from uss_dagster.planning.profiles import find_root

    if install:
        echo_lines(install_driver(find_root()))
        return
    if files is None or len(files) != 4:
        raise UsageError(
            f"merge-lock takes four files (base, ours, theirs, path), as git gives them, got {len(files or [])}; or --install."
        )
    base, ours, theirs, name = files
    for line in merge_files(Path(base), Path(ours), Path(theirs), name):
        typer.echo(line, err=True)


def install_driver(root: Path) -> list[str]:
    """Tell git, in this clone, to merge with this driver; returns a line for each change."""
    from uss_dagster.files import write_whole

    interpreter = shlex.quote(sys.executable).replace("%", "%%")  # git need not have our programs on its PATH
    commands = {
        f"merge.{DRIVER}.name": "dvc.lock stage by stage, planned files by `uss plan`",
        f"merge.{DRIVER}.driver": f"{interpreter} -P -m uss_dagster.cli merge-lock %O %A %B %P",
    }
    for name, value in commands.items():
        done = subprocess.run(["git", "config", name, value], cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise UsageError(f"git does not take the setting {name} in {root}: {done.stderr.strip() or 'is this a git repository?'}")
    attributes = root / ".gitattributes"
    text = attributes.read_text(encoding="utf-8") if attributes.exists() else ""
    missing = [line for pattern in MERGED if (line := f"{pattern} merge={DRIVER}") not in text.splitlines()]
    if missing:
        write_whole(attributes, "".join([text, "" if not text or text.endswith("\n") else "\n", *(f"{line}\n" for line in missing)]))
    return [f"git merges {', '.join(MERGED)} with `uss merge-lock` in this clone.", *(f".gitattributes: {line}" for line in missing)]


def merge_files(base: Path, ours: Path, theirs: Path, name: str) -> list[str]:
    """Merge three versions of one file into ``ours``, as git asks of a driver; returns a line for each thing to do afterwards.

    Parameters
    ----------
    base, ours, theirs
        The versions. ``ours`` is rewritten.
    name
        The file's path in the repository.
    """
    from uss_dagster.files import write_whole
    from uss_dagster.planning.plan import HEADER

    if Path(name).name == LOCK:
        conflicts: list[str] = []
        merged = _merge(_read(base, name), _read(ours, name), _read(theirs, name), _STAGE_LEVEL, "", conflicts)
        assert isinstance(merged, dict)
        from dagster_dvc.internals import dumps_yaml

        write_whole(ours, dumps_yaml({**merged, "stages": dict(sorted((merged.get("stages") or {}).items()))}))
        return [f"{name}: both branches changed {stage}; run `uss repro` to build it anew." for stage in conflicts]
    if ours.read_text(encoding="utf-8").startswith(HEADER):
        return [f"{name}: both branches planned it; run `uss plan` to write it anew."]
    # Somebody's own file below pipelines/: merged as git merges text.
    if subprocess.run(["git", "merge-file", ours, base, theirs]).returncode:
        raise BadData(f"{name}: both branches changed the same lines. Edit it, then `git add` it.")
    return []


def _merge(base: object, ours: object, theirs: object, depth: int, at: str, conflicts: list[str]) -> object:
    """Three-way merge of mappings, ``depth`` levels down; names of values that both sides changed go to ``conflicts``."""
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    if depth and isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        before = base if isinstance(base, Mapping) else {}
        merged = {}
        for key in (*ours, *(key for key in theirs if key not in ours)):
            old, mine, other = (side.get(key, _MISSING) for side in (before, ours, theirs))
            value = _merge(old, mine, other, depth - 1, str(key), conflicts)
            if value is not _MISSING:
                merged[key] = value
        return merged
    conflicts.append(at)
    return theirs if ours is _MISSING else ours


def _read(path: Path, name: str) -> dict[str, object]:
    import yaml

    from uss_dagster.files import parse_yaml

    try:
        content = parse_yaml(path.read_bytes())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadData(
            f"One side's {name} is not valid YAML ({' '.join(str(error).split())}). Restore it in its branch, then merge."
        ) from None
    if content is not None and not isinstance(content, dict):
        raise BadData(f"One side's {name} is not a mapping. Restore it in its branch, then merge.")
    return content or {}
