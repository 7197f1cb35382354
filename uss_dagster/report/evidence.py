"""Details of the scores of one dataset: bootstrap replicates, scores of single images, images without a score, images of the gallery.

Belongs here: reading the scores folders of one dataset's cells for the pages that explain a row. Does not belong here: ranking.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from uss_dagster.files import read_json
from uss_dagster.notes import NOTES, Fact
from uss_dagster.report.leaderboard import GROUP, Ranking, pivoted, read_cells


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
class Evidence:
    """Details of one dataset's scores.

    Parameters
    ----------
    replicates : mapping
        Ranking to a table replicate × entry.
    images : mapping
        Ranking to a table image × entry, NaN where an entry has no score.
    skipped : mapping
        Entry to the images that some metric family could not score.
    galleries : mapping
        Entry to its gallery.
    notes : mapping
        Entry to the facts that its method handed out, by image; entries without any are left out.
    """

    replicates: Mapping[Ranking, pd.DataFrame] = field(default_factory=dict)
    images: Mapping[Ranking, pd.DataFrame] = field(default_factory=dict)
    skipped: Mapping[str, list[str]] = field(default_factory=dict)
    galleries: Mapping[str, Gallery] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, Mapping[str, Fact]]] = field(default_factory=dict)


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

    _, replicates = read_cells(folders)
    columns = [*GROUP, "entry", "image_id", "value"]
    tables = [pd.read_parquet(folder / "scores.parquet", columns=columns) for folder in sorted(folders)]
    images = pivoted([table[table["image_id"].notna()] for table in tables], "image_id")
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
