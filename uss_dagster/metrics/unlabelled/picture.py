"""A picture on a small grid, as descriptions of regions read it: features, colours and edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.pixels import nearest_cells
from uss_dagster.regions import Regions

LONG_SIDE = 192
"""Cells along the longer side of the grid."""
COMPONENTS = 24
"""Principal components of the features that are kept."""


@dataclass(frozen=True)
class PictureGrid:
    """A picture on a grid of h × w cells.

    Parameters
    ----------
    features : ndarray
        float64 (h, w, C), what a backbone says of each cell; centred, with a mean squared length of 1.
    colours : ndarray
        float64 (h, w, 3), L, a and b, likewise.
    edges : ndarray
        float64 (h, w), length of the colour gradient, by its mean over the picture.
    """

    features: np.ndarray
    colours: np.ndarray
    edges: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, tokens: np.ndarray) -> PictureGrid:
        """The grid of a picture.

        Parameters
        ----------
        image : ndarray
            uint8 (H, W, 3).
        tokens : ndarray
            (h', w', C), features of a backbone on a grid of their own; each is scaled to length 1.
        """
        from PIL import Image
        from scipy import ndimage
        from skimage.color import rgb2lab

        height, width = grid_shape(image.shape[:2])
        small = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
        lab = rgb2lab(np.asarray(small)).astype(np.float64)
        smooth = ndimage.gaussian_filter(lab, (1, 1, 0))
        gradient = np.sqrt(sum(ndimage.sobel(smooth, axis=axis) ** 2 for axis in (0, 1)).sum(axis=2))
        cells = _components(tokens)
        rows, columns = nearest_cells(height, cells.shape[0]), nearest_cells(width, cells.shape[1])
        return cls(_scaled(cells[rows][:, columns]), _scaled(lab), gradient / max(float(gradient.mean()), 1e-6))

    @property
    def shape(self) -> tuple[int, int]:
        return self.edges.shape[0], self.edges.shape[1]


def grid_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of the grid of a picture of this (height, width)."""
    scale = LONG_SIDE / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def on_grid(regions: Regions) -> Regions:
    """Regions on the grid; those that no cell shows stay, with no area."""
    return regions.resized(*grid_shape(regions.shape))


def _components(tokens: np.ndarray) -> np.ndarray:
    """The first principal components of the directions of tokens, (h, w, at most ``COMPONENTS``)."""
    height, width, channels = tokens.shape
    rows = tokens.reshape(-1, channels).astype(np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
    rows -= rows.mean(axis=0)
    _, axes = np.linalg.eigh(rows.T @ rows)
    return (rows @ axes[:, ::-1][:, :COMPONENTS]).reshape(height, width, -1)


def _scaled(cells: np.ndarray) -> np.ndarray:
    """Cells less their mean, with a mean squared length of 1."""
    cells = cells - cells.mean(axis=(0, 1))
    return np.asarray(cells / max(float(np.sqrt((cells**2).sum(axis=2).mean())), 1e-9))
