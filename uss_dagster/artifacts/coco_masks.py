"""Masks of COCO JSON, read one image at a time. What cannot be meant is refused with a sentence that names image and annotation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uss_dagster.artifacts.mask_base import Masks, Shape, check_shape, checked_json, empty
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions, rle
from uss_dagster.regions.coco import CocoAnnotation, CocoCategory, CocoFacts, CocoImage, RunLengths, Segmentation, code_of
from uss_dagster.regions.coded import CodedRegions

Named = tuple[str, CocoAnnotation]
"""An annotation with the words that name it in errors."""
SLACK = 1.0
"""Pixels that a polygon may reach beyond the image: annotation tools round."""
MOST_NUMBER = 2**31 - 1


class CocoMasks(Masks):
    """COCO json: a dataset with 'images' and 'annotations', or a list of results. The file is in memory, masks are decoded an image at a time.

    ``Regions.label`` is the category_id, ``source`` is 'crowd' where iscrowd is set. A key 'parent' (an annotation id, as our own files
    have it) makes a hierarchy. ``Regions.coco`` holds the areas that decide sizes: 'area' of annotations; of results that of the box
    where the first result has one, as pycocotools' loadRes does it.

    Attributes
    ----------
    categories : list of dict
        Its categories as they are in the file.
    unscored : str
        Names the first annotation without a score; empty where all have one.
    """

    def __init__(self, path: Path) -> None:
        data = checked_json(path)
        whole = isinstance(data, Mapping)
        annotations = data.get("annotations") if whole else data
        if not _objects(annotations):
            raise BadData(f"{path} is not COCO json: a list of results, or an object with 'annotations' (and 'images'), is expected.")
        self.categories: list[CocoCategory] = (data.get("categories") or []) if whole else []
        images: list[CocoImage] = (data.get("images") or []) if whole else []
        if not _objects(images) or not _objects(self.categories):
            raise BadData(f"{path} is not COCO json: 'images' and 'categories' are lists of objects.")
        for category in self.categories:
            _whole_number(category.get("id"), f"{path}: the id of category '{category.get('name', '?')}'")
        self._listed = not whole
        self._box_areas = self._listed and bool(annotations) and bool(annotations[0].get("bbox"))
        self._polygons = self._unit_polygons = 0
        named = self._read_images(path, images, annotations)
        self._read_annotations(path, images, annotations, named)
        kinds = {str(a.get("category_id")) for a in annotations}
        super().__init__(path, self._annotations, named=named, labelled=len(kinds) > 1 and "None" not in kinds)
        self.own_images = bool(images)
        self.unscored = next(
            (f"image '{i}', {what}" for i, group in self._annotations.items() for what, a in group if "score" not in a), ""
        )

    def _read_images(self, path: Path, images: list[CocoImage], annotations: list[CocoAnnotation]) -> bool:
        """Set what is known of each image; returns whether images go by name."""
        names: dict[int | str, str | None] = {_id_of(image, path): _stem(image) for image in images}
        if len(names) < len(images):
            raise BadData(f"{path}: two of its images have the same id.")
        named = all(names.values()) if images else all(isinstance(a.get("image_id"), str) for a in annotations)
        self._names = {i: str(name) if named else str(i) for i, name in names.items()}
        self._shapes: dict[str, Shape] = {}
        self._numbers: dict[str, int] = {}
        self._annotations: dict[str, list[Named]] = {}
        for image in images:
            image_id = self._names[image["id"]]
            if image_id in self._annotations:
                raise BadData(f"{path}: two of its images are named '{image_id}'; images go by file name without folder and ending.")
            self._annotations[image_id] = []
            if image.get("height") is not None and image.get("width") is not None:
                self._shapes[image_id] = check_shape((image["height"], image["width"]), f"{path}: image '{image_id}'")
            if isinstance(image["id"], int):
                self._numbers[image_id] = image["id"]
        return named

    def _read_annotations(self, path: Path, images: list[CocoImage], annotations: list[CocoAnnotation], named: bool) -> None:
        """Group the annotations by image."""
        seen = set()
        for place, annotation in enumerate(annotations):
            what = f"annotation {annotation['id']}" if "id" in annotation else f"result {place}"
            if what in seen:
                raise BadData(f"{path}: image '{annotation.get('image_id')}', {what} stands twice; ids of annotations are unique.")
            seen.add(what)
            if "image_id" not in annotation or "segmentation" not in annotation:
                lacks = "image_id" if "image_id" not in annotation else "segmentation"
                raise BadData(f"{path}: image '{annotation.get('image_id', '?')}', {what} has no '{lacks}'; boxes alone cannot be scored.")
            owner = annotation["image_id"]
            if isinstance(owner, bool) or not isinstance(owner, int | str):
                raise BadData(f"{path}: {what} has image_id {owner!r}; a whole number or a name is expected.")
            if images and owner not in self._names:
                raise BadData(f"{path}: {what} is of image {owner!r}, which is not among its 'images'.")
            self._annotations.setdefault(self._names.get(owner, str(owner)), []).append((what, annotation))

    def number(self, image_id: str) -> int | None:
        return self._numbers.get(image_id, super().number(image_id))

    def place(self, image_id: str) -> int:
        return self._numbers.get(image_id, 0)

    def regions(self, image_id: str, shape: Shape | None = None) -> Regions:
        named = self._annotations[image_id]
        shape = self._shapes.get(image_id) or shape or _shape_of_codes(named, f"{self.path}: image '{image_id}'")
        if not named:
            return empty(shape, image_id)
        named, parent = _in_preorder(named, f"{self.path}: image '{image_id}'")
        codes, scores, labels, areas = [], [], [], []
        for what, annotation in named:
            where = f"{self.path}: image '{image_id}', {what}"
            codes.append(self._code(annotation["segmentation"], shape, where))
            scores.append(_number(annotation.get("score", 1.0), f"{where}: its score"))
            labels.append(_whole_number(annotation.get("category_id", -1), f"{where}: its category_id"))
            areas.append(self._area(annotation, where))
        assert shape is not None  # a polygon without one was refused, and codes have one
        source = ["crowd" if annotation.get("iscrowd") else "" for _, annotation in named]
        regions = CodedRegions(codes, shape, parent, label=labels, source=source)
        regions.score = np.array(scores, np.float64)
        regions.coco = CocoFacts(np.array(areas, np.float64), np.array(labels, np.int64), self._listed)
        return regions

    def complaints(self) -> Iterator[str]:
        if self._unit_polygons:
            yield (
                f"{self.path}: {self._unit_polygons} of {self._polygons} polygons lie between 0 and 1 in both directions, so in one pixel. "
                "COCO's coordinates are pixels; multiply relative ones by the width and height."
            )

    def _code(self, segmentation: Segmentation, shape: Shape | None, where: str) -> bytes:
        """The run-length code of a segmentation, of the image's size."""
        if isinstance(segmentation, Mapping):
            return _code_of_runs(segmentation, shape, where)
        if shape is None:
            raise BadData(f"{where}: it is a polygon, and the size of its image is not known. Give 'height' and 'width' in 'images'.")
        rings = _rings(segmentation, shape, where)
        self._polygons += bool(rings)
        self._unit_polygons += bool(rings) and min(shape) > 2 and max(map(max, rings)) <= 1
        return code_of(rings, *shape, where) if rings else rle.encode_runs(np.array([shape[0] * shape[1]]))

    def _area(self, annotation: CocoAnnotation, where: str) -> float:
        """The area that decides its size; NaN where it is that of the mask."""
        if self._box_areas and annotation.get("bbox"):
            box = annotation["bbox"]
            if not isinstance(box, list) or len(box) != 4:
                raise BadData(f"{where}: its bbox is {box!r:.80}; x, y, width and height are expected.")
            return _number(box[2], f"{where}: the width of its bbox") * _number(box[3], f"{where}: the height of its bbox")
        if not self._listed and annotation.get("area") is not None:
            return _number(annotation["area"], f"{where}: its area")
        return math.nan


def _objects(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, Mapping) for value in values)


def _code_of_runs(segmentation: RunLengths, shape: Shape | None, where: str) -> bytes:
    """The compressed code of run lengths, given as text or as a list of numbers."""
    counts = segmentation.get("counts")
    size = check_shape(segmentation.get("size"), f"{where}: its run-length code")
    if shape is not None and size != shape:
        raise BadData(f"{where}: its mask is {size[0]}×{size[1]}, the image is {shape[0]}×{shape[1]} (height×width).")
    try:
        if isinstance(counts, str):
            code = counts.encode("ascii")
            covers = rle.code_length(code)
        else:
            runs = _runs(counts)
            covers, code = sum(runs), b""
            if covers == size[0] * size[1]:
                code = rle.encode_runs(np.array(runs, np.int64))
    except BadData as error:
        raise BadData(f"{where}: {error}") from None
    except ValueError:
        raise BadData(f"{where}: its run-length code needs 'size' [height, width] and 'counts', text or a list of whole numbers.") from None
    if covers != size[0] * size[1]:
        raise BadData(f"{where}: A run-length code covers {covers} pixels, its image has {size[0]}×{size[1]} = {size[0] * size[1]}.")
    return code


def _runs(counts: Any) -> list[int]:
    if not isinstance(counts, list) or not counts or not all(isinstance(v, int | float) and v >= 0 and v == v // 1 for v in counts):
        raise ValueError(counts)
    return [int(v) for v in counts]


def _rings(polygons: Any, shape: Shape, where: str) -> list[list[float]]:
    """The polygons of a segmentation, each x1, y1, x2, y2, …"""
    height, width = shape
    rings = []
    for ring in polygons if isinstance(polygons, list) else [None]:
        try:
            points = np.asarray(ring, np.float64).reshape(-1, 2)
        except (TypeError, ValueError, OverflowError):
            points = np.zeros((0, 2))
        if len(points) < 3 or not np.isfinite(points).all():
            raise BadData(f"{where}: a polygon is a list x1, y1, x2, y2, … of at least 3 points, all of them numbers.")
        beyond = (points < -SLACK) | (points > np.array([width, height]) + SLACK)
        if beyond.any():
            x, y = points[beyond.any(axis=1)][0]
            raise BadData(f"{where}: its polygon reaches x={x:g}, y={y:g}, outside the image of {width}×{height} pixels (width×height).")
        rings.append(points.ravel().tolist())
    return rings


def _in_preorder(named: list[Named], where: str) -> tuple[list[Named], list[int]]:
    """The annotations with parents before their children, otherwise in the order given, and the parent of each."""
    above = [None if annotation.get("parent") is None else str(annotation["parent"]) for _, annotation in named]
    place = {str(annotation["id"]): i for i, (_, annotation) in enumerate(named) if "id" in annotation}
    order: list[int] = []
    rank: dict[int, int] = {}
    for first in range(len(named)):
        line: dict[int, None] = {}
        current: int | None = first
        while current is not None and current not in rank:
            if current in line:
                raise BadData(f"{where}, {named[current][0]} lies below itself: following 'parent' leads in a circle.")
            line[current] = None
            parent = above[current]
            if parent is not None and parent not in place:
                raise BadData(f"{where}, {named[current][0]} has parent {parent}, which is no annotation of this image.")
            current = None if parent is None else place[parent]
        for index in reversed(line):
            rank[index] = len(order)
            order.append(index)
    return [named[i] for i in order], [-1 if (parent := above[i]) is None else rank[place[parent]] for i in order]


def _shape_of_codes(named: list[Named], where: str) -> Shape | None:
    for what, annotation in named:
        if isinstance(annotation["segmentation"], Mapping):
            return check_shape(annotation["segmentation"].get("size"), f"{where}, {what}: its run-length code")
    return None


def _id_of(image: CocoImage, path: Path) -> int | str:
    if "id" not in image:
        raise BadData(f"An entry of 'images' has no 'id': {dict(image)!r:.100}.")
    if isinstance(image["id"], bool) or not isinstance(image["id"], int | str):
        raise BadData(f"{path}: an entry of 'images' has the id {image['id']!r:.100}; a whole number or a name is expected.")
    return image["id"]


def _stem(image: CocoImage) -> str | None:
    name = image.get("image_id") or image.get("file_name")
    return None if name is None else str(name) if "image_id" in image else Path(str(name)).stem


def _number(value: Any, what: str) -> float:
    """A finite number, as float64."""
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        raise BadData(f"{what} is {value!r:.80}; a number is expected.")
    return number


def _whole_number(value: Any, what: str) -> int:
    """A whole number of 32 bits, -1 or more."""
    number = _number(value, what)
    if number != int(number) or not -1 <= number <= MOST_NUMBER:
        raise BadData(f"{what} is {value!r:.80}; a whole number up to {MOST_NUMBER} is expected.")
    return int(number)
