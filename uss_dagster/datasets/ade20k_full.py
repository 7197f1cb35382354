"""ADE20K whole: 27,574 scenes in all their classes, with parts and parts of parts; scene → object → part → part of it.

The class tree is that of the release: a class is a path of names such as 'car / door / handle', and those of the images that are asked for
make the tree. An object class is a leaf where none of its objects has a part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Literal

import numpy as np

from uss_dagster.datasets.base import Example, LimitedParams, dataset_spec
from uss_dagster.datasets.formats.class_trees import Classes, Nested
from uss_dagster.datasets.formats.files import find, read_picture
from uss_dagster.datasets.formats.label_maps import Size, read_rgb_png, regions_of_nodes
from uss_dagster.datasets.formats.pairs import Pair, examples_with, pairs_beside
from uss_dagster.errors import BadData
from uss_dagster.regions import ClassTree, Regions

VOID = "void"
Names = tuple[str, ...]
Numbers = tuple[int, ...]
_Nested = dict[str, "_Nested"]


@dataclass(frozen=True)
class Params(LimitedParams):
    """Which images.

    Parameters
    ----------
    split : str
        Of the release: training or validation. Default: validation.
    limit : int, optional
        Only the first so many images by id. Default: None, all of them.
    """

    split: Literal["training", "validation"] = "validation"


SPEC = dataset_spec(__file__, Params)


def classes(params: Params) -> Classes:
    """The class tree of the images that these parameters ask for."""
    return tree_of(_pairs(params))


def examples(params: Params) -> Iterator[Example]:
    """Images of the split by ascending id, as released; truth is the tree of regions of objects, parts, and parts of parts."""
    pairs = _pairs(params)
    labelled = tree_of(pairs)

    def truth(pair: Pair, size: Size) -> Regions:
        return regions_of_nodes(nodes_of_maps(class_maps(pair.labels, size), labelled, f"ADE20K image {pair.image_id}"), labelled)

    return examples_with(truth, pairs, params.split, SPEC)


def tree_of(pairs: Iterable[Pair]) -> Classes:
    """The class tree of these images, classes in the order of their names; pixels of no class are void.

    Its labels are paths of official class numbers, from the whole to the part.
    """
    name_of: dict[Numbers, Names] = {}
    for pair in pairs:
        name_of |= paths_of(pair.picture.with_suffix(".json"))
    nested: _Nested = {}
    for names in sorted(set(name_of.values())):
        below = nested
        for depth in range(1, len(names) + 1):
            below = below.setdefault(" / ".join(names[:depth]), {})
    tree = ClassTree.from_nested({VOID: "ignore", **_with_leaves(nested)})
    place = {name: node for node, name in enumerate(tree.names)}
    return Classes(tree, {path: place[" / ".join(names)] for path, names in name_of.items()})


def paths_of(path: Path) -> dict[Numbers, Names]:
    """Path of official class numbers → path of names, of every object of one image, and of everything above it."""
    try:
        objects = {int(one["id"]): one for one in json.loads(_text(path))["annotation"]["object"]}
        paths: dict[Numbers, Names] = {}
        for number in objects:
            numbers: Numbers = ()
            names: Names = ()
            above, seen = number, set[int]()
            while above not in seen:
                seen.add(above)
                one = objects[above]
                numbers, names = (int(one["name_ndx"]), *numbers), (str(one["name"]), *names)
                whole = one["parts"]["ispartof"]
                above = above if whole == [] else int(whole)
            paths |= {numbers[:depth]: names[:depth] for depth in range(1, len(numbers) + 1)}
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} is no annotation of ADE20K ({type(error).__name__}: {error}). Extract the archive again.") from error
    return paths


def class_maps(path: Path, size: tuple[int, int]) -> list[np.ndarray]:
    """Int32 (H, W) each: class numbers of whole objects, then of parts, of parts of parts, … 0 for none. path: ``<id>_seg.png``."""
    stem = path.name.removesuffix("_seg.png")
    parts = takewhile(Path.is_file, (path.with_name(f"{stem}_parts_{level}.png") for level in count(1)))
    maps = []
    for file in (path, *parts):
        colours = read_rgb_png(file, size).astype(np.int32)
        maps.append(colours[..., 0] // 10 * 256 + colours[..., 1])  # blue is the instance
    return maps


def nodes_of_maps(maps: list[np.ndarray], labelled: Classes, what: str) -> np.ndarray:
    """Int32 (H, W): node of each pixel.

    A part that no object of its class is said to have in the annotations belongs to what it is drawn on. Whole objects of which the
    annotations know nothing are void; where they are most of an image, its files do not belong together.
    """
    values, rank = np.unique(maps[0], return_inverse=True)
    paths: list[Numbers] = [(number,) if number else () for number in values.tolist()]
    pixels = np.bincount(rank.ravel(), minlength=len(paths))
    strange = [place for place, path in enumerate(paths) if path and path not in labelled.node]
    if 2 * pixels[strange].sum() > pixels[values > 0].sum():
        raise BadData(f"{what} shows class {paths[strange[0]][0]}, of which its annotation knows nothing. Extract the archive again.")
    for numbers in maps[1:]:  # one level at a time: pixels of one path are one rank
        base = int(numbers.max()) + 1
        values, rank = np.unique(rank.reshape(numbers.shape) * base + numbers, return_inverse=True)
        longer = [(paths[value // base], value % base) for value in values.tolist()]
        paths = [(*path, number) if (*path, number) in labelled.node and path else path for path, number in longer]
    void = labelled.tree.names.index(VOID)
    return np.array([labelled.node.get(path, void) for path in paths], np.int32)[rank].reshape(maps[0].shape)


def _with_leaves(nested: _Nested) -> Nested:
    return {name: _with_leaves(below) if below else "foreground" for name, below in nested.items()}


def _text(path: Path) -> str:
    data = read_picture(path, SPEC)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # as some annotations of the release are


def _pairs(params: Params) -> list[Pair]:
    places = ("ADE20K_2021_17_01/images/ADE/", "images/ADE/", "")
    pictures = find(SPEC, [f"{place}{params.split}" for place in places])
    return pairs_beside(pictures, ".jpg", pictures, "_seg.png", SPEC)[: params.limit]
