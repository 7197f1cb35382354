"""``scores``: regions of an entry against ground truth → tidy scores, bootstrap replicates, and the regions of a few images.

These are the samples, the same for every entry, and the gallery: the images that this entry does best, middling and worst on.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, between, check_contract, check_expectations, expect, not_null
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.schemas import REGIONS, REPLICATES, SCORES
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.artifacts.tables import image_ids, iterate_hierarchies, iterate_regions, read_images, read_labels, read_table, write_table
from uss_dagster.errors import BadData
from uss_dagster.files import write_whole
from uss_dagster.metrics.base import Truth
from uss_dagster.planning.cells import EntryCell, Facts, Output
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.planning.profiles import load_plugin
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.scoring.scorer import FULL, EntryReplicateRow, EntryScoreRow, Scorer, ScoreRow, convention_of, prepared
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.segments import Segments


class Scores(EntryCell):
    """The scores of an entry on a dataset.

    Parameters
    ----------
    metrics
        Metric families.
    needs_labels
        The scores read the labels of the stage ``labels``.
    grids
        Where pixels are compared, see the setting ``grids``.
    bootstrap
        Bootstrap replicates.
    samples
        Images shown, the same for every entry.
    title
        Title of the entry.
    """

    group: ClassVar[str] = "scores"
    eager: ClassVar[bool] = True

    metrics: list[str]
    needs_labels: bool
    grids: list[str]
    bootstrap: int
    samples: int
    title: str

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        profile = planner.profile
        specs = {name: load_plugin(profile, "metric", name, "metrics").SPEC for name in dict.fromkeys(profile.metrics)}
        kinds = {cell.dataset: cell.truth for cell in planner.cells_of(Datasets)}
        for segments in planner.cells_of(Segments):
            method = segments.method
            own = method.spec.has_segmentation(method.build())
            metrics = [n for n, spec in specs.items() if kinds[segments.dataset] in spec.truths and (own or not spec.needs_segmentation)]
            if metrics:
                yield cls(
                    dataset=segments.dataset,
                    entry=segments.entry,
                    metrics=metrics,
                    needs_labels=any(specs[name].needs_labels for name in metrics) and not method.spec.labels,
                    grids=profile.datasets[segments.dataset].grids or profile.settings.grids,
                    bootstrap=profile.settings.bootstrap,
                    samples=profile.settings.samples,
                    title=segments.title,
                )

    @property
    def description(self) -> str:
        return f"{self.title} against the ground truth, image by image and over the dataset"

    def inputs(self, layout: Layout) -> list[Path]:
        labels = [layout.labels(self.entry, self.dataset)] if self.needs_labels else []
        return [layout.segments(self.entry, self.dataset), layout.dataset(self.dataset), *labels]

    def outputs(self, layout: Layout) -> list[Output]:
        return [Output(self.artefact(layout)), Output(layout.metrics_file(self.entry, self.dataset), metric=True)]

    def modules(self) -> list[str]:
        return [registry.module_name("metric", name) for name in self.metrics]

    def run(self, layout: Layout) -> Facts:
        dataset, segments = layout.dataset(self.dataset), layout.segments(self.entry, self.dataset)
        labels = layout.labels(self.entry, self.dataset) if self.needs_labels else None
        kind = read_manifest(dataset)["truth"]
        inputs = [content_id(folder) for folder in (dataset, segments, labels) if folder]
        staging = Staging(layout.private, self.name, [self.to_plain(), *inputs])
        shards = sorted(segments.glob("shard-*.parquet"))
        total = Scorer(self.metrics, self.grids, self.bootstrap, prepared(self.metrics, lambda: iterate_hierarchies(shards)))
        work = functools.partial(_score_shard, empty=total, truth=layout.truth(self.dataset), kind=kind, labels=labels)
        image_rows: list[ScoreRow] = []
        with Progress(self.name, read_manifest(segments)["counts"]["images"]) as progress:
            for part, own_rows in map_shards(work, shards):
                total.merge(part)
                image_rows += own_rows
                progress.advance(part.images)
        rows = self._write_tables(staging.folder, total, image_rows)
        scored = {row["image_id"] for row in rows if row["image_id"] is not None}
        if not scored:  # numbers of the whole dataset only
            scored = set(image_ids(*shards))
        gallery = gallery_of(self.metrics, self.grids[0], image_rows)
        _write_regions(staging.folder / "samples.parquet", shards, set(evenly_spaced(sorted(scored), self.samples)))
        _write_regions(staging.folder / "gallery.parquet", shards, {image_id for _, image_id, _ in gallery.get("images", [])})
        skipped = total.skipped()
        counts = {
            "scored": max((part.n for part in total.parts.values()), default=0),
            "skipped": max((len(ids) for ids in skipped.values()), default=0),
        }
        manifest = {
            "entry": self.entry,
            "dataset": self.dataset,
            "segments": content_id(segments),
            "truth": content_id(dataset),
            "counts": counts,
            "skipped": skipped,
            "gallery": gallery,
        }
        title = f"scores {self.entry}__{self.dataset}"
        staging.publish(self.artefact(layout), validate(title, staging.folder, read_manifest(segments)["counts"]["images"]), manifest)
        values = {_name(row): round(row["value"], 6) for row in rows if row["image_id"] is None}
        values = dict(sorted(values.items()))
        write_whole(layout.metrics_file(self.entry, self.dataset), json.dumps(values, indent=1) + "\n")
        return {"images": len(scored), **values}

    def _write_tables(self, folder: Path, total: Scorer, image_rows: list[ScoreRow]) -> list[EntryScoreRow]:
        """Write scores and replicates; returns the rows of scores."""
        entry, dataset = self.entry, self.dataset
        rows: list[EntryScoreRow] = [{"entry": entry, "dataset": dataset, **row} for row in (*image_rows, *total.dataset_rows())]
        rows.sort(key=lambda row: (*convention_of(row), row["image_id"] is not None, row["image_id"] or ""))
        replicates: list[EntryReplicateRow] = [{"entry": entry, "dataset": dataset, **row} for row in total.replicate_rows()]
        replicates.sort(key=lambda row: (*convention_of(row), row["replicate"]))
        write_table(folder / "scores.parquet", pa.Table.from_pylist(rows, schema=SCORES), SCORES)
        write_table(folder / "replicates.parquet", pa.Table.from_pylist(replicates, schema=REPLICATES), REPLICATES)
        return rows


def _write_regions(path: Path, shards: Sequence[Path], ids: set[str]) -> None:
    """The regions of some images, for pictures."""
    write_table(path, pa.concat_tables(read_images(p, REGIONS, ids) for p in shards), REGIONS)


def gallery_of(families: Sequence[str], grid: str, rows: Sequence[ScoreRow]) -> dict[str, Any]:
    """The convention of the first metric with scores of single images, and by it the best, the median and the worst image.

    Oracles and details come after the others. Equal scores go by image id; of an even number the better middle one is taken.
    """
    specs = {name: metric for family in families for name, metric in registry.load("metric", family).SPEC.metrics.items()}
    found = {row["metric"] for row in rows if row["grid"] == grid}
    candidates = sorted((n for n in specs if n in found), key=lambda n: (specs[n].oracle, specs[n].detail))
    if not candidates:
        return {}
    metric = candidates[0]
    sign = -1 if specs[metric].higher_is_better else 1
    ranked = sorted(
        (row for row in rows if row["metric"] == metric and row["grid"] == grid), key=lambda r: (sign * r["value"], r["image_id"])
    )
    chosen = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    places = {at: place for place, at in reversed(chosen.items())}  # of fewer than three images, the first word for each
    images = [[places[at], ranked[at]["image_id"], ranked[at]["value"]] for at in sorted(places)]
    return {**{k: ranked[0][k] for k in ("metric", "protocol", "scope", "grid")}, "images": images}


def _name(row: ScoreRow) -> str:
    """Key of a number in reports/metrics: the metric, and the grid where it is not the image's own."""
    return str(row["metric"]) if row["grid"] == FULL else f"{row['metric']}@{row['grid']}"


def _score_shard(path: Path, empty: Scorer, truth: Path, kind: str, labels: Path | None) -> tuple[Scorer, list[ScoreRow]]:
    """Scores of one shard of segments; they are merged in shard order, whoever computed them."""
    scorer = Scorer(empty.metrics, empty.grids, empty.replicates, empty.states)
    classes_file = truth / "classes.json"
    classes = ClassTree.from_json(classes_file.read_text(encoding="utf-8")) if classes_file.exists() else None
    rows: list[ScoreRow] = []
    ids = set(image_ids(path))
    truths = dict(iterate_regions([truth / "regions.parquet"], ids))
    given = read_labels(labels, ids) if labels else {}
    for image_id, prediction in iterate_regions([path]):
        if image_id not in truths and kind == "instances":  # an image without an object is none without ground truth
            truths[image_id] = Regions.from_masks([], shape=prediction.shape)
        if image_id not in truths:
            raise BadData(f"Image '{image_id}' has no ground truth in {truth.parent.name}; its segments cannot be scored.")
        if labels:
            prediction = prediction.labelled(*given[image_id])
        rows += scorer.add(image_id, Truth(kind, truths[image_id], classes), prediction)
    return scorer, rows


def validate(title: str, folder: Path, images: int) -> Report:
    """The checks of a scores folder. images: number of segmented images."""
    report = Report(title)
    table = read_table(folder / "scores.parquet", SCORES)
    check_contract(
        report, "there is a score for the dataset", [] if table["image_id"].null_count else ["No metric has a value over the dataset."]
    )
    check_contract(report, "scores are numbers", _not_numbers(table))
    check_contract(report, "replicates belong to scores", _replicates(folder, table))
    columns = ["entry", "dataset", "image_id", "metric", "protocol", "scope", "grid"]
    unique = expect("expect_compound_columns_to_be_unique", column_list=columns)
    check_expectations(report, table.to_pandas(), [not_null("value"), between("n", 1, images), unique])
    return report


def _not_numbers(table: pa.Table) -> Iterator[str]:
    for row in table.to_pylist():
        if not math.isfinite(row["value"]):
            where = f"image '{row['image_id']}'" if row["image_id"] is not None else "the dataset"
            yield f"{row['metric']} ({row['protocol']}) is {row['value']} for {where}."


def _replicates(folder: Path, table: pa.Table) -> Iterator[str]:
    known = {convention_of(r) for r in table.to_pylist() if r["image_id"] is None}
    found = {convention_of(r) for r in read_table(folder / "replicates.parquet", REPLICATES).to_pylist()}
    if found - known:
        yield f"Replicates of metrics without a score: {sorted(found - known)}."
