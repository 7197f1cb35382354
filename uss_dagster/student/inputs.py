"""What a student learns from on the command line: a curated set, or COCO json with a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from uss_dagster.artifacts.image_files import read_file
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.tables import read_table
from uss_dagster.curation.picture_folder import noted_picture_folder
from uss_dagster.curation.tables import IMAGES
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import read_json
from uss_dagster.hashing import dvc_hash, sha256_of, sha256_of_file
from uss_dagster.student.data import Pictures, Source, coco_source, curated_source, stored_pictures
from uss_dagster.text import few


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
        The folder with its images, see ``curated_pictures``.

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
    pictures = curated_pictures(folder, images)
    train, val = (curated_source(folder, pictures.pixels, split, pictures) for split in ("train", "val"))
    manifest = read_json(folder / "manifest.json")
    # Only a set of the pipeline is an output of DVC; the folder of `uss curate` also has its own work files.
    version = dvc_hash(folder) if "dataset" in manifest else f"sha256 {sha256_of_file(folder / 'masks.parquet')}"
    return TrainingData(train, val, folder.absolute().name, version, str(manifest.get("licence") or "not stated"))


def curated_pictures(folder: Path, images: Path | None) -> Pictures:
    """The pictures of a curated set.

    Parameters
    ----------
    folder : Path
        The curated set.
    images : Path or None
        The folder with its pictures. None looks for the dataset in the same project, then for ``data/`` in the set, then in the folder that
        `uss curate` noted. Files are compared with the hashes that the set recorded.

    Raises
    ------
    UsageError
        If the pictures are not found; reading raises BadData for a file that is another one now.
    """
    if images is None:
        dataset = folder.absolute().parent.parent / "datasets" / str(read_json(folder / "manifest.json").get("dataset", "")) / "images"
        if (dataset / "images.parquet").is_file():
            return stored_pictures(Images(dataset))
        copies, noted = folder / "data", noted_picture_folder(folder)
        images = copies if copies.is_dir() or noted is None else noted
    if not images.is_dir():
        raise UsageError(f"The pictures of {folder} are not known here (no {images}). Name the folder they lie in with --images.")
    return _files_of_set(folder, images)


def _files_of_set(folder: Path, images: Path) -> Pictures:
    """The pictures of a curated set as files in a folder, none of which is missing."""
    table = read_table(folder / "images.parquet", IMAGES, columns=["image_id", "file_name", "sha256", "split"])
    rows = {row["image_id"]: row for row in table.to_pylist() if row["split"]}
    missing = [row["file_name"] for row in rows.values() if not (images / row["file_name"]).is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(rows)} pictures of {folder} are not in {images}: {few(missing)}. Name the folder they lie in with --images."
        )

    def name(image_id: str) -> str:
        return str(images / rows[image_id]["file_name"])

    def encoded(image_id: str) -> bytes:
        path = name(image_id)
        data = read_file(Path(path))
        if sha256_of(data) != rows[image_id]["sha256"]:
            raise BadData(f"{path} is not the picture that the set was made from. Curate it again, or name the right folder with --images.")
        return data

    return Pictures(encoded, lambda image_id: rows[image_id]["sha256"], name)
