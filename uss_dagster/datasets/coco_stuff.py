"""COCO-Stuff: every pixel of COCO 2017 is one of 91 things and 91 stuff classes, or of their 27 super-categories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.datasets import coco
from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.files import find, read_ids, read_picture
from uss_dagster.datasets.formats.label_maps import read_label_png, regions_of_label_map
from uss_dagster.errors import BadData
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND

FIRST_STUFF, UNLABELLED = 91, 255
SHORTEST_SIDE, STUFF_SHARE = 360, 0.75


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images and classes.

    Parameters
    ----------
    split : str
        val2017 or train2017. Default: val2017.
    labels : str
        '27' super-categories; '171' classes, those that occur; '182', all of the hierarchy; 'things' or 'stuff': the 182 with only the
        91 things, or only the 91 stuff classes, as foreground and the rest as background. Default: 27.
    subset : str
        'all', or 'curated': the images that unsupervised methods are compared on (2,175 of val2017), with no side shorter than 360 pixels
        and at least three quarters stuff [Ji et al., ICCV 2019]. Default: all.
    list_file : str, optional
        File of the curated images' ids, one a line. Default: None, they follow from the rule.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["val2017", "train2017"] = "val2017"
    labels: Literal["27", "171", "182", "things", "stuff"] = "27"
    subset: Literal["all", "curated"] = "all"
    list_file: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.list_file and self.subset == "all":
            raise ValueError("list_file is given, but subset is 'all'; set subset to 'curated' to use the list.")


SPEC = dataset_spec(__file__, Params, load_classes("coco_stuff_27").tree, archives=coco.IMAGE_ARCHIVES)


def class_set(params: Params) -> str:
    """The class set that these parameters ask for."""
    return f"coco_stuff_{params.labels}"


def classes(params: Params) -> Classes:
    """Its class tree."""
    if params.labels.isdecimal():
        return load_classes(class_set(params))
    every = load_classes("coco_stuff_182")
    tree = every.tree
    ground = tree.ancestors[tree.names.index("stuff" if params.labels == "things" else "things")]
    kind = tuple(BACKGROUND if k == FOREGROUND and ground[node] else k for node, k in enumerate(tree.kind))
    return replace(every, tree=replace(tree, kind=kind))


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of their classes, down to the chosen labels."""
    return islice(_examples(params), params.limit)


def _examples(params: Params) -> Iterator[Example]:
    split, labelled = params.split, classes(params)
    maps = find(SPEC, (f"stuffthingmaps/{split}", f"annotations/{split}", f"stuffthingmaps_trainval2017/{split}"))
    folder = coco.image_folder(split, SPEC)
    for image_id in _ids(params, maps):
        labels = read_label_png(maps / f"{image_id}.png")
        if params.subset == "all" or params.list_file is not None or is_curated(labels):
            truth = regions_of_label_map(labels, labelled, f"{SPEC.title} image {image_id}")
            yield Example(image_id, read_picture(folder / f"{image_id}.jpg", SPEC), ".jpg", split, truth)


def is_curated(labels: np.ndarray) -> bool:
    """Whether an image is compared on, by its label map (H, W): the rule by which the curated lists were made.

    Reference: Ji, Henriques, Vedaldi, "Invariant information clustering", ICCV 2019 (the released selection of COCO-164k).
    """
    stuff = np.count_nonzero((labels >= FIRST_STUFF) & (labels != UNLABELLED))
    return min(labels.shape) >= SHORTEST_SIDE and bool(stuff >= STUFF_SHARE * labels.size)


def _ids(params: Params, maps: Path) -> list[str]:
    if params.list_file is not None:
        if not Path(params.list_file).is_file():
            raise BadData(f"list_file {params.list_file} does not exist; give a file with one image id a line, or null for the rule.")
        return read_ids(Path(params.list_file))
    ids = sorted(path.stem for path in maps.glob("*.png") if path.stem.isdecimal())  # others are derived, such as *_labelTrainIds.png
    if not ids:
        raise BadData(f"{maps} holds no label maps (PNG). {SPEC.get_it}")
    return ids
