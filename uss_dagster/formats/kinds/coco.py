"""COCO instances: run-length codes, with ``parent``, ``score`` and ``attributes`` as additions that COCO's own programs pass over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from uss_dagster.artifacts.mask_base import Shape, check_shape, checked_json
from uss_dagster.errors import BadData, UsageError
from uss_dagster.formats.base import UNLABELLED, Classes, FormatSpec, MaskedImage, MaskSet, class_name, safe_split, stem_of, write_picture
from uss_dagster.formats.rows import (
    Fields,
    Names,
    Row,
    checked_code,
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

SPEC = FormatSpec(
    name="coco",
    title="COCO instances",
    programs="pycocotools, datumaro, supervision",
    layout="annotations/instances_<split>.json, images/<split>/",
)
ANNOTATIONS, PICTURES, PREFIX, WHOLE = "annotations", "images", "instances_", "default"


class CocoWriter:
    """Writes one COCO file: annotations as they come, then images.

    Parameters
    ----------
    stack : ExitStack
        The file is complete when it is closed.
    path : Path
    masks : MaskSet
    flat : bool, default False
        Level, quality and source are keys of the annotation, not of its ``attributes``.
    """

    def __init__(self, stack: ExitStack, path: Path, masks: MaskSet, flat: bool = False) -> None:
        self._classes, self._flat = Classes(masks.categories), flat
        self._images: list[str] = []
        self._annotations = 0
        categories = [{"id": number, "name": name, "supercategory": ""} for number, name in self._classes.numbered.items()]
        about = {
            "info": {"description": masks.title},
            "licenses": [{"id": 1, "name": masks.licence, "url": ""}],
            "categories": categories,
        }
        self._add: Add = stack.enter_context(json_list(path, f'{packed(about)[:-1]}, "annotations": [', self._end))

    def add(self, image: MaskedImage) -> None:
        """Add an image and its regions."""
        number = len(self._images) + 1
        height, width = image.regions.shape
        entry = {"id": number, "file_name": image.file_name, "height": height, "width": width, "license": 1}
        self._images.append(packed(entry | {"image_id": image.image_id, "split": image.split}))
        for row in rows_of(image, self._annotations + 1):
            self._add(self._annotation(row, number, image.regions.shape))
        self._annotations += len(image.regions)

    def _annotation(self, row: Row, image: int, shape: Shape) -> Fields:
        above = {"parent": int(row.above)} if row.above else {}
        return {
            "id": int(row.key),
            "image_id": image,
            "category_id": self._classes.number(row.label),
            "segmentation": {"size": list(shape), "counts": row.code.decode("ascii")},
            "bbox": list(row.box),
            "area": row.area,
            "iscrowd": 0,
            "score": exact(row.score),
            **above,
            **(row.attributes if self._flat else {"attributes": row.attributes}),
        }

    def _end(self) -> str:
        return '],\n"images": [' + ",".join(f"\n{image}" for image in self._images) + "]}"


def write(masks: MaskSet, folder: Path) -> None:
    """A file for each split; without splits, one named 'default'."""
    with ExitStack() as stack:
        files: dict[str, CocoWriter] = {}
        for image in masks.images():
            split = safe_split(image, WHOLE)
            if split not in files:
                files[split] = CocoWriter(stack, folder / ANNOTATIONS / f"{PREFIX}{split}.json", masks)
            write_picture(folder / PICTURES / split, image)
            files[split].add(image)


def read(path: Path) -> MaskSet:
    """A COCO file, a list of results, or a folder with ``annotations/instances_*.json`` or ``labels.json``."""
    files = coco_files(path)
    contents = {file: _content(file) for file in files}
    names: dict[int, str] = {}
    for file, content in contents.items():
        for number, name in _categories(content, file).items():
            if names.setdefault(number, name) != name:
                raise BadData(f"{file}: category {number} is '{name}', in another file '{names[number]}'. Pass one file at a time.")
    unlabelled = [number for number, name in names.items() if name == UNLABELLED]
    labels = {number: -1 if [number] == unlabelled else number for number in names}
    complaints: list[str] = []

    def images() -> Iterator[MaskedImage]:
        complaints.clear()
        seen = Names(path)
        read = [one for file, content in contents.items() for one in _images_of(file, content, labels, seen, complaints)]
        yield from sorted(read, key=lambda image: image.image_id)

    named = {label: names[label] if names[label] != UNLABELLED else class_name(label, {}) for label in labels.values() if label >= 0}
    return MaskSet(images, named, title=path.stem, complaints=complaints)


def coco_files(path: Path) -> list[Path]:
    """The COCO files at a path."""
    if not path.is_dir():
        return [path]
    files = sorted((path / ANNOTATIONS).glob(f"{PREFIX}*.json")) or [file for file in [path / "labels.json"] if file.is_file()]
    if not files:
        raise UsageError(f"{path} holds no {ANNOTATIONS}/{PREFIX}*.json and no labels.json. Name the COCO file.")
    return files


def _content(file: Path) -> Fields:
    content = checked_json(file)
    return {"annotations": content} if isinstance(content, list) else object_of(content, f"{file}: the content")


def _categories(content: Fields, file: Path) -> dict[int, str]:
    entries = [object_of(entry, f"{file}: a category") for entry in list_of(content.get("categories") or [], f"{file}: 'categories'")]
    return {whole_number_of(entry.get("id"), f"{file}: the id of a category"): str(entry.get("name")) for entry in entries}


def _images_of(file: Path, content: Fields, labels: dict[int, int], names: Names, complaints: list[str]) -> Iterator[MaskedImage]:
    groups: dict[object, list[Fields]] = {}
    for entry in list_of(content.get("annotations"), f"{file}: 'annotations'"):
        annotation = object_of(entry, f"{file}: an annotation")
        groups.setdefault(str(annotation.get("image_id")), []).append(annotation)
    entries = [object_of(entry, f"{file}: an image") for entry in list_of(content.get("images") or [], f"{file}: 'images'")]
    if not entries:
        entries = [{"id": image_id, "file_name": f"{image_id}.png"} for image_id in groups]
    elif strangers := groups.keys() - {str(entry.get("id")) for entry in entries}:
        raise BadData(f"{file}: annotations are of image {min(strangers, key=str)}, which is not among its 'images'.")
    split = file.stem.removeprefix(PREFIX) if file.stem.startswith(PREFIX) else ""
    for entry in entries:
        file_name = text_of(entry.get("file_name"))
        image_id = names.add(str(entry.get("image_id") or stem_of(file_name)), file_name)
        where = f"{file}: image '{image_id}'"
        annotations = groups.get(str(entry.get("id")), [])
        shape = _shape(entry, annotations, where)
        rows = [row for annotation in annotations if (row := _row(annotation, shape, labels, where, complaints))]
        stated = text_of(entry.get("split")) or (split if split != WHOLE else "")
        yield masked_image(rows, shape, file_name, image_id, stated, where, complaints)


def _shape(entry: Fields, annotations: list[Fields], where: str) -> Shape:
    codes = [code for annotation in annotations if isinstance(code := annotation.get("segmentation"), dict)]
    if entry.get("height") is None and codes:
        return check_shape(codes[0].get("size"), where)
    return check_shape([entry.get("height"), entry.get("width")], where)


def _row(annotation: Fields, shape: Shape, labels: dict[int, int], where: str, complaints: list[str]) -> Row | None:
    what = f"{where}, annotation {annotation.get('id')}"
    if not annotation.get("segmentation"):
        complaints.append(f"{what} has no mask and is left out.")
        return None
    added = [object_of(annotation.get(name) or {}, f"{what}: '{name}'") for name in ("attributes", "unsam")]
    given = (
        added[1] | added[0] | {name: annotation[name] for name in ("level", "quality", "source", "parent", "score") if name in annotation}
    )
    category = whole_number_of(annotation.get("category_id"), f"{what}: its category_id")
    return Row(
        checked_code(annotation["segmentation"], shape, what),
        key=text_of(annotation.get("id")),
        above=text_of(given.get("parent")),
        label=labels.get(category, category),
        score=number_of(given.get("score"), f"{what}: its score", 1.0),
        level=number_of(given.get("level"), f"{what}: its level"),
        quality=number_of(given.get("quality"), f"{what}: its quality"),
        source=text_of(given.get("source")),
    )
