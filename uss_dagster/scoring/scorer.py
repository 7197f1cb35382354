"""Metrics over many images: what the scores stage and ``uss score`` share."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from uss_dagster import registry
from uss_dagster.errors import BadData, UsageError, UssError
from uss_dagster.metrics.base import Accumulator, Contribution, Truth, accumulator
from uss_dagster.regions import Regions

FULL = "full"
"""The evaluation grid of an image's own pixels."""


class Convention(TypedDict):
    """How a number was made: only numbers that agree in all four are comparable."""

    metric: str
    protocol: str
    scope: str
    grid: str


class ScoreRow(Convention):
    """One score. image_id: None for the whole dataset. n: how many images it is of."""

    image_id: str | None
    value: float
    n: int


class ReplicateRow(Convention):
    """One score over one bootstrap sample of the images."""

    replicate: int
    value: float


class EntryReplicateRow(ReplicateRow):
    """A bootstrap replicate of an entry of the leaderboard on a dataset."""

    entry: str
    dataset: str


def check_grid(grid: str) -> None:
    """Refuse what is neither 'full' nor 'HxW'."""
    if grid != FULL and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", grid):
        raise UsageError(f"An evaluation grid is 'full' or height x width in cells, such as '60x60'; got '{grid}'.")


def prepared(metrics: Iterable[str], hierarchies: Callable[[], Iterable[Any]]) -> dict[str, object]:
    """What each family with ``prepare`` learns from all predictions.

    Parameters
    ----------
    metrics : iterable of str
        Names of metric families.
    hierarchies : callable
        Called once a family; gives the predictions of all images, or objects with their columns parent, level and source.

    Returns
    -------
    dict
        Family → its state, for ``Scorer``.
    """
    modules = {name: registry.load("metric", name) for name in metrics}
    return {name: module.prepare(hierarchies()) for name, module in modules.items() if hasattr(module, "prepare")}


@dataclass
class Scorer:
    """Scores of some images with several metric families on several grids; parts of the images can be merged.

    Parameters
    ----------
    metrics : sequence of str
        Names of metric families.
    grids : sequence of str
        'full', or 'HxW', the size in cells to which both sides are resized. Default: 'full' alone.
    replicates : int
        Bootstrap samples of the images. Default: 0.
    states : mapping
        The result of ``prepared``, for families that need it. Default: empty.
    as_given : bool
        Predictions by the protocols of ``MetricSpec.as_given``, where a family has them. Default: False.
    images : int
        Images added so far. Default: 0.
    """

    metrics: Sequence[str]
    grids: Sequence[str] = (FULL,)
    replicates: int = 0
    states: Mapping[str, object] = field(default_factory=dict)
    as_given: bool = False
    images: int = 0

    def __post_init__(self) -> None:
        for grid in self.grids:
            check_grid(grid)
        self.parts: dict[tuple[str, str], Accumulator] = {
            (grid, name): accumulator(registry.load("metric", name), self.replicates, self.states.get(name), self.as_given)
            for grid in self.grids
            for name in self.metrics
        }

    def add(
        self, image_id: str, truth: Truth, prediction: Regions, own_segments: Regions | None = None, prompted: Contribution | None = None
    ) -> list[ScoreRow]:
        """Measure one image; returns its own rows.

        own_segments: the prediction with labels on the method's own segments, where these are not the regions that carry labels in
        ``prediction``. prompted: what the image adds to families with ``needs_prompts``.
        """
        if truth.regions.shape != prediction.shape:
            raise BadData(f"Image '{image_id}': ground truth is {truth.regions.shape}, its regions are {prediction.shape} (height, width).")
        rows: list[ScoreRow] = []
        for grid in self.grids:
            resized_truth = replace(truth, regions=on_grid(truth.regions, grid))
            resized = on_grid(prediction, grid)
            resized_own = resized if own_segments is None else on_grid(own_segments, grid)
            for name in self.metrics:
                spec = registry.load("metric", name).SPEC
                part, segments = self.parts[grid, name], resized_own if spec.needs_segmentation else resized
                with naming(image_id):
                    own = part.add(image_id, prompted) if spec.needs_prompts else part.update(image_id, resized_truth, segments)
                values = own or {}
                rows += [
                    {"image_id": image_id, **self._convention(name, metric, grid), "value": value, "n": 1}
                    for metric, value in values.items()
                    if spec.metrics[metric].per_image and math.isfinite(value)
                ]
        self.images += 1
        return rows

    def merge(self, other: Scorer) -> None:
        """Add the images of another scorer of the same metrics and grids."""
        for key, part in other.parts.items():
            self.parts[key].merge(part)
        self.images += other.images

    def dataset_rows(self) -> Iterator[ScoreRow]:
        """One row a metric and grid, over all images."""
        for (grid, name), part in self.parts.items():
            for metric, value in part.result().items():
                yield {"image_id": None, **self._convention(name, metric, grid), "value": value, "n": part.n}

    def replicate_rows(self) -> Iterator[ReplicateRow]:
        """The bootstrap replicates of ``dataset_rows``."""
        for (grid, name), part in self.parts.items():
            for number, values in enumerate(part.replicate_results()):
                for metric, value in values.items():
                    yield {**self._convention(name, metric, grid), "replicate": number, "value": value}

    def notes(self) -> Iterator[str]:
        """Sentences on the predictions that people must know with the scores (from the first grid)."""
        for name in self.metrics:
            yield from (f"{name}: {line}" for line in self.parts[self.grids[0], name].notes())

    def arbitrary(self) -> set[str]:
        """Metrics whose values depend on something without meaning, see ``Accumulator.arbitrary``."""
        return {metric for part in self.parts.values() for metric in part.arbitrary()}

    def _convention(self, family: str, metric: str, grid: str) -> Convention:
        """The columns that say how a number was made."""
        spec = registry.load("metric", family).SPEC
        protocol = spec.metrics[metric].protocol
        if self.as_given:
            protocol = spec.as_given.get(protocol, protocol)
        return {"metric": metric, "protocol": protocol, "scope": spec.metrics[metric].scope, "grid": grid}

    def skipped(self) -> dict[str, list[str]]:
        """Per family, the images without a score (on the first grid)."""
        ids = {name: sorted(self.parts[self.grids[0], name].skipped) for name in self.metrics}
        return {name: images for name, images in ids.items() if images}


@contextmanager
def naming(image_id: str) -> Iterator[None]:
    """Put the image's name before errors and warnings that arise inside."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield
        except UssError as error:
            raise type(error)(f"Image '{image_id}': {error}") from None
    for warning in caught:
        warnings.warn(f"Image '{image_id}': {warning.message}", warning.category, stacklevel=3)


def on_grid(regions: Regions, grid: str) -> Regions:
    """The regions at another size, by nearest neighbour; as they are on 'full'."""
    if grid == FULL:
        return regions
    height, width = map(int, grid.split("x"))
    return regions.resized(height, width)


def convention_of(row: Convention) -> tuple[str, str, str, str]:
    """The key by which rows are sorted and told apart."""
    return row["metric"], row["protocol"], row["scope"], row["grid"]
