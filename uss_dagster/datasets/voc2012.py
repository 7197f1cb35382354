"""PASCAL VOC 2012 segmentation: 20 classes, background, and a void border that no metric counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.files import find, read_ids
from uss_dagster.datasets.formats.label_maps import Size, nodes_of_label_map, read_label_png
from uss_dagster.datasets.formats.pairs import Pair, examples_of_pairs, examples_with
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images and what of them.

    Parameters
    ----------
    split : str
        train, val, trainval, or trainaug: train with the masks of Hariharan et al. (no void border there) and without val. Default: val.
    truth : str
        'classes', or 'instances': objects one by one (not for trainaug). Default: classes.
    tree : str
        'flat': the classes side by side. 'groups': in person, animal, vehicle and indoor. Default: flat.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["train", "val", "trainval", "trainaug"] = "val"
    truth: Literal["classes", "instances"] = "classes"
    tree: Literal["flat", "groups"] = "flat"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.truth == "instances" and self.split == "trainaug":
            raise ValueError("split is 'trainaug', whose masks know no objects; truth 'instances' needs train, val or trainval.")


SPEC = dataset_spec(__file__, Params, load_classes("voc2012").tree)


def class_set(params: Params) -> str:
    """The class set that these parameters ask for."""
    return "voc2012" if params.tree == "flat" else "voc2012_groups"


def classes(params: Params) -> Classes:
    """Its class tree."""
    return load_classes(class_set(params))


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of their classes, or their objects."""
    data, labelled = data_folder(), classes(params)
    masks = data / ("SegmentationClassAug" if params.split == "trainaug" else "SegmentationClass")
    ids = split_ids(data, params.split)[: params.limit]
    pairs = [Pair(image_id, data / "JPEGImages" / f"{image_id}.jpg", masks / f"{image_id}.png") for image_id in ids]
    if params.truth == "classes":
        return examples_of_pairs(pairs, params.split, labelled, SPEC)

    def objects(pair: Pair, size: Size) -> Regions:
        nodes = nodes_of_label_map(read_label_png(pair.labels, size), labelled, f"{SPEC.title} image {pair.image_id}")
        return regions_of_objects(read_label_png(data / "SegmentationObject" / f"{pair.image_id}.png", size), nodes)

    return examples_with(objects, pairs, params.split, SPEC)


def regions_of_objects(objects: np.ndarray, nodes: np.ndarray) -> Regions:
    """One region an object (0 is background, 255 void), labelled with the class that most of its pixels have."""
    numbers = np.setdiff1d(objects, [0, 255])
    label = [int(np.bincount(nodes[objects == number]).argmax()) for number in numbers]
    rank = np.zeros(256, np.int32)
    rank[numbers] = np.arange(1, len(numbers) + 1)
    return Regions(rank[objects], np.eye(len(numbers) + 1, dtype=bool)[1:], label=label)


def data_folder() -> Path:
    """The folder that holds JPEGImages: that of the development kit, or the mirror's own."""
    return find(SPEC, [f"{place}/JPEGImages" for place in ("VOCdevkit/VOC2012", "VOC2012", ".")]).parent


def split_ids(data: Path, split: str) -> list[str]:
    """Ids of a split, ascending. Without a list of its own, trainaug is every mask of SegmentationClassAug that is not of val."""
    lists = data / "ImageSets" / "Segmentation"
    names = ("trainaug.txt", "train_aug.txt") if split == "trainaug" else (f"{split}.txt",)
    for path in (lists / name for name in names):
        if path.is_file():
            return read_ids(path)
    if split == "trainaug":
        val = set(read_ids(_must_exist(lists / "val.txt")))
        return sorted(path.stem for path in _must_exist(data / "SegmentationClassAug").glob("*.png") if path.stem not in val)
    raise BadData(f"{lists / names[0]} is missing: split '{split}' has no list of images. {SPEC.get_it}")


def _must_exist(path: Path) -> Path:
    if not path.exists():
        raise BadData(f"{path} is missing, and trainaug cannot be told without it. {SPEC.get_it}")
    return path
