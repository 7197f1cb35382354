"""COCO panoptic: a picture of segment numbers for each image, and a JSON file that lists the segments.

A pixel is of one segment: that of the last region that holds it, so in a hierarchy the finest. A region whose pixels all lie in regions after it has
no segment.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster.artifacts.image_files import open_picture, read_file
from uss_dagster.artifacts.mask_base import check_shape, checked_json
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import write_whole
from uss_dagster.formats.base import UNLABELLED, Classes, FormatSpec, MaskedImage, MaskSet, inside, safe_split, stem_of, write_picture
from uss_dagster.formats.rows import (
    Fields,
    Names,
    Row,
    exact,
    list_of,
    masked_image,
    number_of,
    object_of,
    rows_of,
    text_of,
    whole_number_of,
)
from uss_dagster.formats.writing import Add, json_list, packed
from uss_dagster.regions import Regions

SPEC = FormatSpec(
    name="coco_panoptic",
    title="COCO panoptic",
    programs="datumaro",
    layout="annotations/panoptic_<split>.json, annotations/panoptic_<split>/, images/<split>/",
    loses={
        "overlap": "A pixel is of one segment, that of the last region that holds it. A region without pixels of its own has none.",
        "parent": "Segments do not nest.",
    },
)
ANNOTATIONS, PICTURES, PREFIX, WHOLE = "annotations", "images", "panoptic_", "default"


def write(masks: MaskSet, folder: Path) -> None:
    """A JSON file and a folder of PNG pictures for each split; without splits, of the name 'default'."""
    classes = Classes(masks.categories)
    with ExitStack() as stack:
        files: dict[str, Add] = {}
        images: dict[str, list[str]] = {}
        for image in masks.images():
            split = safe_split(image, WHOLE)
            entries = images.setdefault(split, [])
            if split not in files:
                files[split] = stack.enter_context(_file(folder, split, masks, classes, entries))
            height, width = image.regions.shape
            entry = {"id": len(entries) + 1, "file_name": image.file_name, "height": height, "width": width, "license": 1}
            entries.append(packed(entry | {"image_id": image.image_id}))
            write_picture(folder / PICTURES / split, image)
            files[split](_annotation(folder / ANNOTATIONS / f"{PREFIX}{split}", image, len(entries), classes))


def _file(folder: Path, split: str, masks: MaskSet, classes: Classes, images: list[str]) -> AbstractContextManager[Add]:
    categories = [{"id": number, "name": name, "supercategory": "", "isthing": 1} for number, name in classes.numbered.items()]
    licenses = [{"id": 1, "name": masks.licence, "url": ""}]
    head = packed({"info": {"description": masks.title}, "licenses": licenses, "categories": categories})
    path = folder / ANNOTATIONS / f"{PREFIX}{split}.json"
    return json_list(path, f'{head[:-1]}, "annotations": [', lambda: '],\n"images": [' + ",".join(f"\n{i}" for i in images) + "]}")


def _annotation(folder: Path, image: MaskedImage, number: int, classes: Classes) -> Fields:
    segment = image.regions.deepest() + 1
    name = f"{image.image_id}.png"
    colours = np.stack([segment % 256, segment // 256 % 256, segment // 65536], axis=-1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).save(out, "PNG", compress_level=6)
    write_whole(inside(folder, name, f"the segments of image '{image.image_id}'"), out.getvalue())
    shown = MaskedImage(image.image_id, image.file_name, Regions.from_label_map(segment, ignore=0), image.quality)
    numbers = [int(value) for value in np.unique(segment) if value]
    given = {int(row.key): row for row in rows_of(image)}
    segments = [
        {
            "id": value,
            "category_id": classes.number(given[value].label),
            "area": row.area,
            "bbox": list(row.box),
            "iscrowd": 0,
            "score": exact(given[value].score),
            "attributes": given[value].attributes,
        }
        for value, row in zip(numbers, rows_of(shown), strict=True)
    ]
    return {"image_id": number, "file_name": name, "segments_info": segments}


def read(path: Path) -> MaskSet:
    """A panoptic JSON file whose pictures lie in the folder of its name, or all of a folder."""
    files = sorted((path / ANNOTATIONS).glob(f"{PREFIX}*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} holds no {ANNOTATIONS}/{PREFIX}*.json. Name the JSON file.")
    contents = {file: object_of(checked_json(file), f"{file}: the content") for file in files}
    names = {}
    for file, content in contents.items():
        for entry in list_of(content.get("categories") or [], f"{file}: 'categories'"):
            category = object_of(entry, f"{file}: a category")
            names[whole_number_of(category.get("id"), f"{file}: the id of a category")] = str(category.get("name"))
    labels = {number: -1 if name == UNLABELLED else number for number, name in names.items()}
    complaints: list[str] = []

    def images() -> Iterator[MaskedImage]:
        complaints.clear()
        seen = Names(path)
        read = [one for file, content in contents.items() for one in _images_of(file, content, labels, seen, complaints)]
        yield from sorted(read, key=lambda image: image.image_id)

    named = {label: names[label] for label in labels.values() if label >= 0}
    return MaskSet(images, named, title=path.stem, complaints=complaints)


def _images_of(file: Path, content: Fields, labels: dict[int, int], names: Names, complaints: list[str]) -> Iterator[MaskedImage]:
    entries = [object_of(entry, f"{file}: an image") for entry in list_of(content.get("images"), f"{file}: 'images'")]
    by_id = {str(entry.get("id")): entry for entry in entries}
    split = file.stem.removeprefix(PREFIX)
    for one in list_of(content.get("annotations"), f"{file}: 'annotations'"):
        annotation = object_of(one, f"{file}: an annotation")
        entry = by_id.get(str(annotation.get("image_id")))
        if entry is None:
            raise BadData(f"{file}: an annotation is of image {annotation.get('image_id')!r}, which is not among its 'images'.")
        file_name = text_of(entry.get("file_name"))
        image_id = names.add(str(entry.get("image_id") or stem_of(file_name)), file_name)
        where = f"{file}: image '{image_id}'"
        shape = check_shape([entry.get("height"), entry.get("width")], where)
        segment = _segments(inside(file.with_suffix(""), text_of(annotation.get("file_name")), where))
        if segment.shape != shape:
            raise BadData(
                f"{where} is {shape[0]}×{shape[1]}, its picture of segments {segment.shape[0]}×{segment.shape[1]} (height×width)."
            )
        infos = [object_of(info, f"{where}: a segment") for info in list_of(annotation.get("segments_info"), f"{where}: 'segments_info'")]
        rows = _rows(segment, infos, labels, where)
        yield masked_image(rows, shape, file_name, image_id, "" if split == WHOLE else split, where, complaints)


def _segments(path: Path) -> np.ndarray:
    """The segment number of each pixel."""
    with open_picture(read_file(path), str(path)) as picture:
        colours = np.asarray(picture.convert("RGB")).astype(np.int32)
    return np.asarray(colours @ [1, 256, 65536])


def _rows(segment: np.ndarray, infos: list[Fields], labels: dict[int, int], where: str) -> list[Row]:
    regions = Regions.from_label_map(segment, ignore=0, use_labels=True)
    codes = dict(zip(regions.label.tolist(), regions.rles(), strict=True))
    rows = []
    for info in infos:
        number = whole_number_of(info.get("id"), f"{where}: the id of a segment")
        what = f"{where}, segment {number}"
        if number not in codes:
            raise BadData(f"{what} has no pixel in its picture.")
        given = object_of(info.get("attributes") or {}, f"{what}: 'attributes'")
        category = whole_number_of(info.get("category_id"), f"{what}: its category_id")
        rows.append(
            Row(
                codes.pop(number),
                key=str(number),
                label=labels.get(category, category),
                score=number_of(info.get("score"), f"{what}: its score", 1.0),
                level=number_of(given.get("level"), f"{what}: its level"),
                quality=number_of(given.get("quality"), f"{what}: its quality"),
                source=text_of(given.get("source")),
            )
        )
    if codes:
        raise BadData(f"{where}: its picture has segment {min(codes)}, which 'segments_info' does not list.")
    return rows
