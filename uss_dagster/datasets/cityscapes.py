"""Cityscapes: street scenes of 50 cities, 2048×1024 pixels; 19 classes of its evaluation, or the 27 of unsupervised protocols, in 7 groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.files import find
from uss_dagster.datasets.formats.label_maps import read_label_png
from uss_dagster.datasets.formats.pairs import examples_of_pairs, pairs_beside
from uss_dagster.errors import BadData

LABEL_OF_TRAIN_ID = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
UNLABELED, NO_TRAIN_ID = 0, 255


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images and labels.

    Parameters
    ----------
    split : str
        One with public labels: train or val. Default: val.
    classes : int
        19 as in its evaluation, or 27. Default: 19.
    files : str
        Which label maps are read: 'labelIds' of the release, or 'labelTrainIds', which the Cityscapes scripts make of them (19 classes
        only). Default: labelIds.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["train", "val"] = "val"
    classes: Literal[19, 27] = 19
    files: Literal["labelIds", "labelTrainIds"] = "labelIds"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.classes == 27 and self.files == "labelTrainIds":
            raise ValueError("classes is 27, but train ids know 19 classes only. Set files to labelIds.")


SPEC = dataset_spec(__file__, Params, load_classes("cityscapes_19").tree)


def class_set(params: Params) -> str:
    """The class set that these parameters ask for."""
    return f"cityscapes_{params.classes}"


def classes(params: Params) -> Classes:
    """Its class tree."""
    return load_classes(class_set(params))


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id (<city>_<sequence>_<frame>), as released; truth is the tree of regions of groups and classes."""
    pictures = find(SPEC, [f"{place}leftImg8bit/{params.split}" for place in ("", "leftImg8bit_trainvaltest/")])
    labels = find(SPEC, [f"{place}gtFine/{params.split}" for place in ("", "gtFine_trainvaltest/")])
    pairs = pairs_beside(pictures, "_leftImg8bit.png", labels, f"_gtFine_{params.files}.png", SPEC)
    read = read_train_ids if params.files == "labelTrainIds" else read_label_png
    return examples_of_pairs(pairs[: params.limit], params.split, classes(params), SPEC, read)


def read_train_ids(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The label ids of a map of train ids: uint8 (H, W)."""
    table = np.full(256, NO_TRAIN_ID, np.uint8)
    table[: len(LABEL_OF_TRAIN_ID)] = LABEL_OF_TRAIN_ID
    table[NO_TRAIN_ID] = UNLABELED
    labels = read_label_png(path, size)
    if labels.dtype != np.uint8 or (table[labels] == NO_TRAIN_ID).any():
        raise BadData(
            f"{path} has a label of {labels.max()}, but train ids are 0 to 18, and 255. Make it again with the Cityscapes scripts."
        )
    return table[labels]
