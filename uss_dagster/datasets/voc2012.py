"""PASCAL VOC 2012 segmentation: 20 classes, background, and a void border that no metric counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Archive, DatasetSpec, Example
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.files import check_limit, find, read_ids, read_picture
from uss_dagster.datasets.formats.label_maps import nodes_of_label_map, read_label_png, regions_of_label_map, size_of
from uss_dagster.errors import BadData
from uss_dagster.regions import ClassTree, Regions


@dataclass(frozen=True)
class Params:
    """split: an official split, or trainaug, train with the masks of Hariharan et al. (no void border there) and without val.
    truth: classes, or objects one by one (not for trainaug). tree: the classes side by side, or in the four groups person, animal, vehicle,
    indoor. limit: only the first so many images."""

    split: Literal["train", "val", "trainval", "trainaug"] = "val"
    truth: Literal["classes", "instances"] = "classes"
    tree: Literal["flat", "groups"] = "flat"
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)
        if self.truth == "instances" and self.split == "trainaug":
            raise ValueError("split is 'trainaug', whose masks know no objects; truth 'instances' needs train, val or trainval.")


GET_IT = (
    "Fetch VOCtrainval_11-May-2012.tar from the PASCAL VOC site (Oxford VGG), extract it into a folder named 'voc2012', and set USS_MIRROR "
    "to the folder that holds 'voc2012'. For trainaug also put SegmentationClassAug/ beside its SegmentationClass/."
)
ARCHIVE = Archive(
    "VOCtrainval_11-May-2012.tar",
    (
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://pjreddie.com/media/files/VOCtrainval_11-May-2012.tar",
    ),
    size=1_999_639_040,
    md5="6cd6e144f989b92b3379bac3b3de84fd",
)
LICENCE = "images from flickr, under the flickr terms of use; annotations free for research"
CITATION = (
    "M. Everingham, S. M. A. Eslami, L. Van Gool, C. K. I. Williams, J. Winn, A. Zisserman. The Pascal Visual Object Classes Challenge: "
    "A Retrospective. International Journal of Computer Vision 111(1), 2015."
)

SPEC = DatasetSpec(
    name="voc2012",
    title="PASCAL VOC 2012 segmentation",
    params=Params,
    truth="classes",
    licence=LICENCE,
    citation=CITATION,
    homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    classes=load_classes("voc2012").tree,
    counts={"train": 1464, "val": 1449, "trainval": 2913, "trainaug": 10582},
    archives=(ARCHIVE,),
    instructions=(
        "The masks of trainaug (SegmentationClassAug, after B. Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011) have "
        "no official address: put the folder of 12,031 PNG files beside SegmentationClass, with or without a list trainaug.txt."
    ),
)


def truth(params: Params) -> str:
    """What kind of ground truth these parameters ask for."""
    return params.truth


def classes(params: Params) -> ClassTree:
    """The class tree that these parameters ask for."""
    return _classes(params).tree


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of their classes, or their objects."""
    data, known = data_folder(), _classes(params)
    masks = data / ("SegmentationClassAug" if params.split == "trainaug" else "SegmentationClass")
    for image_id in split_ids(data, params.split)[: params.limit]:
        path, what = data / "JPEGImages" / f"{image_id}.jpg", f"VOC 2012 image {image_id}"
        picture = read_picture(path, GET_IT)
        size = size_of(picture, str(path))
        labels = read_label_png(masks / f"{image_id}.png", size)
        if params.truth == "instances":
            objects = read_label_png(data / "SegmentationObject" / f"{image_id}.png", size)
            regions = regions_of_objects(objects, nodes_of_label_map(labels, known, what))
        else:
            regions = regions_of_label_map(labels, known, what)
        yield Example(image_id, picture, ".jpg", params.split, regions)


def regions_of_objects(objects: np.ndarray, nodes: np.ndarray) -> Regions:
    """One region an object (0 is background, 255 void), labelled with the class that most of its pixels have."""
    numbers = np.setdiff1d(objects, [0, 255])
    label = [int(np.bincount(nodes[objects == number]).argmax()) for number in numbers]
    rank = np.zeros(256, np.int32)
    rank[numbers] = np.arange(1, len(numbers) + 1)
    return Regions(rank[objects], np.eye(len(numbers) + 1, dtype=bool)[1:], label=label)


def data_folder() -> Path:
    """The folder that holds JPEGImages: that of the development kit, or the mirror's own."""
    places = ("VOCdevkit/VOC2012", "VOC2012", ".")
    return find([SPEC.name], [f"{place}/JPEGImages" for place in places], GET_IT).parent


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
    raise BadData(f"{lists / names[0]} is missing: split '{split}' has no list of images. {GET_IT}")


def _must_exist(path: Path) -> Path:
    if not path.exists():
        raise BadData(f"{path} is missing, and trainaug cannot be told without it. {GET_IT}")
    return path


def _classes(params: Params) -> Classes:
    return load_classes("voc2012" if params.tree == "flat" else "voc2012_groups")
