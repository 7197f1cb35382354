"""Ultrametric contour maps as trees of nested regions.

A map of double size ``ucm2`` holds the pixels of an image at its odd rows and columns (from 0), and the strengths of
the contours between them at all other places. The segmentation at threshold t is the 8-connected components of
``ucm2 <= t``; as t grows they only join, so all segmentations together are one tree.

Reference: Arbeláez, "Boundary extraction in natural images using ultrametric contour maps", CVPRW 2006; Arbeláez et al.,
"Contour detection and hierarchical image segmentation", TPAMI 33(5), 2011 (the double size).
"""

from __future__ import annotations

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.graphs.merging import MergeTree


def ucm_tree(ucm2: np.ndarray) -> tuple[np.ndarray, MergeTree]:
    """The tree of all segmentations of an ultrametric contour map.

    A leaf is a region of the lowest threshold at which every pixel is in one, and that threshold (0 in all released maps) is its height.
    From there on the cut of the tree at t is the segmentation of the map at t. The height of a node is the strength of the contour that
    it dissolves; it has as many children as merge at once.

    Parameters
    ----------
    ucm2 : ndarray of float, shape (2H + 1, 2W + 1)

    Returns
    -------
    labels : ndarray of int32, shape (H, W)
        Leaf of each pixel.
    tree : MergeTree
        For ``Regions.from_tree(tree.leaf[labels], tree.parent, level=tree.height)``.

    Examples
    --------
    >>> labels, tree = ucm_tree(np.array([[0, 0, 0.5, 0, 0], [0, 0, 0.5, 0, 0], [0, 0, 0.5, 0, 0]]))
    >>> labels.tolist(), tree.parent.tolist(), tree.height.tolist()
    ([[0, 1]], [-1, 0, 0], [0.5, 0.0, 0.0])
    """
    from uss_dagster.graphs import _ucm_kernel as kernel

    ucm2 = np.asarray(ucm2)
    if ucm2.ndim != 2 or min(ucm2.shape) < 3 or ucm2.shape[0] % 2 == 0 or ucm2.shape[1] % 2 == 0:
        raise BadData(
            f"An ultrametric map of double size is (2 · height + 1, 2 · width + 1), got {ucm2.shape}; 'ucm2' is wanted, not 'ucm'."
        )
    ucm2 = np.ascontiguousarray(ucm2, np.float64)
    if not np.isfinite(ucm2).all():
        raise BadData("An ultrametric map holds strengths, but this one has NaN or infinite values.")
    base = float(ucm2[1::2, 1::2].max())
    walls = np.flatnonzero(ucm2 > base)
    walls = walls[np.argsort(ucm2.ravel()[walls], kind="stable")]
    labels, left, right, height = kernel.joins(ucm2, base, walls)
    parent, level, leaf = kernel.tree_of_joins(left, right, height, base)
    return labels, MergeTree(parent, level, leaf)
