"""COCO's JSON form, which many datasets share: images, categories, and annotations whose masks are polygons or run-length codes.

The file of COCO train2017 is 450 MB, and ten times that as Python objects. So memory holds its text and, of each annotation, only the
image and the place in the text; an annotation is parsed when its image is read. Masks stay run-length codes.
"""

from __future__ import annotations

import codecs
import copy
import itertools
import json
import mmap
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from uss_dagster.datasets.base import DatasetSpec, Example
from uss_dagster.datasets.formats.class_trees import Classes, classes_in_groups
from uss_dagster.datasets.formats.files import find, read_picture
from uss_dagster.errors import BadData
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.regions.coco import CocoAnnotation, CocoCategory, code_of
from uss_dagster.regions.coded import CodedRegions

CROWD = "crowd"
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Picture:
    """One record of 'images'.

    Parameters
    ----------
    id : int
        COCO's number.
    file : str
        Its file_name, or the end of its coco_url where it has none.
    height, width : int
        Pixels.
    url_file : str
        The last two parts of its coco_url, such as 'val2017/000000000139.jpg'. Default: empty, it has none.
    """

    id: int
    file: str
    height: int
    width: int
    url_file: str = ""


class CocoFile:
    """One JSON file in COCO's form.

    Parameters
    ----------
    path : Path
        The file.
    redo : str
        What to do where it is missing or damaged, in a sentence; part of errors.

    Attributes
    ----------
    pictures : list of Picture
        The records of its images, by ascending id.
    categories : list of dict
        Its categories as they are in the file.
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

    def only(self, condition: Callable[[Picture], bool]) -> CocoFile:
        """The same file with only some of its images."""
        fewer = copy.copy(self)
        fewer.pictures = [picture for picture in self.pictures if condition(picture)]
        return fewer

    def annotations(self, image_id: int) -> list[CocoAnnotation]:
        """The annotations of one image, in the order of the file."""
        first, last = np.searchsorted(self._owners, [image_id, image_id + 1])
        return [json.loads(self._text[start:stop]) for start, stop in self._places[first:last].tolist()]

    def _read(self) -> tuple[list[Picture], np.ndarray, np.ndarray]:
        """(images, image id of each annotation int64 (n,), its place in the text int64 (n, 2)); sets ``categories``."""
        pictures: list[Picture] = []
        owners, places = array("q"), array("q")
        self.categories: list[CocoCategory] = []
        keys = set()
        for key, value, start, stop in _elements(self._text):
            keys.add(key)
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
            raise BadData(f"{self.path} lists no images, so it is no annotation file in COCO's form (it has {sorted(keys) or 'nothing'}).")
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
    return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches anywhere


def _expect(text: str, place: int, sign: str) -> int:
    place = _skip(text, place)
    if text[place : place + 1] != sign:
        raise json.JSONDecodeError(f"expected '{sign}'", text, min(place, len(text)))
    return _skip(text, place + 1)


def _next(text: str, place: int, end: str) -> int:
    """Where the next element begins, or the ``end`` stands."""
    place = _skip(text, place)
    return place if text[place : place + 1] == end else _expect(text, place, ",")


def regions_of_annotations(
    annotations: Iterable[CocoAnnotation], height: int, width: int, node: Mapping[int, int] | None, what: str
) -> Regions:
    """The objects of one image, still as run-length codes.

    Annotations without a single pixel (a polygon thinner than one) are left out.

    Parameters
    ----------
    annotations : iterable of dict
        In the order of the regions.
    height, width : int
        Of the image, in pixels.
    node : mapping, optional
        Category id → node of the class tree. None: categories mean nothing, and regions get label -1.
    what : str
        Names the image in errors.

    Returns
    -------
    Regions
        Without parents; crowds have the source 'crowd'.
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
    images: Path | Callable[[Picture], Path],
    spec: DatasetSpec,
    split: str,
    limit: int | None,
    *,
    node: Mapping[int, int] | None = None,
    truth: Callable[[Regions], Regions] = lambda objects: objects,
    name: Callable[[Picture, Path], str] = lambda _, path: path.stem,
    keep: Callable[[CocoAnnotation], bool] = lambda _: True,
) -> Iterator[Example]:
    """Images of an annotation file, each with its objects; those without an object too.

    Parameters
    ----------
    file : CocoFile
        The annotations.
    images : Path or callable
        The folder below which the records name their files, or record → file.
    spec : DatasetSpec
        The dataset, for errors.
    split : str
        Name of the split.
    limit : int, optional
        Only the images of the lowest numbers; None for all.
    node : mapping, optional
        Category id → node of the class tree. Default: None, categories mean nothing.
    truth : callable
        Turns the objects into the ground truth. Default: they are the ground truth.
    name : callable
        (record, file) → image id. Default: the file's stem.
    keep : callable
        Which annotations count. Default: all.
    """
    place = (lambda picture: images / picture.file) if isinstance(images, Path) else images
    named = sorted((name(picture, place(picture)), picture) for picture in file.pictures[:limit])
    for first, second in itertools.pairwise(named):
        if first[0] == second[0]:
            raise BadData(f"{file.path} has two images named '{first[0]}' ({first[1].file} and {second[1].file}). {spec.get_it}")
    for image_id, picture in named:
        path = place(picture)
        annotations = filter(keep, file.annotations(picture.id))
        objects = regions_of_annotations(annotations, picture.height, picture.width, node, f"{spec.title} image {picture.id}")
        yield Example(image_id, read_picture(path, spec), path.suffix, split, truth(objects))


def classes_of_categories(categories: Sequence[CocoCategory], what: str) -> Classes:
    """The class tree that an annotation file's own categories make, every class foreground.

    Classes lie in their super-categories where there are several of these, else side by side. what: names the file in an error.
    """
    ids = [category.get("id") for category in categories]
    if not ids or len(set(ids)) < len(ids) or not all(isinstance(i, int) and "name" in c for i, c in zip(ids, categories, strict=True)):
        raise BadData(f"{what} must list categories, each with a name and an id (a number) of its own.")
    groups: dict[str, list[tuple[int, str]]] = {}
    for category in categories:
        groups.setdefault(str(category.get("supercategory") or ""), []).append((int(category["id"]), str(category["name"])))
    return classes_in_groups(groups if len(groups) > 1 else {"": next(iter(groups.values()))})


def classes_of_parts(categories: Sequence[CocoCategory], what: str) -> Classes:
    """The class tree of categories named 'object' or 'object:part': parts below their objects. Every leaf is foreground."""
    classes_of_categories(categories, what)  # refuses what has no name or id
    names = {str(category["name"]): int(category["id"]) for category in categories}
    if len(names) < len(categories):
        raise BadData(f"{what} lists two categories of one name; objects and their parts are told apart by name.")
    parts: dict[str, list[str]] = {name: [] for name in names if ":" not in name}
    for name in names:
        if ":" in name:
            parts.setdefault(name.partition(":")[0], []).append(name)
    tree = ClassTree.from_nested({name: dict.fromkeys(below, "foreground") or "foreground" for name, below in parts.items()})
    number = {name: node for node, name in enumerate(tree.names)}
    return Classes(tree, MappingProxyType({label: number[name] for name, label in names.items()}))


def find_coco(spec: DatasetSpec, places: Iterable[str], names: Sequence[str] = ()) -> CocoFile:
    """The annotation file at the first of several places that exists; arguments as in ``files.find``."""
    return open_coco(find(spec, places, names), spec.get_it)


def open_coco(path: Path, redo: str = "Extract the annotations again.") -> CocoFile:
    """The file; read once, though its classes and its images are asked for one after the other."""
    stat = path.stat() if path.exists() else None
    return _opened(path, redo, stat.st_mtime_ns if stat else 0, stat.st_size if stat else 0)


@lru_cache(maxsize=1)
def _opened(path: Path, redo: str, _mtime: int, _size: int) -> CocoFile:
    return CocoFile(path, redo)
