"""LVIS: objects of more than 1,200 classes on the images of COCO 2017; not every object of an image is annotated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from uss_dagster.datasets import coco
from uss_dagster.datasets.base import DatasetSpec, Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.coco_json import CocoFile, Picture, classes_of_categories, examples_of, find_coco
from uss_dagster.errors import BadData


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which release and images.

    Parameters
    ----------
    version : str
        v1 (1,203 classes) or v0.5 (1,230). Default: v1.
    split : str
        Of the release: val or train. Default: val.
    subset : str
        'all' of the split, or only its images of COCO's 'val2017' (the splits of LVIS are not those of COCO). Default: all.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    version: Literal["v1", "v0.5"] = "v1"
    split: Literal["val", "train"] = "val"
    subset: Literal["all", "val2017"] = "all"


SPEC = dataset_spec(__file__, Params, archives=coco.IMAGE_ARCHIVES)


def class_set(params: Params) -> str:
    """The class set that these parameters ask for."""
    return f"lvis_{params.version}"


def classes(params: Params) -> Classes:
    """The classes of the annotation file, side by side."""
    file = _file(params)
    return classes_of_categories(file.categories, str(file.path))


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is their objects, in the order of the file."""
    file = _file(params)
    if params.subset == "val2017":
        file = file.only(lambda picture: picture.url_file.startswith("val2017/"))
    return examples_of(file, coco_places(SPEC, mirrors(params)), SPEC, params.split, params.limit, node=classes(params).node)


def coco_places(spec: DatasetSpec, names: tuple[str, ...] = ()) -> Callable[[Picture], Path]:
    """Record → file, of images of COCO 2017 that another annotation file names by their addresses. names: see ``find``."""
    folders: dict[str, Path] = {}

    def place(picture: Picture) -> Path:
        split, _, name = picture.url_file.partition("/")
        if not name:
            raise BadData(f"Image {picture.id} has no coco_url, so that its file among COCO's cannot be told. {spec.get_it}")
        if split not in folders:
            folders[split] = coco.image_folder(split, spec, names)
        return folders[split] / name

    return place


def mirrors(params: Params) -> tuple[str, ...]:
    """Folders of the mirror that may hold this release or its images."""
    return (SPEC.name, f"lvis_{params.version}", *coco.MIRRORS)


def _file(params: Params) -> CocoFile:
    name = f"lvis_{params.version}_{params.split}"
    names = (f"{name}.json", f"{name}_sample.json")  # the authors publish a sample of v0.5 with their programs
    return find_coco(SPEC, [f"{folder}{file}" for file in names for folder in ("", "annotations/")], mirrors(params))
