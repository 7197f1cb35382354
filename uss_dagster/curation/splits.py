"""Train, validation and test splits by a seeded hash of image content.

Near-duplicates are never in different splits, and adding or removing other images never moves an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "val", "test")


def split_of(identity: str, seed: int, shares: Sequence[float]) -> str:
    """The split of a group of images.

    Parameters
    ----------
    identity : str
        Of the group, such as the smallest sha256 among its files.
    seed : int
    shares : sequence of 3 float
        Of train, val and test; any sum.
    """
    digest = hashlib.sha256(f"{seed} {identity}".encode()).digest()[:8]
    place = int.from_bytes(digest, "big") / 2**64 * sum(shares)
    for name, share in zip(SPLITS, shares, strict=True):
        if place < share:
            return name
        place -= share
    return SPLITS[0]
