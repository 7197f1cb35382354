"""The leaderboard page's data: small scripts, one a dataset, and one a ranking with what paired comparisons need.

Belongs here: turning the leaderboard's rows into what ``assets/leaderboard.js`` draws. The page loads a dataset's script when the
dataset is chosen, and a ranking's when two entries are compared, so it stays light however many cells there are.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import pandas as pd

from uss_dagster.report.evidence import NO_SCORES, Evidence
from uss_dagster.report.facts import Datasets, Entries, Metrics, title_of
from uss_dagster.report.html import dataset_page, entry_page, script, slug
from uss_dagster.report.leaderboard import COLUMNS, Ranking, Row, by_ranking, pairs_among
from uss_dagster.report.metric_lines import metric_line
from uss_dagster.report.published import PublishedRow
from uss_dagster.report.site_pictures import Drawn
from uss_dagster.scoring.intervals import half_widths


def facts_script(entries: Entries, datasets: Datasets) -> str:
    """Facts of the entries and datasets on the leaderboard, in order, with the addresses of their pages."""
    of_entries = [
        {
            "id": name,
            "title": title_of(entries, name),
            "method": facts.method,
            "backbone": facts.backbone or "",
            "supervised": facts.supervised,
            "again": facts.reimplementation,
            "page": entry_page(name),
        }
        for name, facts in entries.items()
    ]
    of_datasets = [
        {
            "id": name,
            "title": title_of(datasets, name),
            "images": facts.images,
            "page": dataset_page(name),
            "board": board_path(name),
        }
        for name, facts in datasets.items()
    ]
    return script("facts", {"entries": of_entries, "datasets": of_datasets})


def board_path(dataset: str) -> str:
    """Path of a dataset's rankings from the site's folder."""
    return f"data/board-{slug(dataset)}.js"


def board_script(
    dataset: str,
    rows: Sequence[Row],
    evidence: Evidence,
    images: Sequence[Drawn],
    metrics: Metrics,
    published: Sequence[PublishedRow] = (),
) -> str:
    """All rankings of one dataset. Rows are [entry, value, low, high, images, rank, ranks it may have, tied, what its seeds give]."""
    groups = []
    rankings = by_ranking(rows)
    for number, (ranking, group) in enumerate(rankings.items()):
        first = group[0]
        line = metric_line(ranking.metric, metrics[ranking.metric])
        groups.append(
            {
                "metric": ranking.metric,
                "title": first.metric_title,
                "protocol": ranking.protocol,
                "grid": ranking.grid,
                "convention": ranking.convention,
                "higher": first.higher_is_better,
                "oracle": first.oracle,
                "detail": first.detail,
                "family": line.group,
                "line": line.line,
                "equal": line.equal,
                "pairs": _pairs_path(dataset, number) if _has_pairs(evidence, ranking) else None,
                "rows": [
                    [
                        row.entry,
                        *(round(v, 7) for v in (row.value, row.low, row.high)),
                        row.n,
                        row.rank,
                        row.rank_range,
                        int(row.tied_with_best),
                        row.spread.strip(" ()"),
                    ]
                    for row in group
                ],
            }
        )
    pictures = [_picture(image, rankings, evidence) for image in images if image.sample]
    explored = {image.image_id: sorted(image.entries) for image in images}
    works = [dataclasses.asdict(work) for work in published]
    return script("boards", {"groups": groups, "published": works, "pictures": pictures, "explored": explored}, dataset)


def _picture(image: Drawn, rankings: Collection[Ranking], evidence: Evidence) -> dict[str, object]:
    """A picture and its segmentations. scores: number of a ranking to entry to its score on this image."""
    scores = {}
    for number, ranking in enumerate(rankings):
        table = evidence.images.get(ranking, NO_SCORES).table
        if image.image_id in table.index:
            values = table.loc[image.image_id].dropna()
            scores[number] = {entry: round(float(values[entry]), 4) for entry in values.index if entry in image.entries}
    return {
        "id": image.image_id,
        "size": [image.height, image.width],
        "photo": image.photo.flat,
        "truth": image.truth and tuple(image.truth),
        "entries": {entry: tuple(files) for entry, files in image.entries.items()},
        "counts": {entry: tuple(counts) for entry, counts in image.counts.items()},
        "scores": scores,
    }


def pairs_scripts(dataset: str, rows: Sequence[Row], evidence: Evidence) -> Iterator[tuple[str, str]]:
    """(path, text) for each ranking, numbers as little-endian float32 in base64: scores of single images, and half the width of the
    interval of each difference, entry × entry in the order of ``entries``; NaN where it was not tested."""
    for number, (ranking, group) in enumerate(by_ranking(rows).items()):
        if not _has_pairs(evidence, ranking):
            continue
        single = evidence.images.get(ranking, NO_SCORES)
        values = {row.entry: _floats(single.table.loc[list(single.sample), row.entry]) for row in group if row.entry in single.table}
        ranked = pd.DataFrame([row for row in group if row.rank is not None], columns=COLUMNS)
        (half,) = half_widths([pairs_among(ranked, evidence.replicates.get(ranking))])
        pairs = {"entries": ranked["entry"].tolist(), "half": _floats(half), "images": single.sample, "of": single.of, "values": values}
        path = _pairs_path(dataset, number)
        yield path, script("pairs", pairs, path)


def _pairs_path(dataset: str, number: int) -> str:
    """Path of what paired comparisons of one ranking need."""
    return f"data/pairs-{slug(dataset)}-{number}.js"


def _has_pairs(evidence: Evidence, ranking: Ranking) -> bool:
    return ranking in evidence.replicates or ranking in evidence.images


def _floats(numbers: pd.Series | np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(numbers, "<f4").tobytes()).decode()
