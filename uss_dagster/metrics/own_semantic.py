"""A method's own segmentation, its segments labelled over the whole dataset, by the conventions of ``semantic``.

For methods whose finest regions are one segmentation (``MethodSpec.segmentation``): as many segments as the method's own rule chose for each
image, not the cut of about as many regions for every entry that ``semantic`` compares. Methods without labels of their own are given them by
the stage ``labels``, segment by segment.

References: as of ``semantic``.
"""

from __future__ import annotations

from collections.abc import Iterable

from uss_dagster.metrics.base import metric_spec
from uss_dagster.metrics.semantic import PairCounts

SPEC = metric_spec(__file__)


class OwnPairCounts(PairCounts):
    """As ``PairCounts``, with values under the names of this family."""

    def _values(self, columns: Iterable[int]) -> list[dict[str, float]]:
        return [
            {f"own_{name}": value for name, value in values.items() if f"own_{name}" in SPEC.metrics} for values in super()._values(columns)
        ]


accumulator = OwnPairCounts
