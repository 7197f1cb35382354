"""``site``: the leaderboard, samples and galleries → a static site; costs and history beside it, unhashed."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow.compute as pc

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, check_contract
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.schemas import IMAGES, REGIONS
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.artifacts.tables import iterate_regions, read_table, row_groups
from uss_dagster.planning.cells import Cell, Facts, Output
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner, read_cell
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.classes import KIND_NAMES
from uss_dagster.report import leaderboard, site
from uss_dagster.report.costs import write_costs
from uss_dagster.report.evidence import behind
from uss_dagster.report.history import write_history
from uss_dagster.report.published import published_rows
from uss_dagster.report.site_pictures import Picture
from uss_dagster.stages.leaderboard import Leaderboard

LEADERBOARD_CELL = "pipelines/leaderboard.yaml"
"""Parameter file of the leaderboard: what the pages say about entries, datasets and metrics."""


class Site(Cell):
    """The page people open first.

    Parameters
    ----------
    scores
        (entry, dataset) of every scores cell.
    datasets
        Names of all datasets.
    """

    group: ClassVar[str] = "report"
    kinds: ClassVar[str] = "html"
    eager: ClassVar[bool] = True

    scores: list[tuple[str, str]]
    datasets: list[str]

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        (board,) = planner.cells_of(Leaderboard)
        yield cls(scores=board.scores, datasets=sorted(board.datasets))

    @property
    def key(self) -> tuple[str, ...]:
        return ()

    @property
    def description(self) -> str:
        return "The page people open first: reports/site/index.html"

    def artefact(self, layout: Layout) -> Path:
        return layout.site

    def inputs(self, layout: Layout) -> list[Path]:
        scores = [layout.scores(entry, dataset) for entry, dataset in self.scores]
        return [layout.leaderboard, *scores, *(layout.dataset(name) for name in self.datasets), layout.root / LEADERBOARD_CELL]

    def outputs(self, layout: Layout) -> list[Output]:
        return [Output(layout.site, push=False)]

    def run(self, layout: Layout) -> Facts:
        board = read_cell(layout.root, LEADERBOARD_CELL)
        assert isinstance(board, Leaderboard)
        versions = {name: content_id(layout.dataset(name)) for name in self.datasets}
        staging = Staging(layout.private, self.name, [self.to_plain(), content_id(layout.leaderboard), versions])
        datasets = {
            name: {
                **facts,
                **_dataset_facts(layout.dataset(name)),
                "published": list(published_rows(facts["kind"], board.metrics)),
            }
            for name, facts in board.datasets.items()
        }
        entries = {name: {**facts, "parameters": _parameters(facts)} for name, facts in board.entries.items()}
        families = {m: family for family in registry.names("metric") for m in registry.load("metric", family).SPEC.metrics}
        metrics = {name: {**facts, "family": families.get(name)} for name, facts in board.metrics.items()}
        folders = {d: [layout.scores(e, dataset) for e, dataset in self.scores if dataset == d] for d in self.datasets}
        frame = leaderboard.read(layout.leaderboard)
        site.build(staging.folder, frame, entries, datasets, metrics, _pictures(layout, folders), behind(folders))
        report = Report(self.name)
        check_contract(report, "there is a page", [] if (staging.folder / "index.html").exists() else ["index.html was not written."])
        check_contract(report, "the page needs no network", _outside(staging.folder))
        staging.publish(layout.site, report, {})
        write_costs(layout, self.scores)
        write_history(layout.root)
        return {"files": sum(1 for path in layout.site.rglob("*") if path.is_file())}


def _dataset_facts(folder: Path) -> dict[str, Any]:
    """What the artefact tells of itself: counts, version, verdict, and its classes with their share of all pixels."""
    manifest = read_manifest(folder)
    index = read_table(folder / "images" / "images.parquet", IMAGES, columns=["split", "height", "width"])
    splits = index.group_by("split").aggregate([("height", "count")]).sort_by("split").to_pylist()
    pixels = pc.sum(pc.multiply(pc.cast(index["height"], "int64"), pc.cast(index["width"], "int64"))).as_py() or 0
    return {
        "images": manifest["counts"]["images"],
        "regions": manifest["counts"].get("regions"),
        "splits": {row["split"]: row["height_count"] for row in splits if row["split"]},
        "homepage": manifest.get("homepage"),
        "version": content_id(folder)[:16],
        "validation": json.loads((folder / "validation.json").read_text(encoding="utf-8")),
        "classes": _classes(folder / "truth", pixels),
    }


def _classes(truth: Path, pixels: int) -> list[dict[str, Any]]:
    """Name, parent, kind, share of all pixels and number of images of each class, in the tree's order."""
    if not (truth / "classes.json").exists():
        return []
    tree = ClassTree.from_json((truth / "classes.json").read_text(encoding="utf-8"))
    area = np.zeros(len(tree))
    images: list[set[str]] = [set() for _ in range(len(tree))]
    for rows in row_groups([truth / "regions.parquet"], REGIONS, ["image_id", "label", "area"]):
        by_class = rows.filter(pc.and_(pc.greater_equal(rows["label"], 0), pc.less(rows["label"], len(tree)))).group_by("label")
        for row in by_class.aggregate([("area", "sum"), ("image_id", "distinct")]).to_pylist():
            area[row["label"]] += row["area_sum"]
            images[row["label"]].update(row["image_id_distinct"])
    below = np.zeros(len(tree))
    for node in range(len(tree) - 1, 0, -1):  # an inner class without regions of its own is as large as what is below it
        area[node] = max(area[node], below[node])
        below[tree.parent[node]] += area[node]
        images[tree.parent[node]] |= images[node]
    area[0] = max(area[0], below[0])
    return [
        {
            "name": tree.names[node],
            "parent": tree.parent[node],
            "kind": KIND_NAMES[tree.kind[node]],
            "share": float(area[node] / pixels) if pixels else 0.0,
            "images": len(images[node]),
        }
        for node in range(len(tree))
    ]


def _parameters(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every parameter of an entry's method: its value here, its default, and what else it can be."""
    params = registry.load("method", facts["method"]).SPEC.params
    default, hints = registry.params_to_dict(params()), typing.get_type_hints(params)
    rows = []
    for field in dataclasses.fields(params):
        hint = hints[field.name]
        parts = (hint, *typing.get_args(hint))
        options = [option for part in parts if typing.get_origin(part) is typing.Literal for option in typing.get_args(part)]
        options += [None] if options and type(None) in parts else []
        choices = [False, True] if hint is bool else options
        value = (facts.get("params") or {}).get(field.name, default[field.name])
        rows.append({"name": field.name, "value": value, "default": default[field.name], "choices": choices, "kind": _kind(hint)})
    return rows


def _kind(hint: Any) -> str:
    """A type in words that a person who writes a profile knows."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_kind(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"list of {_kind(typing.get_args(hint)[0])}"
    names = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _pictures(layout: Layout, folders: Mapping[str, list[Path]]) -> Iterator[Picture]:
    """The samples and galleries that the scores keep, image by image with the regions of all entries that have it."""
    for dataset, cells in sorted(folders.items()):
        regions_of: dict[str, dict[str, Regions]] = {}
        samples: set[str] = set()
        for cell in sorted(cells):
            for name in ("samples.parquet", "gallery.parquet"):
                for image_id, regions in iterate_regions([cell / name]):
                    regions_of.setdefault(image_id, {})[cell.parent.name] = regions
                    samples |= {image_id} if name == "samples.parquet" else set()
        images = Images(layout.images(dataset))
        truths = dict(iterate_regions([layout.truth(dataset) / "regions.parquet"], set(regions_of)))
        for image_id in sorted(regions_of, key=lambda i: (i not in samples, i)):  # those of all entries first
            yield Picture(dataset, image_id, images.pixels(image_id), truths.get(image_id), regions_of[image_id], image_id in samples)


def _outside(folder: Path) -> Iterator[str]:
    import re

    for page in sorted(folder.rglob("*.html")):
        for match in re.finditer(
            r"""<(?:script|link|img|iframe)[^>]*?(?:src|href)=["'](?:https?:)?//[^"']*""", page.read_text(encoding="utf-8")
        ):
            yield f"{page.name} loads something from the network: {match.group(0)[:120]}."
