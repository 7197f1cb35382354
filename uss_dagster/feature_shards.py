"""Features of images, computed shard by shard: by the stage that stores them, or by each stage that reads them where the profile stores none.

Both write the same files in the same type of number, so a method reads the same bytes.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.cluster import cluster_address
from uss_dagster.artifacts.features import INDEX
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.phases import PhasedWork
from uss_dagster.artifacts.reads import Reads
from uss_dagster.artifacts.schemas import FEATURES
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner, ShardTotals
from uss_dagster.artifacts.shard_store import ShardStore
from uss_dagster.artifacts.shards import worker_count
from uss_dagster.artifacts.staging import MANIFEST, Manifest, Staging, manifest_text
from uss_dagster.artifacts.tables import GROUP_ROWS, read_table, write_table
from uss_dagster.backbones.base import loaded
from uss_dagster.errors import BadData, from_os_error
from uss_dagster.files import find_project, remove, write_whole
from uss_dagster.planning.cells import FeatureSpec, check_weights

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
        step = (16 if cluster_address() else 2) * worker_count(count)
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

ShardItem = tuple[str, Sequence[str]]
"""Name of a shard, and ids of its images."""
FeatureJob = ShardJob[ShardItem]


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
    on_device, root = bool(spec.encoder.spec.device), find_project(images.folder)
    check_worker = functools.partial(check_weights, spec.encoder, spec.weights, runner.staging.name)
    reads: Reads[FeatureJob] | None = None
    if root is not None:
        reads = Reads(root, [images.index], lambda job: images.pieces(job.item[1]), check_worker, on_device)
    advance = (lambda job, totals: None) if silent else None
    totals = runner.run(jobs, _Work(spec, images.folder, check), advance=advance, reads=reads, on_device=on_device)
    _join_index(runner.staging, [job.files[1] for job in jobs])
    return totals


@dataclass(frozen=True)
class _Computed:
    """Sizes (height, width) and facets of the images of a shard; seconds of the backbone alone."""

    sizes: list[tuple[int, int]]
    facets: list[dict[str, np.ndarray]]
    seconds: float


@dataclass(frozen=True)
class _Work(PhasedWork[ShardItem, str, np.ndarray, _Computed]):
    """The features of a shard. Parameters: see ``write_features``."""

    spec: FeatureSpec
    folder: Path
    check: bool

    def parts(self, item: ShardItem) -> Sequence[str]:
        return item[1]

    def load(self, part: str) -> np.ndarray:
        return Images(self.folder).pixels(part)

    def compute(self, item: ShardItem, inputs: list[np.ndarray]) -> _Computed:
        extract = loaded(self.spec.encoder.name, json.dumps(self.spec.encoder.params, sort_keys=True))
        started = time.perf_counter()
        facets = extract(inputs)
        return _Computed([pixels.shape[:2] for pixels in inputs], facets, time.perf_counter() - started)

    def write(self, item: ShardItem, computed: _Computed, staging: Staging) -> float:
        shard, ids = item
        tensors: dict[str, np.ndarray] = {}
        rows = []
        for image_id, (height, width), facets in zip(ids, computed.sizes, computed.facets, strict=True):
            for facet, value in sorted(facets.items()):
                stored = np.ascontiguousarray(value if value.dtype.kind in "iu" else value.astype(self.spec.store))
                if self.check and not np.isfinite(stored).all():
                    bad = int((~np.isfinite(stored)).sum())
                    raise BadData(f"Image '{image_id}', facet '{facet}': {bad} values are NaN or infinite as {self.spec.store}.")
                tensors[f"{image_id}/{facet}"] = stored
                place = {"image_id": image_id, "shard": f"{shard}.safetensors", "facet": facet, "shape": list(value.shape)}
                rows.append({**place, "height": height, "width": width})
        staging.write(f"{shard}.safetensors", lambda path: _save(tensors, path))
        staging.write(f"parts/{shard}.parquet", lambda path: write_table(path, pa.Table.from_pylist(rows, schema=FEATURES), FEATURES))
        return computed.seconds


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
    staging.write(INDEX, lambda path: write_table(path, index, FEATURES, GROUP_ROWS))
    for part in (staging.folder / "parts").iterdir():
        part.unlink()
    (staging.folder / "parts").rmdir()
