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

from uss_dagster.report.leaderboard import GROUP, Ranking, paired_difference, ranking_of, read_cells


@dataclass(frozen=True)
class Comparison:
    """One number of two entries.

    Parameters
    ----------
    group : Ranking
        What the number is of.
    first, second : float
        The number of each entry, over its own images.
    low, high : float
        95 % interval of the difference; NaN without replicates.
    images : int
        On how many images both have a score.
    alike : bool
        Whether both have a score on the same images.
    """

    group: Ranking
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
    """All numbers that two scores folders of one dataset share, in order of ``Ranking``.

    Parameters
    ----------
    first, second : Path
        Folders that the scores stage wrote.
    family_of : mapping of str to str
        Metric to its family.
    """
    scores, replicates = read_cells([first, second])
    entries = [folder.parent.name for folder in (first, second)]
    images = [_image_ids(folder) for folder in (first, second)]
    skipped = [_skipped(folder) for folder in (first, second)]
    comparisons = []
    for key, group in scores.groupby(GROUP, sort=True):
        ranking = ranking_of(key)
        rows = {row["entry"]: row for _, row in group.iterrows()}
        if set(rows) != set(entries):
            continue
        mine, theirs = (rows[entry] for entry in entries)
        single = [of_entry.get(ranking[1:]) for of_entry in images]
        if single[0] is not None and single[1] is not None:
            common, alike = len(single[0] & single[1]), single[0] == single[1]
        else:  # a number that single images do not have: all images but those that either entry has no score for
            family = family_of.get(ranking.metric, "")
            out = [per_family.get(family, frozenset()) for per_family in skipped]
            common, alike = int(mine["n"]) - len(out[1] - out[0]), out[0] == out[1] and mine["n"] == theirs["n"]
        low, high = np.nan, np.nan
        if ranking in replicates and set(entries) <= set(replicates[ranking]):
            low, high = paired_difference(*(replicates[ranking][entry].to_numpy() for entry in entries))
        comparisons.append(Comparison(ranking, float(mine["value"]), float(theirs["value"]), low, high, common, bool(alike)))
    return comparisons


def _image_ids(folder: Path) -> dict[tuple[str, ...], frozenset[str]]:
    """Convention → the images with a score of their own."""
    table = pd.read_parquet(folder / "scores.parquet", columns=["image_id", *GROUP[1:]])
    single = table[table["image_id"].notna()]
    return {tuple(map(str, key)): frozenset(group["image_id"]) for key, group in single.groupby(GROUP[1:])}  # type: ignore[arg-type]


def _skipped(folder: Path) -> dict[str, frozenset[str]]:
    """Metric family → the images that it has no score for, as the scores stage recorded."""
    recorded: Mapping[str, Sequence[str]] = json.loads((folder / "manifest.json").read_text(encoding="utf-8")).get("skipped", {})
    return {family: frozenset(images) for family, images in recorded.items()}
