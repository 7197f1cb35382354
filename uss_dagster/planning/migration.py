"""Taking over a clone that an earlier version computed in: results that moved are renamed, other files of that version are removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from uss_dagster.files import parse_yaml, remove, write_whole
from uss_dagster.planning.layout import Layout

_STAGES = ("datasets", "features", "segments", "labels", "pool", "curated", "models", "private_models", "scores", "leaderboard", "site")
"""Stages of the earlier version. Its side files lay under ``<stage>/<entry>__<dataset>`` and ``<stage>-<entry>__<dataset>``."""


def take_over(layout: Layout) -> list[str]:
    """Move results at old addresses to the new ones, remove other files of that version; returns one line where there were any."""
    moved = 0
    for old, new in _moved_results(layout):
        if not os.path.lexists(new):
            new.parent.mkdir(parents=True, exist_ok=True)
            old.rename(new)
            moved += 1
        else:
            remove(old)
    side_files = [path for path in _side_files(layout) if os.path.lexists(path)]
    for path in side_files:
        remove(path)
    removed = len(side_files) + _forget_old_stages(layout.root / "dvc.lock")
    for folder in (layout.root / "data" / "pool", *((layout.private / "runs" / stage) for stage in _STAGES)):
        _remove_empty_folder(folder)
    if not moved and not removed:
        return []
    return [f"an earlier version's files: {moved} results moved to their new places, {removed} old side files removed"]


def _moved_results(layout: Layout) -> Iterator[tuple[Path, Path]]:
    """Old and new path of every result whose place changed."""
    for folder in sorted((layout.root / "data" / "pool").glob("*")):
        yield folder, layout.mask_pool(folder.name)
    for file in sorted((layout.reports / "metrics").glob("*__*.json")):
        entry, _, dataset = file.stem.partition("__")
        yield file, layout.metrics_file(entry, dataset)


def _side_files(layout: Layout) -> Iterator[Path]:
    """What no stage of this version looks for, largest folder first."""
    yield layout.root / "grid.yaml"
    runs = layout.private / "runs"
    yield from (runs / stage for stage in ("pool", "private_models", "leaderboard", "site"))
    for stage in _STAGES:
        yield from sorted((runs / stage).glob("*__*"))
        for kind in ("shards", "work", "quarantine"):
            yield from sorted((layout.private / kind).glob(f"{stage}-*"))


def _forget_old_stages(lock: Path) -> int:
    """Remove the stages ``<stage>@<cell>`` from the project's own dvc.lock; no stage of this version has an ``@``."""
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    if "@" not in text:
        return 0
    content = parse_yaml(text)
    content["stages"] = {name: stage for name, stage in content["stages"].items() if "@" not in name}
    write_whole(lock, yaml.safe_dump(content, sort_keys=False))
    return 1


def _remove_empty_folder(path: Path) -> None:
    if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
        path.rmdir()
