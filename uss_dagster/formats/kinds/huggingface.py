"""Hugging Face ``datasets``: Parquet files by split, with features, and a dataset card.

``datasets.load_dataset(folder)`` opens it, and ``.push_to_hub(name)`` of what that gives uploads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.artifacts.mask_base import check_shape
from uss_dagster.artifacts.tables import readable
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import make_folder, write_whole
from uss_dagster.formats.base import Classes, FormatSpec, MaskedImage, MaskSet, labels_of_names, safe_split
from uss_dagster.formats.rows import (
    Fields,
    Names,
    Row,
    checked_code,
    list_of,
    masked_image,
    number_of,
    object_of,
    rows_of,
    text_of,
    whole_number_of,
)

SPEC = FormatSpec(
    name="huggingface",
    title="Hugging Face datasets",
    programs="datasets",
    layout="data/<split>-00000-of-00001.parquet, README.md",
)
WHOLE, GROUP = "train", 64
"""The split of images that have none; images in a row group."""
_REGION = {
    "id": pa.int32(),
    "parent": pa.int32(),
    "category": pa.int64(),
    "rle": pa.string(),
    "bbox": pa.list_(pa.int32(), 4),
    "area": pa.int64(),
    "level": pa.float32(),
    "score": pa.float32(),
    "quality": pa.float32(),
    "source": pa.string(),
}
SCHEMA = pa.schema(
    {
        "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "image_id": pa.string(),
        "file_name": pa.string(),
        "split": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "objects": pa.list_(pa.struct(_REGION)),
    }
)


def write(masks: MaskSet, folder: Path) -> None:
    """A Parquet file a split; without splits, of the split 'train'."""
    classes = Classes(masks.categories)
    schema = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": _features(classes)}})})
    make_folder(folder / "data")
    waiting: dict[str, list[Fields]] = {}
    with ExitStack() as stack:
        files: dict[str, pq.ParquetWriter] = {}
        for image in masks.images():
            split = safe_split(image, WHOLE)
            if split not in files:
                path = folder / "data" / f"{split}-00000-of-00001.parquet"
                files[split] = stack.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))
            rows = waiting.setdefault(split, [])
            rows.append(_record(image, classes))
            if len(rows) == GROUP:
                files[split].write_table(pa.Table.from_pylist(rows, schema))
                rows.clear()
        for split, rows in waiting.items():
            if rows:
                files[split].write_table(pa.Table.from_pylist(rows, schema))
    write_whole(folder / "README.md", _card(masks, sorted(files), classes))


def _record(image: MaskedImage, classes: Classes) -> Fields:
    height, width = image.regions.shape
    name = PurePosixPath(image.file_name).name
    return {
        "image": None if image.picture is None else {"bytes": image.picture(), "path": name},
        "image_id": image.image_id,
        "file_name": image.file_name,
        "split": image.split,
        "height": height,
        "width": width,
        "objects": [_object(row, classes) for row in rows_of(image)],
    }


def _object(row: Row, classes: Classes) -> Fields:
    return {
        "id": int(row.key),
        "parent": int(row.above) if row.above else None,
        "category": classes.place(row.label),
        "rle": row.code.decode("ascii"),
        "bbox": list(row.box),
        "area": row.area,
        "level": None if row.level != row.level else row.level,
        "score": row.score,
        "quality": None if row.quality != row.quality else row.quality,
        "source": row.source,
    }


def _features(classes: Classes) -> Fields:
    """The columns in the words of ``datasets``."""
    region: Fields = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in _REGION.items()}
    region |= {name: {"dtype": "float32", "_type": "Value"} for name in ("level", "score", "quality")}
    region["category"] = {"names": classes.ordered, "_type": "ClassLabel"}
    region["bbox"] = {"feature": {"dtype": "int32", "_type": "Value"}, "length": 4, "_type": "List"}
    columns: Fields = {name: {"dtype": "string", "_type": "Value"} for name in ("image_id", "file_name", "split")}
    columns |= {name: {"dtype": "int32", "_type": "Value"} for name in ("height", "width")}
    return {"image": {"_type": "Image"}, **columns, "objects": {"feature": region, "_type": "List"}}


def _card(masks: MaskSet, splits: list[str], classes: Classes) -> str:
    """The dataset card."""
    import yaml

    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    about = {
        "pretty_name": masks.title,
        "license": "other",
        "license_name": masks.licence,
        "task_categories": ["image-segmentation"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    head = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    return (
        f"---\n{head}---\n\n# {masks.title}\n\nMasks of regions, a row an image. `objects` holds the regions of an image:\n\n"
        "- `rle`: the counts of a COCO run-length code over `[height, width]`; "
        '`pycocotools.mask.decode({"size": [height, width], "counts": rle})` gives the mask.\n'
        "- `id`, `parent`: the number of a region in its image, and that of the region above it; null for none.\n"
        "- `category`, `score`, `level`, `quality`, `source`: null where not known.\n\n"
        f"Classes: {', '.join(classes.ordered)}. Licence: {masks.licence}.\n"
    )


def read(path: Path) -> MaskSet:
    """A folder with ``data/*.parquet`` of these columns, or one such file."""
    files = sorted((path / "data").glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise UsageError(f"{path} holds no data/*.parquet. Name the folder that holds README.md and data/.")
    names = _names(files[0])
    labels = labels_of_names(names)
    ordered = [labels[name] for name in names]
    complaints: list[str] = []

    def images() -> Iterator[MaskedImage]:
        complaints.clear()
        seen = Names(path)
        read = [_image(record, ordered, seen, complaints, file) for file in files for record in _records(file)]
        yield from sorted(read, key=lambda image: image.image_id)

    return MaskSet(images, {label: name for name, label in labels.items() if label >= 0}, title=path.stem, complaints=complaints)


def _names(file: Path) -> list[str]:
    """The names of classes, from what ``datasets`` stores about the columns."""
    with readable(file, "Write it again."):
        about = (pq.read_schema(file).metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json.loads(about)["info"]["features"]["objects"]["feature"]["category"]["names"]
    except (ValueError, KeyError, TypeError):
        raise BadData(f"{file} does not say the features of `datasets` with 'objects' and their 'category'.") from None
    return [str(name) for name in list_of(names, f"{file}: the names of classes")]


def _records(file: Path) -> Iterator[Fields]:
    columns = [name for name in SCHEMA.names if name != "image"]
    with readable(file, "Write it again."), pq.ParquetFile(file) as opened:
        if missing := [name for name in columns if name not in opened.schema_arrow.names]:
            raise BadData(f"{file} has no column '{missing[0]}'.")
        for batch in opened.iter_batches(GROUP, columns=columns):
            yield from batch.to_pylist()


def _image(record: Fields, labels: list[int], names: Names, complaints: list[str], file: Path) -> MaskedImage:
    file_name = text_of(record["file_name"])
    image_id = names.add(text_of(record["image_id"]), file_name)
    where = f"{file}: image '{image_id}'"
    shape = check_shape([record["height"], record["width"]], where)
    rows = []
    for one in list_of(record["objects"] or [], f"{where}: 'objects'"):
        region = object_of(one, f"{where}: a region")
        what = f"{where}, region {region.get('id')}"
        place = whole_number_of(region.get("category"), f"{what}: its category")
        if place >= len(labels):
            raise BadData(f"{what} has the category {place}, of {len(labels)}.")
        rows.append(
            Row(
                checked_code({"size": list(shape), "counts": text_of(region.get("rle"))}, shape, what),
                key=text_of(region.get("id")),
                above=text_of(region.get("parent")),
                label=labels[place] if place >= 0 else -1,
                score=number_of(region.get("score"), f"{what}: its score", 1.0),
                level=number_of(region.get("level"), f"{what}: its level"),
                quality=number_of(region.get("quality"), f"{what}: its quality"),
                source=text_of(region.get("source")),
            )
        )
    return masked_image(rows, shape, file_name, image_id, text_of(record["split"]), where, complaints)
