"""Images to train a diffusion UNet on: drawn scenes, or a folder of images, reduced to small squares."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster.artifacts.image_files import find_images, read_picture
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.errors import UsageError

SCENES = "scenes"
"""Stands for drawn scenes in place of a folder."""
SCENES_SEED = 20001
"""Of the drawn scenes. It is a series of its own, so that no image of a dataset ``scenes`` with another seed is among them."""
SIDE = 176
"""Side of the squares to which images are resized, in pixels; training crops are taken from them."""
DRAWN_AT_ONCE = 20
"""Scenes that one worker draws at a time."""


def drawn_scenes(count: int) -> np.ndarray:
    """The first ``count`` scenes of the training series, uint8 (count, SIDE, SIDE, 3).

    Raises
    ------
    UsageError
        If ``count`` is below 1.
    """
    if count < 1:
        raise UsageError(f"count is {count}, expected at least 1 picture to train on.")
    ranges = [(start, min(start + DRAWN_AT_ONCE, count)) for start in range(0, count, DRAWN_AT_ONCE)]
    squares = []
    with Progress("draw scenes", count, "scenes") as progress:
        for part in map_shards(_draw, ranges):
            squares.append(part)
            progress.advance(len(part))
    return np.concatenate(squares)


def _draw(numbers: tuple[int, int]) -> np.ndarray:
    from uss_dagster.scenes.views import draw

    squares = []
    for number in range(*numbers):
        canvas = draw(SCENES_SEED, number)
        squares.append(_square(np.asarray(Image.open(io.BytesIO(canvas.photograph())))))
    return np.stack(squares)


def folder_images(folder: Path, count: int | None, seed: int) -> np.ndarray:
    """The images of a folder, uint8 (N, SIDE, SIDE, 3).

    Parameters
    ----------
    folder : Path
    count : int or None
        Number of images, drawn at random; None for all.
    seed : int
        Of the draw.

    Raises
    ------
    UsageError
        If there is no such folder, or it has too few images.
    """
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is not a folder of pictures. Name one, or '{SCENES}' for drawn scenes.")
    paths = find_images([folder])
    if count is not None and not 1 <= count <= len(paths):
        raise UsageError(f"count is {count}, but '{folder}' has {len(paths)} pictures: choose 1 to {len(paths)}.")
    if count is not None:
        paths = [paths[i] for i in np.sort(np.random.default_rng(seed).permutation(len(paths))[:count])]
    squares = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
    with Progress("read pictures", len(paths), "pictures") as progress:
        for square, path in zip(squares, paths, strict=True):
            square[:] = _square(read_picture(path))
            progress.advance()
    return squares


def _square(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))
