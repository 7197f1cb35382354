"""Tiny pictures drawn in bulk: two plain rectangles side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from uss_dagster.datasets.base import DatasetSpec, Example
from uss_dagster.regions import ClassTree, Regions

SIDE = 16
CLASSES = ClassTree.from_nested({"thing": "foreground", "rest": "background"})


@dataclass(frozen=True)
class Params:
    """How many pictures.

    Parameters
    ----------
    images : int
        At most 16 million: more would repeat.
    """

    images: int = 100


SPEC = DatasetSpec("squares", "Squares drawn in bulk", Params, "classes", "MIT", "none", classes=CLASSES)


def examples(params: Params) -> Iterator[Example]:
    """Picture n has n in its colours, so that no two are equal files; where its rectangles meet follows from n too."""
    for number in range(params.images):
        left = np.array([number & 255, number >> 8 & 255, number >> 16 & 255], np.uint8)
        picture = np.where(on_the_left(4 + number % 9)[..., None], left, 255 - left)
        yield Example(f"square{number:08d}", b"P6 16 16 255 " + picture.tobytes(), ".ppm", "all", labelled(number % 5 - 2))


@cache
def on_the_left(column: int) -> np.ndarray:
    """Pixels left of a column."""
    return np.broadcast_to(np.arange(SIDE) < column, (SIDE, SIDE))


@cache
def labelled(shift: int) -> Regions:
    """The regions of the classes; they meet near the middle, not where the rectangles of the picture do."""
    return Regions.from_tree(np.where(on_the_left(SIDE // 2 + shift), 1, 2), CLASSES.parent, label=[0, 1, 2])
