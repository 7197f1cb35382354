"""The forms in which other programs read a curated set: COCO json, whole or a file a split; SA-1B-like json an image; lines of metadata.

Everything is written as images come, so memory does not grow; ids ascend from 1. What COCO has no key for stands under ``unsam``.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from uss_dagster.curation.human import CROWD
from uss_dagster.curation.tables import HUMAN
from uss_dagster.regions.coco import annotation

CATEGORIES = [{"id": 1, "name": "fg", "supercategory": "fg"}]


def head(info: Mapping[str, Any]) -> dict[str, Any]:
    """The keys ``info``, ``licenses`` and ``categories`` of every json. info: title, licence, homepage, source."""
    return {
        "info": {"description": info["title"], "url": info.get("homepage", ""), "version": "1"},
        "licenses": [{"id": 1, "name": info["licence"], "url": info.get("homepage", "")}],
        "categories": CATEGORIES,
    }


def image_entry(number: int, look: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The COCO entry of an image."""
    sizes = {"height": int(look["height"]), "width": int(look["width"])}
    return {"id": number, "file_name": look["file_name"], **sizes, "license": 1, "image_id": look["image_id"], "split": split}


def annotations_of(rows: pa.Table, number: int, first: int) -> list[dict[str, Any]]:
    """The COCO annotations of one image. number: of the image. first: id of its first annotation."""
    found = []
    for region, row in enumerate(rows.to_pylist()):
        parent = first + row["parent"] if row["parent"] >= 0 else None
        size = (row["height"], row["width"])
        entry = annotation(first + region, number, 1, row["area"], row["bbox"], size, row["rle"], round(row["score"], 6), parent)
        entry["iscrowd"] = int(row["entry"] == HUMAN and row["source"] == CROWD)
        human = row["entry"] == HUMAN
        entry["unsam"] = {
            "source": "gt" if human else row["source"] or row["entry"],
            "entry": row["entry"],
            "level": _plain(row["level"]),
            "quality": _plain(row["quality"]),
            "label": row["label"] if row["label"] >= 0 else None,
        }
        found.append(entry)
    return found


class CocoFile:
    """One COCO json, written image by image: annotations first, then the images, which wait in a file beside it."""

    def __init__(self, path: Path, info: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._info, self._beside = info, path.with_name(f".{path.name}.images.partial")
        self._text: TextIO = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by close
        self._images: TextIO = open(self._beside, "w+", encoding="utf-8")  # noqa: SIM115
        opening = json.dumps(head(info), ensure_ascii=False)
        self._text.write(opening[:-1] + ', "annotations": [')
        self.images = self.masks = 0

    def add(self, look: Mapping[str, Any], split: str, rows: pa.Table) -> None:
        self.images += 1
        for entry in annotations_of(rows, self.images, self.masks + 1):
            self._text.write(f"{',' if self.masks else ''}\n{json.dumps(entry)}")
            self.masks += 1
        line = json.dumps(image_entry(self.images, look, split), ensure_ascii=False)
        self._images.write(f"{',' if self.images > 1 else ''}\n{line}")

    def close(self) -> None:
        self._text.write('],\n"images": [')
        self._images.seek(0)
        shutil.copyfileobj(self._images, self._text)
        self._text.write("]}\n")
        self._images.close()
        self._text.close()
        self._beside.unlink()


class Exporter:
    """All forms asked for, in one folder."""

    def __init__(self, folder: Path, formats: Sequence[str], info: Mapping[str, Any]) -> None:
        self.folder, self.formats, self.info = folder, formats, info
        self._whole = CocoFile(folder / "labels.json", info) if "coco" in formats else None
        self._splits: dict[str, CocoFile] = {}
        self._metadata: TextIO | None = None
        if "metadata" in formats:
            self._metadata = open(folder / "metadata.jsonl", "w", encoding="utf-8")  # noqa: SIM115 - closed by close
        self._number = 0

    def add(self, look: Mapping[str, Any], split: str, rows: pa.Table) -> None:
        """One kept image with its masks, at least one."""
        self._number += 1
        if self._whole:
            self._whole.add(look, split, rows)
        if "splits" in self.formats:
            if split not in self._splits:
                self._splits[split] = CocoFile(self.folder / "annotations" / f"{split}.json", self.info)
            self._splits[split].add(look, split, rows)
        if "images" in self.formats:
            self._one_file(look, split, rows)
        if self._metadata:
            self._metadata.write(json.dumps(_metadata(look, split, rows), ensure_ascii=False) + "\n")

    def _one_file(self, look: Mapping[str, Any], split: str, rows: pa.Table) -> None:
        """As SA-1B has it: one ``image``, annotations from 1, each with the picture's size."""
        entries = annotations_of(rows, self._number, 1)
        for entry in entries:
            entry["height"], entry["width"] = entry["segmentation"]["size"]
        text = json.dumps({**head(self.info), "image": image_entry(self._number, look, split), "annotations": entries}, ensure_ascii=False)
        path = self.folder / "json" / f"{look['image_id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")

    def close(self) -> None:
        for file in (self._whole, *self._splits.values()):
            if file:
                file.close()
        if self._metadata:
            self._metadata.close()


def _metadata(look: Mapping[str, Any], split: str, rows: pa.Table) -> dict[str, Any]:
    """A line of metadata.jsonl: ``file_name`` says which picture, all else becomes columns; boxes are those of COCO."""
    return {
        "file_name": look["file_name"],
        "image_id": look["image_id"],
        "split": split,
        "width": int(look["width"]),
        "height": int(look["height"]),
        "objects": {
            "bbox": rows["bbox"].to_pylist(),
            "area": rows["area"].to_pylist(),
            "category": [0] * rows.num_rows,
            "rle": [code.decode("ascii") for code in rows["rle"].to_pylist()],
        },
    }


def _plain(value: float) -> float | None:
    """Six decimals; JSON has no NaN."""
    return round(float(value), 6) if math.isfinite(value) else None
