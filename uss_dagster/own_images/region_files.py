"""Writes ``regions.parquet`` and ``regions.json`` (COCO) image by image, so that memory does not grow with their number."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.regions.coco import annotation

ENTRIES, TABLE, COCO, RANKING = "entries", "regions.parquet", "regions.json", "ranking.parquet"
"""A folder with the regions of several entries holds ``ENTRIES/<entry>/TABLE``, and in ``RANKING`` their order, the best first."""


class RegionFiles:
    """A context manager; the two files appear in the folder at its end, complete, if there were images and no error.

    Parameters
    ----------
    folder
        Where the files are written.
    prefix
        Start of the names of the unfinished files.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self._finished = folder / TABLE, folder / COCO
        self._partial = tuple(folder / f"{prefix}{path.suffix}.partial" for path in self._finished)
        self._images: list[dict[str, int | str]] = []
        self._labels: set[int] = set()
        self._annotations = 0

    @property
    def ids(self) -> list[str]:
        """The images added, in order."""
        return [str(image["image_id"]) for image in self._images]

    def __enter__(self) -> RegionFiles:
        self._table = pq.ParquetWriter(self._partial[0], REGIONS, compression="zstd", compression_level=3, store_schema=False)
        self._coco = open(self._partial[1], "w", encoding="utf-8")
        self._coco.write('{"annotations": [')
        return self

    def add(self, image_id: str, file_name: str, rows: pa.Table) -> None:
        """Add the regions of an image, at least one. Images come in the order of their ids."""
        self._table.write_table(rows.cast(REGIONS))
        number = len(self._images) + 1
        height, width = rows["height"][0].as_py(), rows["width"][0].as_py()
        self._images.append({"id": number, "file_name": file_name, "height": height, "width": width, "image_id": image_id})
        first = self._annotations + 1
        for row in rows.select(["parent", "area", "bbox", "rle", "score", "label"]).to_pylist():
            self._annotations += 1
            self._labels.add(max(1, row["label"]))
            parent = first + row["parent"] if row["parent"] >= 0 else None
            values = (row["label"], row["area"], row["bbox"], (height, width), row["rle"], row["score"], parent)
            comma = "," if self._annotations > 1 else ""
            self._coco.write(f"{comma}\n{json.dumps(annotation(self._annotations, number, *values))}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        with self._coco, self._table:
            if error is None:
                categories = [{"id": label, "name": "region"} for label in sorted(self._labels)]
                self._coco.write(f'],\n"images": {json.dumps(self._images)},\n"categories": {json.dumps(categories)}}}\n')
        if error is None and self._images:
            for partial, finished in zip(self._partial, self._finished, strict=True):
                os.replace(partial, finished)
