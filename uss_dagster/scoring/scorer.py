"""Regions against ground truth, image by image: what the scores stage and `uss score` share."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from uss_dagster import registry
from uss_dagster.errors import BadData, UsageError, UssError
from uss_dagster.metrics.base import Accumulator, Truth, accumulator
from uss_dagster.regions import Regions

FULL = "full"
Row = dict[str, Any]


def check_grid(grid: str) -> None:
    """Refuse what is neither 'full' nor 'HxW'."""
    if grid != FULL and not re.fullmatch(r"[1-9]\d*x[1-9]\d*", grid):
        raise UsageError(f"An evaluation grid is 'full' or height x width in cells, such as '60x60'; got '{grid}'.")


def prepared(metrics: Iterable[str], hierarchies: Any) -> dict[str, Any]:
    """What each family with ``prepare`` learns from all predictions. hierarchies: called once a family, gives an iterator of them."""
    modules = {name: registry.load("metric", name) for name in metrics}
    return {name: module.prepare(hierarchies()) for name, module in modules.items() if hasattr(module, "prepare")}


@dataclass
class Scorer:
    """Scores of some images with several metric families on several grids; parts of the images can be merged.

    metrics: names of families. grids: 'full', or 'HxW' to which both sides are resized. replicates: of the bootstrap. states: see
    ``prepared``.
    """

    metrics: Sequence[str]
    grids: Sequence[str] = (FULL,)
    replicates: int = 0
    states: Mapping[str, Any] = field(default_factory=dict)
    images: int = 0

    def __post_init__(self) -> None:
        for grid in self.grids:
            check_grid(grid)
        self.parts: dict[tuple[str, str], Accumulator] = {
            (grid, name): accumulator(registry.load("metric", name), self.replicates, self.states.get(name))
            for grid in self.grids
            for name in self.metrics
        }

    def add(self, image_id: str, truth: Truth, prediction: Regions) -> list[Row]:
        """Measure one image; returns its own rows."""
        if truth.regions.shape != prediction.shape:
            raise BadData(f"Image '{image_id}': ground truth is {truth.regions.shape}, its regions are {prediction.shape} (height, width).")
        rows = []
        for grid in self.grids:
            expected = Truth(truth.kind, on_grid(truth.regions, grid), truth.classes)
            found = on_grid(prediction, grid)
            for name in self.metrics:
                metrics = registry.load("metric", name).SPEC.metrics
                with naming(image_id):
                    values = self.parts[grid, name].update(image_id, expected, found) or {}
                rows += [
                    {"image_id": image_id, **conventions(name, metric, grid), "value": value, "n": 1}
                    for metric, value in values.items()
                    if metrics[metric].per_image and math.isfinite(value)
                ]
        self.images += 1
        return rows

    def merge(self, other: Scorer) -> None:
        """Add the images of another scorer of the same metrics and grids."""
        for key, part in other.parts.items():
            self.parts[key].merge(part)
        self.images += other.images

    def dataset_rows(self) -> Iterator[Row]:
        """One row a metric and grid, over all images."""
        for (grid, name), part in self.parts.items():
            for metric, value in part.result().items():
                yield {"image_id": None, **conventions(name, metric, grid), "value": value, "n": part.n}

    def replicate_rows(self) -> Iterator[Row]:
        """The bootstrap replicates of ``dataset_rows``."""
        for (grid, name), part in self.parts.items():
            for number, values in enumerate(part.replicate_results()):
                for metric, value in values.items():
                    yield {**conventions(name, metric, grid), "replicate": number, "value": value}

    def skipped(self) -> dict[str, list[str]]:
        """Per family, the images without a score (on the first grid)."""
        return {name: sorted(self.parts[self.grids[0], name].skipped) for name in self.metrics if self.parts[self.grids[0], name].skipped}


@contextmanager
def naming(image_id: str) -> Iterator[None]:
    """Puts the image before what is said about it, errors and warnings alike."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            yield
        except UssError as error:
            raise type(error)(f"Image '{image_id}': {error}") from None
    for warning in heard:
        warnings.warn(f"Image '{image_id}': {warning.message}", warning.category, stacklevel=3)


def on_grid(regions: Regions, grid: str) -> Regions:
    """The regions at another size, by nearest neighbour; as they are on 'full'."""
    if grid == FULL:
        return regions
    height, width = map(int, grid.split("x"))
    return regions.resized(height, width)


def conventions(family: str, metric: str, grid: str) -> Row:
    """The columns that say how a number was made."""
    spec = registry.load("metric", family).SPEC.metrics[metric]
    return {"metric": metric, "protocol": spec.protocol, "scope": spec.scope, "grid": grid}


def convention_of(row: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """By which rows are sorted and told apart."""
    return row["metric"], row["protocol"], row["scope"], row["grid"]
