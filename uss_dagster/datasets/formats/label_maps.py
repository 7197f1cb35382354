"""Label maps, the commonest form of ground truth: reading them from PNG files, and the nested regions that they mean."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from uss_dagster.artifacts.image_files import PNG, decode, open_picture, upright_size
from uss_dagster.datasets.formats.class_trees import Classes
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions
from uss_dagster.text import few

Size = tuple[int, int]
"""(height, width) in pixels."""
_GREY, _RGB, _PALETTE = 0, 2, 3
"""Colour types of PNG."""
_LARGEST_TABLE = 1 << 20
"""Labels below this are looked up in a table; greater ones (such as colours read as numbers) are sorted first."""


def regions_of_label_map(labels: np.ndarray, classes: Classes, what: str) -> Regions:
    """The tree of regions of one label map: the whole image, and below it every class with a pixel and all classes above those.

    Ignore classes are regions too: metrics leave their pixels out. An inner class with one child present has the same pixels as the
    child, as in the class tree.

    Parameters
    ----------
    labels : ndarray
        Integer (H, W), official label ids.
    classes : Classes
        What the ids mean.
    what : str
        Names the image in an error.

    Returns
    -------
    Regions
        In the order of the class tree, labelled with its nodes.

    Raises
    ------
    BadData
        A label is not one of the dataset's.
    """
    nodes = nodes_of_label_map(labels, classes, what)
    used = np.bincount(nodes.ravel(), minlength=len(classes.tree)) > 0
    return regions_of_nodes(nodes, classes, used)


def nodes_of_label_map(labels: np.ndarray, classes: Classes, what: str) -> np.ndarray:
    """Int32 (H, W): node of the class tree of each official label id; ids that the tree does not know are refused."""
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise BadData(f"{what}: a label map is an integer array (height, width), got {labels.dtype} {labels.shape}.")
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= _LARGEST_TABLE):
        values, place = np.unique(labels, return_inverse=True)
    else:
        values, place = np.arange(int(labels.max(initial=0)) + 1), labels
    node = np.array([classes.node.get(value, -1) for value in values.tolist()], np.int32)
    nodes = node[place].reshape(labels.shape)
    if nodes.size and int(nodes.min()) < 0:
        strangers = np.unique(labels[nodes < 0]).tolist()
        raise BadData(
            f"{what} has labels that its dataset does not know: {few(strangers, 8)}. "
            "Check that the annotations are of this dataset and this set of labels."
        )
    return nodes


def regions_of_nodes(nodes: np.ndarray, classes: Classes, used: np.ndarray | None = None) -> Regions:
    """The tree of regions of a map of class-tree nodes; an inner class may own pixels.

    Parameters
    ----------
    nodes : ndarray
        Integer (H, W), 0 for no class.
    classes : Classes
        The class tree of n nodes.
    used : ndarray, optional
        Bool (n,), the nodes that occur. Default: counted here.
    """
    tree = classes.tree
    if used is None:
        used = np.bincount(nodes.ravel(), minlength=len(tree)) > 0
    present = tree.ancestors @ used
    present[0] = True
    regions = np.flatnonzero(present)
    rank = np.cumsum(present, dtype=np.int32) - 1
    parent = rank[np.asarray(tree.parent)[regions]]
    parent[0] = -1
    return Regions.from_tree(rank[nodes], parent, label=regions)


def read_label_png(path: Path, size: Size | None = None) -> np.ndarray:
    """uint8 or uint16 (H, W): the label map of one PNG file. size: of its picture; another one is refused."""
    labels = decode_label_png(_label_bytes(path), str(path))
    if size is not None:
        check_size(path, labels.shape, size)
    return labels


def read_rgb_png(path: Path, size: Size) -> np.ndarray:
    """uint8 (H, W, 3): a PNG file of 8-bit RGB whose colours are numbers. size: of its picture; another one is refused."""
    numbers = decode_rgb_png(_label_bytes(path), path)
    check_size(path, numbers.shape[:2], size)
    return numbers


def decode_rgb_png(data: bytes, path: Path) -> np.ndarray:
    """uint8 (H, W, 3) of an encoded PNG file of 8-bit RGB; any other is refused."""
    if data[12:16] != b"IHDR" or tuple(data[24:26]) != (8, _RGB):
        raise BadData(f"{path} is not a PNG file of 8-bit RGB, in which these labels are written. Extract the annotations again.")
    return decode(data, str(path))


def check_size(path: Path, shape: tuple[int, ...], size: Size) -> None:
    """Refuse labels of another size than their picture; both (height, width)."""
    if shape != size:
        raise BadData(
            f"{path} is {shape[0]}×{shape[1]}, its image {size[0]}×{size[1]} (height×width). Check that image and labels are of one release."
        )


def _label_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BadData(f"{path} is missing: an image has no label map. Extract the annotations again.") from None


def decode_label_png(data: bytes, name: str) -> np.ndarray:
    """uint8 or uint16 (H, W) of an encoded label map: a PNG with a palette, or grey of 8 or 16 bits.

    Anything else is refused: its pixels would not be the labels as they were written.
    """
    if not data.startswith(PNG) or data[12:16] != b"IHDR" or len(data) < 33:
        raise BadData(f"{name} is not a PNG file; a label map was expected. Extract the annotations again.")
    depth, colour = data[24], data[25]
    if colour != _PALETTE and (colour != _GREY or depth not in (8, 16)):
        form = {_GREY: "grey", _RGB: "RGB", 4: "grey with transparency", 6: "RGB with transparency"}.get(colour, "unknown")
        raise BadData(f"{name} is a PNG of {depth}-bit {form}; a label map has a palette, or is grey of 8 or 16 bits.")
    with open_picture(data, name) as picture:
        labels = np.asarray(picture)
    return labels.astype(np.uint16 if depth == 16 else np.uint8)


def size_of(picture: bytes, name: str) -> Size:
    """(height, width) of an encoded picture as it is seen upright, from its header alone."""
    with open_picture(picture, name) as opened:
        return upright_size(opened)
