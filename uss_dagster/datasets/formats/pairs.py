"""Pictures that each have a file of labels beside them: the form of nearly all datasets of scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets.base import Example
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.files import read_picture
from uss_dagster.datasets.formats.label_maps import read_label_png, regions_of_label_map, size_of
from uss_dagster.errors import BadData

_PNG_RGB8 = (8, 2)  # bit depth and colour type


@dataclass(frozen=True, order=True)
class Pair:
    """One picture and its file of labels."""

    image_id: str
    picture: Path
    labels: Path


def pairs_beside(pictures: Path, picture_end: str, labels: Path, labels_end: str, get_it: str) -> list[Pair]:
    """One pair for each file ``<stem><picture_end>`` in or below ``pictures``, its labels being ``<stem><labels_end>`` at the same place below
    ``labels``; by ascending stem, which is the image's id."""
    paths = [path for path in pictures.rglob(f"*{picture_end}") if not path.name.startswith(".")]
    if not paths:
        raise BadData(f"{pictures} holds no file *{picture_end}. {get_it}")
    found: dict[str, Pair] = {}
    for path in sorted(paths):
        stem = path.name.removesuffix(picture_end)
        if stem in found:
            raise BadData(f"Image '{stem}' is there twice, as {found[stem].picture} and {path}. Remove one of them.")
        found[stem] = Pair(stem, path, labels / path.parent.relative_to(pictures) / f"{stem}{labels_end}")
    return sorted(found.values())


def examples_of_pairs(
    pairs: Iterable[Pair],
    split: str,
    classes: Classes,
    title: str,
    get_it: str,
    read: Callable[[Path, tuple[int, int]], np.ndarray] = read_label_png,
) -> Iterator[Example]:
    """Pictures as released, with the tree of regions of their label maps. read: (path, (height, width) of the picture) → label map."""
    for pair in pairs:
        picture = read_picture(pair.picture, get_it)
        labels = read(pair.labels, size_of(picture, str(pair.picture)))
        truth = regions_of_label_map(labels, classes, f"{title} image {pair.image_id}")
        yield Example(pair.image_id, picture, pair.picture.suffix, split, truth)


def read_rgb_png(path: Path, size: tuple[int, int]) -> np.ndarray:
    """uint8 (H, W, 3): a PNG file whose colours are numbers, not a picture. size: (height, width) of its picture, to be held against."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadData(f"{path} is missing: an image has no labels. Extract the annotations again.") from None
    if data[12:16] != b"IHDR" or tuple(data[24:26]) != _PNG_RGB8:
        raise BadData(f"{path} is not a PNG file of 8-bit RGB, in which these labels are written. Extract the annotations again.")
    numbers = decode(data, str(path))
    check_size(path, numbers.shape[:2], size)
    return numbers


def check_size(path: Path, found: tuple[int, ...], size: tuple[int, int]) -> None:
    """Refuse labels of another size than their picture; both (height, width)."""
    if found != size:
        raise BadData(
            f"{path} is {found[0]}×{found[1]}, its image {size[0]}×{size[1]} (height×width). Check that image and labels are of one release."
        )
