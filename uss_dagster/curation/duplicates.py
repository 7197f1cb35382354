"""Near-duplicate images: a 64-bit perceptual hash, exact search within a Hamming radius, and colours to confirm.

The hash holds the signs of the 64 lowest frequencies (after the mean) of a 32 × 32 cosine transform of the grey picture. Mirroring a picture
turns the sign of its odd horizontal frequencies only, so the hash of the mirror image follows from the same transform, and a picture that
was mirrored is found too. The hash sees no colour: a pair counts only where the mean colours of an 8 × 8 grid agree as well.

Search is by multi-index hashing (Norouzi, Punjani & Fleet, CVPR 2012): cut into m bands, two hashes within r bits agree in some band to
within r // m bits, so each band's neighbours are looked up in a sorted list. With bands of about log2 N bits the work grows little
faster than N. The result is exact: the same pairs as comparing all with all.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

SIDE, BITS, CELLS = 32, 64, 8
PLAIN = 2.0
"""Standard deviation of grey levels (0..255, of the 32 × 32 picture) below which a picture shows nothing."""


@dataclass(frozen=True)
class Look:
    """hash, mirrored: of the picture and of its mirror image. colours: uint8 (8, 8, 3), means of a grid. contrast: standard deviation
    of grey levels."""

    hash: int
    mirrored: int
    colours: np.ndarray
    contrast: float

    @property
    def plain(self) -> bool:
        """The picture is of one colour, or as good as."""
        return self.contrast < PLAIN


def look_at(image: np.ndarray) -> Look:
    """What tells a picture, uint8 (H, W, 3), from others."""
    from PIL import Image

    picture = Image.fromarray(image)
    small = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    grey = small @ (0.299, 0.587, 0.114)
    rows, columns = _lowest()
    cosine = _cosines()
    wave = (cosine @ (grey - grey.mean()) @ cosine.T)[rows, columns]
    wave = np.where(np.abs(wave) < 1e-9, 0, wave)  # rounding must not decide where a frequency is absent
    return Look(
        _packed(wave > 0),
        _packed(np.where(columns % 2, -wave, wave) > 0),
        np.rint(small.reshape(CELLS, SIDE // CELLS, CELLS, SIDE // CELLS, 3).mean(axis=(1, 3))).astype(np.uint8),
        float(grey.std()),
    )


def near_pairs(hashes: np.ndarray, others: np.ndarray, radius: int) -> np.ndarray:
    """All (i, j), int64 (P, 2), sorted, with ``hashes[i]`` and ``others[j]``, uint64, at most ``radius`` bits apart."""
    if not len(hashes) or not len(others):
        return np.zeros((0, 2), np.int64)
    ours, ours_back = np.unique(hashes, return_inverse=True)
    theirs, theirs_back = np.unique(others, return_inverse=True)
    close = _close(ours, theirs, radius)
    return _expanded(close, ours_back, theirs_back)


def _close(ours: np.ndarray, theirs: np.ndarray, radius: int) -> np.ndarray:
    """Pairs of distinct values, by bands."""
    bands = max(1, min(radius + 1, round(BITS / max(8.0, math.log2(max(len(theirs), 2))))))
    edges = np.linspace(0, BITS, bands + 1).astype(int)
    found = []
    for low, high in itertools.pairwise(edges.tolist()):
        width, mask = high - low, np.uint64(2 ** (high - low) - 1)
        key_of_ours, key_of_theirs = (ours >> np.uint64(low)) & mask, (theirs >> np.uint64(low)) & mask
        order = np.argsort(key_of_theirs, kind="stable")
        ordered = key_of_theirs[order]
        for flips in range(min(radius // bands, width) + 1):
            for bits in itertools.combinations(range(width), flips):
                wanted = key_of_ours ^ np.uint64(sum(1 << bit for bit in bits))
                first, last = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
                i, j = _ranges(first, last)
                j = order[j]
                near = np.bitwise_count(ours[i] ^ theirs[j]) <= radius
                found.append(np.stack([i[near], j[near]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(i, each of first[i]..last[i]-1), for all i."""
    count = last - first
    i = np.repeat(np.arange(len(count)), count)
    return i, np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)


def _expanded(pairs: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Pairs of distinct values → pairs of the places where they stand."""
    by_ours, by_theirs = np.argsort(ours, kind="stable"), np.argsort(theirs, kind="stable")
    first, last = (np.searchsorted(ours[by_ours], pairs[:, 0], side) for side in ("left", "right"))
    pair, place = _ranges(np.asarray(first), np.asarray(last))
    left, value = by_ours[place], pairs[pair, 1]
    first, last = (np.searchsorted(theirs[by_theirs], value, side) for side in ("left", "right"))
    pair, place = _ranges(np.asarray(first), np.asarray(last))
    found = np.stack([left[pair], by_theirs[place]], axis=1)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def near_duplicates(hashes: np.ndarray, mirrored: np.ndarray, colours: np.ndarray, radius: int, colour_difference: float) -> np.ndarray:
    """Pairs i < j of images that show the same, int64 (P, 2), sorted: hashes at most ``radius`` bits apart, as they are or mirrored,
    and mean colours at most ``colour_difference`` grey levels apart on average.

    hashes, mirrored: uint64 (N,). colours: uint8 (N, 8, 8, 3). Where very many share one hash, each is compared with the first only, so that
    a thousand copies of one picture do not make half a million pairs: enough to tell groups.
    """
    pairs = []
    for other, seen in ((hashes, colours), (mirrored, colours[:, :, ::-1])):
        some, stand = _few_of_each(other, seen)
        near = near_pairs(hashes, other[some], radius)
        near[:, 1] = some[near[:, 1]]
        apart = np.abs(colours[near[:, 0]].astype(np.int16) - seen[near[:, 1]]).mean(axis=(1, 2, 3)) if len(near) else np.zeros(0)
        pairs += [near[apart <= colour_difference], stand]
    found = np.sort(np.concatenate(pairs), axis=1)
    return np.unique(found[found[:, 0] < found[:, 1]], axis=0)


def _few_of_each(hashes: np.ndarray, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(one place of each distinct hash and colours; pairs of it with every other place that has the same)."""
    keys: dict[tuple[int, bytes], int] = {}
    same = [
        (keys.setdefault((value, look.tobytes()), place), place)
        for place, (value, look) in enumerate(zip(hashes.tolist(), colours, strict=True))
    ]
    return np.array(list(keys.values()), np.int64), np.array([pair for pair in same if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def groups_of(pairs: np.ndarray, count: int) -> np.ndarray:
    """The smallest member of each item's group, int64 (count,), where pairs (P, 2) belong together."""
    first = np.arange(count)

    def top(item: int) -> int:
        while first[item] != item:
            first[item] = first[first[item]]
            item = int(first[item])
        return item

    for a, b in pairs.tolist():
        a, b = sorted((top(a), top(b)))
        first[b] = a
    return np.array([top(item) for item in range(count)], np.int64)


def _packed(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cosines() -> np.ndarray:
    """(12, 32): the first rows of the cosine transform."""
    wave = np.arange(12)[:, None] * (np.arange(SIDE) + 0.5) * (np.pi / SIDE)
    return np.cos(wave)


def _lowest() -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the 64 lowest frequencies but the mean, by sum, then by row."""
    places = sorted(((r, c) for r in range(12) for c in range(12) if r + c), key=lambda p: (p[0] + p[1], p[0]))[:BITS]
    rows, columns = zip(*places, strict=True)
    return np.array(rows), np.array(columns)
