"""Pictures with one mask each that tells an object from its background, the form of datasets of saliency."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np

from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets.base import DatasetSpec, Example
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.files import read_picture
from uss_dagster.datasets.formats.label_maps import Size, check_size
from uss_dagster.datasets.formats.pairs import Pair, examples_of_pairs
from uss_dagster.regions import ClassTree

FIGURES = Classes(ClassTree.from_nested({"background": "background", "object": "foreground"}), MappingProxyType({0: 1, 1: 2}))
"""The classes of a mask: 0 is the background, 1 the object."""
HALF = 128


def examples_of_figures(pairs: Iterable[Pair], split: str, spec: DatasetSpec) -> Iterator[Example]:
    """Pictures as released, each with its object and its background; an image may lack one of them."""

    def read(path: Path, size: Size) -> np.ndarray:
        mask = decode(read_picture(path, spec), str(path))
        check_size(path, mask.shape[:2], size)
        return (mask.max(axis=2) >= HALF).astype(np.uint8)  # borders are smoothed, and some masks are JPEG

    return examples_of_pairs(pairs, split, FIGURES, spec, read)
