"""What lies behind the leaderboard's rows: bootstrap replicates, scores of single images, what was skipped, which images stand out.

Belongs here: reading the scores folders of one dataset's cells for the pages that explain a row. Does not belong here: ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from uss_dagster.report.leaderboard import GROUP, read_cells


@dataclass(frozen=True)
class Evidence:
    """Of one dataset. Groups are tuples in the order of ``leaderboard.GROUP``.

    replicates: group → table replicate × entry. images: group → table image × entry, NaN where an entry has no score. skipped:
    entry → images that some metric family could not score. gallery: entry → {metric, protocol, scope, grid, images: [[place, image id,
    value], …]}, the images that the scores stage chose by rule and kept the regions of.
    """

    replicates: Mapping[tuple[str, ...], pd.DataFrame] = field(default_factory=dict)
    images: Mapping[tuple[str, ...], pd.DataFrame] = field(default_factory=dict)
    skipped: Mapping[str, list[str]] = field(default_factory=dict)
    gallery: Mapping[str, dict[str, Any]] = field(default_factory=dict)


Behind = Callable[[str], Evidence]
"""Dataset → what lies behind its rows; asked once a dataset, so that only one is in memory."""


def nothing(dataset: str) -> Evidence:
    """For pages without any scores folder."""
    return Evidence()


def behind(folders: Mapping[str, list[Path]]) -> Behind:
    """Reads the scores folders of a dataset's cells when it is asked for them. folders: dataset → scores folders."""
    return lambda dataset: read_evidence(folders.get(dataset, []))


def read_evidence(folders: list[Path]) -> Evidence:
    """Of the scores folders of one dataset."""
    from uss_dagster.artifacts.staging import read_manifest

    _, replicates = read_cells(folders)
    columns = [*GROUP, "entry", "image_id", "value"]
    tables = [pd.read_parquet(folder / "scores.parquet", columns=columns) for folder in sorted(folders)]
    single = pd.concat([t[t["image_id"].notna()] for t in tables], ignore_index=True) if tables else pd.DataFrame(columns=columns)
    images = {tuple(map(str, key)): g.pivot(index="image_id", columns="entry", values="value") for key, g in single.groupby(GROUP)}  # type: ignore[arg-type]
    skipped: dict[str, list[str]] = {}
    gallery: dict[str, dict[str, Any]] = {}
    for folder in sorted(folders):
        if not (folder / "manifest.json").exists():
            continue
        manifest = read_manifest(folder)
        entry = manifest["entry"]
        skipped[entry] = sorted({image for images in manifest.get("skipped", {}).values() for image in images})
        if manifest.get("gallery"):
            gallery[entry] = manifest["gallery"]
    return Evidence({tuple(map(str, k)): v for k, v in replicates.items()}, images, skipped, gallery)
