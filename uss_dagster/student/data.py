"""Pictures with masks to learn from, read one at a time: a curated set, COCO json, or regions in memory.

Belongs here: the ``Source`` that training and evaluation read, and where it comes from. Does not belong here: crops and tensors (``views``).
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from uss_dagster.artifacts.image_files import decode
from uss_dagster.artifacts.mask_readers import CocoMasks
from uss_dagster.artifacts.tables import read_table, row_groups
from uss_dagster.curation.human import CROWD
from uss_dagster.curation.splits import SPLITS, split_of
from uss_dagster.curation.tables import HUMAN, IMAGES, MASKS
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.regions import Regions

SHARES = (0.9, 0.1, 0.0)
"""Of train, val and test, where a COCO file says nothing of splits."""


@dataclass(frozen=True)
class Example:
    """One picture, uint8 (H, W, 3), and the COCO codes of its K masks. human: bool (K,), which of them a person drew."""

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


class Source(Protocol):
    """Examples in an order that does not change; each is read when it is asked for."""

    @property
    def ids(self) -> Sequence[str]:
        """Image ids, one an example."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class LazySource:
    """Examples by id through two functions: pixels uint8 (H, W, 3), and (codes, human)."""

    def __init__(
        self, ids: Sequence[str], pixels: Callable[[str], np.ndarray], masks: Callable[[str], tuple[Sequence[bytes], np.ndarray]]
    ) -> None:
        self.ids, self._pixels, self._masks = list(ids), pixels, masks

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Example:
        codes, human = self._masks(self.ids[index])
        return Example(self.ids[index], self._pixels(self.ids[index]), tuple(codes), human)


class Relabelled:
    """A source whose masks are others. codes: a tuple an example, in order."""

    def __init__(self, source: Source, codes: Sequence[tuple[bytes, ...]]) -> None:
        if len(codes) != len(source):
            raise BadData(f"{len(codes)} lists of masks were given for {len(source)} examples, expected one each.")
        self.source, self.codes = source, list(codes)

    @property
    def ids(self) -> Sequence[str]:
        return self.source.ids

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return replace(self.source[index], codes=self.codes[index], human=np.zeros(0, bool))


def regions_source(items: Sequence[tuple[str, np.ndarray, Regions]]) -> LazySource:
    """Of pictures in memory: (image id, uint8 (H, W, 3), its regions); roots and empty regions are no targets."""
    by_id = {image_id: (image, regions) for image_id, image, regions in items}

    def masks(image_id: str) -> tuple[Sequence[bytes], np.ndarray]:
        regions = by_id[image_id][1]
        codes = regions.rles()
        some = np.flatnonzero(~regions.is_root & (regions.area > 0))
        return [codes[i] for i in some], np.zeros(len(some), bool)

    return LazySource(list(by_id), lambda image_id: by_id[image_id][0], masks)


def curated_source(folder: Path, pixels: Callable[[str], np.ndarray], split: str = "train") -> LazySource:
    """Of one split of a curated set (``images.parquet`` and ``masks.parquet``). pixels: image id → uint8 (H, W, 3), such as ``Images.pixels``.

    Masks are read by row groups, of which few are in memory; those of crowds and of the whole image are no targets.
    """
    if split not in SPLITS:
        raise UsageError(f"split is '{split}'.{did_you_mean(split, SPLITS)}")
    images = read_table(folder / "images.parquet", IMAGES, columns=["image_id", "split"])
    ids = [i for i, s in zip(images["image_id"].to_pylist(), images["split"].to_pylist(), strict=True) if s == split]
    return LazySource(ids, pixels, _MaskTable(folder / "masks.parquet"))


class _MaskTable:
    """Image id → (codes, which a person drew), from rows of schema ``MASKS`` whose image ids ascend."""

    COLUMNS = ("image_id", "rle", "height", "width", "area", "entry", "source")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: list[str] = []  # image id with which each row group begins
        for rows in row_groups([path], MASKS, ["image_id"]):
            self._first.append(rows["image_id"][0].as_py() if rows.num_rows else "")
        self._group = lru_cache(maxsize=4)(self._read)

    def _read(self, group: int) -> dict[str, np.ndarray]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._path) as file:
            rows = file.read_row_group(group, columns=list(self.COLUMNS))
        return {name: rows[name].to_numpy(zero_copy_only=False) for name in self.COLUMNS}

    def __call__(self, image_id: str) -> tuple[Sequence[bytes], np.ndarray]:
        group = bisect.bisect_right(self._first, image_id) - 1
        if group < 0:
            return [], np.zeros(0, bool)
        rows = self._group(group)
        start, stop = (int(np.searchsorted(rows["image_id"], image_id, side)) for side in ("left", "right"))  # type: ignore[call-overload]
        part = {name: values[start:stop] for name, values in rows.items()}
        targets = (part["area"] < part["height"].astype(np.int64) * part["width"]) & (part["source"] != CROWD)
        return part["rle"][targets].tolist(), part["entry"][targets] == HUMAN


def coco_source(annotations: Path, images: Path, split: str = "train") -> LazySource:
    """Of COCO json and the folder of its pictures. Splits are those that the file names ('split' of an image, as curated sets have it);
    a file that names none is divided by a hash of its file names, nine tenths for train."""
    masks = CocoMasks(annotations)
    if not masks.named:
        raise BadData(f"{annotations} names no image files, so its masks cannot be matched with pictures. Add 'images' with 'file_name'.")
    entries: list[dict[str, Any]] = json.loads(annotations.read_text(encoding="utf-8"))["images"]
    told = any(entry.get("split") for entry in entries)
    files = {}
    for entry in entries:
        name = Path(entry["file_name"])
        if (entry.get("split", "") if told else split_of(name.stem, 0, SHARES)) == split:
            files[name.stem] = _picture(images, name)

    def pixels(image_id: str) -> np.ndarray:
        return decode(files[image_id].read_bytes(), str(files[image_id]))

    def codes(image_id: str) -> tuple[Sequence[bytes], np.ndarray]:
        regions = masks.regions(image_id)
        all_codes = regions.rles()
        targets = [i for i, name in enumerate(regions.source) if name != CROWD and regions.area[i] > 0]
        return [all_codes[i] for i in targets], np.zeros(len(targets), bool)

    return LazySource(sorted(files), pixels, codes)


def _picture(folder: Path, name: Path) -> Path:
    """The file of a picture: by its whole name below the folder, else by its last part."""
    for path in (folder / name, folder / name.name):
        if path.is_file():
            return path
    raise BadData(f"{folder} has no picture '{name}'. Name the folder that holds the pictures of the COCO file.")
