"""Felzenszwalb and Huttenlocher's graph-based segmentation over a range of scales.

Reference: Felzenszwalb & Huttenlocher, "Efficient graph-based image segmentation", IJCV 59(2), 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import at_least, check_bounds, wrong_value
from uss_dagster.datasets.base import Sample
from uss_dagster.methods.base import MethodSpec
from uss_dagster.pixels import resize_image
from uss_dagster.regions import Regions


@dataclass(frozen=True)
class Params:
    """All parameters. A segment has at least ``max(20, scale / 2)`` pixels.

    Parameters
    ----------
    scales : int
        Number of scales, in geometric steps. Default 10.
    smallest, largest : float
        The first and the last scale. Default 50 and 5000.
    sigma : float
        Smoothing before, in pixels. Default 0.8, as in the paper.
    long_side : int
        A larger image is reduced to it, in pixels, since scale and smallest segment depend on the size; 0 never reduces. Default 640.
    """

    scales: int = 10
    smallest: float = 50.0
    largest: float = 5000.0
    sigma: float = 0.8
    long_side: int = 640

    def __post_init__(self) -> None:
        check_bounds(self, scales=at_least(1), sigma=at_least(0), long_side=at_least(0))
        if not 0 < self.smallest <= self.largest:
            raise wrong_value("smallest", f"{self.smallest} and largest {self.largest}", "0 < smallest ≤ largest")


SPEC = MethodSpec(
    name="felzenszwalb",
    title="Felzenszwalb–Huttenlocher",
    params=Params,
    paper="Felzenszwalb & Huttenlocher, IJCV 2004",
    licence="MIT",
    overlap=True,
    reimplementation=False,
    summary="Graph-based segmentation at ten scales. The scales are not nested, so the regions overlap and have no parents.",
)


def segment(sample: Sample, params: Params, state: object = None) -> Regions:
    """Segments of every scale, finest scale first; level = index of the scale, source = ``scale0``, ``scale1``, ….

    A segment that is unchanged from one scale to the next is listed once, at the finer one; one that disappears and comes back is listed
    again, so that ``Regions.cut(i)`` is the segmentation at scale i exactly. ``score`` is the share of the scales up to the last one that has
    the segment, so that lasting segments come first.
    """
    maps = _label_maps(sample.image, params)
    atoms, first = _common_cells(maps)
    members: list[np.ndarray] = []
    level: list[int] = []
    last: list[int] = []
    before: dict[bytes, int] = {}
    for scale, labels in enumerate(maps):
        label_of_atom = labels.ravel()[first]
        now: dict[bytes, int] = {}
        for label in range(int(labels.max()) + 1):
            member = label_of_atom == label
            key = member.tobytes()
            now[key] = before.get(key, len(members))
            if key in before:
                last[before[key]] = scale
            else:
                members.append(member)
                level.append(scale)
                last.append(scale)
        before = now
    score = (np.array(last) + 1) / len(maps)
    regions = Regions(atoms, np.stack(members), level=level, score=score, source=[f"scale{i}" for i in level])
    height, width = sample.image.shape[:2]
    return regions if regions.shape == (height, width) else regions.resized(height, width)


def _label_maps(image: np.ndarray, params: Params) -> list[np.ndarray]:
    from skimage.segmentation import felzenszwalb

    image = _reduced(image, params.long_side)
    return [
        felzenszwalb(image, scale=scale, sigma=params.sigma, min_size=round(max(20, scale / 2)), channel_axis=-1)
        for scale in np.geomspace(params.smallest, params.largest, params.scales).tolist()
    ]


def _reduced(image: np.ndarray, long_side: int) -> np.ndarray:
    """The image with its longer side at most this long, by area averaging."""
    height, width = image.shape[:2]
    if not long_side or max(height, width) <= long_side:
        return image
    ratio = long_side / max(height, width)
    return resize_image(image, (max(1, round(height * ratio)), max(1, round(width * ratio))), area=True)


def _common_cells(maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(cells (H, W), first pixel of each cell): pixels that share their label in every map."""
    cells, first = np.zeros(maps[0].size, np.int64), np.zeros(1, np.int64)
    for labels in maps:
        _, first, cells = np.unique(cells * (int(labels.max()) + 1) + labels.ravel(), return_index=True, return_inverse=True)
    return cells.reshape(maps[0].shape), first
