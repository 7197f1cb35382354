"""Regions given as run-length codes. Masks are decoded only where pixels are needed: copying annotations into a table needs none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Unpack

import numpy as np
from pycocotools import mask as coco

from uss_dagster.errors import BadData
from uss_dagster.regions import rle
from uss_dagster.regions.regions import Columns, Regions


class CodedRegions(Regions):
    """K regions over one image, from their COCO codes.

    Codes, areas and boxes are read off the runs. ``atoms`` and ``members`` are computed at their first use: for an image of
    COCO that takes about twenty times as long as all the rest.

    Parameters
    ----------
    codes : sequence of bytes, length K
        Compressed counts, see ``regions.rle``.
    shape : (int, int)
        Height and width of the image.
    parent, **columns
        As for ``Regions``.
    """

    def __init__(
        self,
        codes: Sequence[bytes],
        shape: tuple[int, int],
        parent: Sequence[int] | np.ndarray | None = None,
        **columns: Unpack[Columns],
    ) -> None:
        self._codes, self._shape = list(codes), (int(shape[0]), int(shape[1]))
        for region, code in enumerate(self._codes):
            if rle.code_length(code) != shape[0] * shape[1]:
                raise BadData(
                    f"Region {region}: its run-length code covers {rle.code_length(code)} pixels, "
                    f"the image has {shape[0]}×{shape[1]} = {shape[0] * shape[1]}."
                )
        self._set_columns(len(codes), parent, **columns)

    @property
    def shape(self) -> tuple[int, int]:
        return self._shape

    def __len__(self) -> int:
        return len(self._codes)

    @cached_property
    def _decoded(self) -> Regions:
        return Regions.from_codes(self._codes, self._shape)

    @cached_property
    def atoms(self) -> np.ndarray:  # type: ignore[override]
        return self._decoded.atoms

    @cached_property
    def members(self) -> np.ndarray:  # type: ignore[override]
        return self._decoded.members

    @cached_property
    def area(self) -> np.ndarray:
        return rle.areas(self._codes, *self._shape)

    @cached_property
    def boxes(self) -> np.ndarray:
        return (
            coco.toBbox(rle.coco_codes(self._codes, self._shape)).astype(np.int32).reshape(-1, 4)
            if self._codes
            else np.zeros((0, 4), np.int32)
        )

    def mask(self, region: int) -> np.ndarray:
        return rle.decode(self._codes[region], *self._shape)

    def window(self, region: int, window: tuple[slice, slice]) -> np.ndarray:
        return self.mask(region)[window]

    def rles(self) -> list[bytes]:
        return list(self._codes)

    def pruned(self) -> CodedRegions:
        """Without regions that own no pixel; still as codes."""
        keep = np.flatnonzero(self.area > 0)
        if len(keep) == len(self):
            return self
        parent, columns = self._selected(keep)
        return CodedRegions([self._codes[i] for i in keep], self._shape, parent, **columns)
