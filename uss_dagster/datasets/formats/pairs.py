"""Pictures that each have a file of labels beside them, the form of nearly all datasets of scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from uss_dagster.datasets.base import DatasetSpec, Example
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.datasets.formats.files import read_picture
from uss_dagster.datasets.formats.label_maps import Size, read_label_png, regions_of_label_map, size_of
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions


@dataclass(frozen=True, order=True)
class Pair:
    """One picture and its file of labels."""

    image_id: str
    picture: Path
    labels: Path


def pairs_beside(pictures: Path, picture_end: str, labels: Path, labels_end: str, spec: DatasetSpec) -> list[Pair]:
    """Pair pictures with label files of the same stem.

    Parameters
    ----------
    pictures : Path
        Folder; files ``<stem><picture_end>`` in it and below it count. The stem is the image's id.
    picture_end : str
        Such as '.jpg' or '_leftImg8bit.png'.
    labels : Path
        Folder with a file ``<stem><labels_end>`` at the same place below it; whether it exists is not looked at.
    labels_end : str
        Such as '.png'.
    spec : DatasetSpec
        The dataset, for errors.

    Returns
    -------
    list of Pair
        By ascending id.

    Raises
    ------
    BadData
        There is no picture, or two have one stem.
    """
    paths = [path for path in pictures.rglob(f"*{picture_end}") if not path.name.startswith(".")]
    if not paths:
        raise BadData(f"{pictures} holds no file *{picture_end}. {spec.get_it}")
    pairs: dict[str, Pair] = {}
    for path in sorted(paths):
        stem = path.name.removesuffix(picture_end)
        if stem in pairs:
            raise BadData(f"Image '{stem}' is there twice, as {pairs[stem].picture} and {path}. Remove one of them.")
        pairs[stem] = Pair(stem, path, labels / path.parent.relative_to(pictures) / f"{stem}{labels_end}")
    return sorted(pairs.values())


def examples_with(truth: Callable[[Pair, Size], Regions], pairs: Iterable[Pair], split: str, spec: DatasetSpec) -> Iterator[Example]:
    """Pictures as released, each with what ``truth`` makes of its pair and its size (height, width)."""
    for pair in pairs:
        picture = read_picture(pair.picture, spec)
        yield Example(pair.image_id, picture, pair.picture.suffix, split, truth(pair, size_of(picture, str(pair.picture))))


def examples_of_pairs(
    pairs: Iterable[Pair],
    split: str,
    classes: Classes,
    spec: DatasetSpec,
    read: Callable[[Path, Size], np.ndarray] = read_label_png,
) -> Iterator[Example]:
    """Pictures as released, each with the tree of regions of its label map.

    Parameters
    ----------
    pairs : iterable of Pair
        The images, by ascending id.
    split : str
        Name of the split.
    classes : Classes
        What the labels mean.
    spec : DatasetSpec
        The dataset, for errors.
    read : callable
        (path, (height, width) of the picture) → label map, integer (H, W). Default: a PNG with a palette or of grey.
    """

    def truth(pair: Pair, size: Size) -> Regions:
        return regions_of_label_map(read(pair.labels, size), classes, f"{spec.title} image {pair.image_id}")

    return examples_with(truth, pairs, split, spec)
