"""Datumaro: its own JSON, masks as run-length codes, with parent, level, score, quality and source as attributes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from uss_dagster.artifacts.mask_base import Shape, check_shape, checked_json
from uss_dagster.errors import BadData, UsageError
from uss_dagster.formats.base import Classes, FormatSpec, MaskedImage, MaskSet, labels_of_names, safe_split, stem_of, write_picture
from uss_dagster.formats.rows import Fields, Names, Row, checked_code, exact, list_of, masked_image, number_of, object_of, rows_of, text_of
from uss_dagster.formats.writing import Add, json_list, packed
from uss_dagster.regions.coco import code_of

SPEC = FormatSpec(
    name="datumaro",
    title="Datumaro",
    programs="datumaro",
    layout="annotations/<split>.json, images/<split>/",
)
ANNOTATIONS, PICTURES, WHOLE = "annotations", "images", "default"
IMAGE = 2
"""Datumaro's number of the media type image."""


def write(masks: MaskSet, folder: Path) -> None:
    """A JSON file for each split; without splits, of the subset 'default'."""
    classes = Classes(masks.categories)
    labels = [{"name": name, "parent": "", "attributes": []} for name in classes.ordered]
    about = {"dm_format_version": "1.0", "media_type": IMAGE, "infos": {"title": masks.title, "licence": masks.licence}}
    head = packed(about | {"categories": {"label": {"label_groups": [], "labels": labels, "attributes": []}}})
    with ExitStack() as stack:
        files: dict[str, Add] = {}
        for image in masks.images():
            split = safe_split(image, WHOLE)
            if split not in files:
                path = folder / ANNOTATIONS / f"{split}.json"
                files[split] = stack.enter_context(json_list(path, f'{head[:-1]}, "items": [', lambda: "]}"))
            write_picture(folder / PICTURES / split, image)
            files[split](_item(image, classes))


def _item(image: MaskedImage, classes: Classes) -> Fields:
    size = list(image.regions.shape)
    return {
        "id": str(PurePosixPath(image.file_name).with_suffix("")),
        "annotations": [_annotation(row, size, classes) for row in rows_of(image)],
        "attr": {"image_id": image.image_id},
        "image": {"path": image.file_name, "size": size},
    }


def _annotation(row: Row, size: list[int], classes: Classes) -> Fields:
    above = {"parent": int(row.above)} if row.above else {}
    return {
        "id": int(row.key),
        "type": "mask",
        "attributes": {"score": exact(row.score), **above, **row.attributes},
        "group": 0,
        "label_id": classes.place(row.label),
        "rle": {"counts": row.code.decode("ascii"), "size": size},
        "z_order": 0,
    }


def read(path: Path) -> MaskSet:
    """Masks and polygons of one JSON file, or of all splits in a folder; other shapes are left out."""
    files = sorted((path / ANNOTATIONS).glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} holds no annotations/*.json. Name the folder or the file that Datumaro wrote.")
    complaints: list[str] = []
    named = {file: _label_names(object_of(checked_json(file), f"{file}: the content"), file) for file in files}
    labels = labels_of_names(list(dict.fromkeys(name for names in named.values() for name in names)))

    def images() -> Iterator[MaskedImage]:
        complaints.clear()
        names = Names(path)
        read = [one for file in files for one in _images_of(file, [labels[name] for name in named[file]], names, complaints)]
        yield from sorted(read, key=lambda image: image.image_id)

    return MaskSet(images, {label: name for name, label in labels.items() if label >= 0}, title=path.stem, complaints=complaints)


def _label_names(content: Fields, file: Path) -> list[str]:
    categories = object_of(content.get("categories"), f"{file}: 'categories'")
    entries = object_of(categories.get("label") or {"labels": []}, f"{file}: 'label'").get("labels")
    return [str(object_of(entry, f"{file}: a label").get("name")) for entry in list_of(entries, f"{file}: 'labels'")]


def _images_of(file: Path, labels: list[int], names: Names, complaints: list[str]) -> Iterator[MaskedImage]:
    split = "" if file.stem == WHOLE else file.stem
    for entry in list_of(object_of(checked_json(file), f"{file}: the content").get("items"), f"{file}: 'items'"):
        item = object_of(entry, f"{file}: an item")
        about, attributes = object_of(item.get("image") or {}, f"{file}: 'image'"), object_of(item.get("attr") or {}, f"{file}: 'attr'")
        file_name = str(about.get("path") or item.get("id", ""))
        where = f"{file}: image '{item.get('id')}'"
        annotations = [object_of(a, f"{where}: an annotation") for a in list_of(item.get("annotations"), f"{where}: 'annotations'")]
        size = about.get("size") or next((code.get("size") for a in annotations if isinstance(code := a.get("rle"), dict)), None)
        shape = check_shape(size, where)
        rows = [row for a in annotations if (row := _row(a, shape, labels, where, complaints))]
        image_id = str(attributes.get("image_id") or stem_of(file_name))
        yield masked_image(rows, shape, file_name, names.add(image_id, file_name), split, where, complaints)


def _row(annotation: Fields, shape: Shape, labels: list[int], where: str, complaints: list[str]) -> Row | None:
    kind, number = annotation.get("type"), annotation.get("id")
    what = f"{where}, annotation {number}"
    if kind not in ("mask", "polygon"):
        complaints.append(f"{what} is of the type '{kind}' and is left out; only masks and polygons are read.")
        return None
    given = object_of(annotation.get("attributes") or {}, f"{what}: 'attributes'")
    place = annotation.get("label_id")
    if place is not None and not (isinstance(place, int) and 0 <= place < len(labels)):
        raise BadData(f"{what} has the label {place!r}, which is none of the {len(labels)} labels.")
    if kind == "mask":
        code = checked_code(annotation.get("rle"), shape, what)
    else:
        code = code_of([[number_of(v, f"{what}: a point") for v in list_of(annotation.get("points"), f"{what}: 'points'")]], *shape, what)
    return Row(
        code,
        key=text_of(given.get("region") or number or ""),
        above=text_of(given.get("parent")),
        label=labels[place] if place is not None else -1,
        score=number_of(given.get("score"), f"{what}: its score", 1.0),
        level=number_of(given.get("level"), f"{what}: its level"),
        quality=number_of(given.get("quality"), f"{what}: its quality"),
        source=text_of(given.get("source")),
    )
