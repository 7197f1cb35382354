"""A method's own segmentation by the per-image oracles of ``oracle``: as many segments as its own rule chose for each image.

For methods whose finest regions are one segmentation (``MethodSpec.segmentation``), such as those with an automatic threshold. ``oracle`` and
``semantic`` compare a cut that all images share, of about as many regions for every entry, so that what they say of such a rule is nothing.
Labels take no part: each pixel belongs to the deepest region that holds it.

References: as of ``oracle``.
"""

from __future__ import annotations

import numpy as np

from uss_dagster.metrics.base import Contribution, Truth, metric_spec
from uss_dagster.metrics.oracle import sums, values_of
from uss_dagster.regions import Regions

SPEC = metric_spec(__file__)


def measure(truth: Truth, prediction: Regions) -> Contribution | None:
    """tp, fp, fn of each protocol, float64 (C,); None where no pixel is valid."""
    return sums(truth, prediction, np.ones(len(prediction), bool))


def reduce(total: Contribution) -> dict[str, float]:
    """mIoU and accuracy of each protocol that has sums."""
    return values_of(total, "own")
