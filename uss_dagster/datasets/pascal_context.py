"""PASCAL Context: every pixel of the images of VOC 2010, by the 59 classes that are frequent; with all else as a class of its own, 60."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.files import find, read_ids
from uss_dagster.datasets.formats.label_maps import Size, check_size
from uss_dagster.datasets.formats.pairs import Pair, examples_of_pairs
from uss_dagster.errors import BadData
from uss_dagster.regions.classes import BACKGROUND, IGNORE

REST = 0
"""Label of what is none of the 59 classes."""


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images and classes.

    Parameters
    ----------
    split : str
        Of VOC 2010: train or val. Default: val.
    classes : int
        59: pixels of other classes are not counted. 60: together they are the class background. Default: 59.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["train", "val"] = "val"
    classes: Literal[59, 60] = 59


def classes(params: Params) -> Classes:
    """The class tree that these parameters ask for."""
    every = load_classes("pascal_context")
    if params.classes == 60:
        return every
    kind = tuple(IGNORE if kind == BACKGROUND else kind for kind in every.tree.kind)
    return replace(every, tree=replace(every.tree, kind=kind))


SPEC = dataset_spec(__file__, Params, classes(Params()).tree)


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of their classes."""
    annotations = find(SPEC, ("trainval", "trainval/trainval"))
    data = find(SPEC, [f"{place}JPEGImages" for place in ("VOCdevkit/VOC2010/", "VOC2010/", "")]).parent
    names = find(SPEC, ("labels.txt", "trainval/labels.txt"))
    ids = read_ids(find(SPEC, [f"{place}ImageSets/Main/{params.split}.txt" for place in ("VOCdevkit/VOC2010/", "VOC2010/", "")]))
    pairs = [Pair(image_id, data / "JPEGImages" / f"{image_id}.jpg", annotations / f"{image_id}.mat") for image_id in ids[: params.limit]]

    def read(path: Path, size: Size) -> np.ndarray:
        labels = read_label_map(path)
        check_size(path, labels.shape, size)
        table = frequent_labels(names)
        if int(labels.max(initial=0)) >= len(table):
            raise BadData(f"{path} has label {labels.max()}, {names} ends at {len(table) - 1}. Extract the archive again.")
        return table[labels]

    return examples_of_pairs(pairs, params.split, classes(params), SPEC, read)


def read_label_map(path: Path) -> np.ndarray:
    """Integer (H, W): the label of each pixel of one file of annotations."""
    from scipy.io import loadmat

    if not path.is_file():
        raise BadData(f"{path} is missing: an image of PASCAL Context has no annotation. {SPEC.get_it}")
    try:
        labels = np.asarray(loadmat(path)["LabelMap"])
    except Exception as error:  # scipy raises a different type for every way in which a .mat can be broken
        raise BadData(
            f"{path} is not an annotation of PASCAL Context ({type(error).__name__}: {error}). Extract the archive again."
        ) from error
    if labels.ndim != 2 or (labels < 0).any() or (labels != np.floor(labels)).any():
        raise BadData(f"{path}: its LabelMap is no map of labels (height, width). Extract the archive again.")
    return labels.astype(np.int64)


@cache
def frequent_labels(path: Path) -> np.ndarray:
    """Label of the class tree of each official label, int64; ``REST`` for those that are not among the 59.

    path: the list of official labels, a line ``number: name`` each, from 1.
    """
    tree, node = load_classes("pascal_context").tree, load_classes("pascal_context").node
    own = {tree.names[place]: label for label, place in node.items()}
    table = {0: REST}
    for line in path.read_text(encoding="utf-8").splitlines():
        number, _, name = line.partition(":")
        if line.strip():
            if not number.strip().isdecimal():
                raise BadData(f"{path}: a line is {line!r:.80}; a number, a colon and a name are expected. {SPEC.get_it}")
            table[int(number)] = own.get(name.replace(" ", ""), REST)
    lacking = sorted(set(own) - {tree.names[node[label]] for label in table.values()})
    if lacking:
        raise BadData(
            f"{path} lists no class {', '.join(lacking[:5])}. Is it the list of all labels, and not that of 33 or 59? {SPEC.get_it}"
        )
    result = np.full(max(table) + 1, REST, np.int64)
    result[list(table)] = list(table.values())
    return result
