"""A student trained on curated masks, as a method: by its learned queries, by a grid of clicks, or by both.

``params.model`` names what was trained: in a profile one of its section 'students', else a folder that ``uss train student`` wrote.

Reference: Wang et al., "Segment anything without supervision", NeurIPS 2024.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from uss_dagster.bounds import check_bounds, within
from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData, UsageError
from uss_dagster.methods.base import MethodSpec, Samples, one_thread
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters.

    Parameters
    ----------
    model : str
        The trained student: in a profile one of its section 'students', else a folder. Required.
    auto : {'queries', 'grid', 'union'}
        One pass with learned queries; ``grid`` × ``grid`` clicks with all their granularities; or both. Default 'union'.
    grid : int
        Clicks a side, 1 to 128. Default 12.
    split : int
        For small objects, the student also sees ``split`` × ``split`` overlapping windows, half as many a side, and so on; 1 to 8. Default 2.
    snap : bool
        Masks end where colours change. Default true.
    most : int
        Masks an image. Default 1000.
    min_score : float
        Least score of a mask, 0 to 1. Default 0.
    iou : float
        Of two masks that overlap more, the better stays, 0 to 1. Default 0.8.
    device : str
        cpu, cuda, cuda:1 or auto; any but cpu puts an entry in the pool of the GPU. Default 'cpu'.
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
        check_bounds(self, grid=within(1, 128), split=within(1, 8), most=within(1, 100_000), min_score=within(0, 1), iou=within(0, 1))


SPEC = MethodSpec(
    name="student",
    title="Student",
    params=Params,
    overlap=True,
    model="needed",
    promptable=True,
    paper="Wang et al., NeurIPS 2024",
    licence="MIT (this project); the weights as their training data",
    summary="A small network trained on curated masks: all masks of a picture in one pass, or what lies under a click.",
)


@dataclass(frozen=True)
class Weights:
    """The weights when a run began. digest: their SHA-256; results that are computed with a model are stored under it."""

    digest: str


def fit(samples: Samples, params: Params) -> Weights:
    """Nothing is learnt here; the weights are identified, so that results with other weights are never taken for these."""
    return Weights(load(params.model, params.device).digest)


@one_thread
def segment(sample: Sample, params: Params, state: Weights | None = None) -> Regions:
    """The whole image (region 0) and the masks below it, each below the smallest that holds it; ``score`` is the predicted quality."""
    from uss_dagster.artifacts.training_runs import repeatable

    student = load(params.model, params.device)
    if state is not None and state.digest != student.digest:
        raise BadData(f"The model in '{params.model}' was replaced while it was in use. Run this again.")
    options = {"grid": params.grid, "split": params.split, "snap": params.snap, "iou": params.iou}
    with repeatable(1):  # sums are added in one order, in this process as in any worker
        regions: Regions = student.segment(sample.image, params.auto, params.most, params.min_score, **options)
    return regions


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
