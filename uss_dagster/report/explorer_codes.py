"""Families of regions as short texts that a script decodes: a map of atoms, which regions hold each, and facts about each region.

Belongs here: the code, and what the explorer needs that ``Regions`` does not hold (which region lies in which, when each appears,
its best match in the ground truth). Does not belong here: files and pages (``explorer``). ``assets/explorer.js`` decodes what is
written here; a test compares the two pixel by pixel.

Maps, row by row, are runs of two kinds in turn: as many pixels as are equal to the one above, then one run of another value.
Numbers are varints (7 bits a byte, least first), texts are base64.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from uss_dagster import drawing
from uss_dagster.regions import Regions
from uss_dagster.regions.regions import intersections

HELD = 0.9
"""In a family without a tree, a region lies in the smallest larger one that holds at least this share of it."""
LEFT, ABOVE_RIGHT, OTHER = 0, 1, 2
"""What a run of another value is equal to: the pixel left of it, the one above and right of its first pixel, or neither."""


@dataclass(frozen=True)
class Nested:
    """Regions, and how they are opened from coarse to fine.

    Parameters
    ----------
    regions : Regions
        The family.
    appears : numpy.ndarray
        (K,), see ``drawing.appearance``.
    nest : numpy.ndarray
        int32 (K,), the region that each lies in, or -1.
    tiled : bool
        See ``Regions.is_tree``.
    kind : str
        Where the nesting is from. "tree": the method says so. "held": the regions overlap and the method says nothing, see ``HELD``.
        "flat": there are no two levels.
    """

    regions: Regions
    appears: np.ndarray
    nest: np.ndarray
    tiled: bool
    kind: str

    @classmethod
    def of(cls, regions: Regions) -> Nested:
        """The nesting of any family."""
        tiled, appears = regions.is_tree, drawing.appearance(regions)
        if (regions.parent >= 0).any():
            return cls(regions, appears, regions.parent, tiled, "tree")
        return cls(regions, appears, regions.parent if tiled else _holders(regions), tiled, "flat" if tiled else "held")

    def in_view(self, n: int) -> list[int]:
        """The regions that are seen in ``drawing.flat_cut`` of n, the largest part in sight first."""
        holder = drawing.visible_regions(self.regions, n, self.tiled)
        seen = np.bincount(holder + 1, weights=self.regions.atom_area, minlength=len(self.regions) + 1)[1:]
        order = np.lexsort((np.arange(len(seen)), -seen))
        return [int(r) for r in order if seen[r] > 0]


def _holders(regions: Regions) -> np.ndarray:
    """Int32 (K,): the smallest larger region that holds at least ``HELD`` of each region, or -1."""
    shared, area = drawing.shared_pixels(regions), regions.area
    holds = (shared >= HELD * area[:, None]) & (area > area[:, None]) & (area[:, None] > 0)
    smallest = np.where(holds, area, np.iinfo(np.int64).max).argmin(axis=1)
    return np.where(holds.any(axis=1), smallest, -1).astype(np.int32)


@dataclass(frozen=True)
class CodedRegions:
    """One family of regions, coded for the script. Codes are those of ``encode_numbers`` where nothing else is said.

    Parameters
    ----------
    k : int
        Number of regions.
    grid : sequence of int
        (height, width) of the full size.
    map : str
        Atom of each pixel, see ``encode_map``.
    atoms : str
        For each atom the number of regions that hold it, and the steps between them. Where ``parent`` is not empty, only the
        smallest of nested regions are listed.
    parent : str
        Parent of each region plus 1; empty where regions do not hold their parts, or have none.
    nest : str
        Region that each lies in plus 1, see ``Nested``.
    nesting : str
        See ``Nested.kind``.
    appears : str
        See ``drawing.appearance``; 0 for never.
    area : str
        Pixels of each region.
    level, score : str, float or None
        Base64 of float32, least byte first; one number where all are equal, None where all are NaN.
    label : str
        Label of each region plus 1; empty where none has one.
    names : mapping of str to str
        Label to its name.
    source : str
        Index of each region's source in ``sources``; empty where all are the same.
    sources : sequence of str
        What regions come from.
    truth : mapping of str to str, optional
        For each region the best region of the ground truth: ``family`` and ``region`` (counted from 1, 0 for none), and ``iou`` in
        thousandths.
    """

    k: int
    grid: Sequence[int]
    map: str
    atoms: str
    parent: str
    nest: str
    nesting: str
    appears: str
    area: str
    level: str | float | None
    score: str | float | None
    label: str
    names: Mapping[str, str]
    source: str
    sources: Sequence[str]
    truth: Mapping[str, str] | None


def encode(nested: Nested, shape: tuple[int, int], truths: Sequence[Regions] = (), names: Sequence[str] = ()) -> CodedRegions:
    """Code one family.

    Parameters
    ----------
    nested : Nested
        The family, at full size. Areas and IoU are those of this size.
    shape : (int, int)
        (height, width) of the grid that it is drawn on.
    truths : sequence of Regions
        Families of the ground truth. For each region the best of all their regions is noted, but none of the whole image.
    names : sequence of str
        Names of labels.
    """
    regions = nested.regions
    drawn = (regions if regions.shape == shape else regions.resized(*shape)).compact()
    atoms, members = drawn.atoms, drawn.members
    parent = regions.parent
    in_children = np.zeros_like(members)
    np.logical_or.at(in_children, parent[parent >= 0], members[parent >= 0])
    is_closed = not (in_children & ~members).any()  # each region holds its children, so the smallest regions say all
    listed = members & ~in_children if is_closed else members
    sources = sorted(set(regions.source))
    return CodedRegions(
        k=len(regions),
        grid=list(regions.shape),
        map=encode_map(atoms),
        atoms=encode_numbers(n for column in listed.T for n in _gaps(np.flatnonzero(column).tolist())),
        parent=encode_numbers((parent + 1).tolist()) if is_closed and (parent >= 0).any() else "",
        nest=encode_numbers((nested.nest + 1).tolist()),
        nesting=nested.kind,
        appears=encode_numbers(int(n) if math.isfinite(n) else 0 for n in nested.appears),
        area=encode_numbers(regions.area.tolist()),
        level=_floats(regions.level),
        score=_floats(regions.score),
        label=encode_numbers((regions.label + 1).tolist()) if (regions.label >= 0).any() else "",
        names={str(label): names[label] for label in sorted(set(regions.label.tolist())) if 0 <= label < len(names)},
        source=encode_numbers(sources.index(source) for source in regions.source) if len(sources) > 1 else "",
        sources=sources,
        truth=_best_matches(regions, truths) if truths else None,
    )


def encode_map(labels: np.ndarray) -> str:
    """The code of an integer map (H, W) of values ≥ 0; see ``decodeMap`` in the script."""
    width = labels.shape[1]
    flat = labels.ravel().astype(np.int64)
    above = np.concatenate([np.full(min(width, flat.size), -1), flat[:-width]]) if flat.size else flat
    same = flat == above
    changes = (same[1:] != same[:-1]) | (~same[1:] & (flat[1:] != flat[:-1]))
    begins = np.flatnonzero(np.concatenate([np.ones(min(1, flat.size), bool), changes]))
    ends = np.append(begins[1:], flat.size)[: len(begins)]
    out: list[int] = []
    copied = 0
    for begin, end in zip(begins, ends, strict=True):
        if same[begin]:
            copied = int(end - begin)
            continue
        value, length = int(flat[begin]), int(end - begin) - 1
        out.append(copied)
        copied = 0
        if begin and flat[begin - 1] == value:
            out.append(3 * length + LEFT)
        elif begin >= width > 1 and flat[begin - width + 1] == value:
            out.append(3 * length + ABOVE_RIGHT)
        else:
            out += [3 * length + OTHER, value]
    return encode_numbers(out)


def encode_numbers(values: Iterable[int]) -> str:
    """Base64 of varints of integers ≥ 0."""
    out = bytearray()
    for value in values:
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return base64.b64encode(bytes(out)).decode("ascii")


def _gaps(numbers: list[int]) -> list[int]:
    """A sorted list as its length and its steps."""
    return [len(numbers), *(b - a for a, b in zip([0, *numbers], numbers, strict=False))]


def _floats(values: np.ndarray) -> str | float | None:
    """Base64 of float32, least byte first; one number where all are it, None where all are NaN."""
    if np.isnan(values).all():
        return None
    if np.isfinite(values[0]) and (values == values[0]).all():
        return float(values[0])
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _best_matches(regions: Regions, truths: Sequence[Regions]) -> dict[str, str]:
    """For each region the family and the region of the truths with the highest IoU (the first of equals), counted from 1; 0 for none."""
    k = len(regions)
    best, best_family, best_region = np.zeros(k), np.zeros(k, np.int64), np.zeros(k, np.int64)
    for number, truth in enumerate(truths, 1):
        candidates = np.flatnonzero(~truth.is_root)
        if not len(candidates) or not k:
            continue
        shared = intersections(regions, truth)[:, candidates]
        iou = shared / np.maximum(regions.area[:, None] + truth.area[candidates] - shared, 1)
        match = iou.argmax(axis=1)
        value = iou[np.arange(k), match]
        better = value > best
        best[better], best_family[better], best_region[better] = value[better], number, candidates[match[better]] + 1
    columns = {"family": best_family, "region": best_region, "iou": np.floor(1000 * best + 0.5).astype(np.int64)}
    return {name: encode_numbers(column.tolist()) for name, column in columns.items()}
