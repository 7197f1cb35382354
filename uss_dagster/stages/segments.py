"""``segments``: images (and features) → regions of a method, in Parquet shards."""

from __future__ import annotations

import collections
import functools
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uss_dagster.artifacts.feature_runs import run_with_features
from uss_dagster.artifacts.features import FeatureShards, FeatureSource, StoredFeatures, feature_source, read_for
from uss_dagster.artifacts.gate import (
    Problems,
    Report,
    RowOrder,
    between,
    check_contract,
    check_expectations,
    frames,
    greater,
    no_nan,
    not_null,
    same_images,
    valid_regions,
)
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.reads import Reads
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner
from uss_dagster.artifacts.shard_store import ShardStore, shard_key
from uss_dagster.artifacts.staging import MANIFEST, Staging, content_id, files_of, read_manifest
from uss_dagster.artifacts.tables import NO_MASK, check_schema, read_table, readable, region_tables, regions_to_table, write_table
from uss_dagster.backbones.base import Encoder
from uss_dagster.errors import BadData
from uss_dagster.files import write_whole
from uss_dagster.notes import Fact, collecting, to_json
from uss_dagster.planning.cells import EntryCell, Facts, FeatureSpec, Plugin, cell_name, check_weights
from uss_dagster.planning.contents import content_of
from uss_dagster.planning.entries import (
    datasets_of,
    encoder_of,
    facets_encoded,
    facets_read,
    fit_dataset,
    method_on,
    model_of,
    runs_of,
    student_of,
)
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.segmenter import Samples, Segmenter, few_regions_warning

ShardItem = tuple[tuple[str, ...], list[str]]
"""Files of a shard, and ids of its images."""


class Segments(EntryCell):
    """The regions that an entry finds in the images of a dataset, with one seed where it has several.

    Parameters
    ----------
    method
        The method and its parameters.
    backbone
        Name of the backbone whose features it reads; None for a method that looks at pixels only.
    encoder
        The backbone itself, for a method that encodes pieces of images; None for others.
    weights
        Hash of the tensors that the encoder loads; '' without one.
    model
        Folder of the trained model that it runs, from the project folder; '' for none.
    model_is_planned
        The model is a student of the profile.
    content
        Hash of a model folder that is not of the profile; '' for none.
    fit_on
        Dataset that the method is fitted to; '' for the one that is segmented.
    explain
        What the method knows of each image is written beside its regions, in ``notes-*.json``.
    features
        How it computes the features that it reads, where the profile keeps none; None where they are stored, or it reads none.
    """

    group: ClassVar[str] = "segments"
    left_out_when_none: ClassVar[tuple[str, ...]] = ("features",)
    preview_by: ClassVar[str | None] = "uss_dagster.report.previews:segments_preview"

    method: Plugin
    backbone: str | None
    encoder: Plugin | None
    weights: str = ""
    model: str
    model_is_planned: bool
    shard_images: int
    title: str
    summary: str
    content: str = ""
    fit_on: str = ""
    explain: bool = False
    features: FeatureSpec | None = None

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        profile = planner.profile
        for entry, section in profile.entries.items():
            runs = runs_of(profile, entry)
            method = runs[entry]
            facets_read(profile, entry)  # refuses a backbone that does not fit
            spec = method.spec
            model = model_of(profile, entry, method)
            is_planned = student_of(profile, model) is not None
            title = section.title or spec.title
            if section.encoder:
                facets_encoded(profile, entry)
            encoder = encoder_of(profile, section.encoder or str(section.backbone)) if spec.encodes else None
            for dataset, (run, plugin) in itertools.product(datasets_of(profile, entry), runs.items()):
                name = cell_name(cls.stage, run, dataset)
                yield cls(
                    dataset=dataset,
                    entry=run,
                    method=method_on(profile, entry, plugin, dataset, planner.root or Path()),
                    backbone=section.backbone,
                    encoder=encoder,
                    weights=planner.weights_of(name, encoder),
                    model=model,
                    model_is_planned=is_planned,
                    shard_images=profile.settings.shard_images,
                    title=title if run == entry else f"{title}, seed {plugin.params['seed']}",
                    summary=f"{title}: {spec.summary or spec.paper}",
                    content=planner.content_of(name, [Path(model)]) if model and not is_planned else "",
                    fit_on=fit_dataset(profile, entry),
                    explain=section.explain,
                    features=planner.features_of(name, section.backbone),
                )

    @property
    def description(self) -> str:
        return self.summary

    @property
    def pool(self) -> str:
        return "gpu" if self.method_on_device else super().pool

    @property
    def method_on_device(self) -> bool:
        """Whether the method itself runs a network on a device, so that one process segments all images."""
        encodes = bool(self.encoder and self.encoder.spec.device)
        return encodes or bool(self.model and str(self.method.params.get("device", "cpu")) != "cpu")

    def inputs(self, layout: Layout) -> list[Path]:
        images = [layout.images(dataset) for dataset in self.datasets]
        features = filter(None, [self._stored_features(layout, dataset) for dataset in self.datasets])
        model = [layout.root / self.model] if self.model_is_planned else []
        return [*images, *features, *model, *self._files(layout)]

    def _files(self, layout: Layout) -> list[Path]:
        return [layout.root / name for name in self.files]

    @property
    def datasets(self) -> list[str]:
        """The dataset that it segments, and the one that it is fitted to where that is another."""
        return [self.dataset, *([self.fit_on] if self.fit_on else [])]

    @property
    def files(self) -> list[str]:
        """The file or folder of results that the method reads, from the project folder or absolute."""
        name = self.method.params.get(self.method.spec.reads)
        return [str(name)] if name else []

    def computed_features(self) -> dict[str, FeatureSpec]:
        return {str(self.backbone): self.features} if self.features else {}

    def loaded_backbones(self) -> list[Plugin]:
        return [*([self.encoder] if self.encoder else []), *super().loaded_backbones()]

    def modules(self) -> list[str]:
        student = ["uss_dagster.methods.student"] if self.model else []
        masks = ["uss_dagster.methods.masks"] if self.files and self.method.name != "masks" else []
        return [self.method.module_name, *super().modules(), *student, *masks]

    def run(self, layout: Layout) -> Facts:
        images = Images(layout.images(self.dataset))
        check_weights(self.encoder, self.weights, self.file)
        self.check_weights()
        plain = self.to_plain()
        if files := self._files(layout):
            plain["files"] = content_of(layout.root, files)
        staging = Staging(layout.private, self.name, [plain, self._versions(layout)])
        runner = ShardRunner(staging, ShardStore(layout.stored_shards(self.name)))
        sources = {dataset: self.feature_source(layout, dataset) for dataset in self.datasets}
        started = time.perf_counter()
        fitted_to = sources[self.fit_on or self.dataset]
        segmenter = self.fitted(layout, fitted_to)
        seconds_fitting = time.perf_counter() - started - fitted_to.elapsed if segmenter.state is not None else 0.0
        key_of = _shard_keys(plain, images, self._stored_features(layout, self.dataset), segmenter)
        jobs = [
            ShardJob(files, key_of(ids), (files, ids), len(ids))
            for number, ids in enumerate(images.shards(self.shard_images))
            for files in (self._shard_files(number),)
        ]
        work = functools.partial(_compute, segmenter=segmenter, folder=images.folder)
        reads = functools.partial(self._reads, layout, images)
        totals = run_with_features(runner, jobs, work, sources[self.dataset], reads, self.method_on_device)
        seconds = seconds_fitting + totals.seconds_computing + sum(source.seconds for source in sources.values())
        report = validate(f"segments {self.entry}__{self.dataset}", staging.folder, images, segmenter.spec.overlap)
        regions_of_images = _region_counts(staging.folder)
        regions = sum(regions_of_images)
        missing = _images_without_mask(staging.folder) if segmenter.spec.imported else 0
        warning = few_regions_warning(self.method.name, regions_of_images)
        if segmenter.spec.imported:
            warning = _missing_warning(missing, len(images), files)
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        manifest = {
            "entry": self.entry,
            "method": self.method.name,
            "backbone": self.backbone or "",
            "dataset": self.dataset,
            "params": self.method.params,
            "overlap": segmenter.spec.overlap,
            "counts": {"images": len(images), "regions": regions},
        }
        staging.publish(self.artefact(layout), report, manifest)
        runner.evict_others(jobs)
        for source in sources.values():
            source.remove()
        per_image = round(seconds / totals.images, 4) if totals.images else None  # None: every shard was there already
        one_region = sum(count <= 1 for count in regions_of_images)
        return {
            **vars(totals),
            "backbone": "" if self.features else self.backbone or "",
            "regions": regions,
            "images_with_one_region": one_region,
            "seconds_per_image": per_image,
            **({"images_without_mask": missing} if segmenter.spec.imported else {}),
            **({"warning": warning} if warning else {}),
        }

    def _stored_features(self, layout: Layout, dataset: str) -> Path | None:
        """The features of a dataset that it reads; None where it reads none, or computes them."""
        return layout.features(self.backbone, dataset) if self.backbone and not self.features else None

    def feature_source(self, layout: Layout, dataset: str, private: Path | None = None) -> FeatureSource:
        """Where it reads the features of a dataset. private: see ``artifacts.features.feature_source``."""
        shards = Images(layout.images(dataset)).shards(self.shard_images) if self.features else []
        return feature_source(layout, self.name, self.backbone, dataset, self.features, shards, private)

    def fitted(self, layout: Layout, features: FeatureSource) -> Segmenter:
        """The method, fitted where it learns from a dataset. features: of that dataset."""
        segmenter, images = self.segmenter(layout), Images(layout.images(self.fit_on or self.dataset))
        return segmenter.fit(Samples(images.ids, images.folder, features, segmenter.encoder))

    def _reads(self, layout: Layout, images: Images, features: Path | None) -> Reads[ShardJob[ShardItem]]:
        """What its shards read, for the workers of a cluster."""
        listings, pieces = read_for(features)
        model = [layout.root / self.model] if self.model else []
        return Reads(
            layout.root,
            [images.index, *listings, *model, *self._files(layout)],
            lambda job: [*images.pieces(job.item[1]), *pieces(job.item[1])],
            functools.partial(check_weights, self.encoder, self.weights, self.file),
            self.method_on_device,
        )

    def _versions(self, layout: Layout) -> list[str | None]:
        """Which versions of images, features and a trained model it reads."""
        versions: list[str | None] = []
        for dataset in self.datasets:
            features = self._stored_features(layout, dataset)
            versions += [Images(layout.images(dataset)).identity, content_id(features) if features else None]
        if self.model:
            model = layout.root / self.model
            versions.append(content_id(model) if (model / MANIFEST).exists() else None)
        return versions

    def _shard_files(self, number: int) -> tuple[str, ...]:
        """The files of a shard, its table last."""
        return (*([f"notes-{number:05d}.json"] if self.explain else []), f"shard-{number:05d}.parquet")

    def segmenter(self, layout: Layout) -> Segmenter:
        """The method ready to run; a trained model, and results that it reads, are named by their full path."""
        encoder = Encoder.of(self.encoder.name, self.encoder.params) if self.encoder else None
        params = {**self.method.params, "model": str(layout.root / self.model)} if self.model else self.method.params
        if files := self._files(layout):
            params = {**params, self.method.spec.reads: str(files[0])}
        return Segmenter.of(self.method.name, params, encoder)


def _shard_keys(plain: dict[str, object], images: Images, features: Path | None, segmenter: Segmenter) -> Callable[[list[str]], str]:
    """Ids of a shard → its key: over the cell, the images, their features, and what was fitted to all.

    Regions that are imported come from files that nothing here knows, so those shards are never stored.
    """
    state = segmenter.state_digest
    if segmenter.spec.imported:
        return lambda ids: ""
    if features is None:
        return lambda ids: shard_key(plain, images.contents(ids), state)
    shards, files = FeatureShards(features), files_of(read_manifest(features))
    return lambda ids: shard_key(plain, images.contents(ids), state, [files[shard]["sha256"] for shard in shards.shards_of(ids)])


def _compute(item: ShardItem, staging: Staging, segmenter: Segmenter, folder: Path, features: Path | None) -> float:
    """One shard, and what the method knows of its images where there is a file for that; returns the seconds of the method alone."""
    (*notes, name), ids = item
    tables, seconds = [], 0.0
    facts: dict[str, dict[str, Fact]] = {}
    for sample in Samples(ids, folder, StoredFeatures(features), segmenter.encoder):
        started = time.perf_counter()
        with collecting(bool(notes)) as facts[sample.image_id]:
            regions = segmenter.segment(sample)
        seconds += time.perf_counter() - started
        tables.append(regions_to_table(sample.image_id, regions))
    for path in notes:
        staging.write(path, lambda partial: write_whole(partial, to_json(facts)))
    staging.write(name, lambda path: write_table(path, pa.concat_tables(tables), REGIONS))
    return seconds


def _region_counts(folder: Path) -> list[int]:
    """Number of regions of each image in a folder of shards."""
    tables = (read_table(path, REGIONS, columns=["image_id"]) for path in sorted(folder.glob("shard-*.parquet")))
    return [count for rows in tables for count in pc.value_counts(rows["image_id"]).field("counts").to_pylist()]


def _images_without_mask(folder: Path) -> int:
    """Number of images in a folder of shards in which a method that only reads results has none."""
    tables = (read_table(path, REGIONS, columns=["source"]) for path in sorted(folder.glob("shard-*.parquet")))
    return sum(int(pc.sum(pc.equal(table["source"], NO_MASK)).as_py() or 0) for table in tables)


def _missing_warning(missing: int, images: int, files: list[Path]) -> str:
    """A sentence where most images have no mask; '' otherwise."""
    if 2 * missing <= images:
        return ""
    where = f" in {files[0]}" if files else ""
    return f"{missing} of {images} images have no mask{where}; each counts as predicting nothing."


# -- checks -------------------------------------------------------------------------------------------------


DECODE = {True: "regions decode and nest", False: "regions decode, nest and do not overlap"}
"""The rule by whether siblings may share pixels."""


def validate(title: str, folder: Path, images: Images, overlap: bool) -> Report:
    """The checks of a folder of regions, in one pass with one shard in memory. overlap: siblings may share pixels."""
    report, suite = Report(title), Report(title)
    paths = sorted(folder.glob("shard-*.parquet"))
    if not check_contract(report, "shards have the columns and types of regions", _schema_problems(paths)):
        return report
    checks = _RegionChecks(overlap)
    bounds = [between("area", 1), between("region", 0), between("parent", -1), greater("region", "parent"), not_null("source")]
    rows = checks.light_rows(paths)
    check_expectations(suite, frames(rows), bounds)
    collections.deque(rows, maxlen=0)  # what the suite did not ask for
    check_contract(report, "rows ascend by image and region", checks.unsorted)
    check_contract(report, "every image has regions, and no other", same_images(images.ids, pa.chunked_array(checks.ids, pa.string())))
    check_contract(report, "scores of regions are numbers", checks.not_numbers)
    check_contract(report, DECODE[overlap], checks.wrong_codes)
    report.checks += suite.checks
    return report


class _RegionChecks:
    """What is wrong with regions, told while their rows pass by."""

    def __init__(self, overlap: bool) -> None:
        self.overlap = overlap
        self.unsorted, self.not_numbers, self.wrong_codes = Problems(), Problems(), Problems()
        self.ids: list[pa.Array] = []
        """The images of each shard."""

    def light_rows(self, paths: Sequence[Path]) -> Iterator[pa.Table]:
        """Check shards one after the other; gives their rows without codes."""
        order = RowOrder(["image_id", "region"])
        try:
            for table in region_tables(paths):
                light = table.select(["image_id", "region", "parent", "depth", "area", "score", "source"])
                self.unsorted.add(order.problems(light))
                self.ids.append(pc.unique(light["image_id"]))
                self.not_numbers.add(no_nan(light, ["score"]))
                self.wrong_codes.add(valid_regions([table], self.overlap))
                yield light
        except BadData as error:
            self.wrong_codes.add([str(error)])


def _schema_problems(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        try:
            with readable(path):
                check_schema(pq.read_schema(path), REGIONS, path.name)
        except BadData as error:
            yield str(error)
