"""How good a student is: average recall of its masks without classes, and what it answers to one click at the centre of each mask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from uss_dagster.metrics.base import poisson_weights
from uss_dagster.metrics.coco.clicks import click_point, one_click
from uss_dagster.metrics.coco.matches import Matches, match_codes, summaries
from uss_dagster.regions import rle
from uss_dagster.student.data import Example, Source
from uss_dagster.student.model import Auto, Student

REPLICATES = 1000


def evaluate(
    student: Student, source: Source, auto: Auto = "union", advance: Callable[[int], None] = lambda n: None, **options: Any
) -> dict[str, float]:
    """ar1000, ar100, ar_small, ar_medium, ar_large, ap, click_max, click_oracle, …: see ``metrics.proposals``. options: of ``Student.masks``."""
    return values(matches(student, source, auto, advance, **options))


def matches(
    student: Student, source: Source, auto: Auto = "union", advance: Callable[[int], None] = lambda n: None, clicks: int = 0, **options: Any
) -> dict[str, Matches]:
    """Image id → what was found of its masks, for ``values`` and ``difference``. clicks: masks an image that are clicked, 0 for all."""
    found = {}
    for index in range(len(source)):
        example = source[index]
        found[example.image_id] = match(student, example, auto, clicks, **options)
        advance(1)
    return found


def match(student: Student, example: Example, auto: Auto, clicks: int = 0, **options: Any) -> Matches:
    """One image."""
    masks = student.masks(example.image, auto, **options)
    result = match_codes(example.shape, list(example.codes), masks.codes, masks.score, image_id=example.image_id)
    chosen = range(0, len(example.codes), max(1, len(example.codes) // clicks)) if clicks else range(len(example.codes))
    truths = [rle.decode(example.codes[i], *example.shape) for i in chosen]
    if truths:
        points = np.array([click_point(mask) for mask in truths])
        looked = student.look(example.image, options.get("split", 1), options.get("snap", True))
        for truth, answers in zip(truths, looked.clicks(points), strict=True):
            drawn = np.array([answer.mask() for answer in answers]).reshape(len(answers), *example.shape)
            result.clicks[:] += one_click(truth[None], [drawn], [np.array([answer.quality for answer in answers])])["clicks"]
    return result


def values(found: dict[str, Matches]) -> dict[str, float]:
    """Values over all images."""
    images = [found[image_id] for image_id in sorted(found)]
    return next(summaries(images, np.ones((1, len(images)), np.int64)))


def difference(first: dict[str, Matches], second: dict[str, Matches], name: str, level: float = 0.95) -> tuple[float, float, float]:
    """(difference, low, high) of a value, the second less the first, over the same images: a bootstrap in which both keep the same images."""
    ids = sorted(first)
    weights = np.array([poisson_weights(image_id, REPLICATES) for image_id in ids], np.int64).T
    one, other = ([v.get(name, np.nan) for v in summaries([f[i] for i in ids], weights)] for f in (first, second))
    gaps = np.array(other) - np.array(one)  # nan where a draw holds no image with masks
    low, high = np.nanquantile(gaps, [(1 - level) / 2, (1 + level) / 2])
    return values(second)[name] - values(first)[name], float(low), float(high)


def mean_of(scores: dict[str, float], names: Iterable[str] = ("ar1000", "click_oracle")) -> float:
    """What training watches: the mean of these values, those that there are."""
    there = [scores[name] for name in names if name in scores]
    return float(np.mean(there)) if there else 0.0
