"""ADE20K SceneParse150: scenes of all kinds in 150 classes, without parts. For objects with their parts see ade20k_full."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.datasets.formats.files import find
from uss_dagster.datasets.formats.pairs import examples_of_pairs, pairs_beside


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    split : str
        Of the Scene Parsing benchmark: training or validation. Default: validation.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["training", "validation"] = "validation"


CLASSES = load_classes("ade20k")

SPEC = dataset_spec(__file__, Params, CLASSES.tree)


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of their classes."""
    pictures = find(SPEC, [f"{place}images/{params.split}" for place in ("ADEChallengeData2016/", "")])
    labels = pictures.parent.parent / "annotations" / params.split
    pairs = pairs_beside(pictures, ".jpg", labels, ".png", SPEC)
    return examples_of_pairs(pairs[: params.limit], params.split, CLASSES, SPEC)
