"""Scores of a student: average recall of its masks without classes, and IoU of its answers to one click at the centre of each mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from uss_dagster.artifacts.image_files import shrunk
from uss_dagster.metrics.base import poisson_weights
from uss_dagster.metrics.coco.clicks import click_point, one_click
from uss_dagster.metrics.coco.matches import Matches, match_codes, summaries
from uss_dagster.regions import Regions, rle
from uss_dagster.scoring.intervals import interval
from uss_dagster.student.data import Example, Source
from uss_dagster.student.model import Auto, Student

REPLICATES = 1000
"""Draws of a bootstrap."""
LONGEST = 1024
"""Greatest longer side at which a student is measured, in pixels; larger images are reduced, and their masks sampled at pixel centres."""


def matches(
    student: Student, source: Source, auto: Auto = "union", advance: Callable[[int], None] = lambda n: None, clicks: int = 0, **options: Any
) -> dict[str, Matches]:
    """Match the masks and the click answers of a student with all examples of a source.

    Parameters
    ----------
    student : Student
    source : Source
    auto : {'queries', 'grid', 'union'}, default 'union'
        See ``Student.masks``.
    advance : callable, optional
        Called with the number of examples that were finished.
    clicks : int, default 0
        About how many masks of an image are clicked; 0 for all.
    **options
        Of ``Student.masks``.

    Returns
    -------
    dict of str to Matches
        By image id, for ``values`` and ``difference``.
    """
    by_id = {}
    for index in range(len(source)):
        example = source[index]
        by_id[example.image_id] = match(student, example, auto, clicks, **options)
        advance(1)
    return by_id


def match(student: Student, example: Example, auto: Auto, clicks: int = 0, **options: Any) -> Matches:
    """Match the masks and the click answers of a student with the masks of one example.

    Parameters
    ----------
    student : Student
    example : Example
    auto : {'queries', 'grid', 'union'}
        See ``Student.masks``.
    clicks : int, default 0
        About how many masks are clicked; 0 for all.
    **options
        Of ``Student.masks``.
    """
    example = reduced_example(example)
    masks = student.masks(example.image, auto, **options)
    result = match_codes(example.shape, list(example.codes), masks.codes, masks.score, image_id=example.image_id)
    step = max(1, len(example.codes) // clicks) if clicks else 1
    codes = example.codes[::step]
    if codes:
        points = np.array([click_point(rle.decode(code, *example.shape)) for code in codes])
        encoded = student.encode(example.image, options.get("split", 1), options.get("snap", True))
        for code, answers in zip(codes, encoded.clicks(points), strict=True):
            truth = rle.decode(code, *example.shape)
            answer_masks = np.array([answer.mask() for answer in answers]).reshape(len(answers), *example.shape)
            result.clicks[:] += one_click(truth[None], [answer_masks], [np.array([answer.quality for answer in answers])])["clicks"]
    return result


def reduced_example(example: Example) -> Example:
    """The example at most ``LONGEST`` pixels wide and high, without masks that have no pixel there."""
    if max(example.shape) <= LONGEST:
        return example
    image = shrunk(example.image, LONGEST)
    regions = Regions.from_codes(example.codes, example.shape).resized(image.shape[0], image.shape[1])
    codes, keep = regions.rles(), np.flatnonzero(regions.area > 0)
    return Example(example.image_id, image, tuple(codes[i] for i in keep), example.human[keep])


def values(by_id: dict[str, Matches]) -> dict[str, float]:
    """Scores over all images: ar1000, ar100, ar_small, ar_medium, ar_large, ap, click_max, click_oracle, …; see ``metrics.proposals``."""
    images = [by_id[image_id] for image_id in sorted(by_id)]
    return next(summaries(images, np.ones((1, len(images)), np.int64)))


def difference(first: dict[str, Matches], second: dict[str, Matches], name: str) -> tuple[float, float, float]:
    """Difference of a score between two students on the same images, with its bootstrap interval; both keep the same images in each draw.

    Parameters
    ----------
    first, second : dict of str to Matches
        See ``matches``.
    name : str
        Of the score.

    Returns
    -------
    difference, low, high : float
        The second less the first.
    """
    ids = sorted(first)
    weights = np.array([poisson_weights(image_id, REPLICATES) for image_id in ids], np.int64).T
    one, other = (np.array([v.get(name, np.nan) for v in summaries([f[i] for i in ids], weights)]) for f in (first, second))
    gain = values(second)[name] - values(first)[name]
    return gain, *interval(gain, other - one, len(ids))  # without draws that hold no image with masks


def mean_of(scores: dict[str, float]) -> float:
    """The mean of ar1000 and click_oracle, by which training chooses the best weights; one that is missing does not count."""
    present = [scores[name] for name in ("ar1000", "click_oracle") if name in scores]
    return float(np.mean(present)) if present else 0.0
