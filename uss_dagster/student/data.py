"""Images with masks to learn from, read one at a time: from a curated set or COCO json.

Belongs here: the ``Source`` that training and evaluation read, and where it comes from. Does not belong here: windows and tensors (``views``).
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np

from uss_dagster.artifacts.image_files import decode, read_file
from uss_dagster.artifacts.images import Images
from uss_dagster.artifacts.tables import read_table, row_groups
from uss_dagster.curation.human import CROWD, named_coco_masks
from uss_dagster.curation.splits import SPLITS, split_of
from uss_dagster.curation.tables import HUMAN, IMAGES, MASKS
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.hashing import sha256_of_file
from uss_dagster.regions import Regions

SHARES = (0.9, 0.1, 0.0)
"""Of train, val and test, for a COCO file that names no splits."""

Masks = tuple[Sequence[bytes], np.ndarray]
"""COCO run-length codes of K masks, and bool (K,): which of them a person drew."""


@dataclass(frozen=True)
class Example:
    """One image and its masks.

    Parameters
    ----------
    image_id : str
    image : uint8 array of shape (height, width, 3)
    codes : tuple of K bytes
        COCO run-length codes of the masks.
    human : bool array of shape (K,), optional
        Which masks a person drew; none by default.
    """

    image_id: str
    image: np.ndarray
    codes: tuple[bytes, ...]
    human: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        if len(self.human) != len(self.codes):
            object.__setattr__(self, "human", np.zeros(len(self.codes), bool))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class Pictures:
    """Picture files by image id.

    Parameters
    ----------
    encoded : callable
        Image id → the bytes of its file.
    digest : callable
        Image id → a hash of these bytes.
    name : callable, default str
        Image id → what an error calls the file.
    """

    encoded: Callable[[str], bytes]
    digest: Callable[[str], str]
    name: Callable[[str], str] = str

    def pixels(self, image_id: str) -> np.ndarray:
        """uint8 array of shape (height, width, 3)."""
        return decode(self.encoded(image_id), self.name(image_id))


def stored_pictures(images: Images) -> Pictures:
    """The pictures of a dataset artefact."""
    return Pictures(images.encoded, lambda image_id: images.contents([image_id])[0][1])


class Source:
    """Examples in a fixed order, which functions of the image id read when they are needed.

    Parameters
    ----------
    ids : sequence of str
    pixels : callable
        Image id → uint8 array of shape (height, width, 3).
    masks : callable
        Image id → ``Masks``.
    pictures : Pictures, optional
        The files that the pixels are decoded from.
    """

    def __init__(
        self, ids: Sequence[str], pixels: Callable[[str], np.ndarray], masks: Callable[[str], Masks], pictures: Pictures | None = None
    ) -> None:
        self.ids, self.pixels, self.masks, self.pictures = list(ids), pixels, masks, pictures

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        codes, human = self.masks(self.ids[index])
        return Example(self.ids[index], self.pixels(self.ids[index]), tuple(codes), human)

    def relabelled(self, codes: Sequence[tuple[bytes, ...]]) -> Source:
        """The same images with other masks, one tuple of run-length codes an example, in order.

        Raises
        ------
        BadData
            If there are more or fewer tuples than examples.
        """
        if len(codes) != len(self):
            raise BadData(f"{len(codes)} lists of masks were given for {len(self)} examples, expected one each.")
        by_id = dict(zip(self.ids, codes, strict=True))
        masks = lambda image_id: (by_id[image_id], np.zeros(len(by_id[image_id]), bool))  # noqa: E731
        return Source(self.ids, self.pixels, masks, self.pictures)


def curated_source(folder: Path, pixels: Callable[[str], np.ndarray], split: str = "train", pictures: Pictures | None = None) -> Source:
    """One split of a curated set.

    Masks are read by row groups, of which few are in memory. Masks of crowds and of the whole image are no targets.

    Parameters
    ----------
    folder : Path
        With ``images.parquet`` and ``masks.parquet``.
    pixels : callable
        Image id → uint8 array of shape (height, width, 3), such as ``Images.pixels``.
    split : {'train', 'val', 'test'}, default 'train'
    pictures : Pictures, optional
        The files that the pixels are decoded from.

    Raises
    ------
    UsageError
        If there is no split of that name.
    """
    if split not in SPLITS:
        raise UsageError(f"split is '{split}'.{did_you_mean(split, SPLITS)}")
    images = read_table(folder / "images.parquet", IMAGES, columns=["image_id", "split"])
    ids = [row["image_id"] for row in images.to_pylist() if row["split"] == split]
    return Source(ids, pixels, _MaskTable(folder / "masks.parquet"), pictures)


class _MaskTable:
    """Reads the masks of an image from a file of schema ``MASKS`` whose image ids ascend."""

    COLUMNS = ("image_id", "rle", "height", "width", "area", "entry", "source")

    def __init__(self, path: Path) -> None:
        self._path = path
        tables = row_groups([path], MASKS, ["image_id"])
        self._first_ids = [rows["image_id"][0].as_py() if rows.num_rows else "" for rows in tables]  # one a row group
        self._group = lru_cache(maxsize=4)(self._read)

    def _read(self, group: int) -> dict[str, np.ndarray]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path) as file:
            rows = file.read_row_group(group, columns=list(self.COLUMNS))
        return {name: rows[name].to_numpy(zero_copy_only=False) for name in self.COLUMNS}

    def __call__(self, image_id: str) -> Masks:
        group = bisect.bisect_right(self._first_ids, image_id) - 1
        if group < 0:
            return [], np.zeros(0, bool)
        rows = self._group(group)
        start, stop = (int(np.searchsorted(rows["image_id"], image_id, side)) for side in ("left", "right"))  # type: ignore[call-overload]
        part = {name: values[start:stop] for name, values in rows.items()}
        targets = (part["area"] < part["height"].astype(np.int64) * part["width"]) & (part["source"] != CROWD)
        return part["rle"][targets].tolist(), part["entry"][targets] == HUMAN


class _CocoImage(TypedDict, total=False):
    file_name: str
    split: str


def coco_source(annotations: Path, images: Path, split: str = "train") -> Source:
    """One split of COCO json and a folder of its images.

    Parameters
    ----------
    annotations : Path
        The json. If its images have the key 'split', as in curated sets, that counts; otherwise a hash of the file names divides them, nine
        tenths for train.
    images : Path
        The folder with the image files.
    split : {'train', 'val', 'test'}, default 'train'

    Raises
    ------
    BadData
        If the json names no image files, or an image is missing.
    """
    masks = named_coco_masks(annotations)
    entries: list[_CocoImage] = json.loads(annotations.read_text(encoding="utf-8"))["images"]
    has_splits = any(entry.get("split") for entry in entries)
    files = {}
    for entry in entries:
        name = Path(entry["file_name"])
        if (entry.get("split", "") if has_splits else split_of(name.stem, 0, SHARES)) == split:
            files[name.stem] = _image_file(images, name)

    pictures = Pictures(
        lambda image_id: read_file(files[image_id]), lambda image_id: sha256_of_file(files[image_id]), lambda image_id: str(files[image_id])
    )

    def codes(image_id: str) -> Masks:
        regions = masks.regions(image_id)
        return _targets(regions, (np.array(regions.source, object) != CROWD) & (regions.area > 0))

    return Source(sorted(files), pictures.pixels, codes, pictures)


def _targets(regions: Regions, keep: np.ndarray) -> Masks:
    codes, indices = regions.rles(), np.flatnonzero(keep)
    return [codes[i] for i in indices], np.zeros(len(indices), bool)


def _image_file(folder: Path, name: Path) -> Path:
    """The file of an image: by its whole name below the folder, else by the last part of its name."""
    for path in (folder / name, folder / name.name):
        if path.is_file():
            return path
    raise BadData(f"{folder} has no picture '{name}'. Name the folder that holds the pictures of the COCO file.")
