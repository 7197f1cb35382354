"""The regions of one image as the rows of a file: in any order, with parents by id, and with what other programs leave out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from uss_dagster.artifacts.mask_base import Shape
from uss_dagster.errors import BadData
from uss_dagster.formats.base import MaskedImage
from uss_dagster.regions import rle
from uss_dagster.regions.coco import Segmentation, code_of
from uss_dagster.regions.coded import CodedRegions
from uss_dagster.regions.regions import Columns

Fields = dict[str, object]
"""An object in a file: nothing is known of its values before they are checked."""
MOST_NUMBER = 2**31 - 1


@dataclass(frozen=True)
class Row:
    """One region of an image in a file.

    Parameters
    ----------
    code : bytes
        COCO run-length code, see ``regions.rle``.
    key : str
        Its id in the file; empty for none.
    above : str
        The id of its parent; empty for none.
    label, score, level, quality, source
        As in ``Regions`` and ``MaskedImage``.
    area : int
        Pixels; of rows that are written only.
    box : tuple of int
        x, y, width, height; of rows that are written only.
    """

    code: bytes
    key: str = ""
    above: str = ""
    label: int = -1
    score: float = 1.0
    level: float = math.nan
    quality: float = math.nan
    source: str = ""
    area: int = 0
    box: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def attributes(self) -> dict[str, float | str]:
        """Level, quality and source where they are known, under the names that every format uses for them."""
        known: dict[str, float | str] = {
            name: exact(value) for name, value in (("level", self.level), ("quality", self.quality)) if math.isfinite(value)
        }
        return known | ({"source": self.source} if self.source else {})


def rows_of(image: MaskedImage, first: int = 1) -> Iterator[Row]:
    """The regions of an image in order; their ids count from ``first``."""
    regions = image.regions
    boxes, areas = regions.boxes.tolist(), regions.area.tolist()
    for i, code in enumerate(regions.rles()):
        parent = int(regions.parent[i])
        yield Row(
            code,
            key=str(first + i),
            above=str(first + parent) if parent >= 0 else "",
            label=int(regions.label[i]),
            score=float(regions.score[i]),
            level=float(regions.level[i]),
            quality=float(image.quality[i]),
            source=regions.source[i],
            area=areas[i],
            box=(boxes[i][0], boxes[i][1], boxes[i][2], boxes[i][3]),
        )


def masked_image(
    rows: Sequence[Row], shape: Shape, file_name: str, image_id: str, split: str, where: str, complaints: list[str]
) -> MaskedImage:
    """The rows of one image, parents before their children, as regions. where: names the image in errors and complaints."""
    ordered, parent = parents_first(rows, where, complaints)
    columns: Columns = {
        "level": [row.level for row in ordered],
        "score": [row.score for row in ordered],
        "label": [row.label for row in ordered],
        "source": [row.source for row in ordered],
    }
    regions = CodedRegions([row.code for row in ordered], shape, parent, **columns)
    return MaskedImage(image_id, file_name, regions, np.array([row.quality for row in ordered], np.float32), split)


def parents_first(rows: Sequence[Row], where: str, complaints: list[str]) -> tuple[list[Row], list[int]]:
    """The rows with parents before their children, otherwise in the order given, and the place of each parent, -1 for none.

    People delete and copy regions in the programs that wrote the file: what then does not fit is said in complaints.
    """
    place: dict[str, int] = {}
    for i, row in enumerate(rows):
        if row.key and place.setdefault(row.key, i) != i:
            complaints.append(f"{where}: several regions have the id '{row.key}'; children of it are put below the first.")
    above = [-1] * len(rows)
    for i, row in enumerate(rows):
        if row.above in place:
            above[i] = place[row.above]
        elif row.above:
            complaints.append(f"{where}: the parent '{row.above}' of region '{row.key}' is not there; the region is put below none.")
    rank: dict[int, int] = {}
    for first in range(len(rows)):
        line: dict[int, None] = {}
        current = first
        while current >= 0 and current not in rank:
            if current in line:
                raise BadData(f"{where}: region '{rows[current].key}' lies below itself.")
            line[current] = None
            current = above[current]
        for index in reversed(line):
            rank[index] = len(rank)
    return [rows[i] for i in rank], [rank[above[i]] if above[i] >= 0 else -1 for i in rank]


def checked_code(segmentation: Any, shape: Shape, what: str) -> bytes:
    """The run-length code of a segmentation of a file, in any of COCO's forms: it covers the image. what: names the region in errors."""
    if not isinstance(segmentation, dict | list) or not segmentation:
        raise BadData(f"{what}: its segmentation is {segmentation!r:.80}; polygons or a run-length code are expected.")
    if isinstance(segmentation, dict) and not {"size", "counts"} <= segmentation.keys():
        raise BadData(f"{what}: its run-length code has no 'size' or no 'counts'.")
    try:
        code = code_of(cast(Segmentation, segmentation), *shape, what)
        length = rle.code_length(code)
    except (ValueError, TypeError, OverflowError) as error:
        raise BadData(f"{what}: its segmentation cannot be read ({error}).") from None
    if length != shape[0] * shape[1]:
        raise BadData(f"{what}: its run-length code covers {length} pixels, its image has {shape[0]}×{shape[1]} (height×width).")
    return code


def exact(value: float) -> float:
    """A number of single precision in its shortest decimal form, which reads back as the same."""
    return float(str(np.float32(value)))


def number_of(value: Any, what: str, missing: float = math.nan) -> float:
    """A finite number from a file, which may be text. missing: what stands for none."""
    if value is None or value == "":
        return missing
    try:
        result = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise BadData(f"{what} is {value!r:.80}; a number is expected.")
    return result


def whole_number_of(value: Any, what: str, missing: int = -1) -> int:
    """A whole number of at most 31 bits from a file, which may be text. missing: what stands for none."""
    result = number_of(value, what, missing)
    if result != int(result) or abs(result) > MOST_NUMBER:
        raise BadData(f"{what} is {value!r:.80}; a whole number up to {MOST_NUMBER} is expected.")
    return int(result)


def text_of(value: Any) -> str:
    """Text from a file; empty for none."""
    return "" if value is None else str(value)


def object_of(value: Any, what: str) -> Fields:
    """A JSON object."""
    if not isinstance(value, dict):
        raise BadData(f"{what} is {value!r:.80}; an object is expected.")
    return value


def list_of(value: Any, what: str) -> list[Any]:
    """A JSON list."""
    if not isinstance(value, list):
        raise BadData(f"{what} is {value!r:.80}; a list is expected.")
    return value


class Names:
    """Ids of images that were read from a file; two images of one id are refused."""

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, dict[str, str]()

    def add(self, image_id: str, file_name: str) -> str:
        """The id."""
        if self._files.setdefault(image_id, file_name) != file_name or not image_id:
            raise BadData(
                f"{self._path}: '{self._files[image_id]}' and '{file_name}' are both image '{image_id}'. "
                "Images go by file name without folder and ending. Rename one."
            )
        return image_id
