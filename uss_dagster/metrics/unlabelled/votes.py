"""The regions of all entries on one picture as candidates for what a person would annotate, and how well each entry covers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from uss_dagster.drawing import flat_cut
from uss_dagster.metrics.covering import region_iou
from uss_dagster.metrics.unlabelled.picture import on_grid
from uss_dagster.regions import Regions

MOST = 24
"""Largest regions of each entry that are candidates."""
LEAST, WHOLE = 0.002, 0.95
"""Shares of the picture; smaller and larger regions are no candidates."""
FLAT = 16
"""Regions in view in the flat segmentation of an entry."""
THRESHOLDS = np.arange(0.5, 1, 0.05)
"""IoU from which a region counts as found, as in COCO's average recall."""
MEASURES = ("parts", "objects", "scenes", "masks")
"""What can be expected of an entry. parts: best IoU of a region of any size; objects: share with an IoU of at least .5; scenes: IoU with
one of ``FLAT`` regions in view; masks: share of ``THRESHOLDS`` that the best IoU reaches."""


@dataclass(frozen=True)
class Candidates:
    """Candidates of all entries on one picture.

    Parameters
    ----------
    masks : ndarray
        bool (n, h, w), on the grid.
    entry : ndarray
        int (n,), the entry each comes from.
    nested, flat : ndarray
        float64 (E, n), best IoU of each entry's regions, and of its flat segmentation, with each candidate.
    """

    masks: np.ndarray
    entry: np.ndarray
    nested: np.ndarray
    flat: np.ndarray

    @classmethod
    def of(cls, families: Sequence[Regions], shape: tuple[int, int]) -> Candidates:
        """The candidates among the regions of E entries. shape: (height, width) of the grid."""
        whole = [on_grid(regions) for regions in families]
        flat = [
            on_grid(Regions.from_label_map(flat_cut(regions, FLAT))) if len(regions) else regions.resized(*shape) for regions in families
        ]
        masks = [family.masks()[largest(family)] if len(family) else np.zeros((0, *shape), bool) for family in whole]
        voters = [Regions.from_masks(family, shape=shape) for family in masks]
        return cls(
            np.concatenate(masks),
            np.repeat(np.arange(len(masks)), [len(family) for family in masks]),
            _best(whole, voters),
            _best(flat, voters),
        )

    def covered(self) -> dict[str, np.ndarray]:
        """For each of ``MEASURES``, how well each entry covers each candidate, 0..1, float64 (E, n)."""
        return measures(self.nested, self.flat)


def measures(nested: np.ndarray, flat: np.ndarray) -> dict[str, np.ndarray]:
    """Each of ``MEASURES`` from the best IoU among all regions, and among those in view."""
    masks = (nested[..., None] >= THRESHOLDS).mean(axis=-1)
    return {"parts": nested, "objects": (nested >= 0.5).astype(np.float64), "scenes": flat, "masks": masks}


def largest(regions: Regions) -> np.ndarray:
    """Indices of the largest regions, without those of nearly the whole picture and tiny ones, largest first."""
    share = regions.area / regions.atoms.size
    counted = np.flatnonzero((share >= LEAST) & (share < WHOLE))
    return counted[np.argsort(-regions.area[counted], kind="stable")[:MOST]]


def _best(families: Sequence[Regions], voters: Sequence[Regions]) -> np.ndarray:
    """(E, n): the best IoU of each family's regions with the regions of all voters; regions of nearly the whole picture take no part."""
    rows = []
    for family in families:
        part = family.select((family.area > 0) & (family.area < WHOLE * family.atoms.size)) if len(family) else family
        rows.append([region_iou(voter, part).max(axis=1) if len(part) else np.zeros(len(voter)) for voter in voters])
    return np.array([np.concatenate(row) for row in rows])
