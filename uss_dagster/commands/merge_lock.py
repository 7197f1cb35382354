"""``uss merge-lock``: git's merge driver for dvc.lock and grid.yaml, which two branches change in different stages.

Stage by stage (cell by cell), what one side changed is taken; where both changed the same, ours is kept and the stage is named: DVC
sees that its recorded dependencies are not those of the merged tree, and runs it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import write_whole

DRIVER = "uss-merge-lock"
MERGED = ("dvc.lock", "grid.yaml")
_MISSING = object()


def install(root: Path) -> list[str]:
    """Tell git, in this clone, to merge with this driver; returns a line for each thing done."""
    commands = {
        f"merge.{DRIVER}.name": "dvc.lock and grid.yaml, stage by stage",
        f"merge.{DRIVER}.driver": "uss merge-lock %O %A %B %P",
    }
    for name, value in commands.items():
        done = subprocess.run(["git", "config", name, value], cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise UsageError(f"git does not take the setting {name} in {root}: {done.stderr.strip() or 'is this a git repository?'}")
    attributes = root / ".gitattributes"
    text = attributes.read_text(encoding="utf-8") if attributes.exists() else ""
    missing = [line for name in MERGED if (line := f"{name} merge={DRIVER}") not in text.splitlines()]
    if missing:
        write_whole(attributes, "".join([text, "" if not text or text.endswith("\n") else "\n", *(f"{line}\n" for line in missing)]))
    return [f"git merges {' and '.join(MERGED)} stage by stage in this clone.", *(f".gitattributes: {line}" for line in missing)]


def merge_files(base: Path, ours: Path, theirs: Path, name: str) -> list[str]:
    """Merge three versions of one file into ``ours``, as git asks of a driver. name: the file's path in the repository.

    Returns the stages (dotted keys) that both sides changed differently, for which ours was kept.
    """
    conflicts: list[str] = []
    lock = Path(name).name == "dvc.lock"
    merged = _merge(_read(base, name), _read(ours, name), _read(theirs, name), 2 if lock else 99, (), conflicts)
    if lock:
        from dvc.utils.serialize import dumps_yaml

        text = dumps_yaml({**merged, "stages": dict(sorted((merged.get("stages") or {}).items()))})
    else:
        from uss_dagster.planning.plan import render_grid

        text = render_grid(_in_order(merged.get("grid") or {}))
    write_whole(ours, text)
    return [conflict.removeprefix("stages.") for conflict in conflicts]


def _merge(base: Any, ours: Any, theirs: Any, depth: int, at: tuple[str, ...], conflicts: list[str]) -> Any:
    """Three-way merge of mappings, ``depth`` levels down; lists of names that both sides changed become what either added or kept."""
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    if depth and isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        before = base if isinstance(base, Mapping) else {}
        merged = {}
        for key in (*ours, *(k for k in theirs if k not in ours)):
            old, mine, other = (side.get(key, _MISSING) for side in (before, ours, theirs))
            value = _merge(old, mine, other, depth - 1, (*at, str(key)), conflicts)
            if value is not _MISSING:
                merged[key] = value
        return merged
    if isinstance(ours, list) and isinstance(theirs, list) and at[-1:] == ("cells",):
        gone = set(base if isinstance(base, list) else ()) - (set(ours) & set(theirs))
        return sorted({*ours, *theirs} - gone)
    conflicts.append(".".join(at))
    return theirs if ours is _MISSING else ours


def _in_order(grid: Mapping[str, Any]) -> dict[str, Any]:
    """Cells sorted by key, as `uss plan` writes them."""
    nested = ("datasets", "entries")
    ordered: dict[str, Any] = {}
    for section, cells in grid.items():
        if section == "leaderboard":
            ordered[section] = {k: dict(sorted(v.items())) if k in nested else v for k, v in cells.items()}
        else:
            ordered[section] = dict(sorted(cells.items())) if isinstance(cells, Mapping) and section != "site" else cells
    return ordered


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadData(
            f"One side's {name} is not valid YAML ({' '.join(str(error).split())}). Restore it in its branch, then merge."
        ) from None
    if found is not None and not isinstance(found, dict):
        raise BadData(f"One side's {name} is not a mapping. Restore it in its branch, then merge.")
    return found or {}
