"""``scores``: regions of an entry against ground truth → tidy scores, bootstrap replicates, and the regions of a few images.

These are the samples, the same for every entry, and the gallery: the images that this entry does best, middling and worst on.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import REGIONS, REPLICATES, SCORES
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.artifacts.tables import iterate_hierarchies, iterate_regions, read_labels, read_table, write_table
from uss_dagster.errors import BadData
from uss_dagster.files import write_whole
from uss_dagster.metrics.base import Truth
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.scoring.scorer import FULL, Row, Scorer, convention_of, prepared


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    dataset = root / "data" / "datasets" / cell["dataset"]
    segments = root / "data" / "segments" / cell["entry"] / cell["dataset"]
    labels = root / cell["labels"] if cell["labels"] else None
    manifest = read_manifest(dataset)
    staging = Staging(root, f"scores {key}", [cell, *(content_id(folder) for folder in (dataset, segments, labels) if folder)])
    shards = sorted(segments.glob("shard-*.parquet"))
    total = Scorer(cell["metrics"], cell["grids"], cell["bootstrap"], prepared(cell["metrics"], lambda: iterate_hierarchies(shards)))
    work = functools.partial(_shard, empty=total, truth=dataset / "truth", kind=manifest["truth"], labels=labels)
    image_rows: list[Row] = []
    with Progress(f"scores {key}", int(manifest["counts"]["images"])) as progress:
        for part, rows in map_shards(work, shards):
            total.merge(part)
            image_rows += rows
            progress.advance(part.images)
    cell_is = {"entry": cell["entry"], "dataset": cell["dataset"]}
    rows = [cell_is | row for row in (*image_rows, *total.dataset_rows())]
    replicates = [cell_is | row for row in total.replicate_rows()]
    rows.sort(key=lambda r: (*convention_of(r), r["image_id"] is not None, r["image_id"] or ""))
    replicates.sort(key=lambda r: (*convention_of(r), r["replicate"]))
    scored = {row["image_id"] for row in rows if row["image_id"] is not None}
    if not scored:  # numbers of the whole dataset only
        scored = {i for p in shards for i in read_table(p, REGIONS, columns=["image_id"])["image_id"].to_pylist()}
    ids = sorted(scored)
    shown = set(evenly_spaced(ids, cell["samples"]))
    gallery = gallery_of(cell["metrics"], cell["grids"][0], image_rows)
    write_table(staging.folder / "scores.parquet", pa.Table.from_pylist(rows, schema=SCORES), SCORES)
    write_table(staging.folder / "replicates.parquet", pa.Table.from_pylist(replicates, schema=REPLICATES), REPLICATES)
    for name, chosen in (("samples", shown), ("gallery", {image_id for _, image_id, _ in gallery.get("images", [])})):
        kept = pa.concat_tables(read_table(p, REGIONS, filters=[("image_id", "in", chosen)]) for p in shards)
        write_table(staging.folder / f"{name}.parquet", kept, REGIONS)
    skipped = total.skipped()
    staging.publish(
        root / "data" / "scores" / cell["entry"] / cell["dataset"],
        validate(key, staging.folder, read_manifest(segments)["counts"]["images"]),
        {
            "entry": cell["entry"],
            "dataset": cell["dataset"],
            "segments": content_id(segments),
            "truth": content_id(dataset),
            "counts": {
                "scored": max((part.n for part in total.parts.values()), default=0),
                "skipped": max((len(ids) for ids in skipped.values()), default=0),
            },
            "skipped": skipped,
            "gallery": gallery,
        },
    )
    summary = {_name(row): row["value"] for row in rows if row["image_id"] is None}
    rounded = {k: round(v, 6) for k, v in sorted(summary.items())}
    write_whole(root / "reports" / "metrics" / f"{key}.json", json.dumps(rounded, indent=1) + "\n")
    return {"images": len(ids), **rounded}


def gallery_of(families: Sequence[str], grid: str, rows: Sequence[Row]) -> dict[str, Any]:
    """The convention of the first metric with scores of single images, and by it the best, the median and the worst image.

    Oracles and details come after the others. Equal scores go by image id; of an even number the better middle one is taken.
    """
    specs = {name: metric for family in families for name, metric in registry.load("metric", family).SPEC.metrics.items()}
    found = {row["metric"] for row in rows if row["grid"] == grid}
    candidates = sorted((n for n in specs if n in found), key=lambda n: (specs[n].oracle, specs[n].detail))
    if not candidates:
        return {}
    metric = candidates[0]
    sign = -1 if specs[metric].higher_is_better else 1
    ranked = sorted(
        (row for row in rows if row["metric"] == metric and row["grid"] == grid), key=lambda r: (sign * r["value"], r["image_id"])
    )
    chosen = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    places = {at: place for place, at in reversed(chosen.items())}  # of fewer than three images, the first word for each
    images = [[places[at], ranked[at]["image_id"], ranked[at]["value"]] for at in sorted(places)]
    return {**{k: ranked[0][k] for k in ("metric", "protocol", "scope", "grid")}, "images": images}


def _name(row: Row) -> str:
    """Key of a number in reports/metrics: the metric, and the grid where it is not the image's own."""
    return str(row["metric"]) if row["grid"] == FULL else f"{row['metric']}@{row['grid']}"


def _shard(path: Path, empty: Scorer, truth: Path, kind: str, labels: Path | None) -> tuple[Scorer, list[Row]]:
    """Scores of one shard of segments; they are merged in shard order, whoever computed them."""
    scorer = Scorer(empty.metrics, empty.grids, empty.replicates, empty.states)
    classes_file = truth / "classes.json"
    classes = ClassTree.from_json(classes_file.read_text(encoding="utf-8")) if classes_file.exists() else None
    rows: list[Row] = []
    ids = set(read_table(path, REGIONS, columns=["image_id"])["image_id"].to_pylist())
    truths = dict(iterate_regions([truth / "regions.parquet"], ids))
    given = read_labels(labels, ids) if labels else {}
    for image_id, prediction in iterate_regions([path]):
        if image_id not in truths and kind == "instances":  # an image without an object is none without ground truth
            truths[image_id] = Regions.from_masks([], shape=prediction.shape)
        if image_id not in truths:
            raise BadData(f"Image '{image_id}' has no ground truth in {truth.parent.name}; its segments cannot be scored.")
        if labels:
            prediction = prediction.labelled(*given[image_id])
        rows += scorer.add(image_id, Truth(kind, truths[image_id], classes), prediction)
    return scorer, rows


def validate(key: str, folder: Path, images: int) -> Report:
    report = Report(f"scores {key}")
    table = read_table(folder / "scores.parquet", SCORES)
    check_contract(
        report, "there is a score for the dataset", [] if table["image_id"].null_count else ["No metric has a value over the dataset."]
    )
    check_contract(report, "scores are numbers", _not_numbers(table))
    check_contract(report, "replicates belong to scores", _replicates(folder, table))
    check_expectations(
        report,
        table.to_pandas(),
        [
            expect("expect_column_values_to_not_be_null", column="value"),
            expect("expect_column_values_to_be_between", column="n", min_value=1, max_value=images),
            expect(
                "expect_compound_columns_to_be_unique", column_list=["entry", "dataset", "image_id", "metric", "protocol", "scope", "grid"]
            ),
        ],
    )
    return report


def _not_numbers(table: pa.Table) -> Iterator[str]:
    for row in table.to_pylist():
        if not math.isfinite(row["value"]):
            where = f"image '{row['image_id']}'" if row["image_id"] is not None else "the dataset"
            yield f"{row['metric']} ({row['protocol']}) is {row['value']} for {where}."


def _replicates(folder: Path, table: pa.Table) -> Iterator[str]:
    known = {convention_of(r) for r in table.to_pylist() if r["image_id"] is None}
    found = {convention_of(r) for r in read_table(folder / "replicates.parquet", REPLICATES).to_pylist()}
    if found - known:
        yield f"Replicates of metrics without a score: {sorted(found - known)}."
