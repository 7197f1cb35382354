"""KITTI-STEP: driving sequences of KITTI tracking, every frame labelled with the 19 classes of Cityscapes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.datasets.formats.files import find
from uss_dagster.datasets.formats.label_maps import read_rgb_png
from uss_dagster.datasets.formats.pairs import Pair, examples_of_pairs
from uss_dagster.errors import BadData


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which frames.

    Parameters
    ----------
    split : str
        train (12 sequences) or val (9). Default: val.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["train", "val"] = "val"


CLASSES = load_classes("kitti_step")

SPEC = dataset_spec(__file__, Params, CLASSES.tree)


def examples(params: Params) -> Iterator[Example]:
    """Frames with a panoptic map, by ascending id (<sequence>_<frame>), as released; truth is the tree of regions of groups and classes."""
    maps = find(SPEC, [f"{place}panoptic_maps/{params.split}" for place in ("", "kitti-step/")])
    pictures = find(SPEC, (f"images/{params.split}", "training/image_02", "data_tracking_image_2/training/image_02"))
    pairs = [
        Pair(f"{path.parent.name}_{path.stem}", pictures / path.parent.name / path.name, path)
        for path in sorted(maps.glob("[0-9]*/[0-9]*.png"))
    ]
    if not pairs:
        raise BadData(f"{maps} holds no <sequence>/<frame>.png. {SPEC.get_it}")
    # Red is the class; green and blue are the instance, which stays unread.
    return examples_of_pairs(pairs[: params.limit], params.split, CLASSES, SPEC, lambda path, size: read_rgb_png(path, size)[..., 0])
