"""The leaderboard page's data: small scripts, one a dataset, and one a ranking with what paired comparisons need.

Belongs here: turning the leaderboard's table into what ``assets/leaderboard.js`` draws. Nothing of a dataset is read before it is
chosen, and nothing of a pair of entries before it is asked for, so the first page stays light however many cells there are.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.report.evidence import Evidence
from uss_dagster.report.html import script, slug, title_of
from uss_dagster.report.leaderboard import GROUP, Facts, convention
from uss_dagster.report.site_pictures import Drawn, as_data

MOST_IMAGES = 1000
"""Images of a dataset whose own scores the page knows; of more, so many evenly spaced ones."""


def facts_script(frame: pd.DataFrame, entries: Facts, datasets: Facts, shown: Sequence[str]) -> str:
    """What every page knows: entries and datasets with the addresses of their pages. shown: the datasets, in order."""
    used = set(frame["entry"])
    listed = [
        {
            "id": name,
            "title": title_of(entries, name),
            "method": str(facts.get("method") or ""),
            "backbone": str(facts.get("backbone") or ""),
            "supervised": bool(facts.get("supervised")),
            "again": bool(facts.get("reimplementation")),
            "page": f"methods/{slug(name)}.html",
        }
        for name, facts in entries.items()
        if name in used
    ]
    about = [
        {
            "id": name,
            "title": title_of(datasets, name),
            "images": datasets[name].get("images"),
            "page": f"datasets/{slug(name)}.html",
            "board": board_name(name),
        }
        for name in shown
    ]
    return script("facts", {"entries": listed, "datasets": about})


def board_name(dataset: str) -> str:
    """Path of a dataset's rankings from the site's folder."""
    return f"data/board-{slug(dataset)}.js"


def board_script(dataset: str, frame: pd.DataFrame, evidence: Evidence, images: Sequence[Drawn], published: list[dict[str, Any]]) -> str:
    """All rankings of one dataset. Rows are [entry, value, low, high, images, rank, tied with the best]."""
    groups = []
    for number, (key, group) in enumerate(grouped(frame)):
        first = group.iloc[0]
        groups.append(
            {
                "metric": key[1],
                "title": str(first["metric_title"]),
                "protocol": key[2],
                "grid": key[4],
                "convention": convention(first),
                "higher": bool(first["higher_is_better"]),
                "oracle": bool(first["oracle"]),
                "detail": bool(first["detail"]),
                "pairs": pairs_name(dataset, number) if _has_pairs(evidence, key) else None,
                "rows": [_row(row) for row in group.itertuples()],
            }
        )
    explored = {image.image_id: sorted(image.entries) for image in images}
    facts = {"groups": groups, "published": published, "pictures": [as_data(i) for i in images if i.sample], "explored": explored}
    return _of("boards", dataset, facts)


def pairs_scripts(dataset: str, frame: pd.DataFrame, evidence: Evidence) -> Iterator[tuple[str, str]]:
    """(path, text) for each ranking: replicates and scores of single images, as little-endian float32 in base64."""
    for number, (key, group) in enumerate(grouped(frame)):
        if not _has_pairs(evidence, key):
            continue
        used = list(group["entry"])
        replicates = evidence.replicates.get(key, pd.DataFrame())
        single = evidence.images.get(key, pd.DataFrame())
        ids = evenly_spaced(sorted(map(str, single.index)), MOST_IMAGES)
        values = single.loc[ids] if ids else single
        yield (
            pairs_name(dataset, number),
            _of(
                "pairs",
                pairs_name(dataset, number),
                {
                    "of": len(single),
                    "images": ids,
                    "replicates": {e: _packed(replicates[e]) for e in used if e in replicates},
                    "values": {e: _packed(values[e]) for e in used if e in values},
                },
            ),
        )


def pairs_name(dataset: str, number: int) -> str:
    """Path of what paired comparisons of one ranking need."""
    return f"data/pairs-{slug(dataset)}-{number}.js"


def grouped(frame: pd.DataFrame) -> list[tuple[tuple[str, ...], pd.DataFrame]]:
    """The rankings of a dataset in the leaderboard's order."""
    return [(tuple(map(str, key)), group) for key, group in frame.groupby(GROUP, sort=False)]  # type: ignore[arg-type]


def _has_pairs(evidence: Evidence, key: tuple[str, ...]) -> bool:
    return key in evidence.replicates or key in evidence.images


def _row(row: Any) -> list[Any]:
    number = [None if math.isnan(v) else round(float(v), 7) for v in (row.value, row.low, row.high)]
    ranked = number[0] is not None
    return [row.entry, *number, int(row.n), int(row.rank) if ranked else None, int(bool(row.tied_with_best))]


def _packed(column: pd.Series) -> str:
    return base64.b64encode(np.ascontiguousarray(column.to_numpy(float), "<f4").tobytes()).decode()


def _of(name: str, key: str, value: Mapping[str, Any]) -> str:
    """A script that puts a value under one key of a table of ``window.USS``."""
    from uss_dagster.report.html import packed

    return f"((window.USS = window.USS || {{}}).{name} = window.USS.{name} || {{}})[{packed(key)}] = {packed(value)};\n"
