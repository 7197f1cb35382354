"""A student trained on curated masks, as a method: every picture in one pass, by its learned queries, by a grid of clicks, or by both.

``params.model`` names what was trained: in a profile one of its section 'students', else a folder that ``uss train student`` wrote.

Reference: Wang et al., "Segment anything without supervision", NeurIPS 2024.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.methods.base import MethodSpec
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """model: of the trained student. auto: ``queries`` is one pass, ``grid`` grid × grid clicks with all their granularities, ``union`` both.
    split: s looks at s × s overlapping windows too, and at s / 2 × s / 2 and so on, for what is small. snap: masks end where colours change.
    most: masks an image. min_score: of a mask. iou: of two masks that overlap more, the better stays. device: cpu, cuda, cuda:1 or auto; not
    ``cpu`` puts an entry in the pool of the GPU.
    """

    model: str = ""
    auto: Literal["queries", "grid", "union"] = "union"
    grid: int = 12
    split: int = 2
    snap: bool = True
    most: int = 1000
    min_score: float = 0.0
    iou: float = 0.8
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, least, greatest in (("grid", 1, 128), ("split", 1, 8), ("most", 1, 100_000), ("min_score", 0, 1), ("iou", 0, 1)):
            if not least <= getattr(self, name) <= greatest:
                raise UsageError(f"student: {name} is {getattr(self, name)}, expected {least} to {greatest}.")


SPEC = MethodSpec(
    name="student",
    title="Student",
    params=Params,
    overlap=True,
    model="needed",
    paper="Wang et al., NeurIPS 2024",
    licence="MIT (this project); the weights as their training data",
    summary="A small network trained on curated masks: all masks of a picture in one pass, or what lies under a click.",
)


@dataclass(frozen=True)
class Weights:
    """Which weights were there when a run began. digest: SHA-256 of them; what is computed with a model is kept under it."""

    digest: str


def fit(samples: Iterable[Sample], params: Params) -> Weights:
    """Nothing is learnt here; the weights are named, so that results with other weights are never taken for these."""
    return Weights(load(params.model, params.device).digest)


def segment(sample: Sample, params: Params, state: Weights | None = None) -> Regions:
    """The whole image (region 0) and the masks below it, each below the smallest that holds it; ``score`` is the predicted quality."""
    from threadpoolctl import threadpool_limits

    from uss_dagster.artifacts.training_runs import repeatable

    student = load(params.model, params.device)
    if state is not None and state.digest != student.digest:
        raise BadData(f"The model in '{params.model}' was replaced while it was in use. Run this again.")
    options = {"grid": params.grid, "split": params.split, "snap": params.snap, "iou": params.iou}
    with threadpool_limits(1), repeatable(1):  # sums come out in one order, in this process as in any worker
        found: Regions = student.segment(sample.image, params.auto, params.most, params.min_score, **options)
    return found


def load(model: str, device: str = "cpu") -> Any:
    """The student in a folder, read once a process while its weights stay the same file."""
    if not model:
        raise UsageError("student: no model is named. Give model=FOLDER, what `uss train student` wrote.")
    weights = Path(model) / "model.safetensors"
    state = weights.stat() if weights.is_file() else None
    return _loaded(model, device, (state.st_size, state.st_mtime_ns) if state else None)


@functools.lru_cache(maxsize=2)
def _loaded(model: str, device: str, _state: tuple[int, int] | None) -> Any:
    from uss_dagster.student.model import Student

    return Student.load(Path(model), device)
