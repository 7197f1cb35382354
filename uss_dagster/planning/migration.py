"""Taking over a clone that an earlier version computed in: artefacts that moved are renamed, side files of that version are removed."""

from __future__ import annotations

import shutil
from pathlib import Path

from uss_dagster.planning.layout import Layout


def take_over(layout: Layout) -> list[str]:
    """Move what lies at old addresses to the new ones; returns one line where anything was there."""
    moved = 0
    for folder in sorted((layout.root / "data" / "pool").glob("*")):
        target = layout.mask_pool(folder.name)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(target)
            moved += 1
    for file in sorted((layout.reports / "metrics").glob("*__*.json")):
        entry, _, dataset = file.stem.partition("__")
        target = layout.metrics_file(entry, dataset)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
            moved += 1
    old = [layout.root / "data" / "pool", *(layout.reports / "metrics").glob("*__*.json"), layout.root / "grid.yaml"]
    old += [path for kind in ("runs", "shards", "work", "quarantine") for path in (layout.private / kind).rglob("*__*")]
    present = [path for path in old if path.exists()]
    for path in present:
        _remove(path)
    return (
        [f"an earlier version's files: {moved} results moved to their new places, {len(present)} old side files removed"] if present else []
    )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
