"""Patches of a whole dataset as points of length 1: a sample of every image, put aside on disk, optionally in fewer dimensions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from uss_dagster.bounds import at_least, check_bounds
from uss_dagster.datasets.base import Sample
from uss_dagster.graphs.streaming_kmeans import Centres, Projection, RowFile, Shards, fit_centres, principal
from uss_dagster.graphs.vectors import unit
from uss_dagster.methods.base import feature_grid

Facet = Literal["keys", "tokens", "queries", "values"]


@dataclass(frozen=True)
class PatchRule:
    """The features of patches, and how many of them centres of the dataset are fitted on.

    Parameters
    ----------
    facet : {'keys', 'tokens', 'queries', 'values'}
        Of the backbone. Default 'keys'.
    pca : int or None
        Channels to which patches are reduced. Default None, all.
    outlier_mads : float or None
        Longer patches are replaced, see ``unit_grid``; 3 for DINOv2 without registers. Default None, none are.
    sample_per_image : int
        Patches of an image. Default 256.
    sample_limit : int
        Patches in all. Default 2 000 000.
    """

    facet: Facet = "keys"
    pca: int | None = None
    outlier_mads: float | None = None
    sample_per_image: int = 256
    sample_limit: int = 2_000_000

    def __post_init__(self) -> None:
        check_bounds(self, sample_per_image=at_least(1), sample_limit=at_least(1), pca=at_least(1), outlier_mads=at_least(0))

    def grid(self, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        """See ``unit_grid``."""
        return unit_grid(sample, self.facet, self.outlier_mads)

    def per_image(self, images: int) -> int:
        """Patches to draw from each image: at most ``sample_per_image``, and together below ``sample_limit``."""
        return max(1, min(self.sample_per_image, self.sample_limit // max(images, 1)))


@dataclass(frozen=True)
class KMeansRule:
    """The k-means of patches over a dataset, see ``fit_centres``.

    Parameters
    ----------
    batch : int
        Patches in memory at a time. Default 16 384.
    epochs : int
        Most passes over the patches. Default 100.
    tolerance : float
        It ends when no centre moves by as much. Default 1e-4.
    restarts : int
        Seedings on a sample, of which the best counts. Default 5.
    """

    batch: int = 16_384
    epochs: int = 100
    tolerance: float = 1e-4
    restarts: int = 5

    def __post_init__(self) -> None:
        check_bounds(self, batch=at_least(1), epochs=at_least(1), restarts=at_least(1), tolerance=at_least(0))

    def centres(self, rows: Shards, k: int, seed: int) -> Centres:
        """k centres of the patches of a dataset."""
        return fit_centres(rows, k, seed=seed, restarts=self.restarts, batch=self.batch, epochs=self.epochs, tolerance=self.tolerance)


def unit_grid(sample: Sample, facet: str, outlier_mads: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A facet with patches of length 1, and which of them are no outliers.

    Parameters
    ----------
    sample : Sample
        An image with its features.
    facet : str
        Which of them.
    outlier_mads : float or None
        A patch longer than the median length by more than so many median absolute deviations is an artefact of the transformer (Darcet et
        al., "Vision transformers need registers", ICLR 2024) and gets the mean of its neighbours instead. None: there are no outliers.

    Returns
    -------
    units : float32 array (h, w, C)
    trusted : bool array (h, w)
    """
    grid = feature_grid(sample, facet)
    trusted = np.ones(grid.shape[:2], bool)
    if outlier_mads is not None:
        length = np.linalg.norm(grid, axis=2)
        middle = np.median(length)
        trusted = length <= middle + outlier_mads * np.median(np.abs(length - middle))
        grid = _mended(grid, trusted)
    return np.asarray(unit(grid), np.float32), trusted


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


def reduce_rows(rows: RowFile, channels: int | None, seed: int) -> tuple[RowFile, Projection | None]:
    """The same pieces in ``channels`` principal directions, and the projection; the pieces themselves and None where there are none."""
    if not channels or not rows.rows:
        return rows, None
    projection, reduced = principal(rows, channels, seed=seed), RowFile()
    for number in range(len(rows)):
        reduced.append(projection(rows[number]))
    return reduced, projection


def reduced(units: np.ndarray, projection: Projection | None) -> np.ndarray:
    """Patches (…, C) in the principal directions, where there is a projection."""
    return units if projection is None else projection(units)
