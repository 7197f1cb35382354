"""What the stage ``curated`` and the command ``uss curate`` share: a pool → a checked folder, with its pages and samples."""

from __future__ import annotations

import configparser
import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from uss_dagster.artifacts.gate import Report
from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import read_table, regions_from_table, rows_by_image
from uss_dagster.curation import drift, pages
from uss_dagster.curation.checks import validate
from uss_dagster.curation.curate import Curated, curate
from uss_dagster.curation.human import Labels
from uss_dagster.curation.params import CurateParams
from uss_dagster.curation.tables import IMAGES, Pool
from uss_dagster.drawing import montage, overlay, shrunk
from uss_dagster.files import write_whole

SAMPLES, LONGEST = 8, 240


def make_set(
    what: str,
    folder: Path,
    pool: Pool,
    labels: Labels,
    params: CurateParams,
    info: Mapping[str, Any],
    pixels: Callable[[str], np.ndarray],
    advance: Callable[[int], None],
) -> tuple[Curated, Report]:
    """Write the whole folder but for ``validation.json`` and the manifest, and check it. pixels: of an image by its id."""
    made = curate(pool, labels, params, folder, info, advance)
    _write_set_aside(folder)
    samples = "samples.png" if made.ids else None
    if samples:
        (folder / samples).write_bytes(encode_png(_samples(folder, made.ids, pixels)))
    markdown, page = pages.datasheet(made.summary, info, asdict(params), samples)
    (folder / "DATASHEET.md").write_text(markdown, encoding="utf-8")
    (folder / "datasheet.html").write_text(page, encoding="utf-8")
    report = validate(what, folder, pool.looks, params, made.failures)
    (folder / "report.html").write_text(pages.report_page(report, f"Checks of {info['title']}"), encoding="utf-8")
    return made, report


def judge_drift(report: Report, before: Mapping[str, Any] | None, now: Mapping[str, Any], params: CurateParams) -> list[dict[str, Any]]:
    """Rows of the comparison with the version before; where drift is to be refused, the report learns of it only then."""
    rows = drift.compare(before, now) if before else []
    beyond = [row for row in rows if not row["within"]]
    if beyond and params.refuse_drift:
        said = "; ".join(f"{row['measure']} moved by {row['moved']}, limit {row['limit']}" for row in beyond)
        report.add("it is close to the previous version", False, f"{said}. If this is meant, set refuse_drift to false for one run.")
    return rows


def drift_facts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """For the side file of a run: the rows, and one sentence."""
    beyond = [row for row in rows if not row["within"]]
    if not rows:
        said = "there is no previous version to compare with"
    elif beyond:
        said = "beyond the limits: " + ", ".join(f"{row['measure']} by {row['moved']:g} (limit {row['limit']:g})" for row in beyond)
    else:
        said = "within the limits"
    return {"drift": said, "drift_within_limits": not beyond, "drift_rows": rows}


def previous_summary(root: Path, path: str) -> dict[str, Any] | None:
    """The summary of the version that dvc.lock records: DVC removes the file before the stage runs, its cache keeps it."""
    file = root / path
    if not file.is_file():
        cached = _cached(root, path)
        if cached is None or not cached.is_file():
            return None
        file = cached
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return found


def _cached(root: Path, path: str) -> Path | None:
    try:
        text = (root / "dvc.lock").read_bytes()
    except OSError:
        return None
    stages = (yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}).get("stages") or {}
    for stage in stages.values():
        for out in stage.get("outs") or ():
            if out.get("path") == path and out.get("md5"):
                return _cache_folder(root) / "files" / "md5" / out["md5"][:2] / out["md5"][2:]
    return None


def _cache_folder(root: Path) -> Path:
    parser = configparser.ConfigParser()
    for name in ("config", "config.local"):
        try:
            parser.read(root / ".dvc" / name)
        except configparser.Error:
            continue
    return root / ".dvc" / parser.get("cache", "dir", fallback="cache")


def write_drift_page(path: Path, report: Report, title: str, rows: list[dict[str, Any]]) -> None:
    """The checks and the comparison with the previous version, as a page beside the facts of the run."""
    write_whole(path, pages.report_page(report, title, rows))


def _write_set_aside(folder: Path) -> None:
    """``set_aside.csv``: every image that is not in the set, and why."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("image_id", "file_name", "status", "reason"))
    for row in read_table(folder / "images.parquet", IMAGES).to_pylist():
        if row["status"] != "kept":
            rows.writerow((row["image_id"], row["file_name"], row["status"], row["reason"]))
    (folder / "set_aside.csv").write_text(text.getvalue(), encoding="utf-8")


def _samples(folder: Path, ids: list[str], pixels: Callable[[str], np.ndarray]) -> np.ndarray:
    shown = evenly_spaced(ids, SAMPLES)
    rows = pq.read_table(folder / "masks.parquet", columns=REGIONS.names, filters=[("image_id", "in", shown)])
    drawn = {i: shrunk(overlay(pixels(i), regions_from_table(one), n_regions=24), LONGEST) for i, one in rows_by_image(rows)}
    return montage([drawn[i] for i in shown], shown, columns=4)
