"""PASCAL-Part: the objects of VOC 2010 with their parts; scene → object → part, each object a region of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.files import find, read_ids
from uss_dagster.datasets.formats.label_maps import Size
from uss_dagster.datasets.formats.pairs import Pair, examples_with
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions

BACKGROUND_ID = 0
PER_CLASS = 100
"""A label id is the VOC number of the object × 100 + the official number of the part, 0 for the object as a whole."""


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images and parts.

    Parameters
    ----------
    split : str
        Of VOC 2010: train, val, or trainval, all that is annotated. Default: trainval.
    parts : str
        'full': all 384 under their official names. 'reduced': 93, without side and number, rare ones left to the object. Default: full.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["trainval", "train", "val"] = "trainval"
    parts: Literal["full", "reduced"] = "full"


SPEC = dataset_spec(__file__, Params, load_classes("pascal_part_full").tree)


@dataclass(frozen=True)
class Object:
    """One object of a file. number: of its class in VOC, from 1. mask: bool (H, W). parts: (official name, mask) in the file's order."""

    number: int
    mask: np.ndarray
    parts: tuple[tuple[str, np.ndarray], ...]


def class_set(params: Params) -> str:
    """The class set that these parameters ask for."""
    return f"pascal_part_{params.parts}"


def classes(params: Params) -> Classes:
    """Its class tree."""
    return load_classes(class_set(params))


def examples(params: Params) -> Iterator[Example]:
    """Annotated images by ascending id, as released; truth is the tree of regions of their objects and parts."""
    annotations = find(SPEC, ("Annotations_Part", "trainval/Annotations_Part"))
    pictures = find(SPEC, ("JPEGImages", "VOCdevkit/VOC2010/JPEGImages", "VOC2010/JPEGImages"))
    ids = _ids(params.split, annotations, pictures)[: params.limit]
    pairs = [Pair(image_id, pictures / f"{image_id}.jpg", annotations / f"{image_id}.mat") for image_id in ids]

    def truth(pair: Pair, size: Size) -> Regions:
        return regions_of_objects(read_objects(pair.labels, size), classes(params))

    return examples_with(truth, pairs, params.split, SPEC)


def regions_of_objects(objects: list[Object], classes: Classes) -> Regions:
    """The whole image, the background, then each object with its parts; only what can be seen.

    Where objects overlap, the later one in the file is in front. Within an object the smaller part is in front (of equal ones the later), so
    an eye shows on the head; its pixels are then not the head's, for sister regions share none. Parts are cut off at their object.
    Pixels in no part, and in parts that the class tree leaves out, belong to what is behind: a larger part, or the object directly.
    """
    official = _part_numbers()
    shape = objects[0].mask.shape
    parent, label = [-1, 0], [0, classes.node[BACKGROUND_ID]]
    deepest = np.ones(shape, np.int32)
    for thing in objects:
        above = len(parent)
        parent.append(0)
        label.append(_object_node(thing.number, classes))
        deepest[thing.mask] = above
        region_of: dict[int, int] = {}  # in the reduced set several parts are one region
        for name, mask in sorted(thing.parts, key=lambda part: -np.count_nonzero(part[1])):
            node = classes.node.get(PER_CLASS * thing.number + official[thing.number][name])
            if node is None:
                continue
            if node not in region_of:
                region_of[node] = len(parent)
                parent.append(above)
                label.append(node)
            deepest[mask & thing.mask] = region_of[node]
    return Regions.from_tree(deepest, parent, label=label).pruned()


def read_objects(path: Path, size: tuple[int, int]) -> list[Object]:
    """The objects of one file, in its order; size: (height, width) of the image, to be held against."""
    from scipy.io import loadmat

    if not path.is_file():
        raise BadData(f"{path} is missing: a PASCAL-Part image has no annotation. {SPEC.get_it}")
    try:
        objects = [_object(one) for one in loadmat(path)["anno"]["objects"][0, 0].ravel()]
    except Exception as error:  # scipy raises a different type for every way in which a .mat can be broken
        raise BadData(f"{path} is not a PASCAL-Part annotation ({type(error).__name__}: {error}). Extract the archive again.") from error
    official = _part_numbers()
    if not objects:
        raise BadData(f"{path} holds no object; PASCAL-Part annotates at least one in each image. Extract the archive again.")
    for place, thing in enumerate(objects):
        what = f"{path}, object {place}"
        if thing.number not in official:
            raise BadData(f"{what} is of class {thing.number}; VOC has classes 1 to 20. Extract the archive again.")
        for name, mask in (("it", thing.mask), *thing.parts):
            if mask.shape != size:
                raise BadData(
                    f"{what}: the mask of {name} is {'×'.join(map(str, mask.shape))}, its image {size[0]}×{size[1]} (height×width). "
                    "Check that image and annotation are of one release."
                )
        strange = sorted({name for name, _ in thing.parts} - set(official[thing.number]))
        if strange:
            raise BadData(f"{what} has parts that its class does not know: {', '.join(strange[:5])}. Extract the archive again.")
    return objects


def _object(one: Any) -> Object:
    parts = tuple((str(part["part_name"].item()), part["mask"] != 0) for part in one["parts"].ravel())
    return Object(int(one["class_ind"].item()), one["mask"] != 0, parts)


def _part_numbers() -> dict[int, dict[str, int]]:
    """VOC number → official part name → official part number, from the full class tree."""
    full = load_classes("pascal_part_full")
    numbers: dict[int, dict[str, int]] = {}
    for label, node in full.node.items():
        voc, part = divmod(label, PER_CLASS)
        if voc:
            parts = numbers.setdefault(voc, {})
            if part:
                parts[full.tree.names[node].split(" ", 1)[1]] = part
    return numbers


def _object_node(number: int, classes: Classes) -> int:
    """The node of an object as a whole: a leaf where it has no parts, else what is above any of them."""
    if PER_CLASS * number in classes.node:
        return classes.node[PER_CLASS * number]
    return classes.tree.parent[next(node for label, node in classes.node.items() if label // PER_CLASS == number)]


def _ids(split: str, annotations: Path, pictures: Path) -> list[str]:
    """Ids of the split, ascending: of all annotation files, those that the list of VOC 2010 names."""
    ids = sorted(path.stem for path in annotations.glob("*.mat"))
    if not ids:
        raise BadData(f"{annotations} holds no <id>.mat. {SPEC.get_it}")
    if split == "trainval":
        return ids
    listed = pictures.parent / "ImageSets" / "Main" / f"{split}.txt"
    if not listed.is_file():
        raise BadData(f"{listed} is missing: split '{split}' has no list of images. {SPEC.get_it}")
    members = set(read_ids(listed))
    return [image_id for image_id in ids if image_id in members]
