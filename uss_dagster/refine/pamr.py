"""Pixel-adaptive mask refinement: each pixel's labels become an average of its neighbours', weighted by likeness of colour.

References: Araslanov & Roth, "Single-stage semantic segmentation from image labels", CVPR 2020.

The affinity of pixel i to a neighbour j is softmax_j of -|I_i - I_j| / (std_scale·σ_i), averaged over the colour channels, with σ_i the
standard deviation of the channel over the neighbourhood and the pixel itself. Neighbours are the eight of a 3×3 window, once for
each dilation. (The paper writes σ_i² in place of std_scale·σ_i; this form does not depend on the range of the image.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uss_dagster.bounds import POSITIVE, Bounds, at_least, check_bounds
from uss_dagster.errors import BadData
from uss_dagster.refine._lanes import check_image_of_maps, check_maps, from_blocks, thread_count, to_blocks, workers


@dataclass(frozen=True)
class Pamr:
    """Parameters of pixel-adaptive mask refinement.

    Parameters
    ----------
    dilations : tuple of int, default (1, 2, 4, 8)
        Distances of the neighbours, in pixels; eight neighbours for each.
    iterations : int, default 10
        How often labels are averaged.
    std_scale : float, default 0.1
        Scale of the colour differences, in local standard deviations.
    """

    dilations: tuple[int, ...] = (1, 2, 4, 8)
    iterations: int = 10
    std_scale: float = 0.1

    def __post_init__(self) -> None:
        distances = Bounds("one or several of 1 or more", lambda dilations: min(dilations, default=0) >= 1)
        check_bounds(self, dilations=distances, iterations=at_least(0), std_scale=POSITIVE)


def pamr(probabilities: np.ndarray, image: np.ndarray, params: Pamr = Pamr(), *, threads: int | None = None) -> np.ndarray:
    """Refined label probabilities, float32 (L, H, W). Sums over labels stay as they are.

    Memory beside input and output: 32 · len(dilations) bytes a pixel, and twice the output.

    Parameters
    ----------
    probabilities : ndarray of float, shape (L, H, W)
    image : ndarray of uint8, shape (H, W, 3)
    params : Pamr, optional
    threads : int, optional
        As many as the process may use where missing. The result is the same for any number.
    """
    check_maps("pamr", probabilities)
    if not np.isfinite(probabilities).all():
        raise BadData("pamr: the probabilities hold NaN or infinite values; repair what made them.")
    return from_blocks(pamr_blocks(to_blocks(probabilities, 0), image, params, threads=threads), *probabilities.shape)


def pamr_blocks(blocks: np.ndarray, image: np.ndarray, params: Pamr = Pamr(), *, threads: int | None = None) -> np.ndarray:
    """``pamr`` on probabilities in blocks, float32 (blocks, H·W, 4), which are overwritten."""
    from uss_dagster.refine._pamr_kernel import affinities, spread_labels

    check_image_of_maps("pamr", image, blocks.shape[1])
    height, width = image.shape[:2]
    offsets = np.array([(d * y, d * x) for d in params.dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x], np.int64)
    count = max(1, min(thread_count() if threads is None else threads, height * width))
    affinity = np.empty((height * width, len(offsets)), np.float32)
    floats = image.astype(np.float64)
    cuts = np.linspace(0, height, count + 1).astype(int)

    def compare(worker: int) -> None:
        affinities(floats, offsets, params.std_scale, cuts[worker], cuts[worker + 1], affinity)

    def average(worker: int) -> None:
        spare = np.empty_like(blocks[0])
        for block in blocks[worker::count]:
            for _ in range(params.iterations):
                spread_labels(block, affinity, offsets, height, width, spare)
                block[:] = spare

    with workers(count) as run:
        run(compare)
        run(average)
    return blocks
