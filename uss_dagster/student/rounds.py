"""What the stage ``models`` and the command ``uss train student`` share: labels of a second round, training, and the scores of what was trained."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from uss_dagster.artifacts.images import evenly_spaced
from uss_dagster.artifacts.progress import Progress
from uss_dagster.errors import BadData

AUTO: Literal["union"] = "union"
"""How validation scores find the masks of a whole picture: as many as the student can give."""
IMAGES, CLICKS = 100, 20
"""At most so many images of the validation split are measured, evenly spaced, with about so many clicks on each."""


@dataclass(frozen=True)
class Round:
    """One training. teacher: folder of the student whose masks are added first, and with whose weights one of its kind begins, or None.
    facts: for the model card, see ``training.Facts``."""

    what: str
    out: Path
    settings: Any
    facts: dict[str, str]
    device: str = "cpu"
    threads: int = 1
    teacher: Path | None = None


def train_round(train: Any, val: Any, job: Round, stop: Callable[[], bool] = lambda: False) -> tuple[Any, dict[str, float]]:
    """Train on sources of examples; returns the result and the scores on ``val``, which may be empty: then there are none.

    Goes on from the checkpoint in ``job.out`` where it has one, with the same settings and data. Of several processes that `torchrun` started only
    the first speaks and measures.
    """
    from uss_dagster.student.model import Student
    from uss_dagster.student.training import Facts, self_train_labels
    from uss_dagster.student.training import train as run

    facts = Facts(**job.facts)
    if job.teacher is not None:
        teacher = Student.load(job.teacher, job.device)
        facts = replace(facts, version=f"{facts.version}, with masks of student {teacher.digest[:12]}")
    leads = int(os.environ.get("RANK", "0")) == 0
    if not len(train):
        raise BadData(f"{job.what}: there is no picture with masks to train on. Look at the splits of the set.")
    if (earlier := finished_before(job.out, job.settings, facts.version)) is not None:
        return earlier, _measured(val, job) if leads else {}
    if job.teacher is not None:
        with Progress(f"{job.what}: labels of {job.teacher.name}", len(train)) as progress:
            advance = progress.advance if leads else lambda count: None
            train = self_train_labels(teacher, train, advance=advance)
    with Progress(job.what, job.settings.steps, "steps") as progress:
        result = run(
            train,
            val if len(val) else None,
            job.settings,
            job.out,
            device=job.device,
            threads=job.threads,
            facts=facts,
            stop=stop,
            advance=lambda step, loss: progress.advance(step - progress.done) if leads else None,
            start=_same_kind(job),
        )
    return result, _measured(val, job) if leads and result.finished else {}


def _same_kind(job: Round) -> Path | None:
    """The teacher, where its weights fit the network that is trained."""
    from uss_dagster.student.model import read_config

    if job.teacher is None:
        return None
    _, before = read_config(job.teacher)
    return job.teacher if (before.size, before.encoder) == (job.settings.size, job.settings.encoder) else None


def finished_before(out: Path, settings: Any, version: str) -> Any:
    """What came of the same training if it has ended before in this folder, else None. version: of the data."""
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


def _measured(val: Any, job: Round) -> dict[str, float]:
    from uss_dagster.student.evaluate import match, values
    from uss_dagster.student.model import Student

    chosen = evenly_spaced(range(len(val)), IMAGES)
    if not chosen:
        return {}
    student, found = Student.load(job.out, job.device), {}
    with Progress(f"{job.what}: validation", len(chosen)) as progress:
        for index in chosen:
            example = val[index]
            found[example.image_id] = match(student, example, AUTO, CLICKS)
            progress.advance()
    scores = values(found)
    return {name: float(value) for name, value in scores.items() if math.isfinite(value)}


def loss_fall(losses: list[tuple[int, float]]) -> float:
    """By what share the loss fell, from the first line to the mean of the last tenth."""
    values = [loss for _, loss in losses]
    if not values or not values[0]:
        return 0.0
    last = values[-max(1, len(values) // 10) :]
    return 1 - sum(last) / len(last) / values[0]
