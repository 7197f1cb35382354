"""Your own images: any folder of pictures, without ground truth, or with label maps, a COCO file, or one JSON file an image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from uss_dagster.artifacts.image_files import find_images, read_file
from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, read_classes
from uss_dagster.datasets.formats.coco_json import classes_of_categories, examples_of, open_coco, regions_of_annotations
from uss_dagster.datasets.formats.label_maps import read_label_png, regions_of_label_map, size_of
from uss_dagster.datasets.sa1b import read_record
from uss_dagster.errors import BadData, UsageError
from uss_dagster.regions import ClassTree, Regions


@dataclass(frozen=True)
class Params(LimitedParams):
    """Where images and masks are. Paths are relative to the folder of the project.

    Parameters
    ----------
    path : str
        The folder of the images; those in folders below it count too. Default: empty, but it has to be given.
    masks : str, optional
        A JSON file in COCO's form; or a folder of files, each named as its image and in the same place below the folder. Default: None,
        no ground truth.
    form : str
        What a folder of masks holds: 'labels', label maps (PNG), or 'json', JSON files as SA-1B has them. Default: labels.
    classes : str, optional
        For label maps, a class tree in YAML, see ``formats.class_trees``. Default: None, every label that occurs is a class of its own.
    ignore : tuple of int
        Labels that are no class, where there is no class tree. Default: 255.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    path: str = ""
    masks: str | None = None
    form: Literal["labels", "json"] = "labels"
    classes: str | None = None
    ignore: tuple[int, ...] = (255,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes and not self.masks:
            raise ValueError("classes is given without masks; a class tree says what the labels of masks mean.")


SPEC = dataset_spec(__file__, Params)


def truth(params: Params) -> str:
    """'none' without masks, 'classes' with label maps, 'instances' with JSON."""
    return {"": "none", "labels": "classes"}.get(_form(params), "instances")


def inputs(params: Params) -> list[Path]:
    """What is read, all of it outside DVC's sight: the plan notes its content, so that a changed picture makes the dataset stale."""
    return [Path(path) for path in (params.path, params.masks, params.classes) if path]


def classes(params: Params) -> Classes | None:
    """The class tree of label maps or of a COCO file's categories."""
    form = _form(params)
    if form == "labels":
        return _label_classes(params)
    file = open_coco(Path(str(params.masks)), SPEC.get_it) if form == "coco" else None
    return classes_of_categories(file.categories, str(file.path)) if file and file.categories else None


def examples(params: Params) -> Iterator[Example]:
    """Images by ascending id, their path below the folder with '-' for '/'; those that a COCO file lists, where there is one."""
    root, form = _root(params), _form(params)
    if form == "coco":
        file = open_coco(Path(str(params.masks)), SPEC.get_it)
        node = classes_of_categories(file.categories, str(file.path)).node if file.categories else None
        yield from examples_of(file, root, SPEC, "all", params.limit, node=node, name=lambda _, path: image_id(path, root))
        return
    label_classes = _label_classes(params) if form == "labels" else None
    for name, path in list(_named(root, params.masks).items())[: params.limit]:
        data = read_file(path)
        size = size_of(data, str(path))
        mask = Path(str(params.masks)) / path.relative_to(root)
        if label_classes is not None:
            regions = regions_of_label_map(read_label_png(mask.with_suffix(".png"), size), label_classes, str(path))
        elif form == "json":
            regions = _regions_of_record(mask.with_suffix(".json"), size)
        else:
            regions = Regions(np.zeros(size, np.int32), np.zeros((0, 1), bool))
        yield Example(name, data, path.suffix.lower(), "all", regions)


def image_id(path: Path, root: Path) -> str:
    """The path below the folder, without its suffix, in letters that any file system and table takes."""
    name = path.relative_to(root).with_suffix("").as_posix().replace("/", "-")
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _root(params: Params) -> Path:
    if not params.path:
        raise UsageError("Dataset kind 'folder' needs its parameter 'path': the folder that holds the pictures.")
    return Path(params.path)


def _named(root: Path, masks: str | None) -> dict[str, Path]:
    """Image id → file, by ascending id; two images of one id are refused."""
    named: dict[str, Path] = {}
    for path in _pictures(root, masks):
        name = image_id(path, root)
        if name in named:
            raise BadData(f"{named[name]} and {path} would both be called '{name}'. Rename one of them.")
        named[name] = path
    return dict(sorted(named.items()))


def _pictures(root: Path, masks: str | None) -> list[Path]:
    """The picture files below a folder, without those of the masks, should these lie below it too."""
    inside = Path(masks).resolve() if masks else None
    return [path for path in find_images([root]) if inside is None or inside not in path.resolve().parents]


def _form(params: Params) -> Literal["", "labels", "coco", "json"]:
    """What the masks are: decided by the parameters alone, so that a plan needs no data."""
    if not params.masks:
        return ""
    return "coco" if params.masks.endswith(".json") else params.form


def _label_classes(params: Params) -> Classes:
    """The class tree given, or one class for each label that occurs, which takes reading all label maps once more."""
    if params.classes:
        return read_classes(Path(params.classes))
    root, occurs = _root(params), np.zeros(1 << 16, bool)
    for path in list(_named(root, params.masks).values())[: params.limit]:
        occurs[read_label_png((Path(str(params.masks)) / path.relative_to(root)).with_suffix(".png"))] = True
    labels = np.flatnonzero(occurs).tolist()
    kinds = {f"label {label}": "ignore" if label in params.ignore else "foreground" for label in labels}
    return Classes(ClassTree.from_nested(kinds), MappingProxyType({label: node for node, label in enumerate(labels, start=1)}))


def _regions_of_record(path: Path, size: tuple[int, int]) -> Regions:
    if not path.is_file():
        raise BadData(f"{path} is missing: an image has no JSON file. {SPEC.get_it}")
    record = read_record(path.read_bytes(), str(path))
    return regions_of_annotations(record["annotations"], *size, None, str(path))
