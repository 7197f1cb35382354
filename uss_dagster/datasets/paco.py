"""PACO-LVIS: objects of 75 classes and their parts, on images of COCO 2017."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from uss_dagster.datasets.base import Archive, DatasetSpec, Example
from uss_dagster.datasets.coco import IMAGE_ARCHIVES, LICENCE, MIRRORS
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.coco_json import CocoFile, classes_of_parts, examples_of, open_coco
from uss_dagster.datasets.formats.files import check_limit, find
from uss_dagster.datasets.lvis import coco_places
from uss_dagster.regions import ClassTree


@dataclass(frozen=True)
class Params:
    """split: an official split. regions: objects and parts, or one of them. limit: only the first so many images by id, or all."""

    split: Literal["val", "test", "train"] = "val"
    regions: Literal["all", "objects", "parts"] = "all"
    limit: int | None = None

    def __post_init__(self) -> None:
        check_limit(self.limit)


GET_IT = (
    "Fetch paco_lvis_v1.zip from the PACO repository into a folder named 'paco', train2017.zip and val2017.zip from the COCO site into one named "
    "'coco', extract them there, and set USS_MIRROR to the folder that holds both."
)

SPEC = DatasetSpec(
    name="paco",
    title="PACO-LVIS objects and parts",
    params=Params,
    truth="instances",
    licence=f"annotations as PACO's repository states; {LICENCE}",
    citation="V. Ramanathan et al. PACO: Parts and Attributes of Common Objects. IEEE/CVF CVPR, 2023.",
    homepage="https://github.com/facebookresearch/paco",
    counts={"train": 45790, "val": 2410, "test": 9443},
    archives=(
        *IMAGE_ARCHIVES,
        Archive("paco_lvis_v1.zip", ("https://dl.fbaipublicfiles.com/paco/annotations/paco_lvis_v1.zip",)),
    ),
)


def classes(params: Params) -> ClassTree:
    """The classes of the annotation file: objects, and below them their parts."""
    return _classes(_file(params)).tree


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is their objects and parts, in the order of the file.

    A part's mask may lie partly outside its object's, so regions have no parents; class 'chair:leg' lies below class 'chair'.
    """
    file = _file(params)
    known = _classes(file)
    parts = {category["id"] for category in file.categories if ":" in category["name"]}

    def wanted(annotation: Mapping[str, Any]) -> bool:
        return params.regions == "all" or (annotation.get("category_id") in parts) == (params.regions == "parts")

    yield from examples_of(
        file,
        coco_places((SPEC.name, *MIRRORS)),
        split=params.split,
        what="PACO",
        node=known.node,
        redo=GET_IT,
        limit=params.limit,
        keep=wanted,
    )


def _file(params: Params) -> CocoFile:
    name = f"paco_lvis_v1_{params.split}.json"
    return open_coco(find((SPEC.name, *MIRRORS), (name, f"annotations/{name}", f"paco_lvis_v1/{name}"), GET_IT), GET_IT)


def _classes(file: CocoFile) -> Classes:
    return classes_of_parts(file.categories, str(file.path))
