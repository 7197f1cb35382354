"""Drawn scenes: the embedded dataset, with a known hierarchy scene → object → part, and no download.

Every picture is composed from textured, lit objects that hide each other and cast shadows, then passed through the
blur, noise and compression of a small camera. Its ground truth is the drawing's own label map. Picture i depends on
the seed and on i alone, so the first 32 of 64 pictures are the 32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from uss_dagster.datasets.base import Example, dataset_spec
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.scenes.views import draw


@dataclass(frozen=True)
class Params:
    """Which pictures.

    Parameters
    ----------
    images : int
        How many, at least 1. Default: 32.
    seed : int
        Of the series whose first pictures they are, 0 or more. Default: 0.
    """

    images: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images is {self.images}, expected at least 1.")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}, expected 0 or more.")


CLASSES = load_classes("scenes").tree
SPEC = dataset_spec(__file__, Params, CLASSES)


def examples(params: Params) -> Iterator[Example]:
    """Pictures ``scene00000``, ``scene00001``, … as JPEG, each with its tree of regions."""
    for number in range(params.images):
        canvas = draw(params.seed, number)
        yield Example(f"scene{number:05d}", canvas.photograph(), ".jpg", "all", canvas.truth(CLASSES))
