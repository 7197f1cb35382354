"""The regions offered at each pixel: those of all entries, without near-duplicates, from the smallest to the largest.

A click takes the smallest good region at its pixel. A region is good if the other entries have one like it: what several methods find is more
often what a person sees. Where there is one entry, it is good if it stays as it is over many steps of merging.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from uss_dagster.curation.overlaps import best_iou
from uss_dagster.graphs.mask_nms import mask_nms
from uss_dagster.regions import Regions, rle
from uss_dagster.regions.coded import CodedRegions

MOST_ENTRIES = 6
"""So many leading entries give candidates."""
SMALLEST = 2e-4
"""Share of the image below which a region is no candidate; the brush does what is smaller."""
ALIKE = 0.9
"""IoU above which two candidates are near-duplicates."""


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
        """The candidate at which a click on each atom begins, its place in ``chain``, int64 (A,); 0 where there is none."""
        return np.array([self._first_good(self.chain(atom)) for atom in range(self.regions.members.shape[1])], np.int64)

    def chain(self, atom: int) -> np.ndarray:
        """The candidates at the pixels of an atom, from the smallest to the largest."""
        return np.flatnonzero(self.regions.members[:, atom])

    def at(self, x: int, y: int) -> tuple[np.ndarray, int]:
        """The candidates at a pixel, and at which of them a click begins."""
        atom = int(self.regions.atoms[y, x])
        return self.chain(atom), int(self.start[atom])

    def _first_good(self, chain: np.ndarray) -> int:
        """The place of the smallest candidate of a chain that is nearly as good as the best."""
        if not len(chain):
            return 0
        quality = self.quality[chain]
        return int(np.argmax(quality >= NEARLY * quality.max()))


NEARLY = 0.9


def pool_of(families: Sequence[Regions], size: tuple[int, int]) -> Pool:
    """The candidates of an image.

    Parameters
    ----------
    families : sequence of Regions
        The regions of each entry, the best entry first, all of one shape.
    size : tuple of int
        (height, width) at which candidates are offered.
    """
    shape = families[0].shape
    smallest = SMALLEST * shape[0] * shape[1]
    chosen = [family.select(~family.is_root & (family.area >= smallest)) for family in families[:MOST_ENTRIES]]
    codes = [family.rles() for family in chosen]
    quality = np.concatenate(_agreement(codes, shape) if len(codes) > 1 else [_persistence(chosen[0])])
    everything = [code for family in codes for code in family]
    if not everything:
        return Pool(Regions.from_masks([], shape=size), np.zeros(0))
    order = mask_nms(everything, quality, ALIKE)
    area = rle.areas([everything[i] for i in order], *shape)
    order = order[np.argsort(area, kind="stable")]
    regions = CodedRegions([everything[i] for i in order], shape)
    resized = Regions(regions.atoms, regions.members).resized(*size).compact()
    present = resized.area > 0
    return Pool(resized.select(present), quality[order][present])


def _agreement(codes: Sequence[Sequence[bytes]], shape: tuple[int, int]) -> list[np.ndarray]:
    """For the regions of each entry, the mean over the other entries of the greatest IoU with one of theirs."""
    return [np.mean([best_iou(mine, theirs, shape) for j, theirs in enumerate(codes) if j != i], axis=0) for i, mine in enumerate(codes)]


def _persistence(family: Regions) -> np.ndarray:
    """Share of the levels, by rank, over which each region stays as it is, times how compact its size is; 1 where levels are unknown."""
    level = family.level.astype(np.float64)
    if not len(family) or np.isnan(level).any():
        return np.ones(len(family))
    ranks = np.searchsorted(np.unique(level), level)
    above = np.where(family.parent >= 0, ranks[family.parent], ranks.max(initial=0) + 1)
    return (above - ranks) / (ranks.max(initial=0) + 1)
