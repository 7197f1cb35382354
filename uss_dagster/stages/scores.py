"""``scores``: regions of an entry against ground truth → tidy scores, bootstrap replicates, and the regions of a few samples."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.files import write_whole
from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import REGIONS, REPLICATES, SCORES
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.artifacts.tables import iterate_regions, read_table, write_table
from uss_dagster.errors import BadData
from uss_dagster.metrics.base import Accumulator, Truth
from uss_dagster.regions import ClassTree


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    dataset = root / "data" / "datasets" / cell["dataset"]
    segments = root / "data" / "segments" / cell["entry"] / cell["dataset"]
    manifest = read_manifest(dataset)
    staging = Staging(root, f"scores {key}", [cell, content_id(dataset), content_id(segments)])
    shards = sorted(segments.glob("shard-*.parquet"))
    total: dict[str, Accumulator] = {}
    rows: list[dict[str, Any]] = []
    with Progress(f"scores {key}", int(manifest["counts"]["images"])) as progress:
        for accumulators, image_rows in map_shards(functools.partial(_shard, cell=cell, dataset=dataset, kind=manifest["truth"]), shards):
            for family, accumulator in accumulators.items():
                if family in total:
                    total[family].merge(accumulator)
                else:
                    total[family] = accumulator
            rows += image_rows
            progress.advance(len({row["image_id"] for row in image_rows}))
    replicates: list[dict[str, Any]] = []
    for family, accumulator in total.items():
        metrics = registry.load("metric", family).SPEC.metrics
        for name, value in accumulator.result().items():
            rows.append(_row(cell, None, name, metrics[name].protocol, value, accumulator.n))
        for number, values in enumerate(accumulator.replicate_results()):
            for name, value in values.items():
                row = _row(cell, None, name, metrics[name].protocol, value, 0)
                replicates.append({k: row[k] for k in ("entry", "dataset", "metric", "protocol")} | {"replicate": number, "value": value})
    rows.sort(key=lambda r: (r["metric"], r["protocol"], r["image_id"] is not None, r["image_id"] or ""))
    replicates.sort(key=lambda r: (r["metric"], r["protocol"], r["replicate"]))
    ids = sorted({row["image_id"] for row in rows if row["image_id"] is not None})
    shown = set(evenly_spaced(ids, cell["samples"]))
    samples = pa.concat_tables(read_table(p, REGIONS, filters=[("image_id", "in", shown)]) for p in shards)
    write_table(staging.folder / "scores.parquet", pa.Table.from_pylist(rows, schema=SCORES), SCORES)
    write_table(staging.folder / "replicates.parquet", pa.Table.from_pylist(replicates, schema=REPLICATES), REPLICATES)
    write_table(staging.folder / "samples.parquet", samples, REGIONS)
    staging.publish(
        root / "data" / "scores" / cell["entry"] / cell["dataset"],
        validate(key, staging.folder, read_manifest(segments)["counts"]["images"]),
        {
            "entry": cell["entry"],
            "dataset": cell["dataset"],
            "segments": content_id(segments),
            "truth": content_id(dataset),
            "counts": {
                "scored": max((a.n for a in total.values()), default=0),
                "skipped": max((a.n_skipped for a in total.values()), default=0),
            },
        },
    )
    summary = {r["metric"]: r["value"] for r in rows if r["image_id"] is None}
    rounded = {k: round(v, 6) for k, v in sorted(summary.items())}
    write_whole(root / "reports" / "metrics" / f"{key}.json", json.dumps(rounded, indent=1) + "\n")
    return {"images": len(ids), **rounded}


def _row(cell: dict[str, Any], image_id: str | None, metric: str, protocol: str, value: float, n: int) -> dict[str, Any]:
    return {
        "entry": cell["entry"],
        "dataset": cell["dataset"],
        "image_id": image_id,
        "metric": metric,
        "protocol": protocol,
        "value": value,
        "n": n,
    }


def _shard(path: Path, cell: dict[str, Any], dataset: Path, kind: str) -> tuple[dict[str, Accumulator], list[dict[str, Any]]]:
    """Scores of one shard of segments; its accumulators are merged in shard order, whoever computed them."""
    families = {name: registry.load("metric", name) for name in cell["metrics"]}
    accumulators = {name: Accumulator(m.measure, m.reduce, cell["bootstrap"]) for name, m in families.items()}
    classes_file = dataset / "truth" / "classes.json"
    classes = ClassTree.from_json(classes_file.read_text(encoding="utf-8")) if classes_file.exists() else None
    rows = []
    ids = set(read_table(path, REGIONS, columns=["image_id"])["image_id"].to_pylist())
    truths = dict(iterate_regions([dataset / "truth" / "regions.parquet"], ids))
    for image_id, prediction in iterate_regions([path]):
        if image_id not in truths:
            raise BadData(f"Image '{image_id}' has no ground truth in {dataset.name}; its segments cannot be scored.")
        if truths[image_id].shape != prediction.shape:
            raise BadData(
                f"Image '{image_id}': ground truth is {truths[image_id].shape}, its regions are {prediction.shape} (height, width)."
            )
        truth = Truth(kind, truths[image_id], classes)
        for name, module in families.items():
            for metric, value in (accumulators[name].update(image_id, truth, prediction) or {}).items():
                spec = module.SPEC.metrics[metric]
                if spec.per_image and math.isfinite(value):
                    rows.append(_row(cell, image_id, metric, spec.protocol, value, 1))
    return accumulators, rows


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
            expect("expect_compound_columns_to_be_unique", column_list=["entry", "dataset", "image_id", "metric", "protocol"]),
        ],
    )
    return report


def _not_numbers(table: pa.Table) -> Iterator[str]:
    for row in table.to_pylist():
        if not math.isfinite(row["value"]):
            where = f"image '{row['image_id']}'" if row["image_id"] is not None else "the dataset"
            yield f"{row['metric']} ({row['protocol']}) is {row['value']} for {where}."


def _replicates(folder: Path, table: pa.Table) -> Iterator[str]:
    known = {(r["metric"], r["protocol"]) for r in table.to_pylist() if r["image_id"] is None}
    found = {(r["metric"], r["protocol"]) for r in read_table(folder / "replicates.parquet", REPLICATES).to_pylist()}
    if found - known:
        yield f"Replicates of metrics without a score: {sorted(found - known)}."
