"""A person who knows the ground truth, and reaches it by clicks on candidates: how much work the page asks for.

Each click is at the centre of the largest error, as in ``metrics.clicks``: the first starts a region, one on a missed pixel adds a region, one on a wrong
pixel takes one away. After each, the region is made larger or smaller, a step at a time, until the IoU is the greatest that its chain gives.
Where no region of the chain helps, the click is spent, and the rest of the errors is looked at. The brush is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.annotation.pool import Pool
from uss_dagster.metrics.clicks import next_click

ENOUGH, MOST = 0.85, 20
"""The IoU at which the person accepts, and the clicks after which they give up."""


@dataclass(frozen=True)
class Labelled:
    """What the person made of one region.

    Parameters
    ----------
    mask : ndarray
        Bool (H, W).
    iou : float
        With the ground truth.
    clicks : int
        Clicks on the image.
    actions : int
        Clicks, and steps to larger and smaller regions.
    """

    mask: np.ndarray
    iou: float
    clicks: int
    actions: int

    @property
    def reached(self) -> bool:
        """Whether it is good enough."""
        return self.iou >= ENOUGH


def label(pool: Pool, target: np.ndarray, valid: np.ndarray | None = None) -> Labelled:
    """Label one region.

    Parameters
    ----------
    pool : Pool
        The candidates.
    target : ndarray
        Bool (H, W) of the pool's size, not empty.
    valid : ndarray, optional
        Bool (H, W), the pixels that count. Default: all.
    """
    atoms, members = pool.regions.atoms, pool.regions.members
    counted = np.ones_like(target) if valid is None else valid
    area = np.bincount(atoms.ravel(), counted.ravel(), members.shape[1])
    wanted = np.bincount(atoms.ravel(), (target & counted).ravel(), len(area))  # target pixels of each atom: a selection is a set of atoms
    selected, ignored = np.zeros(len(area), bool), ~counted
    iou, clicks, actions = 0.0, 0, 0
    while clicks < MOST and iou < ENOUGH:
        mask = selected[atoms]
        missed, wrong = target & ~mask & ~ignored, mask & ~target & ~ignored
        if not (missed.any() or wrong.any()):
            break
        sign, (x, y) = next_click(missed, wrong)
        clicks, actions = clicks + 1, actions + 1
        chain, start = pool.at(x, y)
        results = selected & ~members[chain] if sign else selected | members[chain]
        shared = results @ wanted
        ious = shared / (results @ area + wanted.sum() - shared)
        if not len(chain) or ious.max() <= iou:
            spent = members[chain[0]][atoms] if len(chain) else atoms == atoms[y, x]
            ignored |= spent
            continue
        if not sign and selected.any():  # the page begins with a region that adds something
            start = max(start, int(np.argmax((results != selected).any(axis=1))))
        best = int(np.argmax(ious))
        actions += pool.steps(chain, start, best)
        selected, iou = results[best], float(ious[best])
    return Labelled(selected[atoms], iou, clicks, actions)
