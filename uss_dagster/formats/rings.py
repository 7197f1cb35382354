"""A mask as one closed line through the centres of its border pixels, and back: what formats hold that know a single polygon a region.

The line is filled by the even-odd rule and drawn one pixel wide, as ``fillPoly`` of OpenCV does it. Then holes, and parts one pixel wide, come back
exactly. The border of a hole is joined to the line by a horizontal stretch inside the mask, which is gone along twice. Separate parts are joined by
straight lines, whose pixels are added to the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

Joins = dict[int, list[tuple[int, int]]]
"""Place in a ring → the rings that are joined to it there, each with the place in it."""


@dataclass(frozen=True)
class Ring:
    """The border of a part or of a hole.

    Parameters
    ----------
    pixels : ndarray
        Pixels of the mask, row and column, in the order they are walked along.
    left_sides : ndarray
        Row, column and place in ``pixels`` of each pixel whose left side the border passes.
    hole : bool
        It is the border of a hole.
    """

    pixels: np.ndarray
    left_sides: np.ndarray
    hole: bool


def line_of_mask(mask: np.ndarray) -> np.ndarray:
    """The line of a mask, bool (H, W), with at least one pixel: whole numbers (N, 2), x and y, N at least 3."""
    top, left = (int(places.min()) for places in np.nonzero(mask))
    bottom, right = (int(places.max()) + 1 for places in np.nonzero(mask))
    inner = mask[top:bottom, left:right]
    rings = _rings(inner)
    line = _without_straight_points(_joined(rings, _joins(rings, inner)))
    if len(line) < 3:
        line = line[np.arange(3) % len(line)]
    return line[:, ::-1] + [left, top]


def mask_of_line(line: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask of a line, bool (H, W); parts outside the image are cut off."""
    height, width = shape
    picture = Image.new("1", (width, height))
    points = [(float(x), float(y)) for x, y in line]
    ImageDraw.Draw(picture).polygon(points, fill=1)
    ImageDraw.Draw(picture).line([*points, points[0]], fill=1)
    return np.array(picture, bool)


def _rings(mask: np.ndarray) -> list[Ring]:
    """The borders of all parts and holes; pixels that touch at a corner are of one part."""
    from skimage.measure import find_contours

    padded = np.pad(mask, 1)
    contours = find_contours(padded.astype(np.float32), 0.5, fully_connected="high")
    return [_ring(contour[:-1], padded) for contour in contours]


def _ring(between: np.ndarray, padded: np.ndarray) -> Ring:
    """The ring of a contour. between: points half-way from a pixel of the mask to one outside, above it, below it or beside it."""
    low, high = np.floor(between).astype(np.int64), np.ceil(between).astype(np.int64)
    inside = np.where(padded[low[:, 0], low[:, 1]][:, None], low, high)
    first = (inside != np.roll(inside, 1, axis=0)).any(axis=1)
    if not first.any():  # a single pixel
        first[0] = True
    pixels = inside[first] - 1
    place = (np.cumsum(first) - 1) % len(pixels)
    left = inside[:, 1] > between[:, 1]
    row, column = between.T
    turn = (row * np.roll(column, -1) - column * np.roll(row, -1)).sum()
    return Ring(pixels, np.column_stack([inside[left] - 1, place[left]]), bool(turn > 0))


def _joins(rings: Sequence[Ring], mask: np.ndarray) -> list[Joins]:
    """For each ring, which rings are joined to it; all can be reached from the first ring of a part."""
    from scipy.spatial import cKDTree

    owner, place = np.full(mask.shape, -1), np.full(mask.shape, -1)
    for number, ring in enumerate(rings):
        rows, columns, places = ring.left_sides.T
        owner[rows, columns], place[rows, columns] = number, places
    joins: list[Joins] = [{} for _ in rings]
    for number, ring in enumerate(rings):
        if ring.hole:  # its leftmost pixel is joined to the border on the left of it, over pixels of the mask
            start = int(np.argmin(ring.pixels[:, 1]))
            row, column = ring.pixels[start].tolist()
            outside = np.flatnonzero(~mask[row, :column])
            left = int(outside[-1]) + 1 if len(outside) else 0
            joins[int(owner[row, left])].setdefault(int(place[row, left]), []).append((number, start))
    parts = [number for number, ring in enumerate(rings) if not ring.hole]
    for before, number in pairwise(parts):
        gaps, nearest = cKDTree(rings[before].pixels).query(rings[number].pixels)
        there = int(np.argmin(gaps))
        joins[before].setdefault(int(nearest[there]), []).append((number, there))
    return joins


def _joined(rings: Sequence[Ring], joins: Sequence[Joins]) -> np.ndarray:
    """One closed line along all rings: (N, 2), row and column. Where others are joined, they are walked along before the ring goes on."""
    first = next(number for number, ring in enumerate(rings) if not ring.hole)
    points: list[np.ndarray] = []
    waiting: list[tuple[int, int, int] | np.ndarray] = [(first, 0, 0)]  # a point, or: ring, place where it begins, steps done
    while waiting:
        following = waiting.pop()
        if isinstance(following, np.ndarray):
            points.append(following)
            continue
        number, start, step = following
        pixels = rings[number].pixels
        at = (start + step) % len(pixels)
        points.append(pixels[at])
        if step == len(pixels):
            continue
        waiting.append((number, start, step + 1))
        for other, place in reversed(joins[number].get(at, ())):
            corner = _corner(pixels[at], rings[other].pixels[place])
            waiting += [pixels[at], corner, (other, place, 0), corner]
    return np.array(points)


def _corner(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Where a line from one point to another goes over from a diagonal to a row or a column: programs draw both alike."""
    gap = end - start
    return np.asarray(start + np.sign(gap) * np.abs(gap).min())


def _without_straight_points(line: np.ndarray) -> np.ndarray:
    """The line without points at which it goes straight on along a row, a column or a diagonal."""
    line = line[(line != np.roll(line, 1, axis=0)).any(axis=1)] if (line != line[0]).any() else line[:1]
    step = line - np.roll(line, 1, axis=0)  # towards each point
    size = np.abs(step)
    drawn_exactly = (size.min(axis=1) == 0) | (size[:, 0] == size[:, 1])
    direction = np.sign(step)
    goes_on = drawn_exactly & np.roll(drawn_exactly, -1) & (direction == np.roll(direction, -1, axis=0)).all(axis=1)
    return line[~goes_on] if len(line) > 1 else line
