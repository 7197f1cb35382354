"""``scores``: regions of an entry against ground truth → tidy scores, bootstrap replicates, and the regions of a few images.

These are the samples, the same for every entry, and the gallery: the images that this entry does best, middling and worst on.
"""

from __future__ import annotations

import collections
import functools
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uss_dagster import registry
from uss_dagster.artifacts.gate import Problems, Report, RowOrder, between, check_contract, check_expectations, expect, frames, not_null
from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.reads import Piece, Reads
from uss_dagster.artifacts.schemas import REGIONS, REPLICATES, RUNS, SCORES
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.artifacts.tables import (
    OWN_SEGMENTS,
    has_no_mask,
    image_ids,
    iterate_hierarchies,
    iterate_regions,
    read_images,
    read_labels,
    read_table,
    row_groups,
    write_batches,
    write_table,
)
from uss_dagster.errors import BadData
from uss_dagster.files import read_json, write_whole
from uss_dagster.metrics.base import Truth
from uss_dagster.notes import NOTES, to_json
from uss_dagster.planning.cells import EntryCell, Facts, Output
from uss_dagster.planning.entries import runs_of
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.planning.profiles import load_plugin
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.scoring.contributions import PROMPTED, read_contributions
from uss_dagster.scoring.image_scores import ImageScores, mean_scores
from uss_dagster.scoring.scorer import FULL, EntryReplicateRow, ReplicateRow, Scorer, ScoreRow, convention_of, prepared
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.segments import Segments

RUNS_FILE = "runs.parquet"
"""Dataset scores of each run, of an entry with several seeds."""
R = TypeVar("R", ScoreRow, ReplicateRow)


@dataclass(frozen=True)
class ScoredRun:
    """The scores of one run of an entry.

    Parameters
    ----------
    name
        Of the run.
    total
        The scorer that has seen all images.
    image_scores, dataset_rows
        Scores of single images and of the dataset.
    replicate_rows
        Bootstrap replicates of the dataset scores.
    """

    name: str
    total: Scorer
    image_scores: ImageScores
    dataset_rows: list[ScoreRow]
    replicate_rows: list[ReplicateRow]


class Scores(EntryCell):
    """The scores of an entry on a dataset.

    Parameters
    ----------
    runs
        Names of the entry's runs, one a seed; the first is the entry itself. Scores are the means over them.
    metrics
        Metric families.
    needs_labels
        The scores read the labels of the stage ``labels``.
    needs_own_labels
        Of these, the labels of the method's own segments too.
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

    runs: list[str]
    metrics: list[str]
    needs_labels: bool
    needs_own_labels: bool
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
            if segments.entry not in profile.entries:
                continue  # one more run of an entry
            method = segments.method
            params = method.build()
            own, grouped = method.spec.holds(method.spec.segmentation, params), method.spec.holds(method.spec.labels, params)
            fits = {"needs_segmentation": own, "needs_prompts": method.spec.promptable}
            metrics = [
                name
                for name, spec in specs.items()
                if kinds[segments.dataset] in spec.truths and all(fit or not getattr(spec, need) for need, fit in fits.items())
            ]
            labelled = [specs[name] for name in metrics if specs[name].needs_labels and not grouped]
            if metrics:
                yield cls(
                    dataset=segments.dataset,
                    entry=segments.entry,
                    runs=list(runs_of(profile, segments.entry)),
                    metrics=metrics,
                    needs_labels=bool(labelled),
                    needs_own_labels=any(spec.needs_segmentation for spec in labelled),
                    grids=profile.datasets[segments.dataset].grids or profile.settings.grids,
                    bootstrap=profile.settings.bootstrap,
                    samples=profile.settings.samples,
                    title=segments.title,
                )

    @property
    def description(self) -> str:
        return f"{self.title} against the ground truth, image by image and over the dataset"

    def inputs(self, layout: Layout) -> list[Path]:
        labels = [layout.labels(run, self.dataset) for run in self.runs] if self.needs_labels else []
        prompted = [layout.prompted(self.entry, self.dataset)] if self.needs_prompts else []
        return [*(layout.segments(run, self.dataset) for run in self.runs), layout.dataset(self.dataset), *labels, *prompted]

    def outputs(self, layout: Layout) -> list[Output]:
        return [Output(self.artefact(layout)), Output(layout.metrics_file(self.entry, self.dataset), metric=True)]

    @property
    def needs_prompts(self) -> bool:
        """A family takes what the stage ``prompted`` computes."""
        return any(registry.load("metric", name).SPEC.needs_prompts for name in self.metrics)

    def modules(self) -> list[str]:
        return [registry.module_name("metric", name) for name in self.metrics]

    def run(self, layout: Layout) -> Facts:
        dataset, segments = layout.dataset(self.dataset), layout.segments(self.entry, self.dataset)
        staging = Staging(layout.private, self.name, [self.to_plain(), *(content_id(path) for path in self.inputs(layout))])
        shards = sorted(segments.glob("shard-*.parquet"))
        with Progress(self.name, len(self.runs) * read_manifest(segments)["counts"]["images"]) as progress:
            scored_runs = [self._score(layout, run, progress) for run in self.runs]
        total, image_scores = scored_runs[0].total, mean_scores([run.image_scores for run in scored_runs])
        rows = self._write_tables(staging.folder, scored_runs, image_scores)
        scored = image_scores.ids()
        if not len(scored):  # numbers of the whole dataset only
            scored = pa.array(sorted(image_ids(*shards)), pa.string())
        gallery = gallery_of(self.metrics, self.grids[0], image_scores)
        samples = {scored[row].as_py() for row in evenly_spaced(range(len(scored)), self.samples)}
        _write_regions(staging.folder / "samples.parquet", shards, samples)
        _write_regions(staging.folder / "gallery.parquet", shards, {image_id for _, image_id, _ in gallery.get("images", [])})
        _copy_notes(staging.folder, segments, {image_id for _, image_id, _ in gallery.get("images", [])})
        skipped, notes = total.skipped(), list(total.notes())
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        counts = {
            "scored": max((part.n for part in total.parts.values()), default=0),
            "skipped": max((len(ids) for ids in skipped.values()), default=0),
        }
        manifest = {
            "entry": self.entry,
            "dataset": self.dataset,
            "segments": content_id(segments),
            **({"runs": {run: content_id(layout.segments(run, self.dataset)) for run in self.runs}} if len(self.runs) > 1 else {}),
            "truth": content_id(dataset),
            "counts": counts,
            "skipped": skipped,
            **({"notes": notes} if notes else {}),
            "gallery": gallery,
        }
        title = f"scores {self.entry}__{self.dataset}"
        staging.publish(self.artefact(layout), validate(title, staging.folder, read_manifest(segments)["counts"]["images"]), manifest)
        values = {_name(row): round(row["value"], 6) for row in rows}
        values = dict(sorted(values.items()))
        write_whole(layout.metrics_file(self.entry, self.dataset), json.dumps(values, indent=1) + "\n")
        return {"images": len(scored), **values}

    def _score(self, layout: Layout, run: str, progress: Progress) -> ScoredRun:
        """Score the segments of one run."""
        labels = layout.labels(run, self.dataset) if self.needs_labels else None
        shards = sorted(layout.segments(run, self.dataset).glob("shard-*.parquet"))
        states = prepared(self.metrics, lambda: (h for h in iterate_hierarchies(shards) if not has_no_mask(h)))
        total = Scorer(self.metrics, self.grids, self.bootstrap, states)
        truth, kind = layout.truth(self.dataset), read_manifest(layout.dataset(self.dataset))["truth"]
        prompted = layout.prompted(self.entry, self.dataset) / PROMPTED if self.needs_prompts else None
        work = functools.partial(
            _score_shard, empty=total, truth=truth, kind=kind, labels=labels, own=self.needs_own_labels, prompted=prompted
        )
        image_scores = ImageScores()
        further = [path for path in (labels, prompted) if path]
        reads: Reads[Path] = Reads(layout.root, [truth, *further], lambda path: [Piece(path)])
        for part, own_rows in map_shards(work, shards, reads=reads):
            total.merge(part)
            image_scores.add(own_rows)
            progress.advance(part.images)
        image_scores = image_scores.without(total.arbitrary())
        return ScoredRun(run, total, image_scores, _meaningful(total.dataset_rows(), total), _meaningful(total.replicate_rows(), total))

    def _write_tables(self, folder: Path, runs: Sequence[ScoredRun], image_scores: ImageScores) -> list[ScoreRow]:
        """Write scores, replicates, and the scores of single runs where there are several; returns those of the dataset."""
        of_cell = {"entry": self.entry, "dataset": self.dataset}
        dataset_rows = mean_rows([run.dataset_rows for run in runs])
        replicates = [cast("EntryReplicateRow", {**of_cell, **replicate}) for replicate in mean_rows([run.replicate_rows for run in runs])]
        replicates.sort(key=lambda row: (*convention_of(row), row["replicate"]))
        write_batches(folder / "scores.parquet", score_tables(of_cell, dataset_rows, image_scores), SCORES)
        write_table(folder / "replicates.parquet", pa.Table.from_pylist(replicates, schema=REPLICATES), REPLICATES)
        if len(runs) > 1:
            of_runs = [{**of_cell, **score, "run": run.name} for run in runs for score in run.dataset_rows]
            write_table(folder / RUNS_FILE, pa.Table.from_pylist(of_runs, schema=RUNS), RUNS)
        return dataset_rows


def score_tables(of_cell: dict[str, str], dataset_rows: Sequence[ScoreRow], image_scores: ImageScores) -> Iterator[pa.Table]:
    """All scores of a cell by convention: that of the dataset, then those of its images."""
    of_dataset = {convention_of(row): row for row in dataset_rows}
    for key in sorted({*of_dataset, *image_scores.conventions()}):
        if key in of_dataset:
            yield pa.Table.from_pylist([{**of_cell, **of_dataset[key]}], schema=SCORES)
        if key in image_scores.conventions():
            ids, values = image_scores.scores(key)
            same = {**of_cell, **dict(zip(("metric", "protocol", "scope", "grid"), key, strict=True)), "n": pa.scalar(1, pa.int64())}
            columns = {name: pa.repeat(value, len(ids)) for name, value in same.items()} | {"image_id": ids, "value": pa.array(values)}
            yield pa.table([columns[name] for name in SCORES.names], schema=SCORES)


def _meaningful(rows: Iterable[R], total: Scorer) -> list[R]:
    """The rows without those of arbitrary numbers, such as the AP of regions that all have the same score."""
    arbitrary = total.arbitrary()
    return [row for row in rows if row["metric"] not in arbitrary]


def mean_rows(rows_of_runs: Sequence[Sequence[R]]) -> list[R]:
    """The rows of several runs as one: values of the same number are averaged over the runs that have it."""
    if len(rows_of_runs) == 1:
        return list(rows_of_runs[0])
    values: dict[tuple[object, ...], list[float]] = {}
    first: dict[tuple[object, ...], R] = {}
    rows: Sequence[R]
    row: R
    for rows in rows_of_runs:
        for row in rows:
            key = (*convention_of(row), row.get("image_id"), row.get("replicate"))
            values.setdefault(key, []).append(row["value"])
            first.setdefault(key, row)
    return [cast("R", {**row, "value": math.fsum(values[key]) / len(values[key])}) for key, row in first.items()]


def _write_regions(path: Path, shards: Sequence[Path], ids: set[str]) -> None:
    """The regions of some images, for pictures."""
    write_table(path, pa.concat_tables(read_images(p, REGIONS, ids) for p in shards), REGIONS)


def _copy_notes(folder: Path, segments: Path, ids: set[str]) -> None:
    """What the method knows of some images, for the entry's page; nothing where it was not asked."""
    files = sorted(segments.glob("notes-*.json"))
    if files:
        notes = {image_id: facts for path in files for image_id, facts in read_json(path).items() if image_id in ids}
        write_whole(folder / NOTES, to_json(notes))


def gallery_of(families: Sequence[str], grid: str, scores: ImageScores) -> dict[str, Any]:
    """The convention of the first metric with scores of single images, and by it the best, the median and the worst image.

    Oracles and details come after the others. Equal scores go by image id; of an even number the better middle one is taken.
    """
    specs = {name: metric for family in families for name, metric in registry.load("metric", family).SPEC.metrics.items()}
    key_of = {key[0]: key for key in scores.conventions() if key[3] == grid}
    candidates = sorted((n for n in specs if n in key_of), key=lambda n: (specs[n].oracle, specs[n].detail))
    if not candidates:
        return {}
    metric = candidates[0]
    ids, values = scores.scores(key_of[metric])
    ranked = np.argsort(-values if specs[metric].higher_is_better else values, kind="stable").tolist()
    chosen = {"best": 0, "median": (len(ranked) - 1) // 2, "worst": len(ranked) - 1}
    places = {at: place for place, at in reversed(chosen.items())}  # of fewer than three images, the first word for each
    images = [[places[at], ids[ranked[at]].as_py(), float(values[ranked[at]])] for at in sorted(places)]
    return {**dict(zip(("metric", "protocol", "scope", "grid"), key_of[metric], strict=True)), "images": images}


def _name(row: ScoreRow) -> str:
    """Key of a number in reports/metrics: the metric, and the grid where it is not the image's own."""
    return str(row["metric"]) if row["grid"] == FULL else f"{row['metric']}@{row['grid']}"


def _score_shard(
    path: Path, empty: Scorer, truth: Path, kind: str, labels: Path | None, own: bool = False, prompted: Path | None = None
) -> tuple[Scorer, list[ScoreRow]]:
    """Scores of one shard of segments; they are merged in shard order, whoever computed them. own: read labels of own segments too."""
    scorer = Scorer(empty.metrics, empty.grids, empty.replicates, empty.states)
    classes_file = truth / "classes.json"
    classes = ClassTree.from_json(classes_file.read_text(encoding="utf-8")) if classes_file.exists() else None
    rows: list[ScoreRow] = []
    ids = set(image_ids(path))
    truths = dict(iterate_regions([truth / "regions.parquet"], ids))
    of_cut = read_labels(labels, ids) if labels else {}
    of_own = read_labels(labels, ids, OWN_SEGMENTS) if labels and own else {}
    contributions = read_contributions(prompted, ids) if prompted else {}
    for image_id, prediction in iterate_regions([path]):
        if image_id not in truths and kind == "instances":  # an image without an object is none without ground truth
            truths[image_id] = Regions.from_masks([], shape=prediction.shape)
        if image_id not in truths:
            raise BadData(f"Image '{image_id}' has no ground truth in {truth.parent.name}; its segments cannot be scored.")
        own_segments = prediction.labelled(*of_own[image_id]) if of_own else None
        if labels:
            prediction = prediction.labelled(*of_cut[image_id])
        if has_no_mask(prediction):
            prediction = own_segments = Regions.from_masks([], shape=prediction.shape)
        rows += scorer.add(image_id, Truth(kind, truths[image_id], classes), prediction, own_segments, contributions.get(image_id))
    return scorer, rows


def validate(title: str, folder: Path, images: int) -> Report:
    """The checks of a scores folder, with one row group in memory. images: number of segmented images."""
    report, suite = Report(title), Report(title)
    checks = _ScoreChecks()
    columns = ["entry", "dataset", "image_id", "metric", "protocol", "scope", "grid"]
    unique = expect("expect_compound_columns_to_be_unique", column_list=columns)
    rows = checks.rows(row_groups([folder / "scores.parquet"], SCORES))
    check_expectations(suite, frames(rows), [not_null("value"), between("n", 1, images), unique])
    collections.deque(rows, maxlen=0)  # what the suite did not ask for
    no_score = [] if checks.conventions else ["No metric has a value over the dataset."]
    check_contract(report, "there is a score for the dataset", no_score)
    check_contract(report, "scores are numbers", checks.not_numbers)
    check_contract(report, "replicates belong to scores", _replicates(folder, checks.conventions))
    if checks.unsorted.count:  # rows are unique within a frame, and so from one to the next only where they ascend
        check_contract(report, "scores ascend by convention and image", checks.unsorted)
    report.checks += suite.checks
    return report


class _ScoreChecks:
    """What is wrong with scores, told while their rows pass by; and the conventions with a score of the dataset."""

    def __init__(self) -> None:
        self.not_numbers, self.unsorted = Problems(), Problems()
        self.conventions: set[tuple[str, ...]] = set()

    def rows(self, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """The tables themselves, checked."""
        order = RowOrder(["metric", "protocol", "scope", "grid", "image_id"])
        for table in tables:
            self.not_numbers.add(_not_numbers(table))
            of_dataset = pc.is_null(table["image_id"])
            self.conventions |= {convention_of(row) for row in table.filter(of_dataset).to_pylist()}
            named = table.set_column(2, "image_id", pc.fill_null(table["image_id"], ""))
            self.unsorted.add(order.problems(named))
            yield table


def _not_numbers(table: pa.Table) -> Iterator[str]:
    for row in table.filter(pc.invert(pc.is_finite(table["value"]))).to_pylist():
        where = f"image '{row['image_id']}'" if row["image_id"] is not None else "the dataset"
        yield f"{row['metric']} ({row['protocol']}) is {row['value']} for {where}."


def _replicates(folder: Path, known: set[tuple[str, ...]]) -> Iterator[str]:
    found = {convention_of(r) for r in read_table(folder / "replicates.parquet", REPLICATES).to_pylist()}
    if found - known:
        yield f"Replicates of metrics without a score: {sorted(found - known)}."
