"""Types of the records in COCO's JSON files, which datasets, results and exports share. Every key may be absent in a file."""

from __future__ import annotations

from typing import TypedDict


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


class CocoDataset(TypedDict, total=False):
    """A whole file."""

    images: list[CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[CocoCategory]
