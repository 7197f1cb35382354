"""Input sizes and sliding windows, shared by the backbones that run a network on images of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from uss_dagster.bounds import at_least, check_bounds, wrong_value


@dataclass(frozen=True)
class InputParams:
    """Base of the parameters of backbones that run a network on images of any size.

    Parameters
    ----------
    image_size : int or [height, width] or None, pixels, default None
        Length of one side of the input, the other in proportion; or both sides, the aspect not kept; None keeps the image's own size.
    image_side : {'short', 'long'}, default 'short'
        The side that a single ``image_size`` sets.
    window : int or None, pixels, default None
        Side of square windows that slide over the input; features are averaged where they overlap. None passes the input whole.
    window_stride : int or None, pixels, default None
        Distance between windows; None is half a window.
    """

    image_size: int | tuple[int, int] | None = field(default=None, kw_only=True)
    image_side: Literal["short", "long"] = field(default="short", kw_only=True)
    window: int | None = field(default=None, kw_only=True)
    window_stride: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        sizes = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        if any(size is not None and size < 1 for size in sizes):
            raise wrong_value("image_size", self.image_size, "a number of pixels, [height, width], or null for the image's own size")
        check_bounds(self, window=at_least(1))
        if self.window_stride is not None and not (self.window and 1 <= self.window_stride <= self.window):
            raise wrong_value("window_stride", self.window_stride, f"1 to 'window' ({self.window})")


def input_size(params: InputParams, height: int, width: int, cell: tuple[int, int]) -> tuple[int, int]:
    """The size (height, width) that an image is resized to: the nearest multiples of ``cell``, at least one."""
    if isinstance(params.image_size, tuple):
        sides: tuple[float, float] = params.image_size
    elif params.image_size is None:
        sides = height, width
    else:
        scale = params.image_size / (min if params.image_side == "short" else max)(height, width)
        sides = height * scale, width * scale
    rows, columns = (max(1, int(side / step + 0.5)) for side, step in zip(sides, cell, strict=True))
    return rows * cell[0], columns * cell[1]


def windows(params: InputParams, size: tuple[int, int], cell: tuple[int, int]) -> list[tuple[slice, slice]]:
    """Where the windows of an input lie, row by row: all of one size, together covering it, their edges at multiples of ``cell``.

    A single window where the input is no larger than one. The last window of a row or column ends at the edge.
    """
    axes = []
    for length, step in zip(size, cell, strict=True):
        side = length if params.window is None else min(length, max(1, params.window // step) * step)
        stride = max(1, (params.window_stride or side // 2) // step) * step
        starts = [*range(0, length - side, stride), length - side]
        axes.append([slice(start, start + side) for start in starts])
    return [(row, column) for row in axes[0] for column in axes[1]]


def join_windows(
    facets: Sequence[Mapping[str, np.ndarray]], places: Sequence[tuple[slice, slice]], size: tuple[int, int], cell: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Facets of an input from those of its windows: means where windows overlap; ``cls`` is the mean of all; ``cls_attention`` sums to 1.

    Parameters
    ----------
    facets
        Facets of each window.
    places
        Its rows and columns, in pixels.
    size
        Height and width of the input, in pixels.
    cell
        Height and width of a cell of the feature grid, in pixels.
    """
    joined: dict[str, np.ndarray] = {}
    for name, first in facets[0].items():
        if name == "cls":
            joined[name] = np.stack([window[name] for window in facets]).mean(0, dtype=np.float64).astype(np.float32)
            continue
        grid = (size[0] // cell[0], size[1] // cell[1])
        total, count = np.zeros((*grid, *first.shape[2:])), np.zeros((*grid, *[1] * (first.ndim - 2)))
        for window, (rows, columns) in zip(facets, places, strict=True):
            place = slice(rows.start // cell[0], rows.stop // cell[0]), slice(columns.start // cell[1], columns.stop // cell[1])
            total[place] += window[name]
            count[place] += 1
        mean = total / count
        joined[name] = (mean / mean.sum() if name == "cls_attention" else mean).astype(np.float32)
    return joined
