"""Label Studio: tasks with brush masks, and the configuration of the labelling interface that they need.

``tasks.json`` is imported into a project whose labelling interface is ``labels.xml``. Pictures are served from the folder: start Label Studio with
``LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true`` and ``LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT`` set to the folder above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from uss_dagster.artifacts.mask_base import Shape, check_shape, checked_json
from uss_dagster.errors import BadData
from uss_dagster.files import write_whole
from uss_dagster.formats.base import Classes, FormatSpec, MaskedImage, MaskSet, labels_of_names, stem_of, write_picture
from uss_dagster.formats.brush import decode_brush, encode_brush
from uss_dagster.formats.rows import Fields, Names, Row, exact, list_of, masked_image, number_of, object_of, rows_of, text_of
from uss_dagster.formats.writing import json_list
from uss_dagster.regions import rle
from uss_dagster.regions.coco import code_of

SPEC = FormatSpec(
    name="label_studio",
    title="Label Studio tasks",
    programs="label-studio-sdk, label-studio-converter",
    layout="tasks.json, labels.xml, data/",
)
TASKS, INTERFACE, PICTURES = "tasks.json", "labels.xml", "data"
CONTROL, OBJECT = "masks", "image"
LOCAL_PATH = "/data/local-files/"
BRUSH, POLYGON = "brushlabels", "polygonlabels"


def write(masks: MaskSet, folder: Path) -> None:
    """Tasks with one annotation each."""
    classes = Classes(masks.categories)
    labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in classes.ordered)
    write_whole(
        folder / INTERFACE,
        f'<View>\n  <Image name="{OBJECT}" value="${OBJECT}" zoom="true"/>\n'
        f'  <BrushLabels name="{CONTROL}" toName="{OBJECT}">\n{labels}  </BrushLabels>\n</View>\n',
    )
    with json_list(folder / TASKS) as add:
        for number, image in enumerate(masks.images(), 1):
            write_picture(folder / PICTURES, image)
            place = quote(f"{folder.resolve().name}/{PICTURES}/{image.file_name}")
            data = {OBJECT: f"{LOCAL_PATH}?d={place}", "image_id": image.image_id, "split": image.split}
            result = [_result(row, image, classes) for row in rows_of(image)]
            add({"id": number, "data": data, "annotations": [{"id": number, "completed_by": 1, "result": result}]})


def _result(row: Row, image: MaskedImage, classes: Classes) -> Fields:
    height, width = image.regions.shape
    value = {"format": "rle", "rle": encode_brush(rle.decode(row.code, height, width)), BRUSH: [classes.name(row.label)]}
    size = {"original_width": width, "original_height": height, "image_rotation": 0}
    region = {
        "id": f"r{row.key}",
        "type": BRUSH,
        "from_name": CONTROL,
        "to_name": OBJECT,
        **size,
        "value": value,
        "score": exact(row.score),
    }
    above = {"parentID": f"r{row.above}"} if row.above else {}
    meta = {"meta": row.attributes} if row.attributes else {}
    return region | above | meta


def read(path: Path) -> MaskSet:
    """Tasks as Label Studio exports them (JSON): brush masks and polygons of the first annotation that was not skipped."""
    file = path / TASKS if path.is_dir() else path
    tasks = [object_of(task, f"{file}: a task") for task in list_of(checked_json(file), f"{file}: the content")]
    names = dict.fromkeys(name for task in tasks for result in _results(task, file) if (name := _label(result)))
    labels = labels_of_names(list(names))
    complaints: list[str] = []

    def images() -> Iterator[MaskedImage]:
        seen = Names(file)
        complaints.clear()
        for task in sorted(tasks, key=lambda task: _image_id(task, file)):
            image_id = seen.add(_image_id(task, file), _file_name(task, file))
            results = _results(task, file)
            shape = next((_shape(result, f"{file}: image '{image_id}'") for result in results if "original_width" in result), None)
            if shape is None:
                complaints.append(f"{file}: image '{image_id}' has no mask and no size, and is left out.")
                continue
            where = f"{file}: image '{image_id}'"
            rows = [row for result in results if (row := _row(result, shape, labels, where, complaints))]
            yield masked_image(rows, shape, _file_name(task, file), image_id, text_of(_data(task, file).get("split")), where, complaints)

    return MaskSet(images, {label: name for name, label in labels.items() if label >= 0}, title=file.stem, complaints=complaints)


def _results(task: Fields, file: Path) -> list[Fields]:
    """The regions of a task: of an annotation, else of a prediction."""
    made = list_of(task.get("annotations") or task.get("predictions") or [], f"{file}: 'annotations'")
    kept = [a for one in made if not (a := object_of(one, f"{file}: an annotation")).get("was_cancelled")]
    return [object_of(result, f"{file}: a region") for result in list_of(kept[0].get("result"), f"{file}: 'result'")] if kept else []


def _label(result: Fields) -> str:
    value = result.get("value")
    chosen = value.get(str(result.get("type"))) if isinstance(value, dict) else None
    return str(chosen[0]) if isinstance(chosen, list) and chosen else ""


def _row(result: Fields, shape: Shape, labels: dict[str, int], where: str, complaints: list[str]) -> Row | None:
    kind, value = str(result.get("type")), result.get("value")
    what = f"{where}, region '{result.get('id')}'"
    if not isinstance(value, dict) or kind not in (BRUSH, POLYGON):
        complaints.append(f"{what} is of the type '{kind}' and is left out; only brush masks and polygons are read.")
        return None
    if _shape(result, what) != shape:
        raise BadData(f"{what} is of another size than others of its image.")
    meta = object_of(result.get("meta") or {}, f"{what}: 'meta'")
    return Row(
        _code(kind, value, shape, what),
        key=text_of(result.get("id")),
        above=text_of(result.get("parentID")),
        label=labels.get(_label(result), -1),
        score=number_of(result.get("score"), f"{what}: its score", 1.0),
        level=number_of(meta.get("level"), f"{what}: its level"),
        quality=number_of(meta.get("quality"), f"{what}: its quality"),
        source=text_of(meta.get("source")),
    )


def _code(kind: str, value: Fields, shape: Shape, what: str) -> bytes:
    height, width = shape
    if kind == BRUSH:
        return rle.encode(decode_brush(list_of(value.get("rle"), f"{what}: 'rle'"), height, width, what)[None])[0]
    points = [p for p in list_of(value.get("points"), f"{what}: 'points'") if isinstance(p, list) and len(p) == 2]
    if len(points) < 3:
        raise BadData(f"{what}: a polygon has at least 3 points, each x and y in percent.")
    percent = [[number_of(x, what) * width / 100, number_of(y, what) * height / 100] for x, y in points]
    return code_of([[number for point in percent for number in point]], height, width, what)


def _shape(result: Fields, what: str) -> Shape:
    return check_shape((result.get("original_height"), result.get("original_width")), what)


def _data(task: Fields, file: Path) -> Fields:
    return object_of(task.get("data"), f"{file}: 'data' of a task")


def _image_id(task: Fields, file: Path) -> str:
    data = _data(task, file)
    return str(data["image_id"]) if data.get("image_id") else stem_of(_file_name(task, file))


def _file_name(task: Fields, file: Path) -> str:
    """The picture's file below the folder of pictures, from the address of the picture."""
    data = _data(task, file)
    address = data.get(OBJECT) or next((value for value in data.values() if isinstance(value, str) and value), "")
    if not isinstance(address, str) or not address:
        raise BadData(f"{file}: a task has no address of a picture in 'data'.")
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d") if parts.path.endswith(LOCAL_PATH) else None
    whole = PurePosixPath(local[0] if local else unquote(parts.path))
    below = list(whole.parts)
    return "/".join(below[below.index(PICTURES, 1) + 1 :]) if local and PICTURES in below[1:-1] else whole.name
