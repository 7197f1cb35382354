"""``labels``: regions found image by image → one label each that means the same over the whole dataset.

Every tree is cut at one level that all images share. The regions of that cut are described (by their backbone's tokens where tokens of
different images can be compared, else by colour and texture) and clustered. Where a score asks for the method's own segmentation, its
segments are labelled the same way in a second table.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from uss_dagster.artifacts.feature_runs import run_with_features
from uss_dagster.artifacts.features import FeatureShards, feature_source, read_for
from uss_dagster.artifacts.gate import Report, between, check_contract, check_expectations, same_images, sorted_unique
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.reads import Piece, Reads
from uss_dagster.artifacts.schemas import LABELS
from uss_dagster.artifacts.shard_runner import ShardJob, ShardRunner
from uss_dagster.artifacts.shard_store import ShardStore
from uss_dagster.artifacts.staging import Staging, content_id
from uss_dagster.artifacts.tables import GROUP_ROWS, OWN_SEGMENTS, SHARED_CUT, image_ids, iterate_regions, write_table
from uss_dagster.backbones.base import Features
from uss_dagster.graphs.appearance import region_appearance
from uss_dagster.graphs.semantic_labels import LabelModel, choose_level, flat_map, flat_regions, mean_tokens
from uss_dagster.planning.cells import EntryCell, Facts, FeatureSpec
from uss_dagster.planning.entries import encoder_of
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.regions import ClassTree
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments

Levels = Mapping[str, float | None]
"""Cut → level of the trees; None for the method's own segments."""


class Labels(EntryCell):
    """Labels for the regions of an entry that mean the same over a whole dataset, for scores that compare classes.

    Parameters
    ----------
    backbone
        Name of the backbone whose tokens describe the regions; None for colour and texture.
    classes
        Number of labels; 0 for the dataset's number of leaf classes.
    regions_per_image
        Number of regions an image, about, that get a label.
    own
        The method's own segments get labels too.
    title
        Title of the entry.
    features
        How the tokens are computed, where the profile keeps none; None where they are stored, or not needed.
    """

    group: ClassVar[str] = "segments"
    left_out_when_none: ClassVar[tuple[str, ...]] = ("features",)

    backbone: str | None
    classes: int
    regions_per_image: float
    own: bool
    title: str
    features: FeatureSpec | None = None

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        settings = planner.profile.settings
        for scores in planner.cells_of(Scores):
            if not scores.needs_labels:
                continue
            for segments in (c for c in planner.cells_of(Segments) if c.entry in scores.runs and c.dataset == scores.dataset):
                backbone = segments.backbone
                comparable = backbone is not None and encoder_of(planner.profile, backbone).spec.comparable
                yield cls(
                    dataset=segments.dataset,
                    entry=segments.entry,
                    backbone=backbone if comparable else None,
                    classes=settings.label_classes,
                    regions_per_image=settings.label_regions,
                    own=scores.needs_own_labels,
                    title=segments.title,
                    features=segments.features if comparable else None,
                )

    @property
    def description(self) -> str:
        return f"{self.title}: regions grouped into classes over the dataset"

    def computed_features(self) -> dict[str, FeatureSpec]:
        return {str(self.backbone): self.features} if self.features else {}

    def inputs(self, layout: Layout) -> list[Path]:
        features = [layout.features(self.backbone, self.dataset)] if self.backbone and not self.features else []
        truth = layout.truth(self.dataset) / "classes.json"
        return [layout.segments(self.entry, self.dataset), layout.images(self.dataset), *features, truth]

    def run(self, layout: Layout) -> Facts:
        segments = layout.segments(self.entry, self.dataset)
        self.check_weights()
        images = Images(layout.images(self.dataset))
        k = self.classes or _leaf_classes(layout.truth(self.dataset) / "classes.json")
        stored = layout.features(self.backbone, self.dataset) if self.backbone and not self.features else None
        inputs = [content_id(segments), content_id(stored) if stored else images.identity]
        staging = Staging(layout.private, self.name, [self.to_plain(), inputs, k])
        shards = sorted(segments.glob("shard-*.parquet"))
        level = choose_level((regions for _, regions in iterate_regions(shards)), self.regions_per_image)
        levels: Levels = {SHARED_CUT: level, **({OWN_SEGMENTS: None} if self.own else {})}
        described = self._describe_shards(layout, shards, staging, images, levels)
        report = Report(f"labels {self.entry}__{self.dataset}")
        counts = {"images": len(images)}
        for cut in levels:
            model = LabelModel.fit(((image_id, vectors) for path in described for image_id, _, vectors in _vectors(path, cut)), k)
            table = _label_table((i, regions, model.assign(vectors)) for path in described for i, regions, vectors in _vectors(path, cut))
            write_table(staging.folder / f"{cut}.parquet", table, LABELS, GROUP_ROWS)
            check(report, table, segments, k)
            if cut == SHARED_CUT:
                counts |= {"regions": table.num_rows, "labels": len(model.centres)}
        for path in described:
            path.unlink()
        manifest = {
            "entry": self.entry,
            "dataset": self.dataset,
            "segments": content_id(segments),
            "descriptor": "tokens" if self.backbone else "appearance",
            "level": level,
            "counts": counts,
        }
        staging.publish(self.artefact(layout), report, manifest)
        return dict(counts)

    def _describe_shards(self, layout: Layout, shards: list[Path], staging: Staging, images: Images, levels: Levels) -> list[Path]:
        """The files with the vectors of regions, one a shard."""
        ids = list(map(image_ids, shards))
        jobs = [ShardJob((f"{path.stem}.npz",), "", path, len(of_shard)) for path, of_shard in zip(shards, ids, strict=True)]
        source = feature_source(layout, self.name, self.backbone, self.dataset, self.features, ids)
        runner = ShardRunner(staging, ShardStore(layout.stored_shards(self.name)))
        work = functools.partial(_describe, images=images.folder, levels=levels)
        run_with_features(runner, jobs, work, source, functools.partial(_reads, layout, images))
        source.remove()
        return [staging.folder / job.files[0] for job in jobs]


def _label_table(labelled: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> pa.Table:
    """Rows of (image id, region indices, their labels)."""
    rows = list(labelled)
    columns = {
        "image_id": pa.array([image_id for image_id, regions, _ in rows for _ in range(len(regions))], pa.string()),
        "region": pa.array(np.concatenate([regions for _, regions, _ in rows]).astype(np.int32)),
        "label": pa.array(np.concatenate([labels for _, _, labels in rows])),
    }
    return pa.table(columns, schema=LABELS)


def _leaf_classes(path: Path) -> int:
    """Classes that a dataset-wide score tells apart: the foreground leaves, and all background as one."""
    kind = np.asarray(ClassTree.from_json(path.read_text(encoding="utf-8")).kind)
    return int(np.count_nonzero(kind == FOREGROUND) + (kind == BACKGROUND).any())


def _reads(layout: Layout, images: Images, features: Path | None) -> Reads[ShardJob[Path]]:
    """What the shards read, for the workers of a cluster."""
    listings, pieces = read_for(features) if features else ([], images.pieces)
    return Reads(layout.root, [images.index, *listings], lambda job: [Piece(job.item), *pieces(image_ids(job.item))])


def _describe(path: Path, staging: Staging, images: Path, features: Path | None, levels: Levels) -> None:
    """Vectors of the regions of one shard in each cut, in a file beside it until all are clustered."""
    pixels, facets = Images(images), FeatureShards(features) if features else None
    arrays: dict[str, np.ndarray] = {}
    for number, (image_id, regions) in enumerate(iterate_regions([path])):
        for cut, level in levels.items():
            chosen = flat_regions(regions, level)
            flat = flat_map(regions, chosen)
            if facets:
                vectors = mean_tokens(Features(facets.tensors(image_id), facets.backbone)["tokens"], flat, len(chosen))
            else:
                vectors = region_appearance(pixels.pixels(image_id), flat, len(chosen))
            arrays[f"regions_{cut}{number}"], arrays[f"vectors_{cut}{number}"] = chosen, vectors.astype(np.float32)
    arrays["ids"] = np.array(image_ids(path))
    staging.write(f"{path.stem}.npz", lambda partial: _save(partial, arrays))


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def _vectors(path: Path, cut: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(image id, region indices, their vectors) of one shard in a cut."""
    with np.load(path, allow_pickle=False) as arrays:
        for number, image_id in enumerate(arrays["ids"].tolist()):
            yield image_id, arrays[f"regions_{cut}{number}"], arrays[f"vectors_{cut}{number}"]


def check(report: Report, table: pa.Table, segments: Path, k: int) -> None:
    """Add the checks of a table of labels 0..k-1 for the regions in ``segments``."""
    check_contract(report, "rows ascend by image and region", sorted_unique(table, ["image_id", "region"]))
    differing = same_images(image_ids(*segments.glob("shard-*.parquet")), table["image_id"].to_pylist())
    check_contract(report, "every image has labelled regions, and no other", differing)
    check_expectations(report, table.to_pandas(), [between("label", 0, k - 1), between("region", 0)])
