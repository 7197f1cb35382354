"""Patches of a whole dataset as points: of length 1, a sample of every image put aside on disk, optionally in fewer dimensions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np

from uss_dagster.datasets.base import Sample
from uss_dagster.errors import BadData
from uss_dagster.graphs.streaming_kmeans import Projection, RowFile

Facet = Literal["keys", "tokens"]


class Samples(Protocol):
    """All images of a dataset, as often as wanted, one in memory at a time."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...


def unit_grid(sample: Sample, facet: str, outlier_mads: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A facet with patches of length 1, float32 (h, w, C), and which of them are to be trusted, bool (h, w).

    outlier_mads: a patch longer than the median length by more than so many median absolute deviations is an artefact of the transformer
    (Darcet et al., "Vision transformers need registers", ICLR 2024) and gets the mean of its neighbours instead. None: all are trusted.
    """
    grid = sample.features[facet]
    if grid.ndim != 3 or 0 in grid.shape or not np.isfinite(grid).all():
        raise BadData(
            f"Image '{sample.image_id}': '{facet}' of shape {grid.shape} is no grid of finite features (h, w, C); extract it again."
        )
    trusted = np.ones(grid.shape[:2], bool)
    if outlier_mads is not None:
        length = np.linalg.norm(grid, axis=2)
        middle = np.median(length)
        trusted = length <= middle + outlier_mads * np.median(np.abs(length - middle))
        grid = _mended(grid, trusted)
    length = np.linalg.norm(grid, axis=2, keepdims=True)
    return np.asarray(grid / np.maximum(length, 1e-12), np.float32), trusted


def _mended(grid: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Patches that are not trusted replaced by the mean of the trusted ones among their eight neighbours; one without any stays."""
    h, w = trusted.shape
    weight = np.pad(trusted, 1).astype(np.float32)
    values = np.pad(grid, ((1, 1), (1, 1), (0, 0))) * weight[:, :, None]
    steps = [(y, x) for y in range(3) for x in range(3)]
    total = sum(values[y : y + h, x : x + w] for y, x in steps)
    count = np.asarray(sum(weight[y : y + h, x : x + w] for y, x in steps))
    mend = ~trusted & (count > 0)
    result = grid.copy()
    result[mend] = np.asarray(total)[mend] / count[mend][:, None]
    return result


def drawn(units: np.ndarray, trusted: np.ndarray, count: int, seed: int, image_id: str) -> np.ndarray:
    """At most ``count`` trusted patches (m, C) of one image, in raster order. Which ones depends on the seed and the image's id alone."""
    places = np.flatnonzero(trusted)
    if len(places) > count:
        words = np.frombuffer(hashlib.sha256(f"{seed}/{image_id}".encode()).digest(), np.uint32)
        places = np.sort(np.random.default_rng(words.tolist()).permutation(places)[:count])
    return units.reshape(-1, units.shape[2])[places]


def per_image(images: int, wanted: int, limit: int) -> int:
    """Patches to draw from each image so that all together stay below ``limit``."""
    return max(1, min(wanted, limit // max(images, 1)))


def projected(rows: RowFile, projection: Projection) -> RowFile:
    """The same pieces in the principal directions."""
    result = RowFile()
    for number in range(len(rows)):
        result.append(projection(rows[number]))
    return result
