"""The prompts of a training window: where its masks are clicked, and which masks are the answers."""

from __future__ import annotations

import math

import numpy as np

DISC = 0.1
"""Radius of the disc around the middle of a mask in which a click falls, relative to the shorter side of the mask's box."""
ANYWHERE = 4
"""One click of so many falls anywhere, on a mask or not."""


def sample_clicks(masks: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Clicks near the middle of random masks, each inside its mask.

    The middle is where the sum of the mask's means over squares of several sizes is greatest.

    Parameters
    ----------
    masks : float32 array of shape (K, s, s)
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (count, 2)
        (x, y) in 0..1.
    """
    side = masks.shape[-1]
    from scipy.ndimage import uniform_filter

    clicked = masks[rng.integers(len(masks), size=count)] >= 0.5
    depth = sum(uniform_filter(clicked.astype(np.float32), (0, size, size), mode="constant") for size in (3, 7, 13, 25))
    middle = (depth * clicked).reshape(count, -1).argmax(axis=1)
    points = np.empty((count, 2), np.float32)
    for i, place in enumerate(middle.tolist()):
        mask = clicked[i]
        y, x = divmod(place, side)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        radius = DISC * min(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) * math.sqrt(rng.random())
        angle = rng.uniform(0, 2 * math.pi)
        px, py = x + 0.5 + radius * math.cos(angle), y + 0.5 + radius * math.sin(angle)
        inside = 0 <= px < side and 0 <= py < side and mask[int(py), int(px)]
        points[i] = (px / side, py / side) if inside else ((x + 0.5) / side, (y + 0.5) / side)
    return points


def click_answers(masks: np.ndarray, points: np.ndarray, grains: int) -> np.ndarray:
    """The masks at each click.

    Parameters
    ----------
    masks : float32 array of shape (K, s, s)
    points : float32 array of shape (P, 2)
        (x, y) in 0..1.
    grains : int
        Greatest number of masks a click. Of more, those stay that are evenly spaced by rank of area.

    Returns
    -------
    int64 array of shape (P, grains)
        Indices of masks, small ones first; -1 after the last.
    """
    side = masks.shape[-1]
    answers = np.full((len(points), grains), -1, np.int64)
    area = masks.sum(axis=(1, 2))
    for i, (x, y) in enumerate((points * side).astype(np.int64).tolist()):
        at_click = np.flatnonzero(masks[:, y, x] >= 0.5)
        at_click = at_click[np.argsort(area[at_click], kind="stable")]
        if len(at_click) > grains:
            at_click = at_click[np.round(np.linspace(0, len(at_click) - 1, grains)).astype(np.int64)]
        answers[i, : len(at_click)] = at_click
    return answers
