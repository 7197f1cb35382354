"""Labels that mean the same over a dataset, for regions that were computed image by image.

Every image's tree is cut once into a flat segmentation, at one level that all images share. Each of its regions gets a vector that can be
compared between images. k-means over the dataset turns the vectors into labels.

Memory does not grow with the number of images. The result does not depend on their order or on the number of workers: what is sampled
of an image depends on its id and its regions alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from uss_dagster.errors import BadData, UsageError
from uss_dagster.graphs.kmeans import kmeans
from uss_dagster.graphs.region_graph import region_means
from uss_dagster.graphs.vectors import unit
from uss_dagster.regions import Regions

_LEVEL_BITS = 10
"""Bits of a level's mantissa that are told apart: levels within 0.1 % of each other count as one, whole numbers below 2048 stay."""


# -- one flat segmentation an image -------------------------------------------------------------------


def choose_level(predictions: Iterable[Regions], regions_per_image: float = 16) -> float | None:
    """The level at which ``flat_regions`` gives about so many regions an image on average; the finer of two that are equally near.

    None if some image has no levels, or regions that overlap without being nested: then the deepest regions are used.

    Parameters
    ----------
    predictions : iterable of Regions
    regions_per_image : float, default 16
    """
    change: dict[float, int] = {}
    images = finest = 0
    lowest = np.float32(np.inf)
    for regions in predictions:
        if not np.isfinite(regions.level).any() or not regions.is_tree:
            return None
        appears, goes, begins_with = _lifetimes(regions)
        finest += begins_with
        lowest = min(lowest, np.nanmin(regions.level))
        for changes, step in ((appears, 1), (goes, -1)):
            for level, times in zip(*np.unique(_rounded_up(changes), return_counts=True), strict=True):
                change[float(level)] = change.get(float(level), 0) + step * int(times)
        images += 1
    if not images:
        return None
    target = regions_per_image * images
    count = finest
    # levels are float32: the next one below all of them is the finest cut
    best, nearest = float(np.nextafter(lowest, np.float32(-np.inf))), abs(count - target)
    for level in sorted(change):
        count += change[level]
        if abs(count - target) < nearest:
            best, nearest = level, abs(count - target)
    return best


def flat_regions(regions: Regions, level: float | None) -> np.ndarray:
    """Indices of the regions in the cut of an image, int64, ascending. Their pixels are given by ``flat_map``.

    Parameters
    ----------
    regions : Regions
    level : float or None
        None takes the deepest regions.
    """
    # The cut of a picture with one pixel an atom is that of the image.
    small = Regions(np.arange(regions.members.shape[1])[None], regions.members, regions.parent, level=regions.level)
    cut = small.deepest() if level is None else small.cut(level)
    used = np.bincount(regions.atoms.ravel(), minlength=regions.members.shape[1]) > 0
    indices = np.unique(cut[0, used])
    indices = indices[indices >= 0].astype(np.int64)
    positions = regions.last_holder(indices)[used]
    return indices[np.unique(positions[positions >= 0])]


def flat_map(regions: Regions, indices: np.ndarray) -> np.ndarray:
    """Which of some regions shows at each pixel, int32 (H, W), as a position in their ascending indices; -1 for none.

    A region shows where no later one of them lies on top of it.
    """
    return regions.last_holder(np.asarray(indices, np.int64)).astype(np.int32)[regions.atoms]


def _lifetimes(regions: Regions) -> tuple[np.ndarray, np.ndarray, int]:
    """(levels at which a region enters the cut, levels at which one leaves it, regions in the finest cut).

    A region is in the cut from its own level up to that of its parent. One with pixels that no child has shows these below its own
    level too, so a leaf is in the cut from the beginning.
    """
    level = np.where(np.isnan(regions.level), np.inf, regions.level.astype(np.float64))
    above = np.where(regions.parent >= 0, level[regions.parent], np.inf)
    last = regions.last_holder()[regions.atom_area > 0]
    own = np.zeros(len(regions), bool)
    own[last[last >= 0]] = True
    enters = ~own & (level < above)
    leaves = np.where(own, np.maximum(level, above), above)[own | enters]
    return level[enters], leaves[np.isfinite(leaves)], int(own.sum())


def _rounded_up(levels: np.ndarray) -> np.ndarray:
    """Levels on a grid of ``_LEVEL_BITS`` bits, the next one up, so that a cut there holds what has these levels."""
    mantissa, exponent = np.frexp(levels)
    return np.ldexp(np.ceil(mantissa * 2 ** (_LEVEL_BITS + 1)), exponent - _LEVEL_BITS - 1)


# -- clusters over the dataset ------------------------------------------------------------------------


def mean_tokens(tokens: np.ndarray, flat: np.ndarray, n: int) -> np.ndarray:
    """Direction of the mean token of each of n regions, float64 (n, C), length 1, for backbones whose tokens compare between images.

    Parameters
    ----------
    tokens : ndarray of float, shape (h, w, C)
        Each is scaled to length 1 first.
    flat : ndarray of int, shape (H, W)
        0..n-1, each present, or -1 for none.
    n : int
    """
    directions = unit(tokens.astype(np.float64))
    return unit(region_means(flat.astype(np.int64) + 1, n + 1, directions)[1:] if (flat < 0).any() else region_means(flat, n, directions))


@dataclass(frozen=True)
class LabelModel:
    """Clusters of region vectors over a dataset. centres: float64 (k, C), fewer rows where the vectors are fewer."""

    centres: np.ndarray

    @classmethod
    def fit(
        cls, described: Iterable[tuple[str, np.ndarray]], k: int, *, seed: int = 0, sample: int = 50_000, restarts: int = 3
    ) -> LabelModel:
        """k-means on the vectors of all images, or on a random sample of them.

        Parameters
        ----------
        described : iterable of (str, ndarray of float, shape (n, C))
            Image id and vectors of its regions, in any order.
        k : int
            Number of clusters.
        seed : int, default 0
        sample : int, default 50000
            Greatest number of vectors. Which are sampled depends on image ids and the seed alone.
        restarts : int, default 3
        """
        if k < 1 or sample < k:
            raise UsageError(f"LabelModel.fit got k = {k} and a sample of {sample} vectors, expected 1 ≤ k ≤ sample.")
        vectors_of_all = _Sample(sample, seed)
        for image_id, vectors in described:
            vectors_of_all.add(image_id, vectors)
        return cls(kmeans(vectors_of_all.vectors(), k, seed=seed, restarts=restarts).centres)

    def assign(self, vectors: np.ndarray) -> np.ndarray:
        """Label of each vector (n, C), its nearest centre: int32 (n,)."""
        if vectors.ndim != 2 or vectors.shape[1] != self.centres.shape[1]:
            raise BadData(f"Vectors are {vectors.shape}, but the labels were fitted on {self.centres.shape[1]} values a region.")
        offset = self.centres.mean(axis=0)
        centres = self.centres - offset
        score = np.einsum("kc,kc->k", centres, centres) - 2 * (vectors.astype(np.float64) - offset) @ centres.T
        return score.argmin(axis=1).astype(np.int32)


class _Sample:
    """A uniform sample of vectors of bounded size: those of smallest key, keys being random numbers drawn from seed and image id."""

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._keys: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []
        self._held, self._bound = 0, np.inf

    def add(self, image_id: str, vectors: np.ndarray) -> None:
        if not np.isfinite(vectors).all():
            raise BadData(f"Image '{image_id}' has a region with a vector that is not finite; check the features it was made from.")
        words = np.frombuffer(hashlib.sha256(f"{self._seed}/{image_id}".encode()).digest(), np.uint32)
        keys = np.random.default_rng(words.tolist()).random(len(vectors))
        near = keys < self._bound
        self._keys.append(keys[near])
        self._rows.append(np.array(vectors[near], np.float32))
        self._held += int(near.sum())
        if self._held >= 2 * self._size:
            self._shrink()

    def vectors(self) -> np.ndarray:
        """The sample, float32 (m, C), in order of key."""
        if not self._held:
            raise BadData("No image has a region to be labelled; check that the segments are not empty.")
        self._shrink()
        return self._rows[0]

    def _shrink(self) -> None:
        keys, rows = np.concatenate(self._keys), np.concatenate(self._rows)
        order = np.argsort(keys, kind="stable")[: self._size]
        self._keys, self._rows, self._held = [keys[order]], [rows[order]], len(order)
        if len(order) == self._size:
            self._bound = float(keys[order[-1]])
