"""Regions that come as run-length codes and mostly stay so: annotations on their way into a table need no pixel drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from pycocotools import mask as coco

from uss_dagster.errors import BadData
from uss_dagster.regions import rle
from uss_dagster.regions.regions import Regions


class CodedRegions(Regions):
    """K regions over one image of ``shape`` (height, width), from their COCO codes; the columns are those of ``Regions``.

    Codes, areas and boxes are read off the runs. ``atoms`` and ``members`` are made when first asked for: for an image of
    COCO that takes about twenty times as long as all the rest.
    """

    def __init__(
        self,
        codes: Sequence[bytes],
        shape: tuple[int, int],
        parent: Sequence[int] | np.ndarray | None = None,
        *,
        level: Sequence[float] | np.ndarray | None = None,
        score: Sequence[float] | np.ndarray | None = None,
        label: Sequence[int] | np.ndarray | None = None,
        source: Sequence[str] | str = "",
    ) -> None:
        self._codes, self._shape = list(codes), (int(shape[0]), int(shape[1]))
        for region, code in enumerate(self._codes):
            if rle.code_length(code) != shape[0] * shape[1]:
                raise BadData(
                    f"Region {region}: its run-length code covers {rle.code_length(code)} pixels, "
                    f"the image has {shape[0]}×{shape[1]} = {shape[0] * shape[1]}."
                )
        self._describe(len(codes), parent, level, score, label, source)

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    def __len__(self) -> int:
        return len(self._codes)

    @cached_property
    def _drawn(self) -> Regions:
        return Regions.from_masks([self.mask(region) for region in range(len(self))], shape=self._shape)

    @cached_property
    def atoms(self) -> np.ndarray:  # type: ignore[override]
        return self._drawn.atoms

    @cached_property
    def members(self) -> np.ndarray:  # type: ignore[override]
        return self._drawn.members

    @cached_property
    def area(self) -> np.ndarray:
        return rle.areas(self._codes, *self._shape)

    @cached_property
    def boxes(self) -> np.ndarray:
        return coco.toBbox(self._as_coco()).astype(np.int32).reshape(-1, 4) if self._codes else np.zeros((0, 4), np.int32)

    def mask(self, region: int) -> np.ndarray:
        return rle.decode(self._codes[region], *self._shape)

    def rles(self) -> list[bytes]:
        return list(self._codes)

    def pruned(self) -> CodedRegions:
        """Without regions that own no pixel; still as codes."""
        keep = np.flatnonzero(self.area > 0)
        if len(keep) == len(self):
            return self
        return CodedRegions([self._codes[i] for i in keep], self._shape, **self._columns_of(keep))

    def _as_coco(self) -> list[dict[str, object]]:
        return [{"size": list(self._shape), "counts": code} for code in self._codes]
