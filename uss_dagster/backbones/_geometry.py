"""Input sizes and sliding windows, shared by the backbones that run a network on images of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np


class InputParams(Protocol):
    """The parameters of a backbone that say how an image becomes its input."""

    @property
    def image_size(self) -> int | tuple[int, int] | None: ...
    @property
    def image_side(self) -> Literal["short", "long"]: ...
    @property
    def window(self) -> int | None: ...
    @property
    def window_stride(self) -> int | None: ...


def check_input(params: InputParams) -> None:
    """Refuse sizes that no image can have."""
    sizes = params.image_size if isinstance(params.image_size, tuple) else (params.image_size,)
    if any(size is not None and size < 1 for size in sizes):
        raise ValueError(
            f"image_size is {params.image_size}, expected a number of pixels, [height, width], or null for the image's own size."
        )
    if params.window is not None and params.window < 1:
        raise ValueError(f"window is {params.window}, expected a number of pixels, or null.")
    if params.window_stride is not None and not (params.window and 1 <= params.window_stride <= params.window):
        raise ValueError(f"window_stride is {params.window_stride}, expected 1 to 'window' ({params.window}).")


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
