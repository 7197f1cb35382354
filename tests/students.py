"""A student that learnt next to nothing, in a second, and the pictures it learnt from."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uss_dagster.regions import Regions

if TYPE_CHECKING:
    from uss_dagster.student.data import Source

FEW = {"steps": 2, "batch": 2, "clicks": 2, "input": 32, "test_input": 32, "every": 2}
"""Settings of a training that takes a second."""


def drawn(number: int, height: int = 40, width: int = 48) -> tuple[np.ndarray, Regions]:
    """A picture of a red field that holds a green one, and the two regions."""
    rng = np.random.default_rng(number)
    top, left = rng.integers(2, 8, 2)
    masks = np.zeros((2, height, width), bool)
    masks[0, top : top + 22, left : left + 26] = True
    masks[1, top + 5 : top + 15, left + 6 : left + 16] = True
    image = rng.integers(90, 130, (height, width, 3))
    image[masks[0]] += (90, -60, -70)
    image[masks[1]] += (-170, 120, 20)
    return image.clip(0, 255).astype(np.uint8), Regions.from_masks(masks)


def regions_source(items: list[tuple[str, np.ndarray, Regions]]) -> Source:
    """Images in memory: (image id, uint8 (H, W, 3), its regions). Root regions and empty ones are no targets."""
    from uss_dagster.student.data import Source

    by_id = {image_id: (image, regions) for image_id, image, regions in items}

    def masks(image_id: str) -> tuple[list[bytes], np.ndarray]:
        regions = by_id[image_id][1]
        codes = regions.select(~regions.is_root & (regions.area > 0)).rles()
        return codes, np.zeros(len(codes), bool)

    return Source(list(by_id), lambda image_id: by_id[image_id][0], masks)


@functools.cache
def small_student() -> Path:
    """Its folder, made once for all tests; not to be changed."""
    from uss_dagster.student.settings import StudentSettings
    from uss_dagster.student.training import train

    folder = Path(tempfile.mkdtemp(prefix="student-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    train(regions_source([(f"i{n}", *drawn(n)) for n in range(2)]), None, StudentSettings(**FEW), folder)
    return folder


def write_curated(root: Path, images: int = 6, name: str = "masks", dataset: str = "d") -> Path:
    """A dataset of such pictures, and a curated set of their regions (every fourth for validation), where the stages of a project look."""
    import io

    import pyarrow as pa
    from PIL import Image

    from uss_dagster.artifacts.images import ImageShards
    from uss_dagster.artifacts.schemas import IMAGES
    from uss_dagster.artifacts.staging import manifest_text
    from uss_dagster.artifacts.tables import regions_to_table, write_table
    from uss_dagster.curation import tables
    from uss_dagster.hashing import sha256_of

    place = root / "data" / "datasets" / dataset / "images"
    place.mkdir(parents=True)
    shards, rows, masks = ImageShards(place), [], []
    for number in range(images):
        image, regions = drawn(number)
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        image_id, split = f"i{number}", "val" if number % 4 == 3 else "train"
        shards.add(image_id, stream.getvalue(), ".png", *image.shape[:2], "all")
        rows.append(
            {"image_id": image_id, "file_name": f"{image_id}.png", "sha256": sha256_of(stream.getvalue()), "height": 40, "width": 48, "status": "kept",
             "reason": "", "group": image_id, "split": split, "masks": 2, "human_masks": 0, "dropped": 0, "coverage": 0.3}
        )  # fmt: skip
        table = regions_to_table(image_id, regions)
        table = table.append_column(tables.MASKS.field("entry"), pa.array(["e"] * len(table), pa.string()))
        for measure in tables.MEASURES:
            table = table.append_column(tables.MASKS.field(measure), pa.array([float("nan")] * len(table), pa.float32()))
        masks.append(table)
    shards.close()
    write_table(place / "images.parquet", shards.table(), IMAGES)
    folder = root / "data" / "curated" / name
    folder.mkdir(parents=True)
    write_table(folder / "images.parquet", pa.Table.from_pylist(rows, schema=tables.IMAGES), tables.IMAGES)
    write_table(folder / "masks.parquet", pa.concat_tables(masks), tables.MASKS)
    (folder / "manifest.json").write_text(manifest_text(folder, {"dataset": dataset, "licence": "MIT (drawn)"}), encoding="utf-8")
    return folder
