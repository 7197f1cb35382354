"""CVAT for images 1.1: masks in XML, with parent, level, score, quality and source as attributes.

A file is imported into a task whose labels are those of ``labels.json`` (the tab "Raw" of a new task, or ``cvat-cli task create --labels``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from uss_dagster.artifacts.image_files import read_file
from uss_dagster.artifacts.mask_base import Shape, check_shape
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import whole_file
from uss_dagster.formats.base import Classes, FormatSpec, MaskedImage, MaskSet, labels_of_names, safe_split, stem_of, write_picture
from uss_dagster.formats.rows import Names, Row, exact, masked_image, number_of, rows_of, whole_number_of
from uss_dagster.formats.writing import json_list
from uss_dagster.regions import rle
from uss_dagster.regions.coco import code_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

SPEC = FormatSpec(
    name="cvat",
    title="CVAT for images 1.1",
    programs="datumaro",
    layout="annotations.xml or a .xml a split, labels.json, images/",
)
ATTRIBUTES = ("region", "parent", "score", "level", "quality", "source")
WHOLE, PICTURES = "annotations", "images"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(masks: MaskSet, folder: Path) -> None:
    """An XML file for each split."""
    classes = Classes(masks.categories)
    attributes = [{"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]} for name in ATTRIBUTES]
    labels = [{"name": name, "type": "mask", "attributes": attributes} for name in classes.ordered]
    with json_list(folder / "labels.json") as add:
        for label in labels:
            add(label)
    with ExitStack() as stack:
        files: dict[str, Callable[[str], object]] = {}
        for number, image in enumerate(masks.images()):
            split = safe_split(image, WHOLE)
            if split not in files:
                files[split] = stack.enter_context(_xml_file(folder / f"{split}.xml", masks.title, classes))
            write_picture(folder / PICTURES, image)
            files[split](_image(number, image, classes))


@contextmanager
def _xml_file(path: Path, title: str, classes: Classes) -> Iterator[Callable[[str], object]]:
    kinds = "<mutable>False</mutable><input_type>text</input_type><default_value></default_value><values></values>"
    attributes = "".join(f"<attribute><name>{name}</name>{kinds}</attribute>" for name in ATTRIBUTES)
    labels = "\n".join(
        f"<label><name>{_text(name)}</name><color></color><type>mask</type><attributes>{attributes}</attributes></label>"
        for name in classes.ordered
    )
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as text:
        text.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        text.write(f"<meta><task><name>{_text(title)}</name><mode>annotation</mode><labels>\n{labels}\n</labels></task></meta>\n")
        yield text.write
        text.write("</annotations>\n")


def _image(number: int, image: MaskedImage, classes: Classes) -> str:
    height, width = image.regions.shape
    subset = f" subset={_quoted(image.split)}" if image.split else ""
    head = f'<image id="{number}" name={_quoted(image.file_name)}{subset} width="{width}" height="{height}">'
    return "\n".join([head, *(_mask(row, image.regions.shape, classes) for row in rows_of(image)), "</image>\n"])


def _mask(row: Row, shape: Shape, classes: Classes) -> str:
    left, top, width, height = row.box if row.area else (0, 0, 1, 1)
    window = rle.decode(row.code, *shape)[top : top + height, left : left + width].ravel()
    edges = np.flatnonzero(window[1:] != window[:-1]) + 1
    counts = np.diff(np.concatenate([[0, 0] if window[0] else [0], edges, [window.size]]))
    given = {"region": row.key, "parent": row.above, "score": exact(row.score), **row.attributes}
    place = f'left="{left}" top="{top}" width="{width}" height="{height}" z_order="0"'
    lines = [f'<mask label={_quoted(classes.name(row.label))} source="auto" occluded="0" rle="{", ".join(map(str, counts))}" {place}>']
    lines += [f'<attribute name="{name}">{_text(str(value))}</attribute>' for name, value in given.items() if value != ""]
    return "\n".join([*lines, "</mask>"])


def read(path: Path) -> MaskSet:
    """Masks and polygons of one XML file, or of all in a folder; other shapes are left out."""
    files = sorted(path.glob("*.xml")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} holds no .xml file. Name the XML file of CVAT for images 1.1.")
    complaints: list[str] = []
    labels = labels_of_names(list(dict.fromkeys(name for file in files for name in _label_names(parse_xml(file)))))

    def images() -> Iterator[MaskedImage]:
        complaints.clear()
        names = Names(path)
        read = [one for file in files for one in _images_of(file, labels, names, complaints, len(files) > 1)]
        yield from sorted(read, key=lambda image: image.image_id)

    return MaskSet(images, {label: name for name, label in labels.items() if label >= 0}, title=path.stem, complaints=complaints)


def parse_xml(path: Path) -> Element:
    """The root of an XML file; a document type, which can define entities, is refused."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadData(f"{path} is not text in UTF-8. Export it again.") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadData(f"{path} declares a document type or entities, which are not read. Remove the declaration.")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise BadData(f"{path} is not XML ({error}). Export it again.") from None


def _label_names(root: Element) -> list[str]:
    declared = [label.findtext("name") or "" for label in root.iterfind("meta//label")]
    used = [shape.get("label", "") for shape in root.iterfind("image/*")]
    return [name for name in dict.fromkeys(declared + used) if name]


def _images_of(file: Path, labels: dict[str, int], names: Names, complaints: list[str], stem_is_split: bool) -> Iterator[MaskedImage]:
    root = parse_xml(file)
    if tracks := len(root.findall("track")):
        complaints.append(f"{file}: {tracks} tracks of a video are left out; only masks and polygons of images are read.")
    for entry in root.iterfind("image"):
        file_name = entry.get("name", "")
        where = f"{file}: image '{file_name}'"
        shape = check_shape([whole_number_of(entry.get(side), f"{where}: its {side}") for side in ("height", "width")], where)
        rows = [row for shape_element in entry if (row := _row(shape_element, shape, labels, where, complaints))]
        split = entry.get("subset") or (file.stem if stem_is_split else "")
        yield masked_image(rows, shape, file_name, names.add(stem_of(file_name), file_name), split, where, complaints)


def _row(element: Element, shape: Shape, labels: dict[str, int], where: str, complaints: list[str]) -> Row | None:
    if element.tag not in ("mask", "polygon"):
        complaints.append(f"{where}: a shape of the kind '{element.tag}' is left out; only masks and polygons are read.")
        return None
    given = {attribute.get("name", ""): attribute.text or "" for attribute in element.iterfind("attribute")}
    what = f"{where}, region '{given.get('region', '?')}'"
    return Row(
        _code_of_mask(element, shape, what) if element.tag == "mask" else _code_of_polygon(element, shape, what),
        key=given.get("region", ""),
        above=given.get("parent", ""),
        label=labels.get(element.get("label", ""), -1),
        score=number_of(given.get("score"), f"{what}: its score", 1.0),
        level=number_of(given.get("level"), f"{what}: its level"),
        quality=number_of(given.get("quality"), f"{what}: its quality"),
        source=given.get("source", ""),
    )


def _code_of_mask(element: Element, shape: Shape, what: str) -> bytes:
    left, top, width, height = (whole_number_of(element.get(name), f"{what}: its {name}") for name in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > shape[1] or top + height > shape[0]:
        raise BadData(
            f"{what}: its window {width}×{height} at x={left}, y={top} is outside the image of {shape[1]}×{shape[0]} (width×height)."
        )
    try:
        counts = np.array([int(count) for count in element.get("rle", "").split(",")], np.int64)
    except (ValueError, OverflowError):
        raise BadData(f"{what}: its 'rle' is no list of whole numbers.") from None
    if counts.min() < 0 or counts.sum() != width * height:
        raise BadData(f"{what}: its 'rle' covers {counts.sum()} pixels, its window has {width}×{height}.")
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    return rle.encode(mask[None])[0]


def _code_of_polygon(element: Element, shape: Shape, what: str) -> bytes:
    points = [number_of(value, f"{what}: a point") for pair in element.get("points", "").split(";") for value in pair.split(",")]
    if len(points) < 6 or len(points) % 2:
        raise BadData(f"{what}: a polygon has at least 3 points, each x and y.")
    return code_of([points], *shape, what)


def _text(text: str) -> str:
    return escape(_NO_XML.sub("\ufffd", text))


def _quoted(text: str) -> str:
    return quoteattr(_NO_XML.sub("\ufffd", text))
