"""``features``: images → facets of a backbone, in safetensors shards, resumable at the first missing shard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.features import INDEX
from uss_dagster.artifacts.gate import Report, between, check_contract, check_expectations, expect, not_null, sorted_unique
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.schemas import FEATURES
from uss_dagster.artifacts.shard_runner import ShardRunner
from uss_dagster.artifacts.shard_store import ShardStore, shard_key
from uss_dagster.artifacts.staging import Staging
from uss_dagster.artifacts.tables import read_table
from uss_dagster.errors import BadData
from uss_dagster.feature_shards import feature_jobs, feature_manifest, write_features
from uss_dagster.planning.cells import DatasetCell, Facts, FeatureSpec, Plugin, check_weights
from uss_dagster.planning.entries import datasets_read, encoder_of, keeps_features, store_of
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
            if entry.backbone and keeps_features(profile, entry.backbone)
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
                store=store_of(profile, backbone),
            )

    @property
    def description(self) -> str:
        return str(self.encoder.spec.title)

    def inputs(self, layout: Layout) -> list[Path]:
        return [layout.images(self.dataset)]

    def loaded_backbones(self) -> list[Plugin]:
        return [self.encoder]

    def run(self, layout: Layout) -> Facts:
        check_weights(self.encoder, self.weights, self.file)
        images = Images(layout.images(self.dataset))
        plain = self.to_plain()
        staging = Staging(layout.private, self.name, [plain, images.identity])
        runner = ShardRunner(staging, ShardStore(layout.stored_shards(self.name)))
        spec = FeatureSpec(encoder=self.encoder, weights=self.weights, store=self.store)
        shards = images.shards(self.shard_images)
        jobs = feature_jobs(shards, lambda number, ids: shard_key(plain, number, images.contents(ids)))
        totals = write_features(runner, jobs, spec, images)
        facets = self.encoder.params.get("facets", [])
        manifest = {**feature_manifest(self.backbone, spec), "dataset": self.dataset, "counts": {"images": len(images)}}
        staging.publish(
            self.artefact(layout),
            validate(f"features {self.backbone}__{self.dataset}", staging.folder, facets, images, self.store),
            manifest,
        )
        runner.evict_others(jobs)
        per_image = round(totals.seconds_computing / max(totals.images, 1), 4)
        return {**vars(totals), "seconds_per_image": per_image, "shards": len(jobs)}


# -- checks -------------------------------------------------------------------------------------------------


def validate(title: str, folder: Path, facets: list[str], images: Images, store: str) -> Report:
    """The checks of a features folder."""
    report = Report(title)
    index = read_table(folder / INDEX, FEATURES)
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
