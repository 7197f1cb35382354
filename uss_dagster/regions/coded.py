"""Regions that come as run-length codes and mostly stay so: annotations on their way into a table need no pixel drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from pycocotools import mask as coco

from uss_dagster.errors import BadData
from uss_dagster.regions import rle
from uss_dagster.regions.regions import Regions, _check_parents


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
        k = len(codes)
        self._codes, self._shape = list(codes), (int(shape[0]), int(shape[1]))
        for region, code in enumerate(self._codes):
            if rle.code_length(code) != shape[0] * shape[1]:
                raise BadData(
                    f"Region {region}: its run-length code covers {rle.code_length(code)} pixels, "
                    f"the image has {shape[0]}×{shape[1]} = {shape[0] * shape[1]}."
                )
        self.parent = np.full(k, -1, np.int32) if parent is None else np.asarray(parent, np.int32).copy()
        self.level = np.full(k, np.nan, np.float32) if level is None else np.asarray(level, np.float32)
        self.score = np.ones(k, np.float32) if score is None else np.asarray(score, np.float32)
        self.label = np.full(k, -1, np.int32) if label is None else np.asarray(label, np.int32)
        self.source = (source,) * k if isinstance(source, str) else tuple(source)
        for name in ("parent", "level", "score", "label", "source"):
            if len(getattr(self, name)) != k:
                raise BadData(f"{k} regions, but {len(getattr(self, name))} values of '{name}'.")
        _check_parents(self.parent)

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
        return np.array([coco.area(code) for code in self._as_coco()], np.int64)

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
        nearest = np.full(len(self) + 1, -1, np.int64)  # the last entry serves parent -1
        new = np.full(len(self) + 1, -1, np.int64)
        new[keep] = np.arange(len(keep))
        for region, above in enumerate(self.parent.tolist()):
            nearest[region] = new[above] if above < 0 or new[above] >= 0 else nearest[above]
        columns = {"level": self.level[keep], "score": self.score[keep], "label": self.label[keep]}
        return CodedRegions([self._codes[i] for i in keep], self._shape, nearest[keep], **columns, source=[self.source[i] for i in keep])

    def _as_coco(self) -> list[dict[str, object]]:
        return [{"size": list(self._shape), "counts": code} for code in self._codes]
