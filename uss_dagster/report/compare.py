"""Two entries side by side: the difference of each number with its paired interval, and what may be concluded.

Belongs here: pairing the scores of two entries on the datasets they share. Does not belong here: ranks of many entries
(``leaderboard``, whose intervals of paired differences these are: all pairs of a ranking are judged together).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from uss_dagster.report.leaderboard import GROUP, Ranking, pairs_among, ranking_of, read_cells
from uss_dagster.scoring.intervals import half_widths


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
        Interval of the difference, as ``scoring.intervals.half_widths`` makes it of all pairs; NaN without replicates, or on one image.
    images : int
        On how many images both have a score.
    alike : bool
        Whether both have a score on the same images.
    entries : int
        How many entries are judged together. Default: 2, these.
    """

    group: Ranking
    first: float
    second: float
    low: float
    high: float
    images: int
    alike: bool
    entries: int = 2

    @property
    def difference(self) -> float:
        """first − second."""
        return self.first - self.second

    def verdict(self, first: str, second: str) -> str:
        """In plain words."""
        if not np.isfinite([self.first, self.second]).all():
            return "undefined"
        if not np.isfinite([self.low, self.high]).all():
            return (
                "equal"
                if self.first == self.second
                else "unknown, there are no replicates"
                if self.images != 1
                else "unknown, there is one image"
            )
        if self.low <= 0 <= self.high:
            return "cannot be told apart"
        return f"{first} higher" if self.low > 0 else f"{second} higher"


def compare(first: Path, second: Path, family_of: Mapping[str, str], others: Sequence[Path] = ()) -> list[Comparison]:
    """All numbers that two scores folders of one dataset share, in order of ``Ranking``.

    Parameters
    ----------
    first, second : Path
        Folders that the scores stage wrote.
    family_of : mapping of str to str
        Metric to its family.
    others : sequence of Path
        Scores folders of other entries on this dataset, whose pairs are judged together with this one.
    """
    scores, replicates = read_cells([first, second, *others])
    entries = [folder.parent.name for folder in (first, second)]
    images = [_image_ids(folder) for folder in (first, second)]
    skipped = [_skipped(folder) for folder in (first, second)]
    comparisons = []
    for key, group in scores.groupby(GROUP, sort=True):
        ranking = ranking_of(key)
        rows = {row["entry"]: row for _, row in group.iterrows()}
        if not set(entries) <= set(rows):
            continue
        mine, theirs = (rows[entry] for entry in entries)
        single = [of_entry.get(ranking[1:]) for of_entry in images]
        if single[0] is not None and single[1] is not None:
            common, alike = len(single[0] & single[1]), single[0] == single[1]
        else:  # a number that single images do not have: all images but those that either entry has no score for
            family = family_of.get(ranking.metric, "")
            out = [per_family.get(family, frozenset()) for per_family in skipped]
            common, alike = int(mine["n"]) - len(out[1] - out[0]), out[0] == out[1] and mine["n"] == theirs["n"]
        valued = group[group["value"].notna()]
        (half,) = half_widths([pairs_among(valued, replicates.get(ranking))])
        names = valued["entry"].tolist()
        width = half[names.index(entries[0]), names.index(entries[1])] if set(entries) <= set(names) else np.nan
        values = float(mine["value"]), float(theirs["value"])
        gap = values[0] - values[1]
        comparisons.append(Comparison(ranking, *values, gap - width, gap + width, common, bool(alike), len(names)))
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
