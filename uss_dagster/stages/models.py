"""``models``: a curated set (and, for a second round, a student) → a trained student, with its scores on the validation split.

Training goes on from its checkpoint in the work folder, so a killed run loses little.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Self

from uss_dagster import registry
from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.staging import Staging, content_id
from uss_dagster.backbones import vit
from uss_dagster.errors import UsageError, UssError, did_you_mean
from uss_dagster.files import write_whole
from uss_dagster.hashing import dvc_hash
from uss_dagster.planning.cells import DatasetCell, Facts, Output, Plugin
from uss_dagster.planning.entries import may_be_passed_on, student_of
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import Planner
from uss_dagster.planning.profiles import Params, errors_at
from uss_dagster.stages.curated import CuratedSet
from uss_dagster.stages.mask_pool import MaskPool
from uss_dagster.stages.segments import Segments
from uss_dagster.student.card import ModelCard
from uss_dagster.student.loading import Loading, loader_count
from uss_dagster.student.rounds import Round, loss_fall, train_round
from uss_dagster.student.settings import RANDOM, StudentSettings
from uss_dagster.weights.catalogue import CATALOGUE

THREADS = 2
"""Of training on a CPU: always the same, since sums in other orders give other weights."""


class Models(DatasetCell):
    """A trained student.

    Parameters
    ----------
    student
        Name of the student.
    curated
        The curated set that it learns from.
    self_train
        The student whose masks are added to the set first; None for a first round.
    push
        Whether the licence of the pictures, or the profile, lets the weights go to a shared store.
    params
        See ``StudentSettings``.
    source
        What it learns from, in words, for the model card.
    content
        Hash of the weights that its encoder starts with, where the profile names some; '' for none.
    """

    group: ClassVar[str] = "models"
    key_fields: ClassVar[tuple[str, ...]] = ("student",)
    kinds: ClassVar[str] = "torch"
    device: ClassVar[str] = "gpu"
    most_devices: ClassVar[int | None] = 1

    student: str
    curated: str
    self_train: str | None
    push: bool
    params: Params
    title: str
    source: str
    licence: str
    content: str = ""

    @classmethod
    def plan(cls, planner: Planner) -> Iterator[Self]:
        profile = planner.profile
        cells = {name: cls._plan_one(planner, name) for name in sorted(profile.students)}
        for name in cells:
            _refuse_circle(planner, (name,), cells)
        yield from cells.values()

    @classmethod
    def _plan_one(cls, planner: Planner, name: str) -> Self:
        profile, section = planner.profile, planner.profile.students[name]
        curated_sets = {cell.curated: cell for cell in planner.cells_of(CuratedSet)}
        source = str(section.curated)
        profile.check_choice("curated set", source, curated_sets, "students", name, "curated")
        teacher = section.self_train
        if teacher and (teacher == name or teacher not in profile.students):
            others = [other for other in profile.students if other != name]
            at = profile.at("students", name, "self_train")
            raise UsageError(f"{at}: student '{name}' learns from '{teacher}', expected another student.{did_you_mean(teacher, others)}")
        place = ("students", name, *(("params", *list(section.params)[:1]) if section.params else ("size",)))
        with errors_at(profile.at(*place)):
            values = {"size": section.size, **section.params}
            params = registry.params_to_dict(registry.build_params(StudentSettings, values, f"student '{name}'"))
        curated = curated_sets[source]
        return cls(
            dataset=curated.dataset,
            student=name,
            curated=source,
            self_train=teacher,
            push=may_be_passed_on(curated.licence) if section.push is None else section.push,
            params=params,
            title=section.title or f"Student {name}",
            source=curated.title + (f", with what student '{teacher}' found in their pictures" if teacher else ""),
            licence=curated.licence,
            content=_content(planner, f"{cls.stage}/{name}", str(params["encoder"]), str(params["weights"])),
        )

    def inputs(self, layout: Layout) -> list[Path]:
        teacher = [layout.model(self.self_train)] if self.self_train else []
        return [layout.curated(self.curated), layout.images(self.dataset), *teacher]

    def outputs(self, layout: Layout) -> list[Output]:
        return [Output(self.artefact(layout), push=self.push), Output(layout.model_scores(self.student), metric=True)]

    def run(self, layout: Layout) -> Facts:
        from uss_dagster.runtime import torch_device
        from uss_dagster.student.data import curated_source, stored_pictures

        curated = layout.curated(self.curated)
        images = Images(layout.images(self.dataset))
        teacher = layout.model(self.self_train) if self.self_train else None
        inputs = [content_id(curated), images.identity, content_id(teacher) if teacher else None]
        staging = Staging(layout.private, self.name, [self.to_plain(), inputs])
        settings = registry.build_params(StudentSettings, self.params, f"student '{self.student}'")
        device = str(torch_device("auto"))
        version = dvc_hash(curated)
        data = f"{self.source} (data/curated/{self.curated} of {self.dataset})"
        card = ModelCard(self.title, data, version, self.licence, f"uss repro {self.name}")
        pictures = stored_pictures(images)
        train, val = (curated_source(curated, images.pixels, split, pictures) for split in ("train", "val"))
        loading = Loading(loader_count(device))
        training = Round(f"models {self.student}", staging.folder, settings, card, device, THREADS, teacher, loading=loading)
        result, scores = train_round(train, val, training)
        summary = {**{name: round(value, 6) for name, value in scores.items()}, "loss_fall": round(loss_fall(result.losses), 6)}
        counts = {"train_images": len(train), "val_images": len(val), "steps": result.step}
        manifest = {
            "name": self.student,
            "curated": self.curated,
            "dataset": self.dataset,
            "self_train": self.self_train or "",
            "params": self.params,
            "training_data": version,
            "licence": self.licence,
            "counts": counts,
            "scores": summary,
        }
        staging.publish(self.artefact(layout), validate(f"models {self.student}", staging.folder, summary), manifest)
        write_whole(layout.model_scores(self.student), json.dumps(summary, indent=1) + "\n")
        return {**counts, **summary, "device": device, "seconds_training": round(result.seconds, 3)}


def _content(planner: Planner, cell: str, encoder: str, weights: str) -> str:
    """Hash of the weights that an encoder starts with: those of a file, or those that its name stands for."""
    if weights:
        return planner.content_of(cell, [Path(weights)]) if weights != RANDOM else ""
    kind = "vit" if encoder in vit.MODELS else "cnn" if encoder in CATALOGUE else ""
    if not kind:
        return ""
    params = registry.params_to_dict(registry.build_params(registry.load("backbone", kind).SPEC.params, {"model": encoder}, encoder))
    return planner.weights_of(cell, Plugin(family="backbone", name=kind, params=params), "content")


def _refuse_circle(planner: Planner, path: tuple[str, ...], cells: Mapping[str, Models]) -> None:
    """A student must not learn, by whatever way, from masks that it made itself."""
    cell = cells[path[-1]]
    (pool,) = (p for p in planner.cells_of(MaskPool) if p.curated == cell.curated)
    used = [s.model for s in planner.cells_of(Segments) if s.entry in pool.entries and s.dataset == cell.dataset]
    teachers = [cell.self_train, *(student_of(planner.profile, model) for model in used)]
    for name in filter(None, teachers):
        if name in path:
            way = " from ".join(f"'{step}'" for step in (*path, name))
            raise UsageError(f"{planner.profile.at('students', path[0])}: students learn in a circle: {way}. Take one of them out.")
        if name in cells:
            _refuse_circle(planner, (*path, name), cells)


def validate(title: str, folder: Path, scores: dict[str, float]) -> Report:
    """Checks that it is a model that can be used; how good it is, the checks of the asset tell."""
    import numpy as np
    import pandas as pd

    from uss_dagster.student.training import LOSSES

    report = Report(title)
    losses = pd.read_csv(folder / LOSSES, dtype=str, keep_default_na=False)  # empty where a loss was not computed
    finite = np.isfinite(losses.replace("", "0").astype(float)).all(axis=1)
    wrong = pd.DataFrame(losses[~finite])
    broken = zip(wrong.index.tolist(), wrong.to_dict("records"), strict=True)
    check_contract(report, "the weights load again", _loads(folder))
    check_contract(report, "losses are numbers", (f"Line {line + 2} is {row}." for line, row in broken))
    check_contract(report, "scores lie in 0..1", _scores(scores))
    steps = expect("expect_column_values_to_be_increasing", column="step")
    check_expectations(report, losses[["step"]].astype(int), [expect("expect_table_row_count_to_be_between", min_value=1), steps])
    return report


def _loads(folder: Path) -> Iterator[str]:
    from uss_dagster.student.model import Student

    try:
        Student.load(folder)
    except UssError as error:
        yield str(error)


def _scores(scores: dict[str, float]) -> Iterator[str]:
    for name, value in scores.items():
        if name != "loss_fall" and not 0 <= value <= 1:
            yield f"{name} is {value}."
