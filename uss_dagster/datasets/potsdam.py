"""ISPRS Potsdam: 38 aerial photographs of 6000×6000 pixels (5 cm each), cut into tiles; 6 classes, or 3 coarse ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.artifacts.image_files import decode, encode_png
from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, load_classes
from uss_dagster.datasets.formats.files import find, read_picture
from uss_dagster.datasets.formats.label_maps import check_size, regions_of_label_map
from uss_dagster.datasets.formats.pairs import Pair
from uss_dagster.errors import BadData

COLOURS = ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0))
"""Colour of each label id of potsdam_6.yaml: impervious surfaces, building, low vegetation, tree, car, clutter, border."""
TOLERANCE = 32
"""Some published label images have colours that are a little off; what is farther than this from an official one is an error."""
TRAINING = frozenset(f"{row}_{column}" for row in "2345" for column in (10, 11, 12)) | frozenset(
    f"{row}_{column}" for row in "67" for column in range(7, 13)
)
"""The 24 photographs whose labels were given to participants; the other 14 are the test set, whose labels are public now."""

TILE = 400
BAND = 500
"""Rows of a label image that are looked at together, so that no more than the image itself is held."""


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which tiles and classes.

    Parameters
    ----------
    split : str
        As in the contest: train or test. Default: test.
    classes : int
        6, or the 3 of Ji et al. (ICCV 2019). Default: 6.
    tile : int
        Side of the square tiles in pixels, from the upper left corner, at least 16. What is left at the right and lower edges makes smaller
        tiles, so every pixel is in one tile. Default: 400, which gives 15 × 15 a photograph.
    labels : str
        'all': as drawn. 'all_noBoundary': with class borders eroded, as the contest evaluates. Default: all.
    limit : int, optional
        Only the first so many tiles by id. Default: None, all of them.
    """

    split: Literal["train", "test"] = "test"
    classes: Literal[3, 6] = 6
    tile: int = TILE
    labels: Literal["all", "all_noBoundary"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile < 16:
            raise ValueError(f"tile is {self.tile}, expected a side of at least 16 pixels.")


SPEC = dataset_spec(__file__, Params, load_classes("potsdam_6").tree)


def class_set(params: Params) -> str:
    """The class set that these parameters ask for."""
    return f"potsdam_{params.classes}"


def classes(params: Params) -> Classes:
    """Its class tree."""
    return load_classes(class_set(params))


def examples(params: Params) -> Iterator[Example]:
    """Tiles by ascending id (<photograph>_<top>_<left>), as PNG; truth is the tree of regions of their classes."""
    return islice(_tiles(params), params.limit)


def _tiles(params: Params) -> Iterator[Example]:
    for photograph in photographs(params):
        labels = labels_of_colours(photograph.labels)  # first: its colours are let go before the photograph is read
        image = decode(read_picture(photograph.picture, SPEC), str(photograph.picture))
        check_size(photograph.labels, labels.shape, image.shape[:2])
        for top in range(0, image.shape[0], params.tile):
            for left in range(0, image.shape[1], params.tile):
                cut = (slice(top, top + params.tile), slice(left, left + params.tile))
                image_id = f"{photograph.image_id}_{top:05d}_{left:05d}"
                truth = regions_of_label_map(labels[cut], classes(params), f"Potsdam tile {image_id}")
                yield Example(image_id, encode_png(np.ascontiguousarray(image[cut])), ".png", _split(params), truth)


def _split(params: Params) -> str:
    """The split's name; tiles of another size than the usual are another split, of which no number of tiles is official."""
    return params.split if params.tile == TILE else f"{params.split}_{params.tile}"


def photographs(params: Params) -> list[Pair]:
    """The photographs of the split that are there, by ascending id (<row>_<column>), with their label images."""
    places = ("2_Ortho_RGB", "2_Ortho_RGB/2_Ortho_RGB", "Potsdam/2_Ortho_RGB", ".")
    pictures, root = find(SPEC, places), find(SPEC, ".")
    suffix = "_noBoundary" if params.labels == "all_noBoundary" else ""
    folder = f"5_Labels_{params.labels}"
    places = (folder, f"{folder}/{folder}", f"Potsdam/{folder}", ".")
    pairs = []
    for path in sorted(pictures.glob("top_potsdam_*_RGB.tif")):
        image_id = path.name.removeprefix("top_potsdam_").removesuffix("_RGB.tif")
        if (image_id in TRAINING) == (params.split == "train"):
            name = f"top_potsdam_{image_id}_label{suffix}.tif"
            labels = next((root / place / name for place in places if (root / place / name).is_file()), None)
            if labels is None:
                raise BadData(f"Potsdam photograph {image_id} has no label image {name} in {root / folder}. {SPEC.get_it}")
            pairs.append(Pair(image_id, path, labels))
    if not pairs:
        raise BadData(f"{pictures} holds no top_potsdam_<row>_<column>_RGB.tif of split '{params.split}'. {SPEC.get_it}")
    return sorted(pairs)


def labels_of_colours(path: Path) -> np.ndarray:
    """uint8 (H, W): label ids of an image of colours."""
    colours = decode(read_picture(path, SPEC), str(path))
    table = np.full(8, 255, np.uint8)
    for label, colour in enumerate(COLOURS):
        table[_bits(np.array(colour))] = label
    labels = np.empty(colours.shape[:2], np.uint8)
    for top in range(0, len(colours), BAND):
        band = colours[top : top + BAND]
        labels[top : top + BAND] = table[_bits(band)]
        off = (np.minimum(band, 255 - band).max(axis=2) > TOLERANCE) | (labels[top : top + BAND] == 255)
        if off.any():
            row, column = np.argwhere(off)[0].tolist()
            raise BadData(
                f"{path} is coloured {tuple(band[row, column].tolist())} at row {top + row}, column {column}, which is no class of Potsdam. "
                "Use the label images of the release as they are, not a scaled or lossy copy."
            )
    return labels


def _bits(colours: np.ndarray) -> np.ndarray:
    """0..7: which of red (4), green (2) and blue (1) are bright."""
    return ((colours > 127) @ np.array([4, 2, 1], np.uint8)).astype(np.uint8)
