"""Colours of nested regions: a region has one colour at every granularity, and its parts have shades of it.

Belongs here: the palette, and which colour of it each region of a family gets. Does not belong here: painting (``drawing``,
``assets/explorer.js``).
"""

from __future__ import annotations

import numpy as np

from uss_dagster.drawing import best_pairs, oklab_to_srgb
from uss_dagster.regions import Regions
from uss_dagster.regions.regions import joint_histogram
from uss_dagster.report.explorer_codes import Nested

ANCHORS = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#882255")
"""Seven colours of M. Okabe and K. Ito ("Color Universal Design", 2008) and the wine of P. Tol's muted scheme: told apart with any
of the three colour blindnesses."""
SHADES = ((0.0, 0.0), (0.09, 0.14), (-0.09, -0.14), (0.05, -0.28), (-0.05, 0.28), (0.14, 0.0), (-0.13, 0.0))
"""(lightness, hue in radians) that each shade adds to its anchor, in OKLCH."""


def palette() -> list[str]:
    """``#rrggbb`` of all colours: shade s of anchor a is at ``a * len(SHADES) + s``."""
    return [_shaded(anchor, *shade) for anchor in ANCHORS for shade in SHADES]


def assign(nested: Nested, reference: tuple[Nested, np.ndarray] | None = None) -> np.ndarray:
    """The index into ``palette()`` of each region.

    The regions in view when about eight are (``drawing.flat_cut``) get an anchor each, that of the most similar region of the
    reference. A region above them has the colour of its largest part, so that opening it changes the colour of the other parts only;
    a region below them has a shade.

    Parameters
    ----------
    nested : Nested
        The family.
    reference : (Nested, numpy.ndarray), optional
        An earlier family and its colours.

    Returns
    -------
    numpy.ndarray
        uint8 (K,).
    """
    regions, nest = nested.regions, nested.nest
    k, n_anchors, n_shades = len(regions), len(ANCHORS), len(SHADES)
    colour = np.full(k, -1, np.int64)
    if not k:
        return colour.astype(np.uint8)
    view = nested.in_view(n_anchors)
    free = list(range(n_anchors))
    if reference is not None:
        for region, anchor in _pairs(regions, view, reference[0], reference[1] // n_shades):
            colour[region] = anchor * n_shades
            free.remove(anchor)
    late = [r for r in view if colour[r] < 0]
    for number, region in enumerate(late):
        if number < len(free):
            colour[region] = free[number] * n_shades
        else:  # a flat family may show dozens at once
            turn, anchor = divmod(number - len(free), n_anchors)
            colour[region] = anchor * n_shades + 1 + turn % (n_shades - 1)
    by_area = np.lexsort((np.arange(k), -regions.area)).tolist()
    children: list[list[int]] = [[] for _ in range(k)]
    for region in by_area:
        if nest[region] >= 0:
            children[nest[region]].append(region)
    for region in reversed(by_area):  # upwards: the colour of the largest part that has one
        if colour[region] < 0:
            colour[region] = next((colour[c] for c in children[region] if colour[c] >= 0), -1)
    for number, region in enumerate(by_area):  # downwards
        if colour[region] < 0:
            colour[region] = number % n_anchors * n_shades
        anchor, shade = divmod(int(colour[region]), n_shades)
        for place, child in enumerate(children[region]):
            if colour[child] < 0:
                step = place if nested.tiled else place + 1  # where parts do not fill it, the region stays in sight beside its largest part
                colour[child] = anchor * n_shades + (shade + step) % n_shades
    return colour.astype(np.uint8)


def _pairs(regions: Regions, view: list[int], reference: Nested, anchors: np.ndarray) -> list[tuple[int, int]]:
    """(region, anchor) of the regions that resemble one in the reference's view, one to one, the best IoU first."""
    other, theirs = reference.regions, reference.in_view(len(ANCHORS))[: len(ANCHORS)]
    shared = joint_histogram(regions, other).astype(np.float64)
    inside = regions.members[view].astype(np.float64) @ shared @ other.members[theirs].T.astype(np.float64)
    iou = inside / np.maximum(regions.area[view][:, None] + other.area[theirs] - inside, 1)
    return [(view[row], int(anchors[theirs[column]])) for row, column in best_pairs(iou)]


def _shaded(colour: str, lighter: float, turned: float) -> str:
    """A colour with its lightness and its hue (radians) changed in OKLCH."""
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lightness, a, b = _TO_LAB @ np.cbrt(_TO_LMS @ linear)
    chroma, hue = np.hypot(a, b), np.arctan2(b, a) + turned
    moved = np.clip(lightness + lighter, 0.2, 0.95), chroma * np.cos(hue), chroma * np.sin(hue)
    return "#" + oklab_to_srgb(*(np.array([part]) for part in moved)).tobytes().hex()


_TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]]
)
_TO_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099], [0.0259040371, 0.7827717662, -0.8086757660]]
)
