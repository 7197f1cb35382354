"""COCO's JSON form, which many datasets share: images, categories, and annotations whose masks are polygons or run-length codes.

The file of COCO train2017 is 450 MB, and ten times that as Python objects. So its text is kept, once, and of each annotation only the
image and the place in the text; an annotation is parsed again when its image is asked for. Masks stay run-length codes.
"""

from __future__ import annotations

import codecs
import copy
import itertools
import json
import mmap
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from uss_dagster.datasets.base import Example
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.files import read_picture
from uss_dagster.errors import BadData
from uss_dagster.regions import ClassTree, Regions, rle
from uss_dagster.regions.classes import FOREGROUND, INNER
from uss_dagster.regions.coded import CodedRegions

CROWD = "crowd"
_SPACE = " \t\r\n"


@dataclass(frozen=True)
class Picture:
    """One record of 'images'. file: its file_name, or the end of its coco_url where it has none. url_file: the last two parts of its
    coco_url, 'val2017/000000000139.jpg', or nothing."""

    id: int
    file: str
    height: int
    width: int
    url_file: str = ""


class CocoFile:
    """One JSON file in COCO's form.

    pictures: the records of its images, by ascending id. categories: its categories as they stand. Annotations are read image by image.
    """

    def __init__(self, path: Path, redo: str = "Extract the annotations again.") -> None:
        self.path, self.redo = path, redo
        try:
            self._text = _text_of(path)
            pictures, owners, places = self._read()
        except FileNotFoundError:
            raise BadData(f"{path} is missing. {redo}") from None
        except UnicodeDecodeError as error:
            raise BadData(f"{path} is not a JSON file ({error.reason} at byte {error.start}). {redo}") from None
        except json.JSONDecodeError as error:
            raise BadData(f"{path}:{error.lineno}: not valid JSON, or truncated ({error.msg}). {redo}") from None
        self.pictures = sorted(pictures, key=lambda picture: picture.id)
        for first, second in itertools.pairwise(self.pictures):
            if first.id == second.id:
                raise BadData(f"{path} lists image {first.id} twice. {redo}")
        order = np.argsort(owners, kind="stable")  # annotations of one image keep the order of the file
        self._owners, self._places = owners[order], places[order]
        strangers = np.setdiff1d(owners, [picture.id for picture in self.pictures])
        if len(strangers):
            raise BadData(f"{path} has annotations of image {strangers[0]}, which it does not list. {redo}")

    def only(self, wanted: Callable[[Picture], bool]) -> CocoFile:
        """The same file with only some of its images."""
        fewer = copy.copy(self)
        fewer.pictures = [picture for picture in self.pictures if wanted(picture)]
        return fewer

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """The annotations of one image, in the order of the file."""
        first, last = np.searchsorted(self._owners, [image_id, image_id + 1])
        return [json.loads(self._text[start:stop]) for start, stop in self._places[first:last].tolist()]

    def _read(self) -> tuple[list[Picture], np.ndarray, np.ndarray]:
        """(images, image id of each annotation int64 (n,), its place in the text int64 (n, 2)); sets ``categories``."""
        pictures: list[Picture] = []
        owners, places = array("q"), array("q")
        self.categories: list[dict[str, Any]] = []
        seen = set()
        for key, value, start, stop in _elements(self._text):
            seen.add(key)
            if key == "images":
                pictures.append(self._picture(value))
            elif key == "categories":
                self.categories.append(value)
            elif key == "annotations":
                if not isinstance(value, dict) or not isinstance(value.get("image_id"), int):
                    raise BadData(f"{self.path}: annotation {len(owners)} names no image_id. {self.redo}")
                owners.append(value["image_id"])
                places.extend((start, stop))
        if not pictures:
            raise BadData(f"{self.path} lists no images, so it is no annotation file in COCO's form (it has {sorted(seen) or 'nothing'}).")
        return pictures, np.array(owners, np.int64), np.array(places, np.int64).reshape(-1, 2)

    def _picture(self, record: Any) -> Picture:
        try:
            url = "/".join(record.get("coco_url", "").split("/")[-2:])
            name = record.get("file_name") or url.rpartition("/")[2] or record["file_name"]
            return Picture(int(record["id"]), _inside(name), int(record["height"]), int(record["width"]), _inside(url))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadData(
                f"{self.path}: an image must have id, file_name, height and width, got {str(record)[:200]} ({error}). {self.redo}"
            ) from error


def _text_of(path: Path) -> str:
    """The text of a UTF-8 file, decoded from the mapped file: its bytes are never held beside it."""
    with open(path, "rb") as file:
        if not path.stat().st_size:
            return ""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return codecs.decode(data, "utf-8")  # type: ignore[arg-type]


def _inside(name: str) -> str:
    """A relative path that stays in its folder; anything else is no file of the dataset."""
    if name.startswith("/") or ".." in name.split("/") or "\\" in name:
        raise ValueError(f"'{name}' leads out of the folder of the images")
    return name


def _elements(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """(key, value, start, stop) of each value in the mapping at the top of a JSON text, and of each element where a value is a list."""
    decode = json.JSONDecoder().raw_decode
    place = _expect(text, 0, "{")
    while text[place : place + 1] != "}":
        key, place = decode(text, place)
        place = _expect(text, place, ":")
        if text[place : place + 1] == "[":
            place = _skip(text, place + 1)
            while text[place : place + 1] != "]":
                value, stop = decode(text, place)
                yield key, value, place, stop
                place = _next(text, stop, "]")
            place = _next(text, place + 1, "}")
        else:
            value, stop = decode(text, place)
            yield key, value, place, stop
            place = _next(text, stop, "}")


def _skip(text: str, place: int) -> int:
    while text[place : place + 1] and text[place] in _SPACE:
        place += 1
    return place


def _expect(text: str, place: int, sign: str) -> int:
    place = _skip(text, place)
    if text[place : place + 1] != sign:
        raise json.JSONDecodeError(f"expected '{sign}'", text, min(place, len(text)))
    return _skip(text, place + 1)


def _next(text: str, place: int, end: str) -> int:
    """Where the next element begins, or the ``end`` stands."""
    place = _skip(text, place)
    return place if text[place : place + 1] == end else _expect(text, place, ",")


def code_of(segmentation: Any, height: int, width: int, what: str) -> bytes:
    """The run-length code of a segmentation in any of COCO's forms: polygons, runs as a list, or a compressed code."""
    from pycocotools import mask as coco

    try:
        if not isinstance(segmentation, Mapping):
            return coco.merge(coco.frPyObjects(segmentation, height, width))["counts"]
        size, counts = tuple(segmentation["size"]), segmentation["counts"]
    except Exception as error:  # pycocotools raises bare Exceptions
        raise BadData(f"{what}: its segmentation is neither polygons nor a run-length code ({error}).") from error
    if size != (height, width):
        raise BadData(f"{what}: its mask is {size[0]}×{size[1]}, its image {height}×{width} (height×width).")
    if isinstance(counts, str):
        return counts.encode("ascii", "replace")
    return counts if isinstance(counts, bytes) else rle.encode_runs(np.asarray(counts, np.int64))


def regions_of_annotations(
    annotations: Iterable[Mapping[str, Any]], height: int, width: int, node: Mapping[int, int] | None, what: str
) -> Regions:
    """Objects as they stand, still as run-length codes, with the class of their category; crowds are marked by source 'crowd'.

    node: category id → node of the class tree, or None where categories mean nothing. Annotations without a single pixel (a polygon thinner
    than one) are left out.
    """
    codes: list[bytes] = []
    labels, sources = [], []
    for annotation in annotations:
        name = f"{what}, annotation {annotation.get('id', len(codes))}"
        if "segmentation" not in annotation:
            raise BadData(f"{name} has no segmentation. Use the annotation files for instances, not those for boxes or captions.")
        if node is not None and annotation.get("category_id") not in node:
            raise BadData(f"{name} is of category {annotation.get('category_id')}, which its dataset does not know.")
        codes.append(code_of(annotation["segmentation"], height, width, name))
        labels.append(-1 if node is None else node[annotation["category_id"]])
        sources.append(CROWD if annotation.get("iscrowd") else "")
    try:
        return CodedRegions(codes, (height, width), label=labels, source=sources).pruned()
    except BadData as error:
        raise BadData(f"{what}: {error}") from None


def examples_of(
    file: CocoFile,
    place: Callable[[Picture], Path],
    *,
    split: str,
    what: str,
    node: Mapping[int, int] | None,
    redo: str,
    limit: int | None = None,
    truth: Callable[[Picture, Regions], Regions] = lambda _, objects: objects,
    name: Callable[[Picture, Path], str] = lambda _, path: path.stem,
    keep: Callable[[Mapping[str, Any]], bool] = lambda _: True,
) -> Iterator[Example]:
    """Images of an annotation file (``limit``: the lowest ids), each with its objects; those without an object too.

    place: where an image lies. what: the dataset's name in errors. truth: turns the objects into the ground truth. name: the image id,
    for the file's stem. keep: which annotations count.
    """
    named = sorted((name(picture, place(picture)), picture) for picture in file.pictures[:limit])
    for first, second in itertools.pairwise(named):
        if first[0] == second[0]:
            raise BadData(f"{file.path} has two images named '{first[0]}' ({first[1].file} and {second[1].file}). {redo}")
    for image_id, picture in named:
        path, shown = place(picture), f"{what} image {picture.id}"
        annotations = filter(keep, file.annotations(picture.id))
        objects = regions_of_annotations(annotations, picture.height, picture.width, node, shown)
        yield Example(image_id, read_picture(path, redo), path.suffix, split, truth(picture, objects))


def classes_of_categories(categories: Sequence[Mapping[str, Any]], what: str) -> Classes:
    """The class tree that an annotation file's own categories make: in their super-categories where there are several, else side by side.

    Every class is foreground.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    ids = [category.get("id") for category in categories]
    if not ids or len(set(ids)) < len(ids) or not all(isinstance(i, int) and "name" in c for i, c in zip(ids, categories, strict=True)):
        raise BadData(f"{what} must list categories, each with a name and an id (a number) of its own.")
    for category in categories:
        groups.setdefault(str(category.get("supercategory") or ""), []).append(category)
    names, parent, kind, node = ["scene"], [-1], [INNER], {}
    for group, members in groups.items():
        above = 0
        if group and len(groups) > 1:
            above = len(names)
            names.append(group)
            parent.append(0)
            kind.append(INNER)
        for category in members:
            node[int(category["id"])] = len(names)
            names.append(str(category["name"]))
            parent.append(above)
            kind.append(FOREGROUND)
    return Classes(ClassTree(tuple(names), tuple(parent), tuple(kind)), MappingProxyType(node))


def classes_of_parts(categories: Sequence[Mapping[str, Any]], what: str) -> Classes:
    """The class tree of categories named 'object' or 'object:part': parts below their objects. Every leaf is foreground."""
    classes_of_categories(categories, what)  # refuses what has no name or id
    names = {str(category["name"]): int(category["id"]) for category in categories}
    if len(names) < len(categories):
        raise BadData(f"{what} lists two categories of one name; objects and their parts are told apart by name.")
    parts: dict[str, list[str]] = {name: [] for name in names if ":" not in name}
    for name in names:
        if ":" in name:
            parts.setdefault(name.partition(":")[0], []).append(name)
    nested: dict[str, Any] = {name: dict.fromkeys(below, "foreground") or "foreground" for name, below in parts.items()}
    tree = ClassTree.from_nested(nested)
    number = {name: node for node, name in enumerate(tree.names)}
    return Classes(tree, MappingProxyType({label: number[name] for name, label in names.items()}))


def open_coco(path: Path, redo: str = "Extract the annotations again.") -> CocoFile:
    """The file, read once though its classes and its images are asked for apart."""
    stat = path.stat() if path.exists() else None
    return _opened(path, redo, stat.st_mtime_ns if stat else 0, stat.st_size if stat else 0)


@lru_cache(maxsize=1)
def _opened(path: Path, redo: str, _mtime: int, _size: int) -> CocoFile:
    return CocoFile(path, redo)
