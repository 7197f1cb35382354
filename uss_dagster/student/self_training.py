"""One round of self-training: confident predictions of a student become labels, beside the old labels that they do not repeat.

Predictions with a score of at least 0.7 are kept. An old label stays if no kept prediction overlaps it by an IoU of 0.5 or more (CutLER, UnSAM).
Labels that a person drew always stay, and predictions that repeat one are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uss_dagster.curation.overlaps import best_iou
from uss_dagster.student.data import Example, Source
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
) -> Source:
    """The images of a source with merged labels.

    Parameters
    ----------
    student : Student
    source : Source
    confidence : float, default 0.7
        Least score of a prediction.
    iou : float, default 0.5
        See ``merge_labels``.
    auto : {'queries', 'grid', 'union'}, default 'union'
        See ``Student.masks``.
    advance : callable, optional
        Called with the number of examples that were finished.
    **options
        Of ``Student.masks``.
    """
    codes = []
    for index in range(len(source)):
        example = source[index]
        predictions = student.masks(example.image, auto, min_score=confidence, **options)
        codes.append(merge_labels(example, predictions.codes, iou))
        advance(1)
    return source.relabelled(codes)


def merge_labels(example: Example, predictions: list[bytes], iou: float = 0.5) -> tuple[bytes, ...]:
    """Human masks, predictions that overlap none of them by ``iou``, and old labels that overlap none of these predictions by ``iou``."""

    def apart(codes: list[bytes], others: list[bytes]) -> list[bytes]:
        return [code for code, best in zip(codes, best_iou(codes, others, example.shape), strict=True) if best < iou]

    human = [code for code, by_human in zip(example.codes, example.human, strict=True) if by_human]
    old = [code for code, by_human in zip(example.codes, example.human, strict=True) if not by_human]
    new = apart(predictions, human)
    return (*human, *new, *apart(old, new))
