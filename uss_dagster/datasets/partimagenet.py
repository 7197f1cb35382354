"""PartImageNet: one object an image, of 158 ImageNet classes in 11 kinds, with 40 kinds of parts; scene → kind of object → part.

The authors give two releases. In 'OOD' the splits have no class in common; parts are polygons in one COCO file a split. In 'Seg' every split
has all classes; parts are label maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.datasets.formats.coco_json import CocoFile
from uss_dagster.datasets.formats.files import find, read_picture
from uss_dagster.datasets.formats.label_maps import read_label_png, regions_of_label_map, size_of
from uss_dagster.datasets.formats.pairs import pairs_beside
from uss_dagster.errors import BadData
from uss_dagster.regions import rle
from uss_dagster.regions.coco import CocoAnnotation, code_of

PLACES = ("", "PartImageNet/", "PartImageNet_OOD/", "PartImageNet_Seg/", "PartImageNet_Seg/PartImageNet/")
POINTS = 3


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    split : str
        Of the release 'OOD': train, val or test; with 'seg_' before it, of the release 'Seg'. Default: val.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["train", "val", "test", "seg_train", "seg_val", "seg_test"] = "val"


CLASSES = load_classes("partimagenet")
BACKGROUND_ID = 40

SPEC = dataset_spec(__file__, Params, CLASSES.tree)


@dataclass(frozen=True)
class Labelled:
    """One image as released, with its label map: uint8 (H, W), official part ids, 40 for the background."""

    image_id: str
    image: bytes
    suffix: str
    labels: np.ndarray


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of the kind of object and its parts."""
    for one in labelled_images(params.split, params.limit):
        truth = regions_of_label_map(one.labels, CLASSES, f"PartImageNet image {one.image_id}")
        yield Example(one.image_id, one.image, one.suffix, params.split, truth)


def labelled_images(split: str, limit: int | None) -> Iterator[Labelled]:
    """Images of a split of either release, by ascending id."""
    return _from_maps(split.removeprefix("seg_"), limit) if split.startswith("seg_") else _from_polygons(split, limit)


def coco_files(split: str) -> list[CocoFile]:
    """The annotation files of the split's release, of every split that is there."""
    form = "annotations/{0}/{0}.json" if split.startswith("seg_") else "{0}.json"
    first = find(SPEC, [f"{place}{form.format(split.removeprefix('seg_'))}" for place in PLACES])
    root = first.parents[form.count("/")]
    return [CocoFile(root / form.format(name)) for name in SPEC.counts if (root / form.format(name)).is_file()]


def official_ids(file: CocoFile) -> dict[int, int]:
    """Category id in a file → official part id, by the names of the categories."""
    by_name = {CLASSES.tree.names[node]: label for label, node in CLASSES.node.items()}
    ids = {}
    for category in file.categories:
        if category.get("name") not in by_name:
            raise BadData(f"{file.path} has a category '{category.get('name')}', which is no part of PartImageNet. {SPEC.get_it}")
        ids[int(category["id"])] = by_name[category["name"]]
    return ids


def _from_maps(split: str, limit: int | None) -> Iterator[Labelled]:
    pictures = find(SPEC, [f"{place}images/{split}" for place in PLACES])
    for pair in pairs_beside(pictures, ".JPEG", pictures.parent.parent / "annotations" / split, ".png", SPEC)[:limit]:
        picture = read_picture(pair.picture, SPEC)
        yield Labelled(pair.image_id, picture, ".jpg", read_label_png(pair.labels, size_of(picture, str(pair.picture))))


def _from_polygons(split: str, limit: int | None) -> Iterator[Labelled]:
    file = CocoFile(find(SPEC, [f"{place}{split}.json" for place in PLACES]))
    ids = official_ids(file)
    for picture in sorted(file.pictures, key=lambda one: image_id_of(one.file))[:limit]:
        image_id = image_id_of(picture.file)
        path = _picture_path(file.path.parent / split, image_id)
        image = read_picture(path, SPEC)
        size = size_of(image, str(path))
        if size != (picture.height, picture.width):
            raise BadData(
                f"PartImageNet image {image_id} is {size[0]}×{size[1]}, {file.path} says {picture.height}×{picture.width} (height×width). {SPEC.get_it}"
            )
        yield Labelled(image_id, image, ".jpg", draw(file.annotations(picture.id), ids, size, f"PartImageNet image {image_id}"))


def draw(annotations: list[CocoAnnotation], ids: dict[int, int], size: tuple[int, int], what: str) -> np.ndarray:
    """The label map of an image's parts, uint8 (H, W): where parts overlap the smaller one is in front, of equal ones the later.

    Rings of fewer than three points, which occur in the release, hold no pixel and are left out.
    """
    masks: list[tuple[int, np.ndarray]] = []
    for annotation in annotations:
        name = f"{what}, annotation {annotation.get('id', len(masks))}"
        if annotation.get("category_id") not in ids:
            raise BadData(f"{name} is of category {annotation.get('category_id')}, which its file does not list.")
        segmentation = annotation.get("segmentation") or []
        if isinstance(segmentation, list):
            segmentation = [ring for ring in segmentation if len(ring) >= 2 * POINTS]
        if segmentation:
            masks.append((ids[annotation["category_id"]], rle.decode(code_of(segmentation, *size, name), *size)))
    labels = np.full(size, BACKGROUND_ID, np.uint8)
    for label, mask in sorted(masks, key=lambda one: -np.count_nonzero(one[1])):
        labels[mask] = label
    return labels


def image_id_of(file_name: str) -> str:
    """The id of an image, <ImageNet class>_<number>, from its name in an annotation file, which may have folders before it."""
    return Path(file_name).stem


def _picture_path(folder: Path, image_id: str) -> Path:
    inside = folder / image_id.split("_")[0] / f"{image_id}.JPEG"
    return inside if inside.is_file() else folder / f"{image_id}.JPEG"
