"""Scores of a small made-up benchmark, as the scores stage writes them, and its site."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from uss_dagster.regions import Regions
from uss_dagster.report import leaderboard, site
from uss_dagster.report.costs import Cost
from uss_dagster.report.evidence import Evidence, EvidenceReader, Gallery, GalleryImage, evidence_reader
from uss_dagster.report.facts import Check, ClassFacts, DatasetFacts, EntryFacts, MetricFacts, Parameter
from uss_dagster.report.leaderboard import Ranking
from uss_dagster.report.published import PublishedRow
from uss_dagster.report.site_pictures import Picture

ENTRIES = {
    name: EntryFacts(
        title=title,
        method=name,
        backbone=backbone,
        encoder=backbone,
        params={"levels": 3},
        supervised=supervised,
        reimplementation=True,
        paper="A paper. https://example.org/paper?a=1&b=2.",
        licence="MIT",
        summary="Cuts & merges.",
        versions={"cats": f"code-{name}"},
        published="table/b" if name == "alpha" else "",
        parameters=[Parameter("levels", 3, 5, kind="whole number"), Parameter("<mode>", "a", "a", ["a", "b"], "text")],
    )
    for name, title, backbone, supervised in [
        ("alpha", "Alpha", "vit", False),
        ("beta", "Beta <script>alert('x')</script> | *b*", None, False),
        ("gamma", "Gamma", "vit", False),
        ("labelled", "Labelled", "vit", True),
    ]
}
DATASETS = {
    "cats": DatasetFacts(
        title="Cats",
        images=40,
        regions=123,
        licence="CC0",
        citation="Cat et al. & <others>.",
        truth="classes",
        version="data-cats",
        checks=[Check("there are images", True), Check("x < y", True, "1 & 2")],
        classes=[
            ClassFacts("all", -1, "inner", 1.0, 40),
            ClassFacts("cat <b>", 0, "inner", 0.25, 30),
            ClassFacts("ear", 1, "foreground", 0.05, 20),
            ClassFacts("sky", 0, "background", 0.75, 40),
        ],
    ),
    "dogs": DatasetFacts(title="Dogs", images=40, licence="CC0", citation="Dog et al.", truth="annotators"),
}
METRICS = {
    "overlap": MetricFacts("Overlap", "strict"),
    "error": MetricFacts("Error", "bits", higher_is_better=False),
    "ceiling": MetricFacts("Ceiling", "strict", oracle=True),
}
COSTS = [Cost("alpha", "cats", 2.5, 900.0, "cpu </script>", 40), Cost("beta", "cats", 0.25, float("nan"), "cpu", 40)]
PUBLISHED = [
    PublishedRow("Paper <b>A</b>", "all images", "A & B, 2020", True, {"overlap": 0.987}),
    PublishedRow("Paper B", "some", "C, 2021", False, {"error": 1.25, "unplanned": 3.0}, key="table/b", images=1449),
]
WITH_PUBLISHED = {**DATASETS, "cats": dataclasses.replace(DATASETS["cats"], published=PUBLISHED)}


def image_values(entry: str, metric: str, n: int = 40) -> np.ndarray:
    """Scores of single images: hard images are hard for all; gamma is alpha with noise, beta is far behind, labelled far ahead."""
    difficulty = np.random.default_rng(1).normal(0, 0.25, n)
    noise = np.random.default_rng([2, *entry.encode()]).normal(0, 0.02, n)
    value = {"alpha": 0.5, "beta": 0.4, "gamma": 0.4999, "labelled": 0.7}[entry] + difficulty + noise
    return 2 - value if metric == "error" else value


def write_cell(folder: Path, entry: str, dataset: str, values: dict[tuple[str, str], np.ndarray], replicates: int = 300) -> Path:
    """A scores folder. values: (metric, protocol) → scores of single images."""
    weights = np.random.default_rng(5).poisson(1, (replicates, 40))
    scores, resampled = [], []
    for (metric, protocol), value in values.items():
        mean = np.full(1, np.nan) if np.isnan(value).any() else [value.mean()]
        scores.append((entry, dataset, None, metric, protocol, "image", "full", mean[0], len(value)))
        scores += [(entry, dataset, f"i{i}", metric, protocol, "image", "full", v, 1) for i, v in enumerate(value)]
        means = weights[:, : len(value)] @ value / weights[:, : len(value)].sum(axis=1)
        resampled += [(entry, dataset, metric, protocol, "image", "full", r, v) for r, v in enumerate(means)]
    target = folder / entry / dataset
    target.mkdir(parents=True)
    columns = ["entry", "dataset", "image_id", "metric", "protocol", "scope", "grid", "value", "n"]
    pd.DataFrame(scores, columns=columns).to_parquet(target / "scores.parquet")
    columns = ["entry", "dataset", "metric", "protocol", "scope", "grid", "replicate", "value"]
    pd.DataFrame(resampled, columns=columns).astype({"replicate": "int32"}).to_parquet(target / "replicates.parquet")
    return target


def make_cells(folder: Path) -> list[Path]:
    """All entries on cats; alpha and beta on dogs, where beta's error is undefined and its overlap is of another protocol."""
    folders = []
    for entry in ENTRIES:
        values = {(m, METRICS[m].protocol): image_values(entry, m) for m in METRICS if (entry, m) != ("gamma", "ceiling")}
        folders.append(write_cell(folder / "scores", entry, "cats", values))
    alpha = {("overlap", "strict"): image_values("alpha", "overlap"), ("error", "bits"): image_values("alpha", "error")}
    beta = {("overlap", "loose"): image_values("beta", "overlap") + 0.4, ("error", "bits"): np.full(40, np.nan)}
    return [*folders, write_cell(folder / "scores", "alpha", "dogs", alpha), write_cell(folder / "scores", "beta", "dogs", beta)]


def pictures() -> Iterator[Picture]:
    """Two samples of cats, of which the first lacks beta, and an image of alpha's gallery only."""
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate(((40, 60), (60, 40), (40, 40))):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        labels = np.indices((height, width)).sum(axis=0) // 20
        found = {"alpha": Regions.from_label_map(labels)} | ({"beta": Regions.from_label_map(labels % 2)} if number == 1 else {})
        name = ("a/b <script>", "i1", "i2")[number]
        yield Picture("cats", name, image, Regions.from_label_map(labels), found, sample=number < 2)


def evidence(cells: Iterable[Path]) -> EvidenceReader:
    """Details of the scores, with alpha's gallery as its manifest would have it."""
    read = evidence_reader({name: [c for c in cells if c.name == name] for name in DATASETS})
    images = [GalleryImage("best", "i1", 0.9), GalleryImage("median", "a/b <script>", 0.5), GalleryImage("worst", "i2", 0.1)]

    def of(dataset: str) -> Evidence:
        galleries = {"alpha": Gallery(Ranking("cats", "overlap", "strict", "image", "full"), images)} if dataset == "cats" else {}
        return dataclasses.replace(read(dataset), galleries=galleries, skipped={"alpha": ["i7 <i>"]})

    return of


def build_site(target: Path, cells: list[Path]) -> Path:
    """The site of the small benchmark, with published figures for cats."""
    frame = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
    return site.build(target, frame, ENTRIES, WITH_PUBLISHED, METRICS, pictures(), evidence(cells))
