"""How well a student selects an object with help: IoU after each click, clicks to reach an IoU (NoC), IoU of the answer to a box.

Each mask of an example is selected by itself. The first click is at its centre, each further one at the centre of the largest error, positive or
negative, as ``metrics.clicks`` has them. Each answer is the best that the student gives to all clicks so far and its last answer. Clicking ends at an
IoU of .90, which then stays, or at a pixel that was clicked before. The box is the smallest around the mask, without any click.

Reference: Sofiiuk, Petrov & Konushin, "Reviving iterative training with mask guidance for interactive segmentation", ICIP 2022; Wang et al., "Segment
anything without supervision", NeurIPS 2024 (1-IoU: the answer of the highest score, and the best of all).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from uss_dagster.metrics.base import Contribution
from uss_dagster.metrics.clicks import MOST, Click, next_click
from uss_dagster.metrics.prompts import reduce
from uss_dagster.pixels import iou
from uss_dagster.regions import rle
from uss_dagster.student.data import Example
from uss_dagster.student.evaluate import reduced_example
from uss_dagster.student.model import EncodedImage, Student

ENOUGH = 0.9
"""IoU at which clicking ends."""


def prompted(student: Student, example: Example, clicks: int = MOST, objects: int = 0, **options: Any) -> Contribution:
    """What the masks of one example add to the scores of prompts.

    Parameters
    ----------
    student : Student
    example : Example
        At more than ``evaluate.LONGEST`` pixels it is reduced.
    clicks : int, default 20
        On an object at most.
    objects : int, default 0
        About how many masks are asked for, evenly by their order; 0 for all.
    **options
        Of ``Student.encode``.

    Returns
    -------
    dict
        For ``metrics.prompts.reduce``; those of many examples add up.
    """
    example = reduced_example(example)
    image = student.encode(example.image, **options)
    step = max(1, len(example.codes) // objects) if objects else 1
    rows = [of_object(image, rle.decode(code, *example.shape), clicks) for code in example.codes[::step]]
    names = ("first", "iou", "needed", "box")
    sums = {name: np.sum([row[name] for row in rows], axis=0) for name in names} if rows else {}
    return {**sums, "objects": np.array(float(len(rows)))}


def of_object(image: EncodedImage, target: np.ndarray, clicks: int = MOST) -> Contribution:
    """The contribution of one object, bool (H, W) and not empty; see ``prompted``."""
    rows, columns = (np.flatnonzero(target.any(axis=axis)) for axis in (1, 0))
    boxed = [answer.mask() for answer in image.prompt(box=(columns[0], rows[0], columns[-1], rows[-1]))]
    points: list[Click] = []
    labels: list[int] = []
    curve: list[float] = []
    selected: np.ndarray | None = None
    first = np.zeros(2)
    while len(curve) < clicks and (not curve or curve[-1] < ENOUGH):
        shown = np.zeros_like(target) if selected is None else selected
        sign, point = next_click(target & ~shown, shown & ~target)
        if point in points:
            break
        points, labels = [*points, point], [*labels, 1 - sign]
        answers = [answer.mask() for answer in image.prompt(points, labels, mask=selected)]
        overlaps = [iou(mask, target) for mask in answers]
        if not curve:
            first = np.array([overlaps[0], max(overlaps)] if overlaps else [0.0, 0.0])
        selected = answers[0] if answers else shown
        curve.append(overlaps[0] if overlaps else iou(selected, target))
    needed = [next((number for number, value in enumerate(curve, 1) if value >= level), MOST) for level in (0.85, 0.9)]
    values = np.array(curve + curve[-1:] * (MOST - len(curve)))
    return {"first": first, "iou": values, "needed": np.array(needed, float), "box": np.array(iou(boxed[0], target) if boxed else 0.0)}


def scores(student: Student, examples: list[Example], **options: Any) -> dict[str, float]:
    """The scores of all examples together; parameters as in ``prompted``."""
    parts = [prompted(student, example, **options) for example in examples]
    parts = [part for part in parts if part["objects"]]
    return reduce({name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]}) if parts else {}
