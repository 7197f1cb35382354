"""SA-1B: a JSON file beside each picture, with a run-length code a mask; ``predicted_iou`` is the score, other additions have keys of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from uss_dagster.artifacts.mask_base import Shape, check_shape, checked_json
from uss_dagster.errors import UsageError
from uss_dagster.files import write_whole
from uss_dagster.formats.base import Classes, FormatSpec, MaskedImage, MaskSet, inside, labels_of_names, stem_of, write_picture
from uss_dagster.formats.rows import Fields, Names, Row, checked_code, exact, list_of, masked_image, number_of, object_of, rows_of, text_of
from uss_dagster.formats.writing import packed

SPEC = FormatSpec(
    name="sa1b",
    title="SA-1B",
    programs="datumaro, pycocotools",
    layout="<image>.json and the picture, side by side",
)


def write(masks: MaskSet, folder: Path) -> None:
    """A JSON file and the picture for each image, named after its id."""
    classes = Classes(masks.categories)
    for number, image in enumerate(masks.images(), 1):
        name = f"{image.image_id}{Path(image.file_name).suffix}"
        write_picture(folder, MaskedImage(image.image_id, name, image.regions, image.quality, image.split, image.picture))
        height, width = image.regions.shape
        about = {"image_id": number, "width": width, "height": height, "file_name": name, "split": image.split}
        annotations = [_annotation(row, image.regions.shape, classes) for row in rows_of(image)]
        path = inside(folder, f"{image.image_id}.json", f"the masks of image '{image.image_id}'")
        write_whole(path, packed({"image": about, "annotations": annotations}) + "\n")


def _annotation(row: Row, shape: Shape, classes: Classes) -> Fields:
    above = {"parent": int(row.above)} if row.above else {}
    return {
        "id": int(row.key),
        "segmentation": {"size": list(shape), "counts": row.code.decode("ascii")},
        "bbox": list(row.box),
        "area": row.area,
        "predicted_iou": exact(row.score),
        "crop_box": [0, 0, shape[1], shape[0]],
        "category": classes.name(row.label),
        **above,
        **row.attributes,
    }


def read(path: Path) -> MaskSet:
    """A folder of JSON files, or one of them."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} holds no .json file. Name the folder of SA-1B's JSON files.")
    names = dict.fromkeys(name for file in files for _, one in [_content(file)] for a in one if (name := text_of(a.get("category"))))
    labels = labels_of_names(list(names))
    complaints: list[str] = []

    def images() -> Iterator[MaskedImage]:
        complaints.clear()
        seen = Names(path)
        for file in sorted(files, key=lambda file: stem_of(text_of(_content(file)[0].get("file_name")))):
            about, annotations = _content(file)
            file_name = text_of(about.get("file_name")) or f"{file.stem}.jpg"
            shape = check_shape([about.get("height"), about.get("width")], str(file))
            rows = [_row(annotation, shape, labels, str(file)) for annotation in annotations]
            image_id = seen.add(stem_of(file_name), file_name)
            yield masked_image(rows, shape, file_name, image_id, text_of(about.get("split")), str(file), complaints)

    return MaskSet(images, {label: name for name, label in labels.items() if label >= 0}, title=path.stem, complaints=complaints)


def _content(file: Path) -> tuple[Fields, list[Fields]]:
    content = object_of(checked_json(file), f"{file}: the content")
    annotations = list_of(content.get("annotations"), f"{file}: 'annotations'")
    return object_of(content.get("image"), f"{file}: 'image'"), [object_of(one, f"{file}: an annotation") for one in annotations]


def _row(annotation: Fields, shape: Shape, labels: dict[str, int], where: str) -> Row:
    what = f"{where}, annotation {annotation.get('id')}"
    return Row(
        checked_code(annotation.get("segmentation"), shape, what),
        key=text_of(annotation.get("id")),
        above=text_of(annotation.get("parent")),
        label=labels.get(text_of(annotation.get("category")), -1),
        score=number_of(annotation.get("predicted_iou"), f"{what}: its predicted_iou", 1.0),
        level=number_of(annotation.get("level"), f"{what}: its level"),
        quality=number_of(annotation.get("quality"), f"{what}: its quality"),
        source=text_of(annotation.get("source")),
    )
