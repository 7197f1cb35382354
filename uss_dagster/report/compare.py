"""Two entries side by side: the difference of each number with its paired interval, and what may be concluded.

Belongs here: pairing the scores of two entries on the datasets they share. Does not belong here: ranks of many entries
(``leaderboard``, whose intervals and paired differences these are).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from uss_dagster.report.leaderboard import GROUP, paired_difference, read_cells


@dataclass(frozen=True)
class Comparison:
    """One number of two entries. group: values of ``GROUP``. low, high: 95 % interval of the difference, NaN without replicates.

    images: on how many both have a score; each value is over its entry's own images, which differ where ``alike`` is false.
    """

    group: tuple[str, ...]
    first: float
    second: float
    low: float
    high: float
    images: int
    alike: bool

    @property
    def difference(self) -> float:
        """first − second."""
        return self.first - self.second

    def verdict(self, first: str, second: str) -> str:
        """In plain words."""
        if not np.isfinite([self.first, self.second]).all():
            return "undefined"
        if not np.isfinite([self.low, self.high]).all():
            return "equal" if self.first == self.second else "unknown, there are no replicates"
        if self.low <= 0 <= self.high:
            return "cannot be told apart"
        return f"{first} higher" if self.low > 0 else f"{second} higher"


def compare(first: Path, second: Path, family_of: Mapping[str, str]) -> list[Comparison]:
    """All numbers that two scores folders of one dataset share, in order of ``GROUP``. family_of: metric → its family."""
    scores, replicates = read_cells([first, second])
    entries = [folder.parent.name for folder in (first, second)]
    ids = [_image_ids(folder) for folder in (first, second)]
    skipped = [_skipped(folder) for folder in (first, second)]
    comparisons = []
    for key, group in scores.groupby(GROUP, sort=True):
        rows = {row["entry"]: row for _, row in group.iterrows()}
        if set(rows) != set(entries):
            continue
        mine, theirs = (rows[entry] for entry in entries)
        name = tuple(str(part) for part in key)  # type: ignore[union-attr]
        known = [images.get(name[1:]) for images in ids]
        if known[0] is not None and known[1] is not None:
            images, alike = len(known[0] & known[1]), known[0] == known[1]
        else:  # a number that single images do not have: all images but those that either entry has no score for
            family = family_of.get(name[1], "")
            out = [per_family.get(family, frozenset()) for per_family in skipped]
            images, alike = int(mine["n"]) - len(out[1] - out[0]), out[0] == out[1] and mine["n"] == theirs["n"]
        sampled = replicates.get(key)  # type: ignore[call-overload]
        low, high = np.nan, np.nan
        if sampled is not None and all(entry in sampled for entry in entries):
            low, high = paired_difference(*(sampled[entry].to_numpy() for entry in entries))
        comparisons.append(Comparison(name, float(mine["value"]), float(theirs["value"]), low, high, images, bool(alike)))
    return comparisons


def _image_ids(folder: Path) -> dict[tuple[str, ...], frozenset[str]]:
    """Convention → the images with a score of their own."""
    table = pd.read_parquet(folder / "scores.parquet", columns=["image_id", *GROUP[1:]])
    single = table[table["image_id"].notna()]
    return {tuple(map(str, key)): frozenset(group["image_id"]) for key, group in single.groupby(GROUP[1:])}  # type: ignore[arg-type]


def _skipped(folder: Path) -> dict[str, frozenset[str]]:
    """Metric family → the images that it has no score for, as the scores stage noted."""
    noted: Mapping[str, Sequence[str]] = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("skipped", {})
    return {family: frozenset(images) for family, images in noted.items()}
