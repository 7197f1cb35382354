"""The example images as a curated set."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from format_cases import example_images

from uss_dagster.artifacts.tables import write_table
from uss_dagster.curation.tables import IMAGES, MASKS, mask_rows


def write_curated_set(folder: Path) -> None:
    (folder / "data").mkdir(parents=True)
    images = example_images()
    tables = [mask_rows(i.image_id, i.regions, ["unsam"] * len(i.regions), {"quality": i.quality}) for i in images]
    write_table(folder / "masks.parquet", pa.concat_tables(tables), MASKS)
    rows = []
    for image in images:
        path = folder / "data" / image.file_name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image.picture())
        row = dict.fromkeys(IMAGES.names, 0) | dict.fromkeys(("sha256", "status", "reason", "group"), "")
        height, width = image.regions.shape
        rows.append(
            row | {"image_id": image.image_id, "file_name": image.file_name, "split": image.split, "height": height, "width": width}
        )
    write_table(folder / "images.parquet", pa.Table.from_pylist(rows, schema=IMAGES), IMAGES)
