"""``pool``: regions of one entry or several on a dataset → one pool of masks without duplicates, nested and measured, in Parquet shards."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect, sorted_unique, valid_regions
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shard_store import bring_back, digest_of, forget_others, keep, shard_key
from uss_dagster.artifacts.shards import map_shards, result_facts
from uss_dagster.artifacts.staging import Staging, content_id
from uss_dagster.artifacts.tables import iterate_regions, write_table
from uss_dagster.backbones.base import Encoder
from uss_dagster.curation.pooling import Family, PoolParams, look_row, pool_image
from uss_dagster.curation.stability import stability
from uss_dagster.curation.tables import LOOKS, MEASURES, POOL, PoolFolder, mask_tables
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions
from uss_dagster.stages.segments import Samples


def produce(key: str, cell: dict[str, Any], root: Path) -> dict[str, Any]:
    folder = root / "data" / "datasets" / cell["dataset"] / "images"
    images = Images(folder)
    segments = {entry: root / "data" / "segments" / entry / cell["dataset"] for entry in cell["entries"]}
    staging = Staging(root, f"pool {key}", [cell, images.identity, [content_id(path) for path in segments.values()]])
    states = {entry: _fitted(family, cell["dataset"], root, images) for entry, family in cell["families"].items()}
    jobs = []
    for number, ids in enumerate(images.shards(cell["shard_images"])):
        name = f"shard-{number:05d}.parquet"
        read = [digest_of(segments[entry] / name) for entry in cell["entries"]]
        # where the method is run again, what was fitted to all images would have to be part of the key
        kept = shard_key("pool", cell, images.contents(ids), read) if not any(state is not None for state in states.values()) else ""
        jobs.append((number, ids, kept))
    work = functools.partial(_shard, cell=cell, folder=folder, segments=segments, states=states, target=staging)
    done: list[dict[str, Any]] = []
    with Progress(f"pool {key}", len(images)) as progress:
        for result in map_shards(work, jobs, workers=1 if cell["pool"] else None):
            progress.advance(int(result["images"] + result["resumed"] + result["reused"]))
            done.append(result)
    facts = result_facts(done)
    masks = sum(table.num_rows for path in sorted(staging.folder.glob("shard-*.parquet")) for table in mask_tables(path, ["region"]))
    staging.publish(
        root / "data" / "pool" / key,
        validate(key, staging.folder, images),
        {
            "name": key,
            "entries": cell["entries"],
            "dataset": cell["dataset"],
            "params": cell["params"],
            "counts": {"images": len(images), "masks": masks},
        },
    )
    forget_others(staging, {kept for _, _, kept in jobs})
    return {**facts, "masks": masks}


def _fitted(family: dict[str, Any], dataset: str, root: Path, images: Images) -> Any:
    """What the method of an entry learns from all images, as its segments stage did, or None."""
    module = registry.load("method", family["method"])
    if not hasattr(module, "fit"):
        return None
    params = registry.build_params(module.SPEC.params, family["params"], f"method '{family['method']}'")
    features = root / "data" / "features" / family["backbone"] / dataset if family["backbone"] else None
    encoder = Encoder.of(family["encoder"]["kind"], family["encoder"]["params"]) if family["encoder"] else None
    return module.fit(Samples(images.ids, images.folder, features, encoder), params)


def _shard(
    job: tuple[int, list[str], str], cell: dict[str, Any], folder: Path, segments: dict[str, Path], states: dict[str, Any], target: Staging
) -> dict[str, Any]:
    """One shard: its looks are written last, so where those exist the shard is whole."""
    number, ids, kept = job
    files = [f"shard-{number:05d}.parquet", f"looks-{number:05d}.parquet"]
    if all(target.has(file) for file in files):
        return {"images": 0, "resumed": len(ids), "reused": 0, "seconds_computing": 0.0}
    if bring_back(target, kept, files):
        return {"images": 0, "resumed": 0, "reused": len(ids), "seconds_computing": 0.0}
    params = registry.build_params(PoolParams, cell["params"], f"pool '{cell['name']}'")
    images = Images(folder)
    names = dict(zip(images.ids, images.table["member"].to_pylist(), strict=True))
    regions = [iterate_regions([path / files[0]]) for path in segments.values()]
    started = time.perf_counter()
    pooled, looks = [], []
    for image_id, (_, digest) in zip(ids, images.contents(ids), strict=True):
        pixels = images.pixels(image_id)
        families = []
        for entry, source in zip(segments, regions, strict=True):
            found_id, found = next(source, ("", None))
            if found is None or found_id != image_id:
                raise BadData(
                    f"{segments[entry] / files[0]} has no regions of image '{image_id}'. Run `dvc checkout --force` or its stage again."
                )
            families.append(Family(entry, found, _stability(entry, found, pixels, image_id, cell, states, params)))
        pooled.append(pool_image(image_id, pixels, families, params))
        looks.append(look_row(image_id, names[image_id], digest, pixels))
    target.write(files[0], lambda path: write_table(path, pa.concat_tables(pooled), POOL))
    target.write(files[1], lambda path: write_table(path, pa.concat_tables(looks), LOOKS))
    keep(target, kept, files)
    return {"images": len(ids), "resumed": 0, "reused": 0, "seconds_computing": time.perf_counter() - started}


def _stability(
    entry: str, found: Regions, pixels: np.ndarray, image_id: str, cell: dict[str, Any], states: dict[str, Any], params: PoolParams
) -> np.ndarray:
    if not params.views:
        return np.zeros(0, np.float32)
    family = cell["families"][entry]
    return stability(pixels, found, method_on_pixels(image_id, family, states[entry]), params.views)


def method_on_pixels(image_id: str, family: dict[str, Any], state: Any) -> Callable[[np.ndarray], Regions]:
    """The method of an entry as a function of a picture. family: method, params, and encoder (kind, params; empty for none)."""
    module = registry.load("method", family["method"])
    params = registry.build_params(module.SPEC.params, family["params"], f"method '{family['method']}'")
    encoder = Encoder.of(family["encoder"]["kind"], family["encoder"]["params"]) if family["encoder"] else None

    def segment(picture: np.ndarray) -> Regions:
        features = encoder([picture])[0] if encoder and module.SPEC.needs else None
        found: Regions = module.segment(Sample(image_id, picture, features, encoder), params, state)
        return found.pruned()

    return segment


def validate(key: str, folder: Path, images: Images) -> Report:
    report = Report(f"pool {key}")
    paths = sorted(folder.glob("shard-*.parquet"))
    looks = PoolFolder(folder).looks
    check_contract(report, "every image is there once, in order", [] if looks["image_id"].to_pylist() == images.ids else ["Images differ."])
    light = pa.concat_tables(
        table
        for path in paths
        for table in mask_tables(path, ["image_id", "region", "parent", "depth", "area", "score", "entry", *MEASURES])
    )
    check_contract(report, "rows ascend by image and region", sorted_unique(light, ["image_id", "region"]))
    check_contract(
        report, "masks decode and nest", valid_regions((t.select(REGIONS.names) for path in paths for t in mask_tables(path)), overlap=True)
    )
    check_expectations(
        report,
        light.to_pandas(),
        [
            expect("expect_column_values_to_be_between", column="area", min_value=1),
            expect("expect_column_pair_values_a_to_be_greater_than_b", column_A="region", column_B="parent"),
            expect("expect_column_values_to_not_be_null", column="entry"),
            *(expect("expect_column_values_to_be_between", column=name, min_value=0.0, max_value=1.0) for name in MEASURES),
        ],
    )
    return report
