"""What a person asks of an image: one object by points, a box and a previous mask, in pixels; and the same as the network reads it in a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from uss_dagster.errors import UsageError
from uss_dagster.student.prediction import Window
from uss_dagster.student.prompts import NEGATIVE, NO_POINT, POSITIVE, Prompts

Point = tuple[float, float]
"""(x, y): column and row of a pixel."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom: the pixels in two opposite corners, both inside."""


@dataclass(frozen=True)
class Prompt:
    """One object of an image.

    Parameters
    ----------
    points : tuple of Point
    labels : tuple of int
        1 for each positive point, 0 for each negative one.
    box : Box, optional
    mask : bool array of shape (height, width), optional
        A previous answer, which is refined.

    Raises
    ------
    UsageError
        If nothing says where the object is, or a label is neither 0 nor 1.
    """

    points: tuple[Point, ...] = ()
    labels: tuple[int, ...] = ()
    box: Box | None = None
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.points):
            raise UsageError(f"There are {len(self.points)} points and {len(self.labels)} labels; give one label a point, 1 or 0.")
        if not set(self.labels) <= {POSITIVE, NEGATIVE}:
            raise UsageError(f"Labels of points are {list(self.labels)}, expected 1 for a positive and 0 for a negative one.")
        if POSITIVE not in self.labels and self.box is None and (self.mask is None or not self.mask.any()):
            raise UsageError("Nothing says where the object is: give a positive point, a box, or a previous mask that is not empty.")

    @classmethod
    def of(
        cls,
        points: Sequence[Point],
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        mask: np.ndarray | None = None,
    ) -> Prompt:
        """A prompt of sequences; parameters as above. labels: by default all points are positive. The corners of a box may be any two."""
        if box is not None and len(box) != 4:
            raise UsageError(f"The box has {len(box)} numbers, expected left, top, right and bottom.")
        low_high = None if box is None else (min(box[0::2]), min(box[1::2]), max(box[0::2]), max(box[1::2]))
        places = tuple((x, y) for x, y in points)
        return cls(places, (POSITIVE,) * len(places) if labels is None else tuple(labels), low_high, None if mask is None else mask > 0)

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a prompt that does not fit an image of (height, width)."""
        height, width = shape
        where = f"is not in the image, whose columns are 0 to {width - 1} and rows 0 to {height - 1}."
        for x, y in self.points:
            if not (0 <= x < width and 0 <= y < height):
                raise UsageError(f"The point {x:g},{y:g} {where}")
        if self.box and not (self.box[0] < width and self.box[1] < height and self.box[2] >= 0 and self.box[3] >= 0):
            raise UsageError(f"The box {','.join(f'{side:g}' for side in self.box)} {where}")
        if self.mask is not None and self.mask.shape != shape:
            shown, own = (f"{size[1]}×{size[0]}" for size in (self.mask.shape, shape))
            raise UsageError(f"The previous mask has {shown} pixels, the image {own} (width × height).")

    def extent(self, shape: tuple[int, int]) -> Box:
        """The smallest box around positive points, the box and the mask, within the image."""
        parts = [(x, y, x, y) for (x, y), label in zip(self.points, self.labels, strict=True) if label == POSITIVE]
        if self.box:
            parts.append(self.box)
        if self.mask is not None and self.mask.any():
            rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
            parts.append((columns[0], rows[0], columns[-1], rows[-1]))
        low, high = np.min(parts, axis=0)[:2], np.max(parts, axis=0)[2:]
        last = np.array([shape[1] - 1, shape[0] - 1])
        (left, top), (right, bottom) = np.clip(low, 0, last).tolist(), np.clip(high, 0, last).tolist()
        return left, top, right, bottom

    def in_window(self, window: Window, cells: tuple[int, int]) -> Prompts:
        """The prompt as the network reads it. cells: height and width of the network's masks. Points outside the window are left out."""
        y, x, height, width = window
        size = np.array([width, height])
        places = (np.array(self.points, np.float64).reshape(-1, 2) + 0.5 - (x, y)) / size
        inside = ((places >= 0) & (places <= 1)).all(axis=1)
        places, labels = places[inside], np.array(self.labels, np.int64)[inside]
        if not len(places):
            places, labels = np.zeros((1, 2)), np.array([NO_POINT])
        box = np.zeros(4)
        if self.box:
            left, top, right, bottom = self.box
            box = (np.array([left - x, top - y, right + 1 - x, bottom + 1 - y]) / np.tile(size, 2)).clip(0, 1)
        mask = None if self.mask is None else torch.from_numpy(self.mask[y : y + height, x : x + width])
        return Prompts(
            torch.from_numpy(places.astype(np.float32))[None, None],
            torch.from_numpy(labels)[None, None],
            torch.from_numpy(box.astype(np.float32))[None, None],
            None if mask is None else shares(mask, cells)[None, None],
        )

    def agreement(self, mask: np.ndarray) -> int:
        """Of how many points a mask, bool (height, width), has what their labels say."""
        return sum(bool(mask[int(y), int(x)]) == bool(label) for (x, y), label in zip(self.points, self.labels, strict=True))


def shares(mask: Tensor, cells: tuple[int, int]) -> Tensor:
    """The share of each cell in a mask, bool (height, width)."""
    return interpolate(mask[None, None].float(), cells, mode="area")[0, 0]
