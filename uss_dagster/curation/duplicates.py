"""Near-duplicate images: a 64-bit perceptual hash, exact search within a Hamming radius, and a comparison of colours.

The hash holds the signs of the 64 lowest frequencies (without the mean) of a 32 × 32 cosine transform of the grey image. Mirroring an image
changes the sign of its odd horizontal frequencies only. So the hash of the mirror image follows from the same transform, and mirrored
copies are found too. The hash ignores colour: a pair counts only if the mean colours of an 8 × 8 grid agree as well.

The search is multi-index hashing (Norouzi, Punjani & Fleet, CVPR 2012). If hashes are cut into m bands, two hashes within r bits agree in some
band to within r // m bits. So each band's neighbours are looked up in a sorted list. With bands of about log2 N bits the work grows little
faster than N. The result is exact: the same pairs as comparing all with all (``benchmarks/curation.py``).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

SIDE, BITS, CELLS = 32, 64, 8
MIN_CONTRAST = 2.0
"""Standard deviation of the grey levels (0..255) of the 32 × 32 image below which an image shows nothing."""


@dataclass(frozen=True)
class ImageSignature:
    """What near-duplicates have in common.

    Parameters
    ----------
    hash, mirrored : int
        64-bit perceptual hashes of the image and of its mirror image.
    colours : uint8 array of shape (8, 8, 3)
        Mean colours of a grid.
    contrast : float
        Standard deviation of the grey levels, 0..255.
    """

    hash: int
    mirrored: int
    colours: np.ndarray
    contrast: float

    @property
    def one_colour(self) -> bool:
        """The image has one colour, or nearly so."""
        return self.contrast < MIN_CONTRAST


def image_signature(image: np.ndarray) -> ImageSignature:
    """The signature of an image, uint8 (H, W, 3)."""
    from PIL import Image
    from scipy.fft import dctn

    small = np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    grey = small @ (0.299, 0.587, 0.114)
    rows, columns = _lowest_frequencies()
    wave = dctn(grey - grey.mean())[rows, columns] / 4
    wave = np.where(np.abs(wave) < 1e-9, 0, wave)  # rounding must not set the sign of a frequency that is absent
    return ImageSignature(
        _packed(wave > 0),
        _packed(np.where(columns % 2, -wave, wave) > 0),
        np.rint(small.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS, 3).mean(axis=(1, 3))).astype(np.uint8),
        float(grey.std()),
    )


def near_pairs(hashes: np.ndarray, others: np.ndarray, radius: int) -> np.ndarray:
    """Pairs of hashes that differ in few bits.

    Parameters
    ----------
    hashes, others : uint64 arrays of shape (N,) and (M,)
    radius : int
        Greatest number of bits that differ.

    Returns
    -------
    int64 array of shape (P, 2)
        All (i, j), sorted, such that ``hashes[i]`` and ``others[j]`` are at most ``radius`` bits apart.
    """
    if not len(hashes) or not len(others):
        return np.zeros((0, 2), np.int64)
    import pandas as pd

    ours, our_places = np.unique(hashes, return_inverse=True)
    theirs, their_places = np.unique(others, return_inverse=True)
    pairs = pd.DataFrame(_distinct_pairs(ours, theirs, radius), columns=["ours", "theirs"])
    for side, places in (("ours", our_places), ("theirs", their_places)):  # each place at which a value occurs
        pairs = pairs.merge(pd.DataFrame({side: places, f"place_{side}": np.arange(len(places))}), on=side)
    return pairs[["place_ours", "place_theirs"]].sort_values(["place_ours", "place_theirs"]).to_numpy(np.int64, copy=True)


def _distinct_pairs(ours: np.ndarray, theirs: np.ndarray, radius: int) -> np.ndarray:
    """Pairs of distinct values, by bands."""
    bands = max(1, min(radius + 1, round(BITS / max(8.0, math.log2(max(len(theirs), 2))))))
    edges = np.linspace(0, BITS, bands + 1).astype(int)
    pairs = []
    for low, high in itertools.pairwise(edges.tolist()):
        width, mask = high - low, np.uint64(2 ** (high - low) - 1)
        our_band, their_band = (ours >> np.uint64(low)) & mask, (theirs >> np.uint64(low)) & mask
        order = np.argsort(their_band, kind="stable")
        ordered = their_band[order]
        for flips in range(min(radius // bands, width) + 1):
            for bits in itertools.combinations(range(width), flips):
                flipped = our_band ^ np.uint64(sum(1 << bit for bit in bits))
                i, j = _ranges(np.searchsorted(ordered, flipped, "left"), np.searchsorted(ordered, flipped, "right"))
                j = order[j]
                near = np.bitwise_count(ours[i] ^ theirs[j]) <= radius
                pairs.append(np.stack([i[near], j[near]], axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


def _ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(i, each of first[i]..last[i]-1), for all i."""
    count = last - first
    i = np.repeat(np.arange(len(count)), count)
    return i, np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)


def near_duplicates(hashes: np.ndarray, mirrored: np.ndarray, colours: np.ndarray, radius: int, colour_difference: float) -> np.ndarray:
    """Pairs of images that show the same.

    Of images with equal hash and colours, each is paired with the first only. So a thousand copies of one image do not make half a million
    pairs; the groups are the same.

    Parameters
    ----------
    hashes, mirrored : uint64 arrays of shape (N,)
    colours : uint8 array of shape (N, 8, 8, 3)
    radius : int
        Greatest number of bits in which the hashes differ, as they are or mirrored.
    colour_difference : float
        Greatest mean difference of the colours, in grey levels.

    Returns
    -------
    int64 array of shape (P, 2)
        Pairs i < j, sorted.
    """
    pairs = []
    for other, other_colours in ((hashes, colours), (mirrored, colours[:, :, ::-1])):
        firsts, repeats = _first_of_equal(other, other_colours)
        near = near_pairs(hashes, other[firsts], radius)
        near[:, 1] = firsts[near[:, 1]]
        apart = np.abs(colours[near[:, 0]].astype(np.int16) - other_colours[near[:, 1]]).mean(axis=(1, 2, 3)) if len(near) else np.zeros(0)
        pairs += [near[apart <= colour_difference], repeats]
    both = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(both[both[:, 0] < both[:, 1]], axis=0)


def _first_of_equal(hashes: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the first place of each distinct hash and colours; pairs of it with every other place that has the same)."""
    keys: dict[tuple[int, bytes], int] = {}
    same = [
        (keys.setdefault((value, colour.tobytes()), place), place)
        for place, (value, colour) in enumerate(zip(hashes.tolist(), colours, strict=True))
    ]
    return np.array(list(keys.values()), np.int64), np.array([pair for pair in same if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def groups_of(pairs: np.ndarray, count: int) -> np.ndarray:
    """The smallest member of each item's group, int64 (count,); pairs, int (P, 2), belong to one group."""
    from scipy.sparse import coo_array, csgraph

    _, group = csgraph.connected_components(coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(count, count)), directed=False)
    _, first = np.unique(group, return_index=True)
    return first.astype(np.int64)[group]


def _packed(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _lowest_frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the 64 lowest frequencies without the mean, sorted by their sum, then by row."""
    places = sorted(((r, c) for r in range(12) for c in range(12) if r + c), key=lambda p: (p[0] + p[1], p[0]))[:BITS]
    rows, columns = zip(*places, strict=True)
    return np.array(rows), np.array(columns)
