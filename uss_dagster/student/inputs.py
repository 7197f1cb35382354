"""What a student learns from on the command line: a curated set, or COCO json with a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uss_dagster.artifacts.image_files import decode
from uss_dagster.artifacts.tables import read_table
from uss_dagster.curation.tables import IMAGES
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import read_json
from uss_dagster.hashing import dvc_hash, sha256_of, sha256_of_file
from uss_dagster.student.data import Source, coco_source, curated_source


@dataclass(frozen=True)
class TrainingData:
    """Examples with their origin, for the model card.

    Parameters
    ----------
    train, val : Source
    data, version, licence : str
        Name of the masks, their hash, and their licence.
    """

    train: Source
    val: Source
    data: str
    version: str
    licence: str


def coco_data(annotations: Path, images: Path) -> TrainingData:
    """Examples from COCO json and the folder of its images.

    Raises
    ------
    UsageError
        If one of them does not exist.
    """
    if not annotations.is_file():
        raise UsageError(f"{annotations} is no file. Look for a slip in its name.")
    if not images.is_dir():
        raise UsageError(f"{images} is no folder. Look for a slip in its name.")
    train, val = (coco_source(annotations, images, split) for split in ("train", "val"))
    return TrainingData(train, val, annotations.name, f"sha256 {sha256_of_file(annotations)}", "not stated")


def curated_data(folder: Path, images: Path | None) -> TrainingData:
    """Examples from a curated set.

    Parameters
    ----------
    folder : Path
    images : Path or None
        The folder with its images, see ``curated_pixels``.

    Raises
    ------
    UsageError
        If it is no curated set, or its images are not found.
    """
    for name in ("masks.parquet", "images.parquet"):
        if not (folder / name).is_file():
            raise UsageError(
                f"{folder} has no {name}, so it is no curated set. Name what the stage `curated` or `uss curate` wrote, or use --coco."
            )
    pixels = curated_pixels(folder, images)
    train, val = (curated_source(folder, pixels, split) for split in ("train", "val"))
    manifest = read_json(folder / "manifest.json")
    # Only a set of the pipeline is an output of DVC; the folder of `uss curate` also has its own work files.
    version = dvc_hash(folder) if "dataset" in manifest else f"sha256 {sha256_of_file(folder / 'masks.parquet')}"
    return TrainingData(train, val, folder.absolute().name, version, str(manifest.get("licence") or "not stated"))


def curated_pixels(folder: Path, images: Path | None) -> Callable[[str], np.ndarray]:
    """A function from image ids of a curated set to pixels, uint8 (H, W, 3).

    Parameters
    ----------
    folder : Path
        The curated set.
    images : Path or None
        The folder with its images. None looks for the dataset in the same project, then for ``data/`` in the set. Files are compared with the hashes
        that the set recorded.

    Raises
    ------
    UsageError
        If the images are not found. The function raises BadData for a missing or different file.
    """
    if images is None:
        dataset = folder.absolute().parent.parent / "datasets" / str(read_json(folder / "manifest.json").get("dataset", "")) / "images"
        if (dataset / "images.parquet").is_file():
            from uss_dagster.artifacts.images import Images

            return Images(dataset).pixels
        images = folder / "data"
    if not images.is_dir():
        raise UsageError(f"The pictures of {folder} are not known here (no {images}). Name the folder they lie in with --images.")
    table = read_table(folder / "images.parquet", IMAGES, columns=["image_id", "file_name", "sha256"])
    rows = {row["image_id"]: row for row in table.to_pylist()}

    def pixels(image_id: str) -> np.ndarray:
        path = images / rows[image_id]["file_name"]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadData(f"{path} cannot be read ({error.strerror}). Name the folder of the set's pictures with --images.") from None
        if sha256_of(data) != rows[image_id]["sha256"]:
            raise BadData(f"{path} is not the picture that the set was made from. Curate it again, or name the right folder with --images.")
        return decode(data, str(path))

    return pixels
