"""The atoms of a family of masks: pixels grouped by which masks hold them, numbered by where they first stand row by row.

Each mask has a pseudo-random 64-bit word, and the words of the masks that hold a pixel are combined. Equal results mean equal membership but
for a chance of about atoms² / 2⁶⁵, so the groups are then compared with the masks' areas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from uss_dagster.errors import BadData
from uss_dagster.pixels import nearest_cells, numbered_by_first
from uss_dagster.regions import rle

Atoms = tuple[np.ndarray, np.ndarray]
"""Atom of each pixel, int32 (H, W), and which atoms each of K masks holds, bool (K, A)."""


def atoms_of_masks(masks: Sequence[np.ndarray] | np.ndarray) -> Atoms:
    """The atoms of masks of one size, bool (H, W) each, at least one."""
    key = np.zeros(masks[0].size, np.uint64)
    for mask, word in zip(masks, _words(len(masks)), strict=True):
        key[np.flatnonzero(mask)] ^= word  # touches the mask's own pixels only
    atoms, first = numbered_by_first(key)
    members, areas = np.zeros((len(masks), len(first)), bool), np.zeros(len(masks), np.int64)
    for region, mask in enumerate(masks):  # one at a time: a sequence may compute each when it is asked for
        flat = np.asarray(mask, bool).ravel()
        members[region], areas[region] = flat[first], np.count_nonzero(flat)
    _check_areas(members, np.bincount(atoms), areas)
    return atoms.reshape(masks[0].shape).astype(np.int32), members


def atoms_of_codes(codes: Sequence[bytes], shape: tuple[int, int], size: tuple[int, int] | None = None) -> Atoms:
    """The atoms of the masks of COCO run-length codes over an image of ``shape`` (height, width).

    The work grows with the edges of runs, and memory is about 16 bytes a pixel however many masks there are.

    Parameters
    ----------
    codes : sequence of K bytes
    shape : tuple of int
    size : tuple of int, optional
        (height, width) of the result, neither greater than that of ``shape``: each of its pixels has what the pixel at its centre has. No mask has
        its full size on the way, and a mask can lose all of its pixels.
    """
    to_size = _reduced_ends(shape, size) if size and size != shape else None
    full, (height, width) = shape[0] * shape[1], size or shape
    pixels = height * width
    kind = np.int32 if pixels < 2**31 else np.int64
    change = np.zeros(pixels + 1, np.uint64)  # of the combined words from one pixel to the next, down the columns as codes run
    edges, areas = [], np.zeros(len(codes), np.int64)
    for region, (code, word) in enumerate(zip(codes, _words(len(codes)), strict=True)):
        lengths = rle.runs(code)
        ends = np.cumsum(lengths)
        if ends[-1] != full:
            raise BadData(f"A run-length code covers {ends[-1]} pixels, its image has {shape[0]}×{shape[1]} = {full}.")
        if to_size is not None:
            ends = to_size(ends)
            lengths = np.diff(ends, prepend=0)
        np.bitwise_xor.at(change, ends, word)
        areas[region] = lengths[1::2].sum()
        edges.append(ends.astype(kind))
    starts = change[:pixels] != 0
    starts[:1] = True
    start = np.flatnonzero(starts)
    values, run_atom = np.unique(np.bitwise_xor.accumulate(change[start]), return_inverse=True)
    del change, starts
    length = np.diff(start, append=pixels)
    column, row = np.divmod(start, height)
    place = row * width + column  # row by row, of the run's first pixel, or of the one on top of the next column
    place = np.where(row + length > height, np.minimum(place, column + 1), place)
    first = np.full(len(values), pixels)
    np.minimum.at(first, run_atom, place)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    atom = rank[run_atom]
    column_wise = (first[order] % width * height + first[order] // width).astype(kind)
    members = np.zeros((len(codes), len(order)), bool)
    for region, ends in enumerate(edges):
        members[region] = np.searchsorted(ends, column_wise, "right") % 2 == 1
    _check_areas(members, np.bincount(atom, length).astype(np.int64), areas)
    return np.repeat(atom, length).reshape(width, height).T, members


def _reduced_ends(shape: tuple[int, int], size: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
    """A function from ends of runs in an image of ``shape`` to those in one of a smaller ``size``, which has some of its rows and columns."""
    rows, columns = (np.searchsorted(nearest_cells(new, old), np.arange(old + 2)) for new, old in zip(size, shape, strict=True))

    def reduced(ends: np.ndarray) -> np.ndarray:
        column, row = np.divmod(ends, shape[0])
        # Pixels before this end: those of columns before its own, and of its own column if that is one of the smaller image.
        return np.asarray(columns[column] * size[0] + np.where(columns[column + 1] > columns[column], rows[row], 0))

    return reduced


def _words(count: int) -> np.ndarray:
    return np.random.default_rng(0x5E6).integers(0, 2**64, count, dtype=np.uint64)


def _check_areas(members: np.ndarray, sizes: np.ndarray, areas: np.ndarray) -> None:
    if (members @ sizes != areas).any():  # pragma: no cover - a 64-bit collision
        raise BadData("Two groups of pixels fell on one key. Reverse the order of the masks and report this image.")
