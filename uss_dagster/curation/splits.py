"""Train, validation and test, by a seeded hash of what images show: near-duplicates are never apart, and an image never moves because
others come or go."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "val", "test")


def split_of(identity: str, seed: int, shares: Sequence[float]) -> str:
    """The split of a group of images. identity: of the group, such as the smallest sha256 among its files. shares: of the three splits."""
    word = hashlib.sha256(f"{seed} {identity}".encode()).digest()[:8]
    place = int.from_bytes(word, "big") / 2**64 * sum(shares)
    for name, share in zip(SPLITS, shares, strict=True):
        if place < share:
            return name
        place -= share
    return SPLITS[0]
