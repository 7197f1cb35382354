"""``mask_pool``: regions of one entry or several on a dataset → one pool of masks without duplicates, nested and measured."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.features import feature_source
from uss_dagster.artifacts.gate import Report, between, check_contract, check_expectations, greater, not_null, sorted_unique, valid_regions
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.reads import Piece, Reads
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner
from uss_dagster.artifacts.shard_store import ShardStore, shard_key
from uss_dagster.artifacts.staging import Staging, content_id, files_of, read_manifest
from uss_dagster.artifacts.tables import iterate_regions, write_table
from uss_dagster.backbones.base import Encoder
from uss_dagster.curation.mask_pool import MaskFamily, MaskPoolParams, mask_pool_defaults, pool_masks, source_image_row
from uss_dagster.curation.stability import stability
from uss_dagster.curation.tables import MASKS, MEASURES, SOURCE_IMAGES, MaskPoolFolder, mask_tables
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.planning.cells import DatasetCell, Facts, FeatureSpec, Plugin, check_weights
from uss_dagster.planning.entries import encoder_of
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.planning.profiles import Params, complete_params
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Samples, Segmenter
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.segments import Segments

ShardItem = tuple[tuple[str, str], list[str]]
"""Files of a shard, and ids of its images."""


class MaskPool(DatasetCell):
    """The masks of a curated set before they are filtered.

    Parameters
    ----------
    curated
        Name of the curated set.
    entries
        Entries whose regions are pooled.
    methods
        Entry → its method, for the measure of stability, which runs methods again; empty without it.
    encoders
        Entry → its backbone, likewise.
    weights
        Entry → hash of the tensors that its backbone loads, likewise; without those that load none.
    backbones
        Entry → name of the backbone whose features its method is fitted to, likewise.
    computed
        Those backbones whose features the profile does not keep → how they are computed; None without one.
    params
        See ``MaskPoolParams``.
    """

    group: ClassVar[str] = "curation"
    key_fields: ClassVar[tuple[str, ...]] = ("curated",)
    left_out_when_none: ClassVar[tuple[str, ...]] = ("computed",)
    preview_by: ClassVar[str | None] = "uss_dagster.report.previews:mask_pool_preview"

    curated: str
    entries: list[str]
    methods: dict[str, Plugin]
    encoders: dict[str, Plugin]
    weights: dict[str, str]
    backbones: dict[str, str]
    params: Params
    needs_gpu: bool
    shard_images: int
    title: str
    computed: dict[str, FeatureSpec] | None = None

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        profile = planner.profile
        for name, section in profile.curated.items():
            dataset = str(section.dataset)
            profile.check_choice("dataset", dataset, [cell.dataset for cell in planner.cells_of(Datasets)], "curated", name, "dataset")
            entries = section.all_entries
            at = profile.at("curated", name, "entries")
            if len(set(entries)) < len(entries):
                raise UsageError(f"{at}: curated '{name}' names an entry twice: {', '.join(entries)}.")
            segments = {cell.entry: cell for cell in planner.cells_of(Segments) if cell.dataset == dataset}
            for entry in entries:
                if entry not in segments:
                    raise UsageError(f"{at}: No entry '{entry}' runs on '{dataset}'.{did_you_mean(entry, segments)}")
            values = {**mask_pool_defaults(section.preset), **section.mask_pool}
            params = complete_params(profile, MaskPoolParams, values, f"curated '{name}'", "curated", name, "mask_pool")
            pooled = {entry: segments[entry] for entry in entries}
            if params["views"]:
                _refuse_what_cannot_run_again(planner, name, pooled)
            again = pooled if params["views"] else {}
            fitted = {e: cell for e, cell in again.items() if cell.backbone and hasattr(cell.method.module, "fit")}
            yield cls(
                dataset=dataset,
                curated=name,
                entries=entries,
                methods={entry: cell.method for entry, cell in again.items()},
                encoders={entry: encoder_of(profile, cell.backbone) for entry, cell in again.items() if cell.backbone},
                weights={entry: cell.weights for entry, cell in again.items() if cell.weights},
                backbones={entry: str(cell.backbone) for entry, cell in fitted.items()},
                params=params,
                needs_gpu=any(cell.pool == "gpu" for cell in again.values()),
                shard_images=profile.settings.shard_images,
                title=section.title or f"Training set {name}",
                computed={str(cell.backbone): cell.features for cell in fitted.values() if cell.features} or None,
            )

    @property
    def pool(self) -> str:
        return "gpu" if self.needs_gpu else ""

    @property
    def description(self) -> str:
        return f"{self.title}: masks of {', '.join(self.entries)} without duplicates, nested and measured"

    def inputs(self, layout: Layout) -> list[Path]:
        segments = [layout.segments(entry, self.dataset) for entry in self.entries]
        return [layout.images(self.dataset), *segments, *self._features(layout)]

    def computed_features(self) -> dict[str, FeatureSpec]:
        return self.computed or {}

    def loaded_backbones(self) -> list[Plugin]:
        return list(self.encoders.values())

    def modules(self) -> list[str]:
        return [*super().modules(), *(plugin.module_name for plugin in self.methods.values())]

    def run(self, layout: Layout) -> Facts:
        self._check_all_weights()
        images = Images(layout.images(self.dataset))
        segments = {entry: layout.segments(entry, self.dataset) for entry in self.entries}
        plain = self.to_plain()
        read = [content_id(folder) for folder in (*segments.values(), *self._features(layout))]
        staging = Staging(layout.private, self.name, [plain, images.identity, read])
        runner = ShardRunner(staging, ShardStore(layout.stored_shards(self.name)))
        segmenters = {entry: self._segmenter(entry, layout, images) for entry in self.methods}
        states = [segmenter.state_digest for segmenter in segmenters.values()]
        written = [files_of(read_manifest(path)) for path in segments.values()]
        jobs = []
        for number, ids in enumerate(images.shards(self.shard_images)):
            files = (f"shard-{number:05d}.parquet", f"looks-{number:05d}.parquet")
            regions = [hashes[files[0]]["sha256"] for hashes in written]
            jobs.append(ShardJob(files, shard_key(plain, images.contents(ids), regions, states), (files, ids), len(ids)))
        params = registry.build_params(MaskPoolParams, self.params, f"mask pool '{self.curated}'")
        work = functools.partial(_compute, folder=images.folder, segments=segments, segmenters=segmenters, params=params)
        reads: Reads[ShardJob[ShardItem]] = Reads(
            layout.root,
            [images.index],
            lambda job: [*images.pieces(job.item[1]), *(Piece(path / job.item[0][0]) for path in segments.values())],
            self._check_all_weights,
            bool(self.pool),
        )
        totals = runner.run(jobs, work, on_device=bool(self.pool), reads=reads)
        masks = sum(table.num_rows for path in sorted(staging.folder.glob("shard-*.parquet")) for table in mask_tables(path, ["region"]))
        counts = {"images": len(images), "masks": masks}
        manifest = {"name": self.curated, "entries": self.entries, "dataset": self.dataset, "params": self.params, "counts": counts}
        staging.publish(self.artefact(layout), validate(f"pool {self.curated}", staging.folder, images), manifest)
        runner.evict_others(jobs)
        return {**vars(totals), "masks": masks}

    def _check_all_weights(self) -> None:
        self.check_weights()
        for entry, encoder in self.encoders.items():
            check_weights(encoder, self.weights.get(entry, ""), self.file)

    def _features(self, layout: Layout) -> list[Path]:
        """The stored features that methods are fitted to."""
        return sorted(
            {layout.features(backbone, self.dataset) for backbone in self.backbones.values() if backbone not in self.computed_features()}
        )

    def _segmenter(self, entry: str, layout: Layout, images: Images) -> Segmenter:
        """The method of an entry, fitted as its segments stage did."""
        plugin = self.encoders.get(entry)
        encoder = Encoder.of(plugin.name, plugin.params) if plugin else None
        segmenter = Segmenter.of(self.methods[entry].name, self.methods[entry].params, encoder)
        backbone = self.backbones.get(entry)
        spec = self.computed_features().get(backbone or "")
        source = feature_source(layout, self.name, backbone, self.dataset, spec, images.shards(self.shard_images))
        fitted = segmenter.fit(Samples(images.ids, images.folder, source, encoder))
        source.remove()
        return fitted


def _refuse_what_cannot_run_again(planner: Planner, name: str, segments: dict[str, Segments]) -> None:
    for entry, cell in segments.items():
        section = planner.profile.entries.get(entry)
        reasons = {
            "runs a trained model, which is": bool(cell.model),
            "reads masks made elsewhere, which are": bool(cell.files),
            "is fitted to another dataset, which is": bool(cell.fit_on),
            "has an encoder of its own, which is": section is not None and section.encoder is not None,
        }
        if does := next((reason for reason, holds in reasons.items() if holds), None):
            raise UsageError(
                f"{planner.profile.at('curated', name, 'mask_pool', 'views')}: curated '{name}' measures stability, but entry '{entry}' {does} "
                "not run again on other views. Leave out 'views'."
            )


def _compute(
    item: ShardItem,
    staging: Staging,
    folder: Path,
    segments: dict[str, Path],
    segmenters: dict[str, Segmenter],
    params: MaskPoolParams,
) -> None:
    """One shard of masks and one of looks."""
    (masks_file, looks_file), ids = item
    images = Images(folder)
    regions = [iterate_regions([path / masks_file]) for path in segments.values()]
    pooled, looks = [], []
    for image_id, (_, digest) in zip(ids, images.contents(ids), strict=True):
        pixels = images.pixels(image_id)
        families = []
        for entry, source in zip(segments, regions, strict=True):
            next_id, masks = next(source, ("", None))
            if masks is None or next_id != image_id:
                raise BadData(
                    f"{segments[entry] / masks_file} has no regions of image '{image_id}'. Run `dvc checkout --force` or its stage again."
                )
            families.append(MaskFamily(entry, masks, _stability(masks, pixels, image_id, segmenters.get(entry), params)))
        pooled.append(pool_masks(image_id, pixels, families, params))
        looks.append(source_image_row(image_id, images.member(image_id), digest, pixels))
    staging.write(masks_file, lambda path: write_table(path, pa.concat_tables(pooled), MASKS))
    staging.write(looks_file, lambda path: write_table(path, pa.concat_tables(looks), SOURCE_IMAGES))


def _stability(masks: Regions, pixels: np.ndarray, image_id: str, segmenter: Segmenter | None, params: MaskPoolParams) -> np.ndarray:
    if not params.views or segmenter is None:
        return np.zeros(0, np.float32)
    return stability(pixels, masks, functools.partial(segmenter.segment_image, image_id), params.views)


# -- checks -------------------------------------------------------------------------------------------------


def validate(title: str, folder: Path, images: Images) -> Report:
    """The checks of a mask pool."""
    report = Report(title)
    paths = sorted(folder.glob("shard-*.parquet"))
    looks = MaskPoolFolder(folder).images
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
    measures = [between(name, 0.0, 1.0) for name in MEASURES]
    check_expectations(report, light.to_pandas(), [between("area", 1), greater("region", "parent"), not_null("entry"), *measures])
    return report
