"""Two regions by colour below one for the whole picture: a method that costs next to nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.methods.base import MethodSpec
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """What tells entries apart.

    Parameters
    ----------
    shift : int
        Pixels by which the regions are moved to the right.
    """

    shift: int = 0


SPEC = MethodSpec("by_colour", "Two regions by colour", Params, paper="none", reimplementation=False)


def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """The whole picture, and below it the pixels that have the red of the first pixel, and the others."""
    red = sample.image[..., 0]
    return Regions.from_tree(np.roll(np.where(red == red[0, 0], 1, 2), params.shift, axis=1), [-1, 0, 0])
