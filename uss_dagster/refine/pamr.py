"""Pixel-adaptive mask refinement: each pixel's labels become an average of its neighbours', weighted by likeness of colour.

References: Araslanov & Roth, "Single-stage semantic segmentation from image labels", CVPR 2020.

The affinity of pixel i to a neighbour j is softmax_j of -|I_i - I_j| / (std_scale·σ_i), averaged over the colour channels, with σ_i the
standard deviation of the channel over the neighbourhood and the pixel itself. Neighbours are the eight of a 3×3 window, once for
each dilation. (The paper writes σ_i² in place of std_scale·σ_i; this form does not depend on the range of the image.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from uss_dagster.errors import BadData, UsageError
from uss_dagster.refine._lanes import Workers, from_blocks, thread_count, to_blocks


def pamr(
    probabilities: np.ndarray,
    image: np.ndarray,
    *,
    dilations: Sequence[int] = (1, 2, 4, 8),
    iterations: int = 10,
    std_scale: float = 0.1,
    threads: int | None = None,
) -> np.ndarray:
    """Refined label probabilities, float32 (L, H, W). probabilities: float (L, H, W). image: uint8 (H, W, 3).

    Sums over labels stay as they are. Memory beside input and output: 32·len(dilations) bytes a pixel, and twice the output.
    """
    if probabilities.ndim != 3 or 0 in probabilities.shape:
        raise UsageError(f"pamr: the probabilities have shape {probabilities.shape}, expected (labels, height, width), none of them 0.")
    if not np.isfinite(probabilities).all():
        raise BadData("pamr: the probabilities hold NaN or infinite values; repair what made them.")
    return from_blocks(
        pamr_blocks(to_blocks(probabilities, 0), image, dilations=dilations, iterations=iterations, std_scale=std_scale, threads=threads),
        *probabilities.shape,
    )


def pamr_blocks(
    blocks: np.ndarray, image: np.ndarray, *, dilations: Sequence[int], iterations: int, std_scale: float, threads: int | None = None
) -> np.ndarray:
    """``pamr`` on probabilities in blocks, float32 (blocks, H·W, 4), which are used up."""
    from uss_dagster.refine._pamr_kernel import affinities, spread_labels

    _check(image, blocks.shape[1], dilations, iterations, std_scale)
    height, width = image.shape[:2]
    offsets = np.array([(d * y, d * x) for d in dilations for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x], np.int64)
    count = max(1, min(thread_count() if threads is None else threads, height * width))
    affinity = np.empty((height * width, len(offsets)), np.float32)
    floats = image.astype(np.float64)
    cuts = np.linspace(0, height, count + 1).astype(int)

    def compare(worker: int) -> None:
        affinities(floats, offsets, std_scale, cuts[worker], cuts[worker + 1], affinity)

    def average(worker: int) -> None:
        spare = np.empty_like(blocks[0])
        for block in blocks[worker::count]:
            for _ in range(iterations):
                spread_labels(block, affinity, offsets, height, width, spare)
                block[:] = spare

    with Workers(count) as workers:
        workers.each(compare)
        workers.each(average)
    return blocks


def _check(image: np.ndarray, pixels: int, dilations: Sequence[int], iterations: int, std_scale: float) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.shape[0] * image.shape[1] != pixels:
        raise UsageError(
            f"pamr was given a {image.dtype} image of shape {image.shape} and label maps of {pixels} pixels: "
            "expected a uint8 image (height, width, 3) of the maps' size."
        )
    if not dilations or min(dilations) < 1 or iterations < 0 or not std_scale > 0:
        raise UsageError(
            f"pamr was given dilations {tuple(dilations)}, {iterations} iterations and a scale of {std_scale}: "
            "expected dilations of 1 or more, and a scale above 0."
        )
