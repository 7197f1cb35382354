"""``features``: images → facets of a backbone, in safetensors shards, resumable at the first missing shard."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.gate import Report, between, check_contract, check_expectations, expect, not_null, sorted_unique
from uss_dagster.artifacts.images import INDEX, Images
from uss_dagster.artifacts.phases import PhasedWork
from uss_dagster.artifacts.reads import Reads
from uss_dagster.artifacts.schemas import FEATURES
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner
from uss_dagster.artifacts.shard_store import ShardStore, shard_key
from uss_dagster.artifacts.staging import Staging
from uss_dagster.artifacts.tables import read_table, write_table
from uss_dagster.backbones.base import loaded as loaded_backbone
from uss_dagster.errors import BadData, from_os_error
from uss_dagster.planning.cells import DatasetCell, Facts, Plugin, check_weights
from uss_dagster.planning.entries import datasets_read, encoder_of
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner

ShardItem = tuple[str, list[str]]
"""Name of a shard, and ids of its images."""


class Features(DatasetCell):
    """The features of a dataset's images from a backbone.

    Parameters
    ----------
    backbone
        Name of the backbone in the profile.
    encoder
        The backbone plug-in and its parameters.
    weights
        Hash of the tensors that it loads; '' for a backbone without weights, or where they were never on this machine.
    shard_images
        Images in a shard.
    store
        Type of the stored numbers, 'float16' or 'float32'.
    """

    group: ClassVar[str] = "features"
    key_fields: ClassVar[tuple[str, ...]] = ("backbone", "dataset")
    kinds: ClassVar[str] = "numpy"

    backbone: str
    encoder: Plugin
    weights: str = ""
    shard_images: int
    store: str = "float16"

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        profile = planner.profile
        pairs = {
            (str(entry.backbone), dataset)
            for name, entry in profile.entries.items()
            if entry.backbone
            for dataset in datasets_read(profile, name)
        }
        for backbone, dataset in sorted(pairs):
            encoder = encoder_of(profile, backbone)
            yield cls(
                dataset=dataset,
                backbone=backbone,
                encoder=encoder,
                weights=planner.weights_of(f"{cls.stage}/{backbone}/{dataset}", encoder),
                shard_images=profile.settings.shard_images,
                store=profile.backbones[backbone].store if backbone in profile.backbones else "float16",
            )

    @property
    def description(self) -> str:
        return str(self.encoder.spec.title)

    @property
    def pool(self) -> str:
        return "gpu" if self.encoder.spec.device else ""

    def inputs(self, layout: Layout) -> list[Path]:
        return [layout.images(self.dataset)]

    def loaded_backbones(self) -> list[Plugin]:
        return [self.encoder]

    def modules(self) -> list[str]:
        return [self.encoder.module_name]

    def run(self, layout: Layout) -> Facts:
        check_weights(self.encoder, self.weights, self.file)
        images = Images(layout.images(self.dataset))
        plain = self.to_plain()
        staging = Staging(layout.private, self.name, [plain, images.identity])
        runner = ShardRunner(staging, ShardStore(layout.stored_shards(self.name)))
        jobs = []
        for number, ids in enumerate(images.shards(self.shard_images)):
            shard = f"shard-{number:05d}"
            files = (f"{shard}.safetensors", f"parts/{shard}.parquet")
            jobs.append(ShardJob(files, shard_key(plain, number, images.contents(ids)), (shard, ids), len(ids)))
        work = _Work(self.encoder, images.folder, self.store)
        reads: Reads[ShardJob[ShardItem]] = Reads(
            layout.root,
            [images.index],
            lambda job: images.pieces(job.item[1]),
            functools.partial(check_weights, self.encoder, self.weights, self.file),
            bool(self.encoder.spec.device),
        )
        totals = runner.run(jobs, work, reads=reads, on_device=bool(self.encoder.spec.device))
        _join_index(staging, [job.files[1] for job in jobs])
        facets = self.encoder.params.get("facets", [])
        manifest = {
            **({"weights": self.weights} if self.weights else {}),
            "backbone": self.backbone,
            "kind": self.encoder.name,
            "comparable": self.encoder.spec.comparable,
            "dataset": self.dataset,
            "params": self.encoder.params,
            "counts": {"images": len(images)},
        }
        staging.publish(
            self.artefact(layout),
            validate(f"features {self.backbone}__{self.dataset}", staging.folder, facets, images, self.store),
            manifest,
        )
        runner.evict_others(jobs)
        per_image = round(totals.seconds_computing / max(totals.images, 1), 4)
        return {**vars(totals), "seconds_per_image": per_image, "shards": len(jobs)}


@dataclass(frozen=True)
class _Computed:
    """Images of a shard with their facets; seconds of the backbone alone."""

    sizes: list[tuple[int, int]]
    facets: list[dict[str, np.ndarray]]
    seconds: float


@dataclass(frozen=True)
class _Work(PhasedWork[ShardItem, str, np.ndarray, _Computed]):
    """Features of one shard."""

    encoder: Plugin
    folder: Path
    store: str

    def parts(self, item: ShardItem) -> list[str]:
        return item[1]

    def load(self, part: str) -> np.ndarray:
        index = self.folder / INDEX
        return _images(self.folder, index.stat().st_mtime_ns).pixels(part)

    def compute(self, item: ShardItem, loaded: list[np.ndarray]) -> _Computed:
        extract = loaded_backbone(self.encoder.name, json.dumps(self.encoder.params, sort_keys=True))
        started = time.perf_counter()
        facets = extract(loaded)
        return _Computed([pixels.shape[:2] for pixels in loaded], facets, time.perf_counter() - started)

    def write(self, item: ShardItem, computed: _Computed, staging: Staging) -> float:
        shard, ids = item
        tensors: dict[str, np.ndarray] = {}
        rows = []
        for image_id, (height, width), facets in zip(ids, computed.sizes, computed.facets, strict=True):
            for facet, value in sorted(facets.items()):
                tensors[f"{image_id}/{facet}"] = np.ascontiguousarray(value if value.dtype.kind in "iu" else value.astype(self.store))
                place = {"image_id": image_id, "shard": f"{shard}.safetensors", "facet": facet, "shape": list(value.shape)}
                rows.append({**place, "height": height, "width": width})
        staging.write(f"{shard}.safetensors", lambda path: _save(tensors, path))
        staging.write(f"parts/{shard}.parquet", lambda path: write_table(path, pa.Table.from_pylist(rows, schema=FEATURES), FEATURES))
        return computed.seconds


@functools.lru_cache(maxsize=1)
def _images(folder: Path, _mtime: int) -> Images:
    """The images of a dataset, opened once a process."""
    return Images(folder)


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


# -- checks -------------------------------------------------------------------------------------------------


def validate(title: str, folder: Path, facets: list[str], images: Images, store: str) -> Report:
    """The checks of a features folder."""
    report = Report(title)
    index = read_table(folder / "index.parquet", FEATURES)
    check_contract(report, "rows ascend by image and facet", sorted_unique(index, ["image_id", "facet"]))
    check_contract(report, "every image has every facet", _incomplete(index, facets, images))
    check_contract(report, "tensors have the type, shape and finite values their rows promise", _bad_tensors(folder, index, store))
    names = expect("expect_column_values_to_match_regex", column="shard", regex=r"^shard-\d{5}\.safetensors$")
    check_expectations(report, index.to_pandas(), [not_null("image_id"), names, between("height", 1), between("width", 1)])
    return report


def _incomplete(index: pa.Table, facets: list[str], images: Images) -> Iterator[str]:
    facets_of_images: dict[str, set[str]] = {}
    for image_id, facet in zip(index["image_id"].to_pylist(), index["facet"].to_pylist(), strict=True):
        facets_of_images.setdefault(image_id, set()).add(facet.partition(".")[0])
    for image_id in images.ids:
        missing = set(facets) - facets_of_images.pop(image_id, set())
        if missing:
            yield f"Image '{image_id}' lacks {sorted(missing)}."
    if facets_of_images:
        yield f"Features of unknown images: {sorted(facets_of_images)[:5]}."


def _bad_tensors(folder: Path, index: pa.Table, store: str) -> Iterator[str]:
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
                    if value.dtype != store and value.dtype.kind not in "iu":
                        yield f"{at}: type is {value.dtype}, expected {store}."
                    if value.dtype.kind == "f" and not np.isfinite(value).all():
                        yield f"{at}: {int((~np.isfinite(value)).sum())} values are NaN or infinite."
                    if row["facet"] == "attention" and not np.allclose(value.astype(np.float32).sum(axis=-1), 1, atol=0.02):
                        yield f"{at}: rows do not sum to 1."
        except (SafetensorError, OSError) as error:
            raise BadData(f"{shard} cannot be read: {error}.") from error
