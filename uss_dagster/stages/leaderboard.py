"""``leaderboard``: the scores of all planned cells → one ranked table (parquet, csv, md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, between, check_contract, check_expectations, expect, not_null
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.datasets.formats.class_trees import class_set_of
from uss_dagster.planning.cells import Cell, Facts, Plugin, cell_name
from uss_dagster.planning.entries import encoder_of, labels_behind, sees_labels, student_of
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.planning.profiles import Params
from uss_dagster.report.facts import DatasetFacts, EntryFacts, MetricFacts
from uss_dagster.report.published import published_keys, published_rows
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments


class Leaderboard(Cell):
    """The leaderboard.

    Parameters
    ----------
    scores
        (entry, dataset) of every scores cell.
    entries, datasets, metrics
        What the tables and pages say about each, by name.
    """

    group: ClassVar[str] = "report"
    kinds: ClassVar[str] = "pandas"
    eager: ClassVar[bool] = True

    scores: list[tuple[str, str]]
    entries: dict[str, dict[str, Any]]
    datasets: dict[str, dict[str, Any]]
    metrics: dict[str, dict[str, Any]]

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        scores = planner.cells_of(Scores)
        scored = {cell.dataset for cell in scores}  # these come first
        used = [name for name in dict.fromkeys(planner.profile.metrics) if any(name in cell.metrics for cell in scores)]
        families = [registry.load("metric", name).SPEC for name in used]
        for name, section in planner.profile.entries.items():
            if section.published is not None:
                planner.profile.check_choice("published row", section.published, published_keys(), "entries", name, "published")
        yield cls(
            scores=[(cell.entry, cell.dataset) for cell in scores],
            entries={
                cell.entry: _entry_facts(planner, cell) for cell in planner.cells_of(Segments) if cell.entry in planner.profile.entries
            },
            datasets={
                cell.dataset: _dataset_facts(cell) for cell in sorted(planner.cells_of(Datasets), key=lambda c: c.dataset not in scored)
            },
            metrics={name: dataclasses.asdict(metric) for spec in families for name, metric in spec.metrics.items()},
        )

    @property
    def description(self) -> str:
        return "Every entry on every dataset, ranked within one metric and protocol, with intervals"

    def artefact(self, layout: Layout) -> Path:
        return layout.leaderboard

    def inputs(self, layout: Layout) -> list[Path]:
        return [layout.scores(entry, dataset) for entry, dataset in self.scores]

    def without(self, absent: Container[str]) -> Self:
        return self.model_copy(update={"scores": [pair for pair in self.scores if cell_name(Scores.stage, *pair) not in absent]})

    def run(self, layout: Layout) -> Facts:
        from uss_dagster.report import leaderboard, mean_ranks, published_and_ours  # import pandas, which `uss plan` does without

        folders = {f"{entry}/{dataset}": layout.scores(entry, dataset) for entry, dataset in self.scores}
        versions = {name: content_id(folder) for name, folder in folders.items()}
        staging = Staging(layout.private, self.name, [self.to_plain(), versions])
        segments: dict[str, dict[str, str]] = {name: {} for name in self.entries}
        truths: dict[str, str] = {}
        scored = 0
        for folder in folders.values():
            manifest = read_manifest(folder)
            segments[manifest["entry"]][manifest["dataset"]] = manifest["segments"][:16]
            truths[manifest["dataset"]] = manifest["truth"][:16]
            scored += manifest["counts"]["scored"]
        entries = {name: EntryFacts(**facts, versions=segments[name]) for name, facts in self.entries.items()}
        datasets = {
            name: DatasetFacts(
                **facts, version=truths.get(name, ""), published=published_rows(facts.get("class_set", facts["kind"]), self.metrics)
            )
            for name, facts in self.datasets.items()
        }
        metrics = {name: MetricFacts(**facts) for name, facts in self.metrics.items()}
        frame = leaderboard.build(list(folders.values()), entries, datasets, metrics)
        repeated = published_and_ours.build(frame, entries, datasets)
        leaderboard.write(frame, staging.folder, datasets, mean_ranks.build(frame, folders.values()), repeated)
        report = Report(self.name)
        ranked = {f"{entry}/{dataset}" for entry, dataset in zip(frame["entry"], frame["dataset"], strict=True)}
        missing = sorted(folders.keys() - ranked)
        check_contract(report, "every planned cell is on the leaderboard", [f"Cell '{name}' is missing." for name in missing])
        unique = expect("expect_compound_columns_to_be_unique", column_list=[*leaderboard.GROUP, "entry"])
        check_expectations(report, frame, [not_null("value"), between("rank", 1), unique])
        staging.publish(layout.leaderboard, report, {"scores": versions, "counts": {"rows": len(frame)}})
        return {"rows": len(frame), "images": scored}


def _entry_facts(planner: Planner, cell: Segments) -> dict[str, Any]:
    spec = cell.method.spec
    encoder = encoder_of(planner.profile, cell.backbone) if cell.backbone else None
    student = student_of(planner.profile, cell.model)
    labels = (encoder.weights.labels if encoder and encoder.weights else "") or labels_behind(planner.profile, student)
    supervised = spec.holds(spec.supervised, cell.method.build())
    return {
        "title": f"{cell.title} [weights have seen {labels}]" if labels else cell.title,  # so that every row and page shows it
        "method": cell.method.name,
        "backbone": cell.backbone,
        "encoder": encoder and encoder.name,
        "params": registry.nested_params(_changed(cell.method)),
        "encoder_params": {name: value for name, value in _changed(encoder).items() if name != "facets"} if encoder else {},
        "supervised": supervised or sees_labels(planner.profile, student),
        "weights_labels": labels,
        "reimplementation": spec.reimplementation,
        "paper": spec.paper,
        "licence": spec.licence,
        "summary": spec.summary,
        **({"published": published} if (published := planner.profile.entries[cell.entry].published) else {}),
    }


def _changed(plugin: Plugin) -> Params:
    """Parameters that differ from the plug-in's defaults, flat."""
    default = registry.flat_params(plugin.spec.params())
    return {name: value for name, value in registry.flat_params(plugin.params).items() if value != default[name]}


def _dataset_facts(cell: Datasets) -> dict[str, Any]:
    kind, class_set = cell.adapter.name, class_set_of(cell.adapter.module, cell.adapter.build())
    facts = {name: getattr(cell, name) for name in ("title", "truth", "licence", "citation")}
    return {"kind": kind, **({"class_set": class_set} if class_set != kind else {}), **facts}
