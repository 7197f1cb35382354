"""A mask pool → a checked folder with tables, json files, pages and samples: what the stage ``curated`` and ``uss curate`` share."""

from __future__ import annotations

import configparser
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow.parquet as pq
import yaml

from uss_dagster.artifacts.gate import Report
from uss_dagster.artifacts.image_files import encode_png, shrunk
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import read_table, regions_from_table, rows_by_image
from uss_dagster.curation import drift, pages
from uss_dagster.curation.checks import validate
from uss_dagster.curation.curate import CurateResult, curate
from uss_dagster.curation.human import Labels
from uss_dagster.curation.params import CurateParams, Description
from uss_dagster.curation.tables import IMAGES, MaskPool
from uss_dagster.drawing import montage, overlay
from uss_dagster.files import write_whole

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


def write_drift_page(path: Path, report: Report, title: str, rows: list[drift.DriftRow]) -> None:
    """The checks and the comparison with the previous version, as a page beside the run facts."""
    write_whole(path, pages.report_page(report, title, rows))


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
    file = output if output.is_file() else cached_file(root, lock, output)
    if file is None or not file.is_file():
        return None
    try:
        summary: drift.SetSummary = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return summary


def cached_file(root: Path, lock: Path, output: Path) -> Path | None:
    """Where DVC's cache keeps the version of an output that a lock file records; None if it records none."""
    try:
        stages = (yaml.load(lock.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}).get("stages") or {}
    except OSError:
        return None
    path = output.relative_to(root).as_posix()  # also below pipelines/: there stages run in the root, and DVC records paths from it
    hashes = [out["md5"] for stage in stages.values() for out in stage.get("outs") or () if out.get("path") == path and out.get("md5")]
    if not hashes:
        return None
    settings = configparser.ConfigParser()
    for name in ("config", "config.local"):
        try:
            settings.read(root / ".dvc" / name)
        except configparser.Error:
            continue
    cache = root / ".dvc" / settings.get("cache", "dir", fallback="cache")
    return cache / "files" / "md5" / hashes[0][:2] / hashes[0][2:]


def _write_set_aside(folder: Path) -> None:
    """``set_aside.csv``: every image that is not in the set, and why."""
    text = io.StringIO()
    columns = ("image_id", "file_name", "status", "reason")
    rows = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    rows.writerows(row for row in read_table(folder / "images.parquet", IMAGES).to_pylist() if row["status"] != "kept")
    (folder / "set_aside.csv").write_text(text.getvalue(), encoding="utf-8")


def _samples(folder: Path, ids: list[str], pixels: Callable[[str], np.ndarray]) -> np.ndarray:
    """A grid of evenly spaced images with their masks."""
    sample_ids = evenly_spaced(ids, SAMPLES)
    rows = pq.read_table(folder / "masks.parquet", columns=REGIONS.names, filters=[("image_id", "in", sample_ids)])
    tiles = {i: shrunk(overlay(pixels(i), regions_from_table(one), n_regions=24), LONGEST) for i, one in rows_by_image(rows)}
    return montage([tiles[i] for i in sample_ids], sample_ids, columns=4)
