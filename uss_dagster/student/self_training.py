"""One round of self-training: confident predictions of a student become labels, beside the old labels that they do not repeat.

Predictions with a score of at least 0.7 are kept. An old label stays if no kept prediction overlaps it by an IoU of 0.5 or more (CutLER, UnSAM).
Labels that a person drew always stay, and predictions that repeat one are dropped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from uss_dagster.curation.overlaps import best_iou
from uss_dagster.files import write_whole
from uss_dagster.student.data import Example, Source
from uss_dagster.student.model import Auto, Student

CHUNK = 16
"""Images whose labels are stored together."""


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
        codes.append(_labels_of(student, source[index], confidence, iou, auto, **options))
        advance(1)
    return source.relabelled(codes)


def stored_labels(student: Student, source: Source, folder: Path, advance: Callable[[int], None] = lambda n: None) -> Source:
    """``self_train_labels`` with its defaults, computed once: a folder takes the labels, and a later call takes them from there.

    The processes that ``torchrun`` started on a machine share the work.

    Parameters
    ----------
    student : Student
    source : Source
    folder : Path
        Of these labels alone.
    advance : callable, optional
        Called with the number of examples that were finished in this process.
    """
    process, processes = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    chunks = [range(start, min(start + CHUNK, len(source))) for start in range(0, len(source), CHUNK)]
    files = [folder / f"{number:06d}.json" for number in range(len(chunks))]
    for file, chunk in list(zip(files, chunks, strict=True))[process::processes]:
        if not file.exists():
            codes = [_labels_of(student, source[index]) for index in chunk]
            write_whole(file, json.dumps([[code.decode("ascii") for code in of_image] for of_image in codes]))
        advance(len(chunk))
    while not all(file.exists() for file in files):  # of the other processes
        time.sleep(0.1)
    stored = [of_image for file in files for of_image in json.loads(file.read_text(encoding="utf-8"))]
    return source.relabelled([tuple(code.encode("ascii") for code in of_image) for of_image in stored])


def _labels_of(
    student: Student, example: Example, confidence: float = 0.7, iou: float = 0.5, auto: Auto = "union", **options: Any
) -> tuple[bytes, ...]:
    return merge_labels(example, student.masks(example.image, auto, min_score=confidence, **options).codes, iou)


def merge_labels(example: Example, predictions: list[bytes], iou: float = 0.5) -> tuple[bytes, ...]:
    """Human masks, predictions that overlap none of them by ``iou``, and old labels that overlap none of these predictions by ``iou``."""

    def apart(codes: list[bytes], others: list[bytes]) -> list[bytes]:
        return [code for code, best in zip(codes, best_iou(codes, others, example.shape), strict=True) if best < iou]

    human = [code for code, by_human in zip(example.codes, example.human, strict=True) if by_human]
    old = [code for code, by_human in zip(example.codes, example.human, strict=True) if not by_human]
    new = apart(predictions, human)
    return (*human, *new, *apart(old, new))
