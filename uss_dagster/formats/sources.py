"""What is exported: regions in memory, a folder that ``uss segment`` wrote, an artefact of a project, a curated set, a COCO file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster.artifacts.image_files import find_images, read_file
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.mask_readers import RegionTables
from uss_dagster.artifacts.tables import has_no_mask, readable, regions_from_table, row_groups, rows_by_image
from uss_dagster.curation.tables import IMAGES as CURATED_IMAGES
from uss_dagster.curation.tables import MASKS
from uss_dagster.errors import UsageError
from uss_dagster.files import find_project, read_json
from uss_dagster.formats import catalogue
from uss_dagster.formats.base import MaskedImage, MaskSet, class_name
from uss_dagster.own_images.files import common_folder, ids_of, relative_name
from uss_dagster.own_images.region_files import COCO, TABLE
from uss_dagster.planning.layout import Layout
from uss_dagster.regions import ClassTree, Regions

CURATED, CURATED_INDEX, CURATED_PICTURES = "masks.parquet", "images.parquet", "data"
WHAT = "a folder with regions.parquet or shard-*.parquet, a curated set, a dataset of a project, or a COCO .json"


@dataclass(frozen=True)
class Pictures:
    """Where the pictures are, by image id.

    Parameters
    ----------
    names : mapping of str to str
        Image id → file name, with slashes.
    read : callable
        Image id → the encoded picture; None where there are no pictures.
    splits : mapping of str to str
        Image id → split, where it is known.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[str], bytes] | None = None
    splits: Mapping[str, str] = field(default_factory=dict)

    def image(self, image_id: str, regions: Regions, quality: np.ndarray | None = None) -> MaskedImage:
        """The masks of an image with its picture."""
        known = np.full(len(regions), np.nan, np.float32) if quality is None else quality
        picture = partial(self.read, image_id) if self.read is not None and image_id in self.names else None
        name = self.names.get(image_id, f"{image_id}.png")
        return MaskedImage(image_id, name, regions, known, self.splits.get(image_id, ""), picture)


def open_source(path: Path, pictures: Path | None = None) -> MaskSet:
    """What can be exported at a path.

    Parameters
    ----------
    path : Path
        See ``WHAT``.
    pictures : Path, optional
        A folder of pictures, or a dataset of a project. Default: None, those that lie beside the masks, if any do.

    Raises
    ------
    UsageError
        There is nothing to export.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist. Pass {WHAT}.")
    if path.suffix.lower() == ".json":
        return with_pictures(catalogue.load("coco").read(path), pictures)
    if (path / CURATED).is_file() and (path / CURATED_INDEX).is_file():
        return _curated(path, pictures)
    folder = path / "truth" if (path / "truth").is_dir() and (path / "images").is_dir() else path
    files = _tables_of(folder)
    if not files:
        raise UsageError(f"{path} holds no regions. Pass {WHAT}.")
    return _tables(path, folder, files, pictures)


def _tables_of(path: Path) -> list[Path]:
    """The tables of regions at a path."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    one = path / TABLE
    return [one] if one.is_file() else sorted(path.glob("shard-*.parquet"))


def _tables(path: Path, folder: Path, files: Sequence[Path], pictures: Path | None) -> MaskSet:
    """Tables of regions: of an entry, of ground truth, or of one's own images. path: what was named; folder: where the tables are."""
    labels = _labels_in(files)
    tree = folder / "classes.json"
    names = dict(enumerate(ClassTree.from_json(tree.read_text(encoding="utf-8")).names)) if tree.is_file() else {}
    measured = "quality" in pq.read_schema(files[0]).names
    known = _pictures(pictures) if pictures else _pictures_beside(path, folder)

    def images() -> Iterator[MaskedImage]:
        yield from _measured(files, known) if measured else _plain(folder, files, known)

    return MaskSet(images, {label: class_name(label, names) for label in labels})


def _plain(folder: Path, files: Sequence[Path], pictures: Pictures) -> Iterator[MaskedImage]:
    tables = RegionTables(folder, files)
    for image_id in tables.ids:
        regions = tables.regions(image_id)
        if not has_no_mask(regions):
            yield pictures.image(image_id, regions)


def _measured(files: Sequence[Path], pictures: Pictures) -> Iterator[MaskedImage]:
    for rows in row_groups(files, MASKS):
        for image_id, one in rows_by_image(rows):
            yield pictures.image(image_id, regions_from_table(one), one["quality"].to_numpy())


def _labels_in(files: Sequence[Path]) -> list[int]:
    labels: set[int] = set()
    for file in files:
        with readable(file), pq.ParquetFile(file) as opened:
            for group in range(opened.num_row_groups):
                labels |= set(np.unique(opened.read_row_group(group, columns=["label"])["label"].to_numpy()).tolist())
    return sorted(label for label in labels if label >= 0)


def _curated(folder: Path, pictures: Path | None) -> MaskSet:
    """A curated set: its masks, splits and, with ``--copy``, its pictures."""
    columns = ["image_id", "file_name", "split"]
    rows = pa.concat_tables(row_groups([folder / CURATED_INDEX], CURATED_IMAGES, columns)).to_pylist()
    names, splits = ({row["image_id"]: row[column] for row in rows} for column in columns[1:])
    if pictures is None and (folder / CURATED_PICTURES).is_dir():
        pictures = folder / CURATED_PICTURES
    found = _pictures(pictures, names) if pictures else Pictures(names)
    files = [folder / CURATED]
    labels = {label: class_name(label, {}) for label in _labels_in(files)}
    return MaskSet(lambda: _measured(files, Pictures(found.names, found.read, splits)), labels, title=folder.resolve().name)


def _pictures_beside(path: Path, folder: Path) -> Pictures:
    """The pictures of a project's artefact (a dataset, or segments of one), or the names that ``regions.json`` gives."""
    project = find_project(path.resolve())
    beside = [path / "images", *([Layout(project).images(path.resolve().name)] if project else [])]
    for images in beside:
        if (images / "images.parquet").is_file():
            return _of_dataset(images)
    entries = read_json(folder / COCO).get("images", []) if folder.is_dir() else []
    return Pictures({str(entry.get("image_id")): str(entry.get("file_name")) for entry in entries if isinstance(entry, dict)})


def _pictures(path: Path, names: Mapping[str, str] | None = None) -> Pictures:
    """The pictures in a folder or a dataset. names: image id → file name, where it is known."""
    if (path / "images" / "images.parquet").is_file():
        return _of_dataset(path / "images")
    files = find_images([path])
    root = path if path.is_dir() else common_folder(files)
    relative = {relative_name(file, root.absolute()): file for file in files}
    by_id = dict(zip(ids_of(files), relative, strict=True))
    chosen = by_id | {image_id: name for image_id, name in (names or {}).items() if name in relative}
    return Pictures(chosen, lambda image_id: read_file(relative[chosen[image_id]]))


def _of_dataset(folder: Path) -> Pictures:
    images = Images(folder)
    splits = dict(zip(images.ids, images.table["split"].to_pylist(), strict=True))
    return Pictures({image_id: images.member(image_id) for image_id in images.ids}, images.encoded, splits)


def with_pictures(masks: MaskSet, pictures: Path | None) -> MaskSet:
    """The same set; its pictures are taken from a folder or a dataset."""
    if pictures is None:
        return masks

    def images() -> Iterator[MaskedImage]:
        files = _pictures(pictures)
        for image in masks.images():
            one = files.image(image.image_id, image.regions, image.quality)
            yield replace(one, split=image.split or one.split)

    return replace(masks, images=images)
