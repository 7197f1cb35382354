"""COCO 2017 instances: objects of 80 classes, which may overlap, and crowds; or the same as one class a pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import DatasetSpec, Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.coco_json import examples_of, find_coco
from uss_dagster.datasets.formats.files import find
from uss_dagster.datasets.formats.label_maps import regions_of_nodes
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images and what of them.

    Parameters
    ----------
    split : str
        val2017 or train2017. Default: val2017.
    truth : str
        'instances': objects as they are annotated. 'classes': 81 classes a pixel, painted from the objects and crowds, the smallest on
        top, with background where there is none. Default: instances.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["val2017", "train2017"] = "val2017"
    truth: Literal["instances", "classes"] = "instances"


CLASSES = load_classes("coco")

SPEC = dataset_spec(__file__, Params, CLASSES.tree)
IMAGE_ARCHIVES = tuple(archive for archive in SPEC.archives if archive.name in ("val2017.zip", "train2017.zip"))
MIRRORS = SPEC.mirrors
"""Folders of the mirror that may hold COCO 2017; what is built on COCO's images looks here too."""


def class_set(params: Params) -> str:
    """The class set that these parameters ask for."""
    return "coco" if params.truth == "instances" else "coco_semantic"


def classes(params: Params) -> Classes:
    """Its class tree."""
    return load_classes(class_set(params))


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released, those without an object too."""
    file = find_coco(SPEC, (f"annotations/instances_{params.split}.json", f"instances_{params.split}.json"))
    categories = classes(params)

    def truth_of(objects: Regions) -> Regions:
        return objects if params.truth == "instances" else regions_of_nodes(painted(objects, categories.node[0]), categories)

    images = image_folder(params.split, SPEC)
    return examples_of(file, images, SPEC, params.split, params.limit, node=categories.node, truth=truth_of)


def painted(objects: Regions, ground: int) -> np.ndarray:
    """Int32 (H, W): class of each pixel, the smallest object's where several overlap, ``ground`` where there is none."""
    nodes = np.full(objects.shape, ground, np.int32)
    for number in np.argsort(-objects.area, kind="stable"):
        nodes[objects.mask(int(number))] = objects.label[number]
    return nodes


def image_folder(split: str, spec: DatasetSpec, names: tuple[str, ...] = ()) -> Path:
    """The folder of a split's images, for a dataset on COCO's images: as the archive extracts it, or below images/. names: see ``find``."""
    return find(spec, (split, f"images/{split}"), names)
