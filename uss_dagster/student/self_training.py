"""One round of self-training: what the student is sure of becomes a label, beside the old labels that it does not repeat.

Predictions of a score of at least 0.7 are kept; an old label stays where no kept prediction overlaps it by an IoU of 0.5 or more (CutLER, UnSAM). Labels
that a person drew always stay, and predictions that repeat one give way to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask as coco

from uss_dagster.student.data import Example, Relabelled, Source
from uss_dagster.student.model import Auto, Student


def self_train_labels(
    student: Student,
    source: Source,
    confidence: float = 0.7,
    iou: float = 0.5,
    *,
    auto: Auto = "union",
    advance: Callable[[int], None] = lambda n: None,
    **options: Any,
) -> Relabelled:
    """The source with merged labels. confidence: least score of a prediction. options: of ``Student.masks``."""
    codes = []
    for index in range(len(source)):
        example = source[index]
        found = student.masks(example.image, auto, min_score=confidence, **options)
        codes.append(merged_labels(example, found.codes, iou))
        advance(1)
    return Relabelled(source, codes)


def merged_labels(example: Example, predictions: list[bytes], iou: float = 0.5) -> tuple[bytes, ...]:
    """Codes of what people drew, predictions that do not repeat it, and old labels that no prediction repeats."""
    shape = list(example.shape)
    human = [code for code, drawn in zip(example.codes, example.human, strict=True) if drawn]
    old = [code for code, drawn in zip(example.codes, example.human, strict=True) if not drawn]
    kept = [code for code, best in zip(predictions, _best(predictions, human, shape), strict=True) if best < iou]
    stay = [code for code, best in zip(old, _best(old, kept, shape), strict=True) if best < iou]
    return (*human, *kept, *stay)


def _best(codes: list[bytes], others: list[bytes], shape: list[int]) -> np.ndarray:
    """The greatest IoU of each mask with any of the others, 0 where there are none."""
    if not codes or not others:
        return np.zeros(len(codes))
    coded = [[{"size": shape, "counts": code} for code in some] for some in (codes, others)]
    return np.asarray(coco.iou(coded[0], coded[1], [0] * len(others))).max(axis=1)
