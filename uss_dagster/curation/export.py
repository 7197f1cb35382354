"""The json files of a curated set, for other programs: COCO, whole or one file a split; SA-1B-like json an image; lines of metadata.

Every file is written while images arrive, so memory does not grow with masks. Ids ascend from 1. What COCO has no key for stands under ``unsam``.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from uss_dagster.curation.human import CROWD
from uss_dagster.curation.params import Description
from uss_dagster.curation.tables import HUMAN, SourceImage
from uss_dagster.regions.coco import annotation

CATEGORIES = [{"id": 1, "name": "fg", "supercategory": "fg"}]


Add = Callable[[SourceImage, str, pa.Table], None]
"""Adds a kept image to a format: (image, its split, its masks: at least one row of schema ``MASKS``)."""


@contextmanager
def exporter(folder: Path, formats: Sequence[str], description: Description) -> Iterator[Add]:
    """All formats of a curated set in one folder; their files are complete at the end of the block.

    Parameters
    ----------
    folder : Path
    formats : sequence of str
        See ``params.FORMATS``.
    description : Description
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(WRITERS[name](folder, description)) for name in dict.fromkeys(formats)]

        def add(image: SourceImage, split: str, rows: pa.Table) -> None:
            for write in writers:
                write(image, split, rows)

        yield add


@contextmanager
def coco_file(path: Path, description: Description) -> Iterator[Add]:
    """One COCO json. Annotations come first; the entries of images wait in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images: list[str] = []
    masks = 0
    with open(path, "w", encoding="utf-8") as text:
        text.write(json.dumps(_head(description), ensure_ascii=False)[:-1] + ', "annotations": [')

        def add(image: SourceImage, split: str, rows: pa.Table) -> None:
            nonlocal masks
            number = len(images) + 1
            images.append(json.dumps(_image_entry(number, image, split), ensure_ascii=False))
            for entry in _annotations(rows, number, masks + 1):
                text.write(f"{',' if masks else ''}\n{json.dumps(entry)}")
                masks += 1

        yield add
        text.write('],\n"images": [' + ",".join(f"\n{image}" for image in images) + "]}\n")


@contextmanager
def split_files(folder: Path, description: Description) -> Iterator[Add]:
    """``annotations/<split>.json``: one COCO json for each split that has images."""
    with ExitStack() as stack:
        writers: dict[str, Add] = {}

        def add(image: SourceImage, split: str, rows: pa.Table) -> None:
            if split not in writers:
                writers[split] = stack.enter_context(coco_file(folder / "annotations" / f"{split}.json", description))
            writers[split](image, split, rows)

        yield add


@contextmanager
def image_files(folder: Path, description: Description) -> Iterator[Add]:
    """``json/<image>.json``, like SA-1B: one ``image``, annotations from 1, each with the size of the image."""
    numbers = itertools.count(1)

    def add(image: SourceImage, split: str, rows: pa.Table) -> None:
        number = next(numbers)
        size = {"height": image["height"], "width": image["width"]}
        entries = [{**entry, **size} for entry in _annotations(rows, number, 1)]
        content = {**_head(description), "image": _image_entry(number, image, split), "annotations": entries}
        path = folder / "json" / f"{image['image_id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    yield add


@contextmanager
def metadata_file(folder: Path, description: Description) -> Iterator[Add]:
    """``metadata.jsonl``: ``file_name`` names the image, all other keys become columns; boxes are those of COCO."""
    with open(folder / "metadata.jsonl", "w", encoding="utf-8") as text:

        def add(image: SourceImage, split: str, rows: pa.Table) -> None:
            codes = [code.decode("ascii") for code in rows["rle"].to_pylist()]
            boxes, areas = rows["bbox"].to_pylist(), rows["area"].to_pylist()
            line = {
                "file_name": image["file_name"],
                "image_id": image["image_id"],
                "split": split,
                "width": image["width"],
                "height": image["height"],
                "objects": {"bbox": boxes, "area": areas, "category": [0] * rows.num_rows, "rle": codes},
            }
            text.write(json.dumps(line, ensure_ascii=False) + "\n")

        yield add


WRITERS: dict[str, Callable[[Path, Description], AbstractContextManager[Add]]] = {
    "coco": lambda folder, description: coco_file(folder / "labels.json", description),
    "splits": split_files,
    "images": image_files,
    "metadata": metadata_file,
}
"""By the names in ``params.FORMATS``."""


def _head(description: Description) -> dict[str, object]:
    """The keys ``info``, ``licenses`` and ``categories`` of every json."""
    return {
        "info": {"description": description.title, "url": description.homepage, "version": "1"},
        "licenses": [{"id": 1, "name": description.licence, "url": description.homepage}],
        "categories": CATEGORIES,
    }


def _image_entry(number: int, image: SourceImage, split: str) -> dict[str, object]:
    """The COCO entry of an image."""
    size = {"height": image["height"], "width": image["width"]}
    return {"id": number, "file_name": image["file_name"], **size, "license": 1, "image_id": image["image_id"], "split": split}


def _annotations(rows: pa.Table, image: int, first: int) -> list[dict[str, object]]:
    """The COCO annotations of one image. image: its number. first: id of its first annotation."""
    entries: list[dict[str, object]] = []
    for region, row in enumerate(rows.to_pylist()):
        human = row["entry"] == HUMAN
        size, parent = (row["height"], row["width"]), first + row["parent"] if row["parent"] >= 0 else None
        entry = annotation(first + region, image, 1, row["area"], row["bbox"], size, row["rle"], round(row["score"], 6), parent)
        extra = {
            "source": "gt" if human else row["source"] or row["entry"],
            "entry": row["entry"],
            "level": _rounded(row["level"]),
            "quality": _rounded(row["quality"]),
            "label": row["label"] if row["label"] >= 0 else None,
        }
        entries.append({**entry, "iscrowd": int(human and row["source"] == CROWD), "unsam": extra})
    return entries


def _rounded(value: float) -> float | None:
    """Six decimals; JSON has no NaN."""
    return round(float(value), 6) if math.isfinite(value) else None
