"""``prompted``: a trained student and ground truth → how well it selects the objects of each image by clicks and a box, for the family ``prompts``.

Only entries whose method can be asked have such a cell, and only where the profile names the family.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from uss_dagster.artifacts.gate import Report, check_contract
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.staging import Staging, content_id, read_manifest
from uss_dagster.artifacts.tables import iterate_regions, write_table
from uss_dagster.metrics.base import Contribution, Truth
from uss_dagster.metrics.proposals import ground_truth
from uss_dagster.planning.cells import EntryCell, Facts, Plugin
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.regions import ClassTree
from uss_dagster.scoring.contributions import PROMPTED, SCHEMA, to_table
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.segments import Segments

OBJECTS = 10
"""About how many objects of an image are asked for, evenly by their order."""


class Prompted(EntryCell):
    """What a student answers to clicks and boxes on the objects of a dataset.

    Parameters
    ----------
    method
        The method and its parameters.
    model
        Folder of the student, from the project folder.
    model_is_planned
        It is a student of the profile.
    content
        Hash of a folder that is not of the profile; '' for none.
    title
        Title of the entry.
    """

    group: ClassVar[str] = "scores"
    kinds: ClassVar[str] = "torch"

    method: Plugin
    model: str
    model_is_planned: bool
    content: str
    title: str

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        segments = {(cell.entry, cell.dataset): cell for cell in planner.cells_of(Segments)}
        for scores in planner.cells_of(Scores):
            if scores.needs_prompts:
                cell = segments[scores.entry, scores.dataset]
                yield cls(
                    dataset=cell.dataset,
                    entry=cell.entry,
                    method=cell.method,
                    model=cell.model,
                    model_is_planned=cell.model_is_planned,
                    content=cell.content,
                    title=cell.title,
                )

    @property
    def description(self) -> str:
        return f"{self.title}: clicks and boxes on the objects of the ground truth"

    def inputs(self, layout: Layout) -> list[Path]:
        return [layout.dataset(self.dataset), *([layout.root / self.model] if self.model_is_planned else [])]

    def run(self, layout: Layout) -> Facts:
        from uss_dagster.artifacts.training_runs import repeatable
        from uss_dagster.student.data import Example
        from uss_dagster.student.interactive import prompted
        from uss_dagster.student.model import Student

        images, truth = Images(layout.images(self.dataset)), layout.truth(self.dataset)
        student = Student.load(layout.root / self.model, str(self.method.params.get("device", "cpu")))
        staging = Staging(layout.private, self.name, [self.to_plain(), content_id(layout.dataset(self.dataset)), student.digest])
        classes = ClassTree.from_json((truth / "classes.json").read_text(encoding="utf-8")) if (truth / "classes.json").exists() else None
        kind = read_manifest(layout.dataset(self.dataset))["truth"]
        options = {name: self.method.params[name] for name in ("split", "snap")}
        rows: dict[str, Contribution] = {}
        with Progress(self.name, len(images)) as progress, repeatable(1):  # sums are added in one order
            for image_id, regions in iterate_regions([truth / "regions.parquet"]):
                targets, _, crowd = ground_truth(Truth(kind, regions, classes))
                targets = targets[~crowd & (regions.area[targets] > 0)]
                if len(targets):
                    codes = regions.select(targets).rles()
                    example = Example(image_id, images.pixels(image_id), tuple(codes))
                    rows[image_id] = prompted(student, example, objects=OBJECTS, **options)
                progress.advance(1)
        write_table(staging.folder / PROMPTED, to_table(rows), SCHEMA)
        report = Report(self.name)
        wrong = [f"Image '{image_id}' has {row}." for image_id, row in rows.items() if not all(np.isfinite(v).all() for v in row.values())]
        check_contract(report, "contributions are numbers", wrong)
        objects = int(sum(float(row["objects"]) for row in rows.values()))
        counts = {"images": len(rows), "objects": objects}
        staging.publish(self.artefact(layout), report, {"entry": self.entry, "dataset": self.dataset, "counts": counts})
        return dict(counts)
