"""Which image to label next: those on which the leading entries differ most tend to come first, and what each then stands for.

Labels on an image where all entries find the same regions say nothing about which is best. But a mean over the images that differ most is no
mean over all. So the order is drawn at random, with chances in proportion to the difference, and a labelled image counts by the inverse of
its chance: the ranking is that of all images (Horvitz–Thompson weights of a bottom-k sample). The draws come from the ids of the
images, so the order is the same each time.

Reference: Cohen & Kaplan, "Summarizing data using bottom-k sketches", PODC 2007.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import permutations

import numpy as np

from uss_dagster.annotation.entries import Entries
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import row_groups, rows_by_image
from uss_dagster.curation.overlaps import best_iou
from uss_dagster.own_images.region_files import ENTRIES, TABLE

LEADING = 4
"""How many entries are compared."""
LARGEST = 24
"""How many regions of an entry on an image are compared, the largest ones but the whole image."""
LEAST = 0.5
"""No image has a smaller chance than this share of the mean one: weights stay bounded."""


def differences(entries: Entries) -> dict[str, float]:
    """Image id → how much the leading entries differ on it, 0 to 1; 0 for all where there is one entry."""
    leading = entries.names[:LEADING]
    if len(leading) < 2:
        return dict.fromkeys(sorted(entries.ids), 0.0)
    agreement = _agreement(entries, leading)
    return {image_id: 1 - agreement.get(image_id, 0.0) for image_id in sorted(entries.ids)}


def _agreement(entries: Entries, leading: Sequence[str]) -> dict[str, float]:
    """The mean, over pairs of entries and over the larger regions of the one, of the greatest IoU with a region of the other."""
    codes: dict[str, dict[str, list[bytes]]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for entry in leading:
        for group in row_groups([entries.folder / ENTRIES / entry / TABLE], REGIONS, ["image_id", "area", "rle", "height", "width"]):
            for image_id, rows in rows_by_image(group):
                shapes[image_id] = (rows["height"][0].as_py(), rows["width"][0].as_py())
                area = rows["area"].to_numpy()
                largest = np.argsort(-area, kind="stable")
                largest = largest[area[largest] < math.prod(shapes[image_id])][:LARGEST]
                codes.setdefault(image_id, {})[entry] = rows["rle"].take(largest).to_pylist()
    return {
        i: float(np.mean([_cover(mine, other, shapes[i]) for mine, other in permutations(of.values(), 2)] or [0.0]))
        for i, of in codes.items()
    }


def _cover(regions: Sequence[bytes], others: Sequence[bytes], shape: tuple[int, int]) -> float:
    """The mean of the greatest IoU of each region; 1 where neither has one."""
    return float(best_iou(regions, others, shape).mean()) if regions else float(not others)


class Order:
    """The order in which images are asked for.

    Parameters
    ----------
    difference : mapping
        Image id → how much the entries differ on it. All 0: the order is that of the ids.
    """

    def __init__(self, difference: Mapping[str, float]) -> None:
        values = np.array(list(difference.values()))
        floor = LEAST * float(values.mean()) if len(values) else 0.0
        self._chance = {image_id: max(value, floor) for image_id, value in difference.items()}
        if floor > 0:
            self._place = {image_id: _draw(image_id) / chance for image_id, chance in self._chance.items()}
        else:
            self._place = {image_id: float(rank) for rank, image_id in enumerate(sorted(difference))}
        self._drawn = floor > 0
        self.ids = sorted(difference, key=lambda image_id: (self._place[image_id], image_id))

    def weights(self, labelled: Collection[str]) -> dict[str, float]:
        """For how many images each labelled one stands, 1 or more. One that was labelled out of turn stands for itself."""
        following = next((self._place[image_id] for image_id in self.ids if image_id not in labelled), math.inf)
        weights = {}
        for image_id in labelled:
            asked = self._drawn and self._place[image_id] < following < math.inf
            weights[image_id] = 1 / -math.expm1(-self._chance[image_id] * following) if asked else 1.0
        return weights


def _draw(image_id: str) -> float:
    """An exponential variate of an image, a function of its id alone."""
    number = int.from_bytes(hashlib.sha256(f"order of {image_id}".encode()).digest()[:8], "little")
    return -math.log((number + 0.5) / 2**64)
