"""``segments``: images (and features) → regions of a method, in Parquet shards."""

from __future__ import annotations

import functools
import hashlib
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.features import FeatureShards
from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect, no_nan, sorted_unique, valid_regions
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shard_store import bring_back, digest_of, forget_others, keep, shard_key
from uss_dagster.artifacts.shards import map_shards, result_facts
from uss_dagster.artifacts.staging import MANIFEST, Staging, content_id
from uss_dagster.artifacts.tables import read_table, region_tables, regions_to_table, write_table
from uss_dagster.backbones.base import Encoder, Features
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    folder = root / "data" / "datasets" / cell["dataset"] / "images"
    images = Images(folder)
    module = registry.load("method", cell["method"])
    features = root / "data" / "features" / cell["backbone"] / cell["dataset"] if cell["backbone"] else None
    inputs = [images.identity, content_id(features) if features else None]
    params = parameters_of(cell, root)
    if cell.get("model"):
        trained = root / cell["model"]
        inputs.append(content_id(trained) if (trained / MANIFEST).exists() else None)
    staging = Staging(root, f"segments {key}", [cell, inputs])
    state, seconds_fitting = None, 0.0
    if hasattr(module, "fit"):
        started = time.perf_counter()
        state = module.fit(Samples(images.ids, folder, features, _encoder(cell)), params)
        seconds_fitting = time.perf_counter() - started
    key_of = _shard_keys(cell, images, features, state, module.SPEC.imported)
    jobs = [(number, ids, key_of(ids)) for number, ids in enumerate(images.shards(cell["shard_images"]))]
    work = functools.partial(_shard, cell=cell, params=params, folder=folder, features=features, state=state, target=staging)
    done: list[dict[str, Any]] = []
    with Progress(f"segments {key}", len(images)) as progress:
        for result in map_shards(work, jobs, workers=1 if cell["pool"] else None):
            progress.advance(int(result["images"] + result["resumed"] + result["reused"]))
            done.append(result)
    facts = result_facts(done)
    report = validate(key, staging.folder, images, module.SPEC.overlap)
    regions = sum(read_table(p, REGIONS, columns=["region"]).num_rows for p in sorted(staging.folder.glob("shard-*.parquet")))
    staging.publish(
        root / "data" / "segments" / cell["entry"] / cell["dataset"],
        report,
        {
            "entry": cell["entry"],
            "method": cell["method"],
            "backbone": cell["backbone"],
            "dataset": cell["dataset"],
            "params": cell["params"],
            "overlap": module.SPEC.overlap,
            "counts": {"images": len(images), "regions": regions},
        },
    )
    forget_others(staging, {kept for _, _, kept in jobs})
    spent = facts["seconds_computing"] + seconds_fitting
    per_image = round(spent / facts["images"], 4) if facts["images"] else None  # None: every shard was there already
    return {**facts, "backbone": cell["backbone"], "regions": regions, "seconds_per_image": per_image}


@dataclass(frozen=True)
class Samples:
    """Samples in order of id, one in memory at a time, as often as wanted. features: the folder of their facets, or None."""

    ids: list[str]
    folder: Path
    features: Path | None
    encode: Encoder | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sample]:
        images = Images(self.folder)
        facets = FeatureShards(self.features) if self.features else None
        for image_id in self.ids:
            found = Features(facets.tensors(image_id), facets.backbone, facets.comparable) if facets else None
            yield Sample(image_id, images.pixels(image_id), found, self.encode)


def parameters_of(cell: dict[str, Any], root: Path) -> Any:
    """The method's parameters. A trained model, which the plan names from the project folder, is named by its full path."""
    values = {**cell["params"], "model": str(root / cell["model"])} if cell.get("model") else cell["params"]
    return registry.build_params(registry.load("method", cell["method"]).SPEC.params, values, f"method '{cell['method']}'")


def _encoder(cell: dict[str, Any]) -> Encoder | None:
    return Encoder.of(cell["encoder"]["kind"], cell["encoder"]["params"]) if cell["encoder"] else None


def _shard_keys(cell: dict[str, Any], images: Images, features: Path | None, state: Any, imported: bool) -> Callable[[list[str]], str]:
    """Images of a shard → its key: over the cell, the images, their features, and what was fitted to all. Regions that are imported come
    from files that nothing here knows, so those shards are not kept."""
    fitted = hashlib.sha256(pickle.dumps(state)).hexdigest() if state is not None else ""
    if imported:
        return lambda ids: ""
    if features is None:
        return lambda ids: shard_key("segments", cell, images.contents(ids), fitted)
    where, read = FeatureShards(features), functools.cache(lambda shard: digest_of(features / shard))
    return lambda ids: shard_key("segments", cell, images.contents(ids), fitted, [read(shard) for shard in where.shards_of(ids)])


def _shard(
    job: tuple[int, list[str], str],
    cell: dict[str, Any],
    params: Any,
    folder: Path,
    features: Path | None,
    state: Any,
    target: Staging,
) -> dict[str, Any]:
    number, ids, kept = job
    name = f"shard-{number:05d}.parquet"
    if target.has(name):
        return {"images": 0, "resumed": len(ids), "reused": 0, "seconds_computing": 0.0}
    if bring_back(target, kept, [name]):
        return {"images": 0, "resumed": 0, "reused": len(ids), "seconds_computing": 0.0}
    module = registry.load("method", cell["method"])
    tables, seconds = [], 0.0
    for sample in Samples(ids, folder, features, _encoder(cell)):
        started = time.perf_counter()
        regions = module.segment(sample, params, state)
        seconds += time.perf_counter() - started
        if regions.shape != sample.image.shape[:2]:
            raise BadData(
                f"Method '{cell['method']}' gave regions of {regions.shape} for image '{sample.image_id}' of {sample.image.shape[:2]} (height, width)."
            )
        regions = regions.pruned()
        if not len(regions):
            raise BadData(f"Method '{cell['method']}' gave no region for image '{sample.image_id}'; at least the whole image is expected.")
        tables.append(regions_to_table(sample.image_id, regions))
    target.write(name, lambda path: write_table(path, pa.concat_tables(tables), REGIONS))
    keep(target, kept, [name])
    return {"images": len(ids), "resumed": 0, "reused": 0, "seconds_computing": seconds}


def validate(key: str, folder: Path, images: Images, overlap: bool) -> Report:
    report = Report(f"segments {key}")
    paths = sorted(folder.glob("shard-*.parquet"))
    if not check_contract(report, "shards have the columns and types of regions", _schema_problems(paths)):
        return report
    light = ["image_id", "region", "parent", "depth", "area", "score", "source"]
    table = pa.concat_tables(read_table(path, REGIONS, columns=light) for path in paths)
    check_contract(report, "rows ascend by image and region", sorted_unique(table, ["image_id", "region"]))
    missing = sorted(set(images.ids) ^ set(table["image_id"].to_pylist()))
    check_contract(report, "every image has regions, and no other", [f"Differing images: {missing[:5]}."] if missing else [])
    check_contract(report, "scores of regions are numbers", no_nan(table, ["score"]))
    check_contract(
        report,
        "regions decode, nest and do not overlap" if not overlap else "regions decode and nest",
        valid_regions(region_tables(paths), overlap),
    )
    check_expectations(
        report,
        table.to_pandas(),
        [
            expect("expect_column_values_to_be_between", column="area", min_value=1),
            expect("expect_column_values_to_be_between", column="region", min_value=0),
            expect("expect_column_values_to_be_between", column="parent", min_value=-1),
            expect("expect_column_pair_values_a_to_be_greater_than_b", column_A="region", column_B="parent"),
            expect("expect_column_values_to_not_be_null", column="source"),
        ],
    )
    return report


def _schema_problems(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        try:
            for _ in region_tables([path]):
                break
        except (BadData, pa.ArrowException) as error:
            yield str(error)
