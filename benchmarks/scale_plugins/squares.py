"""Tiny pictures drawn in bulk: four plain rectangles that meet in one point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from uss_dagster.artifacts.image_files import encode_png
from uss_dagster.datasets.base import DatasetSpec, Example
from uss_dagster.regions import ClassTree, Regions

SIDE = 16
CLASSES = ClassTree.from_nested(
    {"thing": {"upper": {"one": "foreground", "two": "foreground"}, "three": "foreground"}, "rest": "background"}
)
LEAVES = np.array([CLASSES.names.index(name) for name in ("one", "two", "three", "rest")])


@dataclass(frozen=True)
class Params:
    """How many pictures.

    Parameters
    ----------
    images : int
        At most 4 million: more would repeat.
    """

    images: int = 100


SPEC = DatasetSpec("squares", "Squares drawn in bulk", Params, "classes", "MIT", "none", classes=CLASSES)


def examples(params: Params) -> Iterator[Example]:
    """Picture n has n in its colours, so that no two are equal files; where its rectangles meet follows from n too."""
    for number in range(params.images):
        colours = np.array([[corner << 6 | number >> 16, number >> 8 & 255, number & 255] for corner in range(4)], np.uint8)
        picture = colours[quarters(4 + number % 9, 4 + number // 9 % 9)]
        yield Example(f"square{number:08d}", encode_png(picture), ".png", "all", labelled(number % 5 - 2))


@cache
def quarters(row: int, column: int) -> np.ndarray:
    """Number of the rectangle at each pixel."""
    return 2 * (np.arange(SIDE) >= row)[:, None] + (np.arange(SIDE) >= column)


@cache
def labelled(shift: int) -> Regions:
    """The regions of the classes; they meet near the middle, not where the rectangles of the picture do."""
    leaf_map = LEAVES[quarters(SIDE // 2 + shift, SIDE // 2)]
    return Regions.from_tree(leaf_map, CLASSES.parent, label=list(range(len(CLASSES))))
