"""Details of the scores of one dataset: bootstrap replicates, scores of single images, images without a score, images of the gallery.

Belongs here: reading the scores folders of one dataset's cells for the pages that explain a row. Does not belong here: ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.tables import image_ids
from uss_dagster.files import read_json
from uss_dagster.notes import NOTES, Fact
from uss_dagster.report.leaderboard import GROUP, Ranking, ranking_of, read_cells


class GalleryImage(NamedTuple):
    """An image that the scores stage chose by rule. place: 'best', 'median' or 'worst'. value: the entry's score on it."""

    place: str
    image_id: str
    value: float


@dataclass(frozen=True)
class Gallery:
    """The images of one entry that the scores stage kept the regions of, chosen by their scores in one ranking."""

    ranking: Ranking
    images: Sequence[GalleryImage]


@dataclass(frozen=True)
class EntryScores:
    """The scores of one entry on single images in one ranking, in short.

    Parameters
    ----------
    count : int
        Number of images with a score.
    lowest, highest : sequence
        (image id, score) of the ``MOST_EXTREMES`` lowest and highest scores from the end inwards; the first id of equals comes first.
    """

    count: int
    lowest: Sequence[tuple[str, float]]
    highest: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class SingleScores:
    """Scores of single images in one ranking: of evenly spaced images, and of those that are shown.

    Parameters
    ----------
    of : int
        Number of images with a score of some entry.
    sample : sequence of str
        The evenly spaced ones among them, at most ``MOST_IMAGES``.
    table : pandas.DataFrame
        Image × entry, NaN where an entry has no score; of the sample, and of the images that are shown.
    entries : mapping
        Each entry's own.
    """

    of: int
    sample: Sequence[str]
    table: pd.DataFrame
    entries: Mapping[str, EntryScores]


NO_SCORES = SingleScores(0, (), pd.DataFrame(), {})


@dataclass(frozen=True)
class Evidence:
    """Details of one dataset's scores.

    Parameters
    ----------
    replicates : mapping
        Ranking to a table replicate × entry.
    images : mapping
        Ranking to the scores of single images, where it has any.
    skipped : mapping
        Entry to the images that some metric family could not score.
    galleries : mapping
        Entry to its gallery.
    notes : mapping
        Entry to the facts that its method handed out, by image; entries without any are left out.
    """

    replicates: Mapping[Ranking, pd.DataFrame] = field(default_factory=dict)
    images: Mapping[Ranking, SingleScores] = field(default_factory=dict)
    skipped: Mapping[str, list[str]] = field(default_factory=dict)
    galleries: Mapping[str, Gallery] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, Mapping[str, Fact]]] = field(default_factory=dict)


MOST_IMAGES = 1000
"""Images of a dataset whose own scores the page gets; of more, so many evenly spaced ones."""
MOST_EXTREMES = 10
SHOWN = ("samples.parquet", "gallery.parquet")
"""Regions of the images that pages show."""
EvidenceReader = Callable[[str], Evidence]
"""Dataset → its evidence. Read once a dataset, so that only one dataset's is in memory."""


def no_evidence(dataset: str) -> Evidence:
    """For pages without any scores folder."""
    return Evidence()


def evidence_reader(folders: Mapping[str, Sequence[Path]]) -> EvidenceReader:
    """A reader of the scores folders of a dataset's cells. folders: dataset → scores folders."""
    return lambda dataset: read_evidence(folders.get(dataset, ()))


def read_evidence(folders: Sequence[Path]) -> Evidence:
    """Evidence from the scores folders of one dataset."""
    from uss_dagster.artifacts.staging import read_manifest

    dataset_scores, replicates = read_cells(folders)
    shown = {i for folder in folders for name in SHOWN if (folder / name).exists() for i in image_ids(folder / name)}
    images = {}
    for key, _ in dataset_scores.groupby(GROUP, sort=True):
        if scores := single_scores(folders, ranking_of(key), shown):
            images[ranking_of(key)] = scores
    skipped: dict[str, list[str]] = {}
    galleries: dict[str, Gallery] = {}
    notes = {}
    for folder in sorted(folders):
        if not (folder / "manifest.json").exists():
            continue
        manifest = read_manifest(folder)
        entry = manifest["entry"]
        skipped[entry] = sorted({image for images in manifest.get("skipped", {}).values() for image in images})
        if gallery := manifest.get("gallery"):
            ranking = Ranking(manifest["dataset"], *(str(gallery[column]) for column in GROUP[1:]))
            galleries[entry] = Gallery(ranking, [GalleryImage(*image) for image in gallery["images"]])
        if (folder / NOTES).exists():
            notes[entry] = read_json(folder / NOTES)
    return Evidence(replicates, images, skipped, galleries, notes)


def single_scores(folders: Sequence[Path], ranking: Ranking, shown: Collection[str]) -> SingleScores | None:
    """Scores of single images from the scores folders of a dataset, those of one entry in memory at a time; None where there are none."""
    there = [scores for folder in sorted(folders) if len(scores := _image_scores(folder, ranking, ["image_id"]))]
    if not there:
        return None
    ids = there[0]["image_id"]
    for scores in there[1:]:
        if not scores["image_id"].equals(ids):
            ids = pa.chunked_array([*ids.chunks, *scores["image_id"].chunks]).unique()
    ids = ids.take(pc.sort_indices(ids))
    sample = [ids[row].as_py() for row in evenly_spaced(range(len(ids)), MOST_IMAGES)]
    columns, entries = {}, {}
    for folder in sorted(folders):
        scores = _image_scores(folder, ranking, ["entry", "image_id", "value"])
        if len(scores):
            entry = scores["entry"][0].as_py()
            entries[entry] = _in_short(scores)
            wanted = scores.filter(pc.is_in(scores["image_id"], pa.array({*sample, *shown}, scores["image_id"].type)))
            columns[entry] = pd.Series(wanted["value"].to_numpy(), wanted["image_id"].to_pylist())
    return SingleScores(len(ids), sample, pd.DataFrame(dict(sorted(columns.items()))).sort_index(), entries)


def _image_scores(folder: Path, ranking: Ranking, columns: list[str]) -> pa.Table:
    """Columns of an entry's scores of single images in one ranking."""
    filters = pc.field("image_id").is_valid()
    for column in GROUP[1:]:
        filters &= pc.field(column) == getattr(ranking, column)
    return pq.read_table(folder / "scores.parquet", columns=columns, filters=filters)


def _in_short(scores: pa.Table) -> EntryScores:
    scores = scores.filter(pc.is_finite(scores["value"]))
    values = scores["value"].to_numpy()
    ends = []
    for key in (values, -values):
        most = min(MOST_EXTREMES, len(key)) - 1
        near = scores.filter(pa.array(key <= np.partition(key, most)[most])) if len(key) else scores
        pairs = zip(near["image_id"].to_pylist(), near["value"].to_pylist(), strict=True)
        ends.append(sorted(pairs, key=lambda pair: (pair[1] if key is values else -pair[1], pair[0]))[:MOST_EXTREMES])
    return EntryScores(len(values), *ends)
