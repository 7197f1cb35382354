"""DUTS: salient objects in images of ImageNet and SUN, one mask an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.figures import FIGURES, examples_of_figures
from uss_dagster.datasets.formats.files import find
from uss_dagster.datasets.formats.pairs import Pair, pairs_beside


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    split : str
        train (DUTS-TR) or test (DUTS-TE). Default: test.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["train", "test"] = "test"


SPEC = dataset_spec(__file__, Params, FIGURES.tree)


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is their object and background."""
    name = {"train": "DUTS-TR", "test": "DUTS-TE"}[params.split]
    pictures = find(SPEC, [f"{folder}{name}-Image" for folder in (f"{name}/", "")])
    pairs = pairs_beside(pictures, ".jpg", pictures.parent / f"{name}-Mask", ".png", SPEC)[: params.limit]
    return examples_of_figures(map(_corrected, pairs) if params.split == "train" else pairs, params.split, SPEC)


def _corrected(pair: Pair) -> Pair:
    """Three masks of DUTS-TR exist as .png and as .jpg; the authors ask to use the .jpg."""
    other = pair.labels.with_suffix(".jpg")
    return replace(pair, labels=other) if other.exists() else pair
