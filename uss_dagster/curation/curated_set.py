"""A mask pool → a checked folder with tables, json files, pages and samples: what the stage ``curated`` and ``uss curate`` share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow.parquet as pq

from uss_dagster.artifacts.dvc_cache import cache_folder, cached_file
from uss_dagster.artifacts.gate import Report
from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import read_table, regions_from_table, rows_by_image
from uss_dagster.curation import drift, pages
from uss_dagster.curation.checks import validate
from uss_dagster.curation.curate import CurateResult, curate
from uss_dagster.curation.human import Labels
from uss_dagster.curation.params import CurateParams, Description
from uss_dagster.curation.tables import IMAGES, MaskPool
from uss_dagster.drawing import montage, thumbnail
from uss_dagster.files import parse_yaml

SAMPLES, LONGEST = 8, 240
"""Number of sample images, and their greatest side in pixels."""


class DriftFacts(TypedDict):
    """What the run facts say about drift: one sentence, the verdict, and the rows."""

    drift: str
    drift_within_limits: bool
    drift_rows: list[drift.DriftRow]


def make_set(
    name: str,
    folder: Path,
    pool: MaskPool,
    labels: Labels,
    params: CurateParams,
    description: Description,
    pixels: Callable[[str], np.ndarray],
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[CurateResult, Report]:
    """Write a curated set without ``validation.json`` and the manifest, and check it.

    Parameters
    ----------
    name : str
        Of the artefact, for the report.
    folder : Path
        Exists and is empty.
    pool : MaskPool
    labels : callable
        Human masks, see ``human.Labels``.
    params : CurateParams
    description : Description
    pixels : callable
        Image id → uint8 array of shape (height, width, 3).
    advance : callable, optional
        Called with the number of images that were finished.
    """
    result = curate(pool, labels, params, folder, description, advance)
    _write_set_aside(folder)
    samples = "samples.png" if result.ids else None
    if samples:
        (folder / samples).write_bytes(encode_png(_samples(folder, result.ids, pixels)))
    markdown, page = pages.datasheet(result.summary, description, params, samples)
    (folder / "DATASHEET.md").write_text(markdown, encoding="utf-8")
    (folder / "datasheet.html").write_text(page, encoding="utf-8")
    report = validate(name, folder, pool.images, params, result.failures)
    (folder / "report.html").write_text(pages.report_page(report, f"Checks of {description.title}"), encoding="utf-8")
    return result, report


def check_drift(report: Report, before: drift.SetSummary | None, now: drift.SetSummary, params: CurateParams) -> list[drift.DriftRow]:
    """Compare with the previous version; adds a failed check to the report only if ``params.refuse_drift``.

    Returns
    -------
    list of DriftRow
        Empty if there is no previous version.
    """
    rows = drift.compare(before, now) if before else []
    beyond = [row for row in rows if not row["within"]]
    if beyond and params.refuse_drift:
        moves = "; ".join(f"{row['measure']} moved by {row['moved']}, limit {row['limit']}" for row in beyond)
        report.add("it is close to the previous version", False, f"{moves}. If this is meant, set refuse_drift to false for one run.")
    return rows


def drift_facts(rows: list[drift.DriftRow]) -> DriftFacts:
    """What the run facts say about the comparison with the previous version."""
    beyond = [row for row in rows if not row["within"]]
    if not rows:
        sentence = "there is no previous version to compare with"
    elif beyond:
        sentence = "beyond the limits: " + ", ".join(f"{row['measure']} by {row['moved']:g} (limit {row['limit']:g})" for row in beyond)
    else:
        sentence = "within the limits"
    return {"drift": sentence, "drift_within_limits": not beyond, "drift_rows": rows}


def previous_summary(root: Path, lock: Path, output: Path) -> drift.SetSummary | None:
    """The summary of the version that DVC recorded last. DVC removes the file before a stage runs, but its cache keeps it.

    Parameters
    ----------
    root : Path
        Of the project.
    lock : Path
        The ``dvc.lock`` that records the stage: of the root, or ``pipelines/<dataset>/dvc.lock``.
    output : Path
        The summary's file; an output of the stage.

    Returns
    -------
    SetSummary or None
        None if no version was recorded, or the cache does not have it.
    """
    if output.is_file():
        return read_summary(output.read_bytes())
    try:
        stages = (parse_yaml(lock.read_bytes()) or {}).get("stages") or {}
    except OSError:
        return None
    path = output.relative_to(root).as_posix()  # also below pipelines/: there stages run in the root, and DVC records paths from it
    hashes = [out["md5"] for stage in stages.values() for out in stage.get("outs") or () if out.get("path") == path and out.get("md5")]
    return read_summary(cached_file(cache_folder(root), next(iter(hashes), "")))


def read_summary(text: bytes | None) -> drift.SetSummary | None:
    """The content of a ``summary.json``; None for no text and for one that is no JSON."""
    try:
        summary: drift.SetSummary | None = json.loads(text or b"null")
    except ValueError:
        return None
    return summary


def _write_set_aside(folder: Path) -> None:
    """``set_aside.csv``: every image that is not in the set, and why."""
    rows = read_table(folder / "images.parquet", IMAGES, columns=["image_id", "file_name", "status", "reason"]).to_pandas()
    rows[rows["status"] != "kept"].to_csv(folder / "set_aside.csv", index=False, lineterminator="\n")


def _samples(folder: Path, ids: list[str], pixels: Callable[[str], np.ndarray]) -> np.ndarray:
    """A grid of evenly spaced images with their masks."""
    sample_ids = evenly_spaced(ids, SAMPLES)
    rows = pq.read_table(folder / "masks.parquet", columns=REGIONS.names, filters=[("image_id", "in", sample_ids)])
    tiles = {i: thumbnail(pixels(i), regions_from_table(one), LONGEST, n_regions=24) for i, one in rows_by_image(rows)}
    return montage([tiles[i] for i in sample_ids], sample_ids, columns=4)
