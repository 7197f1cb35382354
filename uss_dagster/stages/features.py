"""``features``: images → facets of a backbone, in safetensors shards of float16, resumable at the first missing shard."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect, sorted_unique
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import FEATURES
from uss_dagster.artifacts.shard_store import bring_back, forget_others, keep, shard_key
from uss_dagster.artifacts.shards import map_shards, result_facts
from uss_dagster.artifacts.staging import Staging
from uss_dagster.artifacts.tables import read_table, write_table
from uss_dagster.backbones.base import loaded
from uss_dagster.errors import BadData, TryAgain


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    folder = root / "data" / "datasets" / cell["dataset"] / "images"
    images = Images(folder)
    module = registry.load("backbone", cell["kind"])
    staging = Staging(root, f"features {key}", [cell, images.identity])
    shards = images.shards(cell["shard_images"])
    jobs = [(number, ids, shard_key("features", key, cell, number, images.contents(ids))) for number, ids in enumerate(shards)]
    work = functools.partial(_shard, cell=cell, folder=folder, target=staging)
    done: list[dict[str, Any]] = []
    with Progress(f"features {key}", len(images)) as progress:
        for result in map_shards(work, jobs, workers=1 if module.SPEC.device else None):
            progress.advance(int(result["images"] + result["resumed"] + result["reused"]))
            done.append(result)
    index = pa.concat_tables(read_table(staging.folder / "parts" / f"{_name(n)}.parquet", FEATURES) for n, _, _ in jobs)
    staging.write(
        "index.parquet", lambda path: write_table(path, index.sort_by([("image_id", "ascending"), ("facet", "ascending")]), FEATURES)
    )
    for part in (staging.folder / "parts").iterdir():
        part.unlink()
    (staging.folder / "parts").rmdir()
    facts = result_facts(done)
    staging.publish(
        root / "data" / "features" / cell["backbone"] / cell["dataset"],
        validate(key, staging.folder, cell["params"].get("facets", []), images),
        {
            "backbone": cell["backbone"],
            "kind": cell["kind"],
            "comparable": module.SPEC.comparable,
            "dataset": cell["dataset"],
            "params": cell["params"],
            "counts": {"images": len(images)},
        },
    )
    forget_others(staging, {kept for _, _, kept in jobs})
    return {**facts, "seconds_per_image": round(facts["seconds_computing"] / max(facts["images"], 1), 4), "shards": len(jobs)}


def _name(number: int) -> str:
    return f"shard-{number:05d}"


def _shard(job: tuple[int, list[str], str], cell: dict[str, Any], folder: Path, target: Staging) -> dict[str, Any]:
    """One shard: its index part is written last, so where that exists the shard is whole."""
    from safetensors.numpy import save_file

    number, ids, kept = job
    name = _name(number)
    files = [f"{name}.safetensors", f"parts/{name}.parquet"]
    if all(target.has(file) for file in files):
        return {"images": 0, "resumed": len(ids), "reused": 0, "seconds_computing": 0.0}
    if bring_back(target, kept, files):
        return {"images": 0, "resumed": 0, "reused": len(ids), "seconds_computing": 0.0}
    images = Images(folder)
    extract = loaded(cell["kind"], json.dumps(cell["params"], sort_keys=True))
    pixels = [images.pixels(i) for i in ids]
    started = time.perf_counter()
    facets = extract(pixels)
    seconds = time.perf_counter() - started
    tensors: dict[str, np.ndarray] = {}
    rows = []
    for image_id, picture, found in zip(ids, pixels, facets, strict=True):
        for facet, value in sorted(found.items()):
            tensors[f"{image_id}/{facet}"] = np.ascontiguousarray(value if value.dtype.kind in "iu" else value.astype(np.float16))
            rows.append(
                {
                    "image_id": image_id,
                    "shard": f"{name}.safetensors",
                    "facet": facet,
                    "shape": list(value.shape),
                    "height": picture.shape[0],
                    "width": picture.shape[1],
                }
            )
    target.write(f"{name}.safetensors", lambda path: _save(save_file, tensors, path))
    target.write(f"parts/{name}.parquet", lambda path: write_table(path, pa.Table.from_pylist(rows, schema=FEATURES), FEATURES))
    keep(target, kept, files)
    return {"images": len(ids), "resumed": 0, "reused": 0, "seconds_computing": seconds}


def _save(save_file: Any, tensors: dict[str, np.ndarray], path: Path) -> None:
    """safetensors raises its own error where the disk is full."""
    try:
        save_file(tensors, path)
    except Exception as error:
        if "No space left" in str(error):
            raise TryAgain(
                "The disk is full. Free some space and run the same command again; nothing that was finished is lost."
            ) from error
        raise


def validate(key: str, folder: Path, facets: list[str], images: Images) -> Report:
    report = Report(f"features {key}")
    index = read_table(folder / "index.parquet", FEATURES)
    check_contract(report, "rows ascend by image and facet", sorted_unique(index, ["image_id", "facet"]))
    check_contract(report, "every image has every facet", _complete(index, facets, images))
    check_contract(report, "tensors have the type, shape and finite values their rows promise", _tensors(folder, index))
    check_expectations(
        report,
        index.to_pandas(),
        [
            expect("expect_column_values_to_not_be_null", column="image_id"),
            expect("expect_column_values_to_match_regex", column="shard", regex=r"^shard-\d{5}\.safetensors$"),
            expect("expect_column_values_to_be_between", column="height", min_value=1),
            expect("expect_column_values_to_be_between", column="width", min_value=1),
        ],
    )
    return report


def _complete(index: pa.Table, facets: list[str], images: Images) -> Iterator[str]:
    have: dict[str, set[str]] = {}
    for image_id, facet in zip(index["image_id"].to_pylist(), index["facet"].to_pylist(), strict=True):
        have.setdefault(image_id, set()).add(facet.partition(".")[0])
    for image_id in images.ids:
        missing = set(facets) - have.pop(image_id, set())
        if missing:
            yield f"Image '{image_id}' lacks {sorted(missing)}."
    if have:
        yield f"Features of unknown images: {sorted(have)[:5]}."


def _tensors(folder: Path, index: pa.Table) -> Iterator[str]:
    from safetensors import SafetensorError, safe_open

    rows = index.to_pylist()
    for shard in sorted({row["shard"] for row in rows}):
        try:
            with safe_open(folder / shard, "numpy") as tensors:
                for row in (r for r in rows if r["shard"] == shard):
                    value = tensors.get_tensor(f"{row['image_id']}/{row['facet']}")
                    at = f"Image '{row['image_id']}', facet '{row['facet']}'"
                    if list(value.shape) != row["shape"]:
                        yield f"{at}: shape is {value.shape}, its row says {row['shape']}."
                    if value.dtype != np.float16 and value.dtype.kind not in "iu":
                        yield f"{at}: type is {value.dtype}, expected float16."
                    if value.dtype.kind == "f" and not np.isfinite(value).all():
                        yield f"{at}: {int((~np.isfinite(value)).sum())} values are NaN or infinite."
                    if row["facet"] == "attention" and not np.allclose(value.astype(np.float32).sum(axis=-1), 1, atol=0.02):
                        yield f"{at}: rows do not sum to 1."
        except (SafetensorError, OSError) as error:
            raise BadData(f"{shard} cannot be read: {error}.") from error
