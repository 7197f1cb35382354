"""PACO-LVIS: objects of 75 classes and their parts, on images of COCO 2017."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uss_dagster.datasets import coco
from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.coco_json import CocoFile, classes_of_parts, examples_of, find_coco
from uss_dagster.datasets.lvis import coco_places
from uss_dagster.regions.coco import CocoAnnotation


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images and regions.

    Parameters
    ----------
    split : str
        val, test or train. Default: val.
    regions : str
        'all', 'objects' or 'parts'. Default: all.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["val", "test", "train"] = "val"
    regions: Literal["all", "objects", "parts"] = "all"


SPEC = dataset_spec(__file__, Params, archives=coco.IMAGE_ARCHIVES)


def class_set(params: Params) -> str:
    """The class set that these parameters ask for."""
    return SPEC.name if params.regions == "all" else f"{SPEC.name}_{params.regions}"


def classes(params: Params) -> Classes:
    """The classes of the annotation file: objects, and below them their parts."""
    file = _file(params)
    return classes_of_parts(file.categories, str(file.path))


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is their objects and parts, in the order of the file.

    A part's mask may lie partly outside its object's, so regions have no parents; class 'chair:leg' lies below class 'chair'.
    """
    file = _file(params)
    parts = {category["id"] for category in file.categories if ":" in category["name"]}

    def keep(annotation: CocoAnnotation) -> bool:
        return params.regions == "all" or (annotation.get("category_id") in parts) == (params.regions == "parts")

    return examples_of(file, coco_places(SPEC), SPEC, params.split, params.limit, node=classes(params).node, keep=keep)


def _file(params: Params) -> CocoFile:
    name = f"paco_lvis_v1_{params.split}.json"
    return find_coco(SPEC, (name, f"annotations/{name}", f"paco_lvis_v1/{name}"))
