"""Gaussian filtering of scattered points in a few dimensions, in time linear in the points: the permutohedral lattice.

References: Adams, Baek & Davis, "Fast high-dimensional filtering using the permutohedral lattice", Computer Graphics Forum 29, 2010.

Points are embedded in the plane Σx = 0 of one more dimension, which the lattice divides into equal simplices. Each point adds its value
to the corners of its simplex by barycentric shares, the corners are blurred along the d + 1 axes of the lattice with (½, 1, ½), and
each point reads the result with the same shares. The axes are scaled so that the three steps together have the variance of exp(-½·d²).

One thing is added to the published scheme: a corner that no point touches exists nevertheless if two of its neighbours do. Without
these bridges values do not cross the gaps that fine colour scales leave, and the error of the filter on photographs is twice as large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import UsageError
from uss_dagster.refine._lanes import LANES


@dataclass(frozen=True)
class Lattice:
    """The simplices of n points and the neighbours of the m corners.

    Parameters
    ----------
    index : ndarray of int32, shape (n, d + 1)
        Corners of the simplex of each point.
    share : ndarray of float32, shape (n, d + 1)
        Share of the point in each.
    up, down : ndarray of int32, shape (d + 1, m)
        Next corner along each axis, m for none.
    """

    index: np.ndarray
    share: np.ndarray
    up: np.ndarray
    down: np.ndarray

    @property
    def size(self) -> int:
        return self.up.shape[1]

    def scratch(self) -> tuple[np.ndarray, np.ndarray]:
        """Room that one thread needs for ``add_filtered``."""
        return np.empty((self.size + 1, LANES), np.float32), np.empty((self.size + 1, LANES), np.float32)

    def weighted(self, weight: np.ndarray) -> Lattice:
        """The lattice with every point's shares times its weight (n,), on the way in and on the way out."""
        return Lattice(self.index, self.share * weight[:, None].astype(np.float32), self.up, self.down)

    def add_filtered(self, block: np.ndarray, onto: np.ndarray, scratch: tuple[np.ndarray, np.ndarray]) -> None:
        """block (n, 4) becomes onto + Σ_j exp(-½·|x_i - x_j|²)·block_j, up to a factor that depends on d only, in place."""
        from uss_dagster.refine._lattice_kernel import add_filtered

        add_filtered(block, onto, self.index, self.share, self.up, self.down, *scratch)

    def sums(self) -> np.ndarray:
        """What the filter makes of ones, float32 (n,)."""
        block = np.ones((len(self.index), LANES), np.float32)
        self.add_filtered(block, np.zeros_like(block), self.scratch())
        return block[:, 0].copy()


def build(points: np.ndarray) -> Lattice:
    """The lattice of points (n, d), n ≥ 1, in units of the Gaussian's standard deviations."""
    from uss_dagster.refine._lattice_kernel import embed, neighbours, numbers, with_bridges

    d = points.shape[1]
    axis = np.arange(d)
    scale = np.sqrt(2 / 3) * (d + 1) / np.sqrt((axis + 1) * (axis + 2))
    low, span = _bounds(points.min(axis=0) * scale, points.max(axis=0) * scale)
    strides = [1]
    for extent in span:
        strides.append(strides[-1] * extent)
    if strides.pop() >= 2**62:
        raise UsageError(
            f"A Gaussian filter has {' × '.join(map(str, span))} lattice cells, expected fewer than 2^62: use larger deviations."
        )
    stride = np.array(strides, np.int64)
    keys, share = embed(points, scale, low, stride)
    # one step along an axis: d up in its own coordinate and 1 down in the others, of which the last is implied by the sum
    steps = np.append(stride * (d + 1), 0) - stride.sum()
    ordered = np.sort(keys, axis=None)
    vertices = with_bridges(ordered[np.flatnonzero(np.diff(ordered, prepend=-1))], steps)
    return Lattice(numbers(vertices, keys), share, *neighbours(vertices, steps))


def _bounds(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Lowest value and extent of the first d lattice coordinates, with room for corners, bridges and their neighbours."""
    d = len(low)
    first, last = [], []
    for j in range(d):
        behind = (j * low[j - 1], j * high[j - 1]) if j else (0.0, 0.0)
        first.append(int(np.floor(low[j:].sum() - behind[1])) - 4 * (d + 1))
        last.append(int(np.ceil(high[j:].sum() - behind[0])) + 4 * (d + 1))
    return np.array(first, np.int64), [b - a + 1 for a, b in zip(first, last, strict=True)]
