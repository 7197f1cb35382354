"""The json files of a curated set, for other programs: COCO, whole or one file a split; SA-1B-like json an image; lines of metadata.

Every file is written while images arrive, so memory does not grow. Ids ascend from 1. What COCO has no key for stands under ``unsam``.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from uss_dagster.curation.human import CROWD
from uss_dagster.curation.params import Description
from uss_dagster.curation.tables import HUMAN, SourceImage
from uss_dagster.regions.coco import annotation

CATEGORIES = [{"id": 1, "name": "fg", "supercategory": "fg"}]


class Writer(Protocol):
    """Writes one format."""

    def add(self, image: SourceImage, split: str, rows: pa.Table) -> None:
        """Add a kept image with its masks, at least one row of schema ``MASKS``."""

    def close(self) -> None:
        """Finish the files."""


class Exporter:
    """Writes all formats of a curated set into one folder; a ``Writer`` too.

    Parameters
    ----------
    folder : Path
    formats : sequence of str
        See ``params.FORMATS``.
    description : Description
    """

    def __init__(self, folder: Path, formats: Sequence[str], description: Description) -> None:
        self._writers = [WRITERS[name](folder, description) for name in dict.fromkeys(formats)]

    def add(self, image: SourceImage, split: str, rows: pa.Table) -> None:
        for writer in self._writers:
            writer.add(image, split, rows)

    def close(self) -> None:
        for writer in self._writers:
            writer.close()


class CocoFile:
    """One COCO json. Annotations come first; the images wait in a file beside it."""

    def __init__(self, path: Path, description: Description) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._images_path = path.with_name(f".{path.name}.images.partial")
        self._text = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by close
        self._images = open(self._images_path, "w+", encoding="utf-8")  # noqa: SIM115
        self._text.write(json.dumps(_head(description), ensure_ascii=False)[:-1] + ', "annotations": [')
        self._image_count = self._mask_count = 0

    def add(self, image: SourceImage, split: str, rows: pa.Table) -> None:
        self._image_count += 1
        for entry in _annotations(rows, self._image_count, self._mask_count + 1):
            self._text.write(f"{',' if self._mask_count else ''}\n{json.dumps(entry)}")
            self._mask_count += 1
        line = json.dumps(_image_entry(self._image_count, image, split), ensure_ascii=False)
        self._images.write(f"{',' if self._image_count > 1 else ''}\n{line}")

    def close(self) -> None:
        self._text.write('],\n"images": [')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._text)
        self._text.write("]}\n")
        self._images.close()
        self._text.close()
        self._images_path.unlink()


class SplitFiles:
    """``annotations/<split>.json``: one COCO json for each split that has images."""

    def __init__(self, folder: Path, description: Description) -> None:
        self._folder, self._description = folder / "annotations", description
        self._files: dict[str, CocoFile] = {}

    def add(self, image: SourceImage, split: str, rows: pa.Table) -> None:
        if split not in self._files:
            self._files[split] = CocoFile(self._folder / f"{split}.json", self._description)
        self._files[split].add(image, split, rows)

    def close(self) -> None:
        for file in self._files.values():
            file.close()


class ImageFiles:
    """``json/<image>.json``, like SA-1B: one ``image``, annotations from 1, each with the size of the image."""

    def __init__(self, folder: Path, description: Description) -> None:
        self._folder, self._head = folder / "json", _head(description)
        self._count = 0

    def add(self, image: SourceImage, split: str, rows: pa.Table) -> None:
        self._count += 1
        size = {"height": image["height"], "width": image["width"]}
        entries = [{**entry, **size} for entry in _annotations(rows, self._count, 1)]
        text = json.dumps({**self._head, "image": _image_entry(self._count, image, split), "annotations": entries}, ensure_ascii=False)
        path = self._folder / f"{image['image_id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")

    def close(self) -> None:
        """Every file is already complete."""


class MetadataFile:
    """``metadata.jsonl``: ``file_name`` names the image, all other keys become columns; boxes are those of COCO."""

    def __init__(self, folder: Path, description: Description) -> None:
        self._text = open(folder / "metadata.jsonl", "w", encoding="utf-8")  # noqa: SIM115 - closed by close

    def add(self, image: SourceImage, split: str, rows: pa.Table) -> None:
        line = {
            "file_name": image["file_name"],
            "image_id": image["image_id"],
            "split": split,
            "width": image["width"],
            "height": image["height"],
            "objects": {
                "bbox": rows["bbox"].to_pylist(),
                "area": rows["area"].to_pylist(),
                "category": [0] * rows.num_rows,
                "rle": [code.decode("ascii") for code in rows["rle"].to_pylist()],
            },
        }
        self._text.write(json.dumps(line, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._text.close()


WRITERS: dict[str, Callable[[Path, Description], Writer]] = {
    "coco": lambda folder, description: CocoFile(folder / "labels.json", description),
    "splits": SplitFiles,
    "images": ImageFiles,
    "metadata": MetadataFile,
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
