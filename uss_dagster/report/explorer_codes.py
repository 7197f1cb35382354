"""Families of regions as a few short texts that a script decodes: a map of atoms, which regions hold each, and what is known of them.

Belongs here: the code, and what the explorer needs that ``Regions`` does not hold (which region lies in which, when each appears,
what resembles it in the ground truth). Does not belong here: files and pages (``explorer``). ``assets/explorer.js`` reads what is
written here; a test compares the two pixel by pixel.

Maps, row by row, are runs of two kinds in turn: as many pixels as are equal to the one above, then one run of another value.
Numbers are varints (7 bits a byte, least first), texts are base64.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

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

    appears: of ``drawing.appearance``. nest: int32 (K,), the region that each lies in, or -1. tiled: of ``drawing.is_tree``.
    kind: where the nesting is from. "tree": the method says so. "held": it says nothing of overlapping regions, see ``HELD``.
    "flat": there are no two levels.
    """

    regions: Regions
    appears: np.ndarray
    nest: np.ndarray
    tiled: bool
    kind: str

    @classmethod
    def of(cls, regions: Regions) -> Nested:
        tiled, appears = drawing.is_tree(regions), drawing.appearance(regions)
        if (regions.parent >= 0).any():
            return cls(regions, appears, regions.parent, tiled, "tree")
        return cls(regions, appears, regions.parent if tiled else _held(regions), tiled, "flat" if tiled else "held")

    def in_view(self, n: int) -> list[int]:
        """The regions that are seen in ``drawing.flat_cut`` of n, the largest part in sight first."""
        shown = np.flatnonzero(self.appears <= n)
        if not self.tiled:
            shown = shown[np.argsort(-self.regions.area[shown], kind="stable")]
        holder = np.full(self.regions.members.shape[1], -1, np.int64)
        for region in shown:
            holder[self.regions.members[region]] = region
        seen = np.bincount(holder + 1, weights=self.regions.atom_area, minlength=len(self.regions) + 1)[1:]
        order = np.lexsort((np.arange(len(seen)), -seen))
        return [int(r) for r in order if seen[r] > 0]


def _held(regions: Regions) -> np.ndarray:
    members = regions.members.astype(np.float64)  # BLAS multiplies floats only; counts below 2⁵³ stay exact
    shared = (members * regions.atom_area) @ members.T
    area = regions.area
    holds = (shared >= HELD * area[:, None]) & (area > area[:, None]) & (area[:, None] > 0)
    smallest = np.where(holds, area, np.iinfo(np.int64).max).argmin(axis=1)
    return np.where(holds.any(axis=1), smallest, -1).astype(np.int32)


def family(nested: Nested, shape: tuple[int, int], truths: Sequence[Regions] = (), names: Sequence[str] = ()) -> dict[str, Any]:
    """What the script is told of one family, drawn on a grid of ``shape`` (height, width). Areas and IoU are those of the full size.

    truths: for each region the best of all of their regions is noted (none of the whole image), with its IoU in thousandths.
    names: of labels.
    """
    regions = nested.regions
    drawn = regions if regions.shape == shape else regions.resized(*shape)
    atoms, members = _merged(drawn)
    above = regions.parent
    held = np.zeros_like(members)
    np.logical_or.at(held, above[above >= 0], members[above >= 0])
    closed = not (held & ~members).any()  # each region holds its parts, as it should; then the smallest regions say all
    listed = members & ~held if closed else members
    source, sources = _indexed(regions.source)
    found: dict[str, Any] = {
        "k": len(regions),
        "grid": list(regions.shape),
        "map": encode_map(atoms),
        "atoms": encode_numbers(n for column in listed.T for n in _gaps(np.flatnonzero(column).tolist())),
        "parent": encode_numbers((above + 1).tolist()) if closed and (above >= 0).any() else "",
        "nest": encode_numbers((nested.nest + 1).tolist()),
        "nesting": nested.kind,
        "appears": encode_numbers(int(a) if math.isfinite(a) else 0 for a in nested.appears),
        "area": encode_numbers(regions.area.tolist()),
        "level": _floats(regions.level),
        "score": _floats(regions.score),
        "label": encode_numbers((regions.label + 1).tolist()) if (regions.label >= 0).any() else "",
        "names": {str(i): names[i] for i in sorted(set(regions.label.tolist())) if 0 <= i < len(names)},
        "source": encode_numbers(source) if len(sources) > 1 else "",
        "sources": sources,
    }
    if truths:
        found["truth"] = _best(regions, truths)
    return found


def compact(regions: Regions) -> Regions:
    """The same regions over as few atoms as they need: those of one annotator come with the atoms of all."""
    columns = {name: getattr(regions, name) for name in ("level", "score", "label", "source")}
    return Regions(*_merged(regions), regions.parent, **columns)


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


def _merged(regions: Regions) -> tuple[np.ndarray, np.ndarray]:
    """(atom map, members) with only the atoms that are there, one for each combination of regions, numbered as they come row by row."""
    packed = np.packbits(regions.members, axis=0).T if len(regions) else np.zeros((regions.members.shape[1], 1), np.uint8)
    _, kind = np.unique(packed, axis=0, return_inverse=True)
    labels = kind.reshape(-1)[regions.atoms]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    atoms = rank[inverse].reshape(labels.shape)
    return atoms, regions.members[:, regions.atoms.ravel()[first[order]]]


def _gaps(held: list[int]) -> list[int]:
    """A sorted list as its length and its steps."""
    return [len(held), *(b - a for a, b in zip([0, *held], held, strict=False))]


def _indexed(words: Sequence[str]) -> tuple[list[int], list[str]]:
    distinct = sorted(set(words))
    place = {word: i for i, word in enumerate(distinct)}
    return [place[word] for word in words], distinct


def _floats(values: np.ndarray) -> str | float | None:
    """Base64 of float32, least byte first; one number where all are it, None where all are NaN."""
    if np.isnan(values).all():
        return None
    if np.isfinite(values[0]) and (values == values[0]).all():
        return float(values[0])
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _best(regions: Regions, truths: Sequence[Regions]) -> dict[str, str]:
    """For each region the family and the region of the truths with the highest IoU (the first of equals), counted from 1; 0 for none."""
    k = len(regions)
    best, which, where = np.zeros(k), np.zeros(k, np.int64), np.zeros(k, np.int64)
    for number, truth in enumerate(truths, 1):
        kept = np.flatnonzero(~truth.is_root)
        if not len(kept) or not k:
            continue
        shared = intersections(regions, truth)[:, kept]
        iou = shared / np.maximum(regions.area[:, None] + truth.area[kept] - shared, 1)
        place = iou.argmax(axis=1)
        value = iou[np.arange(k), place]
        better = value > best
        best[better], which[better], where[better] = value[better], number, kept[place[better]] + 1
    thousandths = np.floor(1000 * best + 0.5).astype(np.int64)
    return {"family": encode_numbers(which.tolist()), "region": encode_numbers(where.tolist()), "iou": encode_numbers(thousandths.tolist())}
