"""Random windows of reduced examples, stretched to a square: pixels, and the masks that are visible; objects of another window are pasted into some."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from uss_dagster.student.reduced import ReducedExample
from uss_dagster.student.settings import StudentSettings

OVERSAMPLE = 2
"""Samples along each side of a target's pixel; their mean is the share of the pixel in the mask."""
LARGEST = 0.95
"""A mask that covers more of a window is no target there: its border is not visible."""
BEYOND = 128
"""Of the three colours outside the image."""
SMALLEST_PASTED, LARGEST_PASTED = 0.005, 0.25
"""Least and greatest share of its window that a pasted mask covers: parts of a texture, and background, are no objects."""
MOST_PASTED = 8
"""Greatest number of masks that are chosen for one window."""

Window = tuple[float, float, float, float]
"""(y, x, height, width) in pixels of the reduced image."""


@dataclass(frozen=True)
class View:
    """A window as it is seen.

    Parameters
    ----------
    image : uint8 array of shape (S, S, 3)
    atoms : int array of shape (f, f)
        The atom at each sample.
    members : bool array of shape (K, A)
    human : bool array of shape (K,)
    """

    image: np.ndarray
    atoms: np.ndarray
    members: np.ndarray
    human: np.ndarray


def random_window(shape: tuple[int, int], settings: StudentSettings, rng: np.random.Generator) -> Window:
    """A window with sides from ``smallest_crop`` to ``largest_crop`` of the image's, as many below their geometric mean as above."""
    height, width = shape
    largest = settings.largest_crop
    share = largest * (settings.smallest_crop / largest) ** rng.random()
    stretch = math.exp(rng.uniform(-0.2, 0.2))
    h, w = height * share * stretch, width * share / stretch
    if share <= 1:
        h, w = min(height, h), min(width, w)
    return rng.uniform(*sorted((0, height - h))), rng.uniform(*sorted((0, width - w))), h, w


def view_of(example: ReducedExample, window: Window, side: int, samples: int) -> View:
    """What a window shows.

    Parameters
    ----------
    example : ReducedExample
    window : Window
    side : int
        Of the image in the result.
    samples : int
        Along each side of the atoms in the result.
    """
    y, x, height, width = window
    rows, columns = centres(y, height, samples), centres(x, width, samples)
    within = [(places >= 0) & (places < size) for places, size in zip((rows, columns), example.atoms.shape, strict=True)]
    atoms, members = example.atoms.take(rows, axis=0, mode="clip").take(columns, axis=1, mode="clip"), example.members
    if not (within[0].all() and within[1].all()):  # outside the image is an atom of no mask
        atoms = np.where(within[0][:, None] & within[1], atoms, members.shape[1])
        members = np.pad(members, ((0, 0), (0, 1)))
    return View(window_image(example.image, window, side), atoms, members, example.human)


def window_image(image: np.ndarray, window: Window, side: int) -> np.ndarray:
    """The pixels of a window, stretched to a square: uint8 (side, side, 3)."""
    y, x, height, width = window
    top, left, bottom, right = max(0.0, y), max(0.0, x), min(image.shape[0], y + height), min(image.shape[1], x + width)
    rows = [round((place - y) * side / height) for place in (top, bottom)]
    columns = [round((place - x) * side / width) for place in (left, right)]
    square = np.full((side, side, 3), BEYOND, np.uint8)
    seen = square[slice(*rows), slice(*columns)]
    if seen.size:
        size = (seen.shape[1], seen.shape[0])
        seen[:] = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, (left, top, right, bottom)))
    return square


def centres(start: float, extent: float, count: int) -> np.ndarray:
    """The pixels at the centres of ``count`` equal parts of an interval."""
    return np.floor(start + (np.arange(count) + 0.5) * extent / count).astype(np.int64)


def paste(below: View, above: View, rng: np.random.Generator) -> View:
    """``below`` with some objects of ``above`` in front, at the places and sizes that they have there.

    Objects are masks of medium size that no side of the window cuts. A mask of ``above`` that lies in what is pasted comes along, so that parts stay
    parts. A mask of ``below`` loses what is hidden (Ghiasi et al., Simple copy-paste is a strong data augmentation method for instance segmentation,
    CVPR 2021: objects chosen at random, no blending).
    """
    pixels = above.members @ np.bincount(above.atoms.ravel(), minlength=above.members.shape[1])
    border = np.concatenate([above.atoms[0], above.atoms[-1], above.atoms[:, 0], above.atoms[:, -1]])
    cut = above.members[:, np.unique(border)].any(axis=1)
    share = pixels / above.atoms.size
    objects = np.flatnonzero(~cut & (share >= SMALLEST_PASTED) & (share <= LARGEST_PASTED))
    if not len(objects):
        return below
    chosen = rng.choice(objects, int(rng.integers(1, min(MOST_PASTED, len(objects)) + 1)), replace=False)
    pasted = above.members[chosen].any(axis=0)
    along = (pixels > 0) & ~(above.members & ~pasted).any(axis=1)
    samples, side = len(above.atoms), len(above.image)
    front = pasted[above.atoms]
    of_pixel = ((np.arange(side) + 0.5) * samples / side).astype(np.int64)
    image = np.where(front[of_pixel[:, None], of_pixel][..., None], above.image, below.image)
    first = below.members.shape[1]
    members = np.zeros((len(below.members) + int(along.sum()), first + above.members.shape[1]), bool)
    members[: len(below.members), :first] = below.members
    members[len(below.members) :, first:] = above.members[along]
    return View(image, np.where(front, above.atoms + first, below.atoms), members, np.concatenate([below.human, above.human[along]]))


def masks_of(view: View, most: int, rng: np.random.Generator) -> np.ndarray:
    """The masks that are visible in a view.

    Parameters
    ----------
    view : View
    most : int
        Greatest number of masks. If more are visible, human masks have priority and the others are drawn at random.
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (K, side, side)
        The share of each pixel in each mask.
    """
    fine = len(view.atoms)
    side = fine // OVERSAMPLE
    pixels = np.bincount(view.atoms.ravel(), minlength=view.members.shape[1])
    present = np.flatnonzero(pixels)
    rank = np.zeros(len(pixels), np.int64)
    rank[present] = np.arange(len(present))
    members = view.members[:, present]
    area = members.astype(np.float32) @ pixels[present].astype(np.float32)
    visible = np.flatnonzero((area >= OVERSAMPLE**2) & (area <= LARGEST * fine**2))
    if len(visible) > most:
        human = visible[view.human[visible]]
        first, others = (human, visible[~view.human[visible]]) if len(human) < most else (human[:0], human)
        visible = np.sort(np.concatenate([first, rng.choice(others, most - len(first), replace=False)]))
    cells = rank[view.atoms].reshape(side, OVERSAMPLE, side, OVERSAMPLE).transpose(1, 3, 0, 2).reshape(OVERSAMPLE**2, -1)
    holders = np.ascontiguousarray(members[visible].T, np.uint8)  # a row an atom, since whole rows are copied
    samples = sum((holders.take(part, axis=0) for part in cells[1:]), holders.take(cells[0], axis=0))
    clear = (2 * samples >= OVERSAMPLE**2).any(axis=0)
    masks = np.multiply(samples.T[clear], np.float32(1 / OVERSAMPLE**2), dtype=np.float32)
    return masks.reshape(-1, side, side)


def jittered(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image, uint8 (H, W, 3), as float32 (3, H, W) in 0..1, with random exposure, contrast and tint."""
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3)
    levels = np.arange(256, dtype=np.float32)[None] / 255
    of_level = np.clip((levels - 0.5) * gain[:, None] + 0.5 + rng.uniform(-0.1, 0.1), 0, 1).astype(np.float32)
    result = np.empty((3, *image.shape[:2]), np.float32)
    for channel in range(3):
        np.take(of_level[channel], image[..., channel], out=result[channel], mode="clip")  # 'clip' writes into the result without a copy
    return result
