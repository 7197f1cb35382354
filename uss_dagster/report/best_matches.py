"""Which regions of an entry match the ground truth of an image best: what NMCovering counts, as a picture.

Belongs here: the best match of each region that the picture of the ground truth shows. Does not belong here: the metric
(``metrics.covering``), painting (``drawing``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from uss_dagster import drawing
from uss_dagster.regions import Regions
from uss_dagster.regions.regions import intersections


@dataclass(frozen=True)
class BestMatches:
    """The regions of a ground truth that are looked for, and their colours.

    Parameters
    ----------
    regions : Regions
        At full size: of several annotators, those of the one who is drawn.
    sought : numpy.ndarray
        int64 (G,), those of them that the drawn picture shows, without whole images.
    index : numpy.ndarray
        int64 (G,), colour of each.
    colours : numpy.ndarray
        int32 (height, width), colour of each pixel of the picture, -1 for none. See ``drawing.colour_map``.
    """

    regions: Regions
    sought: np.ndarray
    index: np.ndarray
    colours: np.ndarray

    @classmethod
    def of(cls, truth: Regions, shape: tuple[int, int]) -> Self:
        """What is looked for in the pictures of an image. truth: at full size. shape: (height, width) of the picture."""
        shown = truth.select(np.asarray(truth.source) == drawing.annotators(truth)[0]) if len(truth) else truth
        labels = shown.resized(*shape).deepest()
        colours = drawing.colour_map(labels)
        sought, first = np.unique(labels, return_index=True)
        counted = (sought >= 0) & ~np.append(shown.is_root, True)[sought]  # -1, no region, takes the last
        return cls(shown, sought[counted].astype(np.int64), colours.ravel()[first[counted]].astype(np.int64), colours)

    def drawn(self, regions: Regions, small: Regions) -> tuple[np.ndarray, int]:
        """The picture of an entry's best matches.

        Each region that is looked for paints the region of highest IoU, whole images left out, in its colour; larger ones first, and of
        regions that match several, the better match last.

        Parameters
        ----------
        regions, small : Regions
            Of the entry: at full size, where IoU are computed, and the same at the size of the picture.

        Returns
        -------
        colours : numpy.ndarray
            int32 (height, width), -1 where no best match is.
        count : int
            Number of different regions that match.
        """
        holder = np.full(small.members.shape[1], -1, np.int32)
        candidates = np.flatnonzero(~regions.is_root)
        if not len(candidates) or not len(self.sought):
            return holder[small.atoms], 0
        shared = intersections(self.regions, regions)[np.ix_(self.sought, candidates)]
        union = self.regions.area[self.sought][:, None] + regions.area[candidates] - shared
        iou = shared / np.maximum(union, 1)
        best = iou.argmax(axis=1)
        value, match = iou[np.arange(len(best)), best], candidates[best]
        for row in np.lexsort((value, -regions.area[match])):
            if value[row] > 0:
                holder[small.members[match[row]]] = self.index[row]
        return holder[small.atoms], len(np.unique(match[value > 0]))
