"""``site``: the leaderboard, samples and galleries → a static site; costs and history beside it, unhashed."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator
from pathlib import Path
from typing import ClassVar, Self

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, check_contract
from uss_dagster.artifacts.staging import Staging, content_id
from uss_dagster.planning.cells import Cell, Facts, Output, cell_name
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner, read_cell
from uss_dagster.report.dataset_facts import read_dataset_facts
from uss_dagster.report.facts import EntryFacts, MetricFacts
from uss_dagster.report.parameters import parameters_of
from uss_dagster.report.site_pictures import read_pictures, read_unscored_pictures
from uss_dagster.stages.datasets import Datasets
from uss_dagster.stages.estimates import Estimates
from uss_dagster.stages.leaderboard import Leaderboard
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments

LEADERBOARD_CELL = "pipelines/leaderboard.yaml"
"""Parameter file of the leaderboard: what the pages say about entries, datasets and metrics."""


class Site(Cell):
    """The page people open first.

    Parameters
    ----------
    scores
        (entry, dataset) of every scores cell.
    unscored
        (entry, dataset) of every segments cell without scores: its regions are shown, not ranked.
    samples
        Images shown for each dataset without scores.
    datasets
        Names of all datasets.
    estimated
        Those whose entries are ranked by scores that are estimated without labels.
    """

    group: ClassVar[str] = "report"
    kinds: ClassVar[str] = "html"
    eager: ClassVar[bool] = True

    scores: list[tuple[str, str]]
    unscored: list[tuple[str, str]]
    samples: int
    datasets: list[str]
    estimated: list[str]

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        (board,) = planner.cells_of(Leaderboard)
        segmented = [(cell.entry, cell.dataset) for cell in planner.cells_of(Segments) if cell.entry in board.entries]
        yield cls(
            scores=board.scores,
            unscored=[pair for pair in segmented if pair not in board.scores],
            samples=planner.profile.settings.unscored_samples,
            datasets=sorted(board.datasets),
            estimated=[cell.dataset for cell in planner.cells_of(Estimates)],
        )

    @property
    def description(self) -> str:
        return "The page people open first: reports/site/index.html"

    def artefact(self, layout: Layout) -> Path:
        return layout.site

    def inputs(self, layout: Layout) -> list[Path]:
        scores = [layout.scores(entry, dataset) for entry, dataset in self.scores]
        segments = [layout.segments(entry, dataset) for entry, dataset in self.unscored]
        estimates = [layout.estimates(name) for name in self.estimated]
        datasets = [layout.dataset(name) for name in self.datasets]
        return [layout.leaderboard, *scores, *segments, *datasets, *estimates, layout.root / LEADERBOARD_CELL]

    def outputs(self, layout: Layout) -> list[Output]:
        return [Output(layout.site, push=False)]

    def without(self, absent: Container[str]) -> Self:
        scores = [pair for pair in self.scores if cell_name(Scores.stage, *pair) not in absent]
        unscored = [pair for pair in self.unscored if cell_name(Segments.stage, *pair) not in absent]
        datasets = [name for name in self.datasets if cell_name(Datasets.stage, name) not in absent]
        estimated = [name for name in self.estimated if cell_name(Estimates.stage, name) not in absent]
        return self.model_copy(update={"scores": scores, "unscored": unscored, "datasets": datasets, "estimated": estimated})

    def run(self, layout: Layout) -> Facts:
        from uss_dagster.report import leaderboard, mean_ranks, site  # these import pandas, which `uss plan` does without
        from uss_dagster.report.costs import write_costs
        from uss_dagster.report.evidence import evidence_reader
        from uss_dagster.report.history import write_history

        board = read_cell(layout.root, LEADERBOARD_CELL)
        assert isinstance(board, Leaderboard)
        versions = {name: content_id(layout.dataset(name)) for name in self.datasets}
        segments: dict[str, dict[str, str]] = {name: {} for name in board.entries}
        for entry, dataset in self.unscored:
            segments[entry][dataset] = content_id(layout.segments(entry, dataset))[:16]
        estimates = {name: layout.estimates(name) for name in self.estimated}
        read = [content_id(layout.leaderboard), versions, segments, [content_id(folder) for folder in estimates.values()]]
        staging = Staging(layout.private, self.name, [self.to_plain(), *read])
        planned = {name: facts for name, facts in board.datasets.items() if name in self.datasets}
        datasets = {
            name: read_dataset_facts(layout.dataset(name), facts, board.metrics, estimates.get(name)) for name, facts in planned.items()
        }
        entries = {
            name: EntryFacts(**facts, versions=segments[name], parameters=parameters_of(facts["method"], facts["params"]))
            for name, facts in board.entries.items()
        }
        families = {m: family for family in registry.names("metric") for m in registry.load("metric", family).SPEC.metrics}
        metrics = {name: MetricFacts(**facts, family=families.get(name, "")) for name, facts in board.metrics.items()}
        folders = {d: [layout.scores(e, dataset) for e, dataset in self.scores if dataset == d] for d in self.datasets}
        unscored = {d: [e for e, dataset in self.unscored if dataset == d] for d in self.datasets}
        pictures = itertools.chain.from_iterable(
            read_pictures(layout, d, folders[d]) if folders[d] else read_unscored_pictures(layout, d, unscored[d], self.samples)
            for d in sorted(self.datasets)
        )
        frame = leaderboard.read(layout.leaderboard)
        ranks = mean_ranks.read(layout.leaderboard)
        site.build(staging.folder, frame, entries, datasets, metrics, pictures, evidence_reader(folders), ranks)
        report = Report(self.name)
        check_contract(report, "there is a page", [] if (staging.folder / "index.html").exists() else ["index.html was not written."])
        check_contract(report, "the page needs no network", _outside(staging.folder))
        staging.publish(layout.site, report, {})
        write_costs(layout, [*self.scores, *self.unscored])
        write_history(layout.root)
        return {"files": sum(1 for path in layout.site.rglob("*") if path.is_file())}


def _outside(folder: Path) -> Iterator[str]:
    import re

    for page in sorted(folder.rglob("*.html")):
        for match in re.finditer(
            r"""<(?:script|link|img|iframe)[^>]*?(?:src|href)=["'](?:https?:)?//[^"']*""", page.read_text(encoding="utf-8")
        ):
            yield f"{page.name} loads something from the network: {match.group(0)[:120]}."
