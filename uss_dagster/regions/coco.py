"""The records of COCO's JSON files, which datasets, results and exports share. Every key may be absent in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.regions import rle


class RunLengths(TypedDict):
    """A mask as runs. size: [height, width]. counts: runs in column order, starting outside; as text or bytes they are compressed."""

    size: list[int]
    counts: str | bytes | list[int]


Segmentation = RunLengths | list[list[float]]
"""Run lengths, or polygons [[x1, y1, x2, y2, …], …]."""


class CocoAnnotation(TypedDict, total=False):
    """An annotation or a result. parent: id of the annotation above it, in files of this package. iscrowd: 1 for a crowd."""

    id: int
    image_id: int | str
    category_id: int
    segmentation: Segmentation
    area: float
    bbox: list[float]
    iscrowd: int
    score: float
    parent: int | None


@dataclass(frozen=True)
class CocoFacts:
    """What a COCO file says of K regions beside their masks, for the protocol of COCOeval.

    Parameters
    ----------
    area : ndarray
        float64 (K,), the area that decides the size of each; NaN where it is that of the mask.
    category : ndarray
        int64 (K,). COCOeval takes regions of equal score by ascending category.
    listed : bool
        The file is a list of results, whose order COCOeval keeps among equal scores and categories.
    """

    area: np.ndarray
    category: np.ndarray
    listed: bool


class CocoImage(TypedDict, total=False):
    """An entry of 'images'. image_id: the name of the image, in files of this package."""

    id: int
    file_name: str
    coco_url: str
    image_id: str
    height: int
    width: int


class CocoCategory(TypedDict, total=False):
    """An entry of 'categories'."""

    id: int
    name: str
    supercategory: str


def annotation(
    number: int,
    image: int,
    label: int,
    area: int,
    bbox: Sequence[int],
    size: tuple[int, int],
    code: bytes,
    score: float,
    parent: int | None,
) -> CocoAnnotation:
    """One region as an annotation; ``score`` and ``parent`` are additions of this package.

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
    code : bytes
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
        "segmentation": {"size": list(size), "counts": code.decode("ascii")},
        "score": score,
        "parent": parent,
    }


def code_of(segmentation: Segmentation, height: int, width: int, what: str) -> bytes:
    """The compressed run-length code of a segmentation in any of COCO's forms. what: names the annotation in an error."""
    from pycocotools import mask as coco

    try:
        if not isinstance(segmentation, Mapping):
            return bytes(coco.merge(coco.frPyObjects(segmentation, height, width))["counts"])
        size, counts = tuple(segmentation["size"]), segmentation["counts"]
    except Exception as error:  # pycocotools raises bare Exceptions
        raise BadData(f"{what}: its segmentation is neither polygons nor a run-length code ({error}).") from error
    if size != (height, width):
        raise BadData(f"{what}: its mask is {size[0]}×{size[1]}, its image {height}×{width} (height×width).")
    if isinstance(counts, str):
        return counts.encode("ascii", "replace")
    return counts if isinstance(counts, bytes) else rle.encode_runs(np.asarray(counts, np.int64))
