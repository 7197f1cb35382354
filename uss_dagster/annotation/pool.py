"""The regions offered at each pixel: those of all entries, without near-duplicates, from the smallest to the largest.

A click begins at a good region of its pixel, of similar ones at the smaller. A region is good if the other entries have one like it: what
several methods find is more often what a person sees. Where there is one entry, it is good if it stays as it is over many steps of merging.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uss_dagster.regions import Regions

MOST_ENTRIES = 6
"""So many leading entries give candidates."""
SMALLEST = 5e-4
"""Share of the image below which a region is no candidate; the brush does what is smaller."""
ALIKE = 0.9
"""IoU above which two candidates are near-duplicates."""
PREFER_SMALL, LARGE = 0.1, 0.5
"""A click begins at the region with the greatest quality, times its share of the image to the power -.1, among those below half the image."""
STEP = 1.35
"""Factor of area by which a region is made larger or smaller at once; single candidates are fine steps."""


@dataclass(frozen=True)
class Pool:
    """The candidates of one image.

    Parameters
    ----------
    regions : Regions
        From the smallest to the largest.
    quality : ndarray
        float64 (K,), 0 to 1.
    """

    regions: Regions
    quality: np.ndarray

    @cached_property
    def start(self) -> np.ndarray:
        """At which candidate of its chain a click on each atom begins, int64 (A,); 0 where there is none."""
        members, share = self.regions.members, self.regions.area / max(1, self.regions.atoms.size)
        if not len(members):
            return np.zeros(members.shape[1], np.int64)
        worth = self.quality * share**-PREFER_SMALL * np.where(share < LARGE, 1.0, 1e-6)
        chosen = np.argmax(np.where(members, worth[:, None], -1.0), axis=0)
        place = np.cumsum(members, axis=0)[chosen, np.arange(len(chosen))] - 1
        return np.asarray(place.clip(0))

    def at(self, x: int, y: int) -> tuple[np.ndarray, int]:
        """The candidates at a pixel, from the smallest to the largest, and at which of them a click begins."""
        atom = int(self.regions.atoms[y, x])
        return np.flatnonzero(self.regions.members[:, atom]), int(self.start[atom])

    def steps(self, chain: np.ndarray, start: int, end: int) -> int:
        """How many steps lead from one place of a chain to another: to an area that is larger or smaller by ``STEP``, or by one candidate."""
        area, sign = self.regions.area[chain], 1 if end > start else -1
        count, place = 0, start
        while place != end:
            far = coarse(area, place, sign)
            if (end - far) * sign < 0:
                return count + min(abs(end - place), 1 + abs(far - end))
            count, place = count + 1, far
        return count


def coarse(area: np.ndarray, place: int, sign: int) -> int:
    """The place after a step to larger (1) or smaller (-1) regions; area: of a chain, ascending."""
    if sign > 0:
        return min(max(int(np.searchsorted(area, STEP * area[place])), place + 1), len(area) - 1)
    return max(min(int(np.searchsorted(area, area[place] / STEP, side="right")) - 1, place - 1), 0)


def pool_of(families: Sequence[Regions], size: tuple[int, int]) -> Pool:
    """The candidates of an image.

    Parameters
    ----------
    families : sequence of Regions
        The regions of each entry, the best entry first, all of one shape.
    size : tuple of int
        (height, width) at which candidates are offered.
    """
    from scipy.sparse import csr_array

    smallest = SMALLEST * size[0] * size[1]
    chosen = []
    for family in families[:MOST_ENTRIES]:
        resized = family if family.shape == size else family.resized(*size)
        chosen.append(resized.select(~resized.is_root & (resized.area >= smallest)))
    atoms, members = _together(chosen, size)
    area = members @ np.bincount(atoms.ravel(), minlength=members.shape[1])
    held = csr_array(members.astype(np.float64))
    shared = (held.multiply(np.bincount(atoms.ravel(), minlength=members.shape[1])[None]) @ held.T).tocoo()
    mine, other = shared.coords
    iou = shared.data / (area[mine] + area[other] - shared.data)
    entry = np.repeat(np.arange(len(chosen)), [len(family) for family in chosen])
    quality = _agreement(mine, entry[other], iou, entry) if len(chosen) > 1 else np.concatenate([*map(_persistence, chosen), np.zeros(0)])
    keep = _without_near_duplicates(quality, mine[iou > ALIKE], other[iou > ALIKE])
    keep = keep[np.lexsort((keep, area[keep]))]
    return Pool(Regions(atoms, members[keep]).compact(), quality[keep])


def _together(families: Sequence[Regions], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The atoms of several families at once, int (H, W), and which of them each region holds, bool (K, A)."""
    atom = np.zeros(size[0] * size[1], np.int64)
    for family in families:
        _, atom = np.unique(atom * family.members.shape[1] + family.atoms.ravel(), return_inverse=True)
    _, first = np.unique(atom, return_index=True)
    parts = [family.members[:, family.atoms.ravel()[first]] for family in families]
    return atom.reshape(size), np.concatenate([*parts, np.zeros((0, len(first)), bool)])


def _agreement(mine: np.ndarray, theirs: np.ndarray, iou: np.ndarray, entry: np.ndarray) -> np.ndarray:
    """For each region, the mean over the other entries of the greatest IoU with one of theirs, float64 (K,).

    mine, theirs, iou: region, the other region's entry, and IoU of each pair that shares pixels. entry: int (K,), of each region.
    """
    best = np.zeros((len(entry), int(entry.max(initial=0)) + 1))
    np.maximum.at(best, (mine, theirs), iou)
    best[np.arange(len(entry)), entry] = 0
    return np.asarray(best.sum(axis=1) / max(1, best.shape[1] - 1))


def _persistence(family: Regions) -> np.ndarray:
    """Share of the levels, by rank, over which each region stays as it is; 1 where levels are unknown."""
    level = family.level.astype(np.float64)
    if np.isnan(level).any():
        return np.ones(len(family))
    steps = np.searchsorted(np.unique(level), level)
    top = steps.max(initial=0) + 1
    above = np.where(family.parent >= 0, steps[family.parent], top) if len(family) else steps
    return np.asarray((above - steps) / top)


def _without_near_duplicates(quality: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The regions of which none is nearly another one, the better of two; first, second: pairs that are alike."""
    order = np.argsort(first, kind="stable")
    start = np.searchsorted(first[order], np.arange(len(quality) + 1))
    dropped = np.zeros(len(quality), bool)
    keep = []
    for region in np.argsort(-quality, kind="stable").tolist():
        if not dropped[region]:
            keep.append(region)
            dropped[second[order[start[region] : start[region + 1]]]] = True
    return np.array(keep, np.int64)
