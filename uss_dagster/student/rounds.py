"""One round of training, as the stage ``models`` and ``uss train student`` run it: labels of a teacher, training, and scores on the validation split.

Imports torch lazily.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.progress import Progress
from uss_dagster.errors import BadData
from uss_dagster.files import remove
from uss_dagster.hashing import sha256_of_json
from uss_dagster.runtime import signals_noted
from uss_dagster.student.card import ModelCard
from uss_dagster.student.curves import curves
from uss_dagster.student.settings import StudentSettings

if TYPE_CHECKING:
    from uss_dagster.student.data import Source
    from uss_dagster.student.training import TrainResult

LABELS = "labels"
"""Folder of a teacher's labels in that of the model, until training has ended."""
IMAGES, CLICKS = 100, 20
"""Greatest number of validation images that are scored, evenly spaced, and about how many masks of each are clicked."""


@dataclass(frozen=True)
class Round:
    """What to train, and where.

    Parameters
    ----------
    name : str
        Of the run, for progress and errors.
    out : Path
        The folder for the model; training continues from the checkpoint in it.
    settings : StudentSettings
    card : ModelCard
    device : str, default 'cpu'
        cpu, cuda or cuda:1.
    threads : int, default 1
        Of torch on a CPU.
    teacher : Path, optional
        A student whose confident masks are added to the labels first. If its network is the same, its weights are the start.
    curves : {'', 'dvclive', 'tensorboard'}, default ''
        See ``curves``.
    """

    name: str
    out: Path
    settings: StudentSettings
    card: ModelCard
    device: str = "cpu"
    threads: int = 1
    teacher: Path | None = None
    curves: str = ""


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that ``torchrun`` started."""
    return int(os.environ.get("RANK", "0")) == 0


def train_round(train: Source, val: Source, job: Round, stop: Callable[[], bool] = lambda: False) -> tuple[TrainResult, dict[str, float]]:
    """Train a student and score it.

    A folder in which the same training has ended before is only scored again. Of several processes, only the first reports and scores.

    Parameters
    ----------
    train, val : Source
        ``val`` may be empty.
    job : Round
    stop : callable, optional
        Called after each step; training stops with a checkpoint if it returns True. After SIGTERM or Ctrl-C it stops so too, and
        the process ends.

    Returns
    -------
    result : TrainResult
    scores : dict of str to float
        On ``val``; empty without one, and if training was stopped.

    Raises
    ------
    BadData
        If ``train`` has no image.
    """
    from uss_dagster.student import training
    from uss_dagster.student.model import Student, read_config
    from uss_dagster.student.self_training import stored_labels

    card, first, start = job.card, is_first_process(), None
    if job.teacher is not None:
        teacher = Student.load(job.teacher, job.device)
        card = replace(card, version=f"{card.version}, with masks of student {teacher.digest[:12]}")
        start = job.teacher if read_config(job.teacher)[1].same_network(job.settings) else None
    if not len(train):
        raise BadData(f"{job.name}: there is no picture with masks to train on. Look at the splits of the set.")
    if (earlier := finished_before(job.out, job.settings, card.version)) is not None:
        return earlier, _validation_scores(val, job) if first else {}
    if job.teacher is not None:
        with Progress(f"{job.name}: labels of {job.teacher.name}", len(train)) as progress:
            labels = job.out / LABELS / sha256_of_json([card.version, train.ids], 16)
            train = stored_labels(teacher, train, labels, progress.advance if first else lambda count: None)
    with (
        Progress(job.name, job.settings.steps, "steps") as progress,
        curves(job.curves if first else "", job.out) as record,
        signals_noted() as signal_noted,
    ):
        result = training.train(
            train,
            val if len(val) else None,
            job.settings,
            job.out,
            device=job.device,
            threads=job.threads,
            card=card,
            stop=lambda: stop() or bool(signal_noted()),
            advance=lambda step, loss: progress.advance(step - progress.done) if first else None,
            start=start,
            record=record,
        )
    if result.finished and first:
        remove(job.out / LABELS)
    if number := signal_noted():
        if first and not result.finished:
            print(f"{job.name}: stopped after step {result.step}; the same command goes on from there", file=sys.stderr)
        raise SystemExit(128 + number)
    return result, _validation_scores(val, job) if first and result.finished else {}


def finished_before(out: Path, settings: StudentSettings, version: str) -> TrainResult | None:
    """The result of the same training if it has ended before in this folder. version: of the masks."""
    from uss_dagster.student.model import CONFIG, read_config
    from uss_dagster.student.training import CHECKPOINT, LOSSES, TrainResult

    if not (out / CONFIG).is_file() or (out / CHECKPOINT).exists():
        return None
    config, before = read_config(out)
    if before != settings or config["data"]["version"] != version:
        return None
    with (out / LOSSES).open(encoding="utf-8", newline="") as stream:
        losses = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(stream)]
    return TrainResult(out, losses[-1][0], True, 0.0, losses, config["scores"])


def _validation_scores(val: Source, job: Round) -> dict[str, float]:
    from uss_dagster.student.data import Source
    from uss_dagster.student.evaluate import matches, values
    from uss_dagster.student.model import Student

    ids = evenly_spaced(val.ids, IMAGES)
    if not ids:
        return {}
    with Progress(f"{job.name}: validation", len(ids)) as progress:
        by_id = matches(Student.load(job.out, job.device), Source(ids, val.pixels, val.masks), "union", progress.advance, CLICKS)
    return {name: float(value) for name, value in values(by_id).items() if math.isfinite(value)}


def loss_fall(losses: list[tuple[int, float]]) -> float:
    """The share by which the loss fell, from the first line to the mean of the last tenth. losses: (step, loss)."""
    values = [loss for _, loss in losses]
    if not values or not values[0]:
        return 0.0
    last = values[-max(1, len(values) // 10) :]
    return 1 - sum(last) / len(last) / values[0]
