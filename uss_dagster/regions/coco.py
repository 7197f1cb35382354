"""One region as a COCO annotation, with ``score`` and ``parent`` beside the keys that every COCO reader knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class Code(TypedDict):
    """A run-length code of COCO. size: [height, width]."""

    size: list[int]
    counts: str


class Annotation(TypedDict):
    """A COCO annotation; ``score`` and ``parent`` are additions."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int
    area: int
    bbox: list[int]
    segmentation: Code
    score: float
    parent: int | None


def annotation(
    number: int, image: int, label: int, area: int, bbox: Sequence[int], size: tuple[int, int], rle: bytes, score: float, parent: int | None
) -> Annotation:
    """The annotation of one region.

    Parameters
    ----------
    number, parent : int
        Ids of the annotation and of its parent; no parent is None.
    image : int
        Id of the image.
    label : int
        Category; below 1 means none, which is written as category 1.
    area : int
        Pixels.
    bbox : sequence of int, length 4
        x, y, width, height in pixels.
    size : (int, int)
        Height and width of the image.
    rle : bytes
        Compressed counts, see ``regions.rle``.
    score : float
    """
    return {
        "id": number,
        "image_id": image,
        "category_id": max(1, label),
        "iscrowd": 0,
        "area": area,
        "bbox": [int(v) for v in bbox],
        "segmentation": {"size": list(size), "counts": rle.decode("ascii")},
        "score": score,
        "parent": parent,
    }
