"""Features of images, computed shard by shard: by the stage that stores them, or by each stage that reads them where the profile stores none.

Both write the same files in the same type of number, so a method reads the same bytes.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.schemas import FEATURES
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner, ShardTotals
from uss_dagster.artifacts.shard_store import ShardStore
from uss_dagster.artifacts.shards import worker_count
from uss_dagster.artifacts.staging import MANIFEST, Manifest, Staging, manifest_text
from uss_dagster.artifacts.tables import read_table, write_table
from uss_dagster.backbones.base import loaded
from uss_dagster.errors import BadData, from_os_error
from uss_dagster.files import remove, write_whole
from uss_dagster.planning.cells import FeatureSpec

IN_WORK = "computed_features"
"""Folder among the work folders: features that a stage computes for itself."""


class ComputedFeatures:
    """Features that the profile does not store, computed into a work folder, some shards at a time. See ``FeatureSource``.

    A method that is fitted to a dataset reads them more than once: for it those of all images are computed and lie there until the stage
    has ended. A stage that was killed goes on with what is there.

    Parameters
    ----------
    private
        Folder of unfinished results, ``.uss`` of a project.
    name
        Name of the cell that reads them, and of the dataset.
    backbone
        Name of the backbone in the profile.
    spec
        How they are computed.
    images
        The images of the dataset.
    shards
        Ids of the images, shard by shard.
    """

    def __init__(self, private: Path, name: str, backbone: str, spec: FeatureSpec, images: Images, shards: Sequence[Sequence[str]]) -> None:
        self.private, self.name, self.backbone, self.spec = private, f"{IN_WORK}/{name}", backbone, spec
        self.images, self.shards = images, shards
        self.seconds = self.elapsed = 0.0

    @cached_property
    def folder(self) -> Path:
        return self._compute(self.shards, silent=False)

    def of_shards(self, count: int, needed: Callable[[int], bool]) -> Iterator[tuple[Path | None, range]]:
        if "folder" in vars(self):  # the method was fitted
            yield self.folder, range(count)
            return
        step = 2 * worker_count(count)
        for start in range(0, count, step):
            numbers = range(start, min(start + step, count))
            shards = [self.shards[number] for number in numbers if needed(number)]
            yield self._compute(shards, silent=True) if shards else None, numbers
            self.remove()

    def remove(self) -> None:
        remove(self.private / "work" / self.name)

    def _compute(self, shards: Sequence[Sequence[str]], silent: bool) -> Path:
        depends_on = [self.spec.model_dump(), [self.images.contents(ids) for ids in shards]]
        staging = Staging(self.private, self.name, depends_on)
        if not staging.has(MANIFEST):
            started = time.perf_counter()
            runner = ShardRunner(staging, ShardStore(staging.folder / "stored"))
            jobs = feature_jobs(shards, key_of=lambda number, ids: "")
            self.seconds += write_features(runner, jobs, self.spec, self.images, check=True, silent=silent).seconds_computing
            write_whole(staging.folder / MANIFEST, manifest_text(staging.folder, feature_manifest(self.backbone, self.spec)))
            self.elapsed += time.perf_counter() - started
        return staging.folder


# -- writing ------------------------------------------------------------------------------------------------

FeatureJob = ShardJob[tuple[str, Sequence[str]]]


def feature_manifest(backbone: str, spec: FeatureSpec) -> Manifest:
    """What the manifest of a folder of features says of the backbone. backbone: its name in the profile."""
    return {
        **({"weights": spec.weights} if spec.weights else {}),
        "backbone": backbone,
        "kind": spec.encoder.name,
        "comparable": spec.encoder.spec.comparable,
        "params": spec.encoder.params,
    }


def feature_jobs(shards: Sequence[Sequence[str]], key_of: Callable[[int, Sequence[str]], str]) -> list[FeatureJob]:
    """A job for each shard of ids. key_of: (number, ids) → key of the stored shard, '' for one that is never stored."""
    jobs = []
    for number, ids in enumerate(shards):
        shard = f"shard-{number:05d}"
        jobs.append(ShardJob((f"{shard}.safetensors", f"parts/{shard}.parquet"), key_of(number, ids), (shard, ids), len(ids)))
    return jobs


def write_features(
    runner: ShardRunner, jobs: Sequence[FeatureJob], spec: FeatureSpec, images: Images, check: bool = False, silent: bool = False
) -> ShardTotals:
    """Write shards of features and their index into the work folder of a runner.

    Parameters
    ----------
    runner
        Of the folder.
    jobs
        See ``feature_jobs``.
    spec
        How they are computed.
    images
        Of the dataset.
    check
        Values that are not finite are refused at once, not by the check of the whole result.
    silent
        No progress is shown.
    """
    work = functools.partial(_compute, spec=spec, folder=images.folder, check=check)
    advance = (lambda job, totals: None) if silent else None
    totals = runner.run(jobs, work, workers=1 if spec.encoder.spec.device else None, advance=advance)
    _join_index(runner.staging, [job.files[1] for job in jobs])
    return totals


def _compute(item: tuple[str, Sequence[str]], staging: Staging, spec: FeatureSpec, folder: Path, check: bool) -> float:
    """One shard; returns the seconds of the backbone alone."""
    shard, ids = item
    images = Images(folder)
    extract = loaded(spec.encoder.name, json.dumps(spec.encoder.params, sort_keys=True))
    pixels = [images.pixels(image_id) for image_id in ids]
    started = time.perf_counter()
    facets_of_images = extract(pixels)
    seconds = time.perf_counter() - started
    tensors: dict[str, np.ndarray] = {}
    rows = []
    for image_id, picture, facets in zip(ids, pixels, facets_of_images, strict=True):
        for facet, value in sorted(facets.items()):
            stored = np.ascontiguousarray(value if value.dtype.kind in "iu" else value.astype(spec.store))
            if check and not np.isfinite(stored).all():
                raise BadData(
                    f"Image '{image_id}', facet '{facet}': {int((~np.isfinite(stored)).sum())} values are NaN or infinite as {spec.store}."
                )
            tensors[f"{image_id}/{facet}"] = stored
            size = {"height": picture.shape[0], "width": picture.shape[1]}
            rows.append({"image_id": image_id, "shard": f"{shard}.safetensors", "facet": facet, "shape": list(value.shape), **size})
    staging.write(f"{shard}.safetensors", lambda path: _save(tensors, path))
    staging.write(f"parts/{shard}.parquet", lambda path: write_table(path, pa.Table.from_pylist(rows, schema=FEATURES), FEATURES))
    return seconds


def _save(tensors: dict[str, np.ndarray], path: Path) -> None:
    """safetensors raises its own error where the disk is full."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(tensors, path)
    except SafetensorError as error:
        raise from_os_error(OSError(str(error))) or error from None


def _join_index(staging: Staging, parts: Sequence[str]) -> None:
    """One index of all shards in place of the parts."""
    index = pa.concat_tables(read_table(staging.folder / part, FEATURES) for part in parts)
    index = index.sort_by([("image_id", "ascending"), ("facet", "ascending")])
    staging.write("index.parquet", lambda path: write_table(path, index, FEATURES))
    for part in (staging.folder / "parts").iterdir():
        part.unlink()
    (staging.folder / "parts").rmdir()
