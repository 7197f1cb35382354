"""Label maps in blocks of four labels, and the threads that share the blocks.

A block (n, 4) keeps the four values of a pixel side by side, so a compiled loop handles them as one register and its working set
stays in the cache whatever the number of labels. Labels never mix inside a filter, so the split does not show in the result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from uss_dagster.errors import UsageError

LANES = 4


def check_maps(what: str, maps: np.ndarray) -> None:
    """Refuse probabilities that are not (labels, height, width)."""
    if maps.ndim != 3 or 0 in maps.shape:
        raise UsageError(f"{what}: the probabilities have shape {maps.shape}, expected (labels, height, width), none of them 0.")


def check_image_of_maps(what: str, image: np.ndarray, pixels: int) -> None:
    """Refuse an image that is not uint8 (height, width, 3) with as many pixels as the label maps."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.shape[0] * image.shape[1] != pixels:
        raise UsageError(
            f"{what} was given a {image.dtype} image of shape {image.shape} and label maps of {pixels} pixels: "
            "expected a uint8 image (height, width, 3) of the maps' size."
        )


def to_blocks(maps: np.ndarray, fill: float) -> np.ndarray:
    """Maps (L, H, W) as float32 (ceil(L / 4), H·W, 4); ``fill`` where the last block has no label."""
    labels = len(maps)
    flat = maps.reshape(labels, -1)
    blocks = np.full((-(-labels // LANES), flat.shape[1], LANES), fill, np.float32)
    for label in range(labels):
        blocks[label // LANES, :, label % LANES] = flat[label]
    return blocks


def from_blocks(blocks: np.ndarray, labels: int, height: int, width: int) -> np.ndarray:
    """The maps (labels, height, width) that ``to_blocks`` laid out."""
    return blocks.transpose(0, 2, 1).reshape(-1, height, width)[:labels]


def best_label(blocks: np.ndarray) -> np.ndarray:
    """The label of the greatest value at each pixel, int64 (n,), the first of equals; without a copy of all maps."""
    top = blocks[0].max(axis=1)
    best = blocks[0].argmax(axis=1)
    for number, block in enumerate(blocks[1:], start=1):
        highest = block.max(axis=1)
        better = highest > top
        best[better] = block[better].argmax(axis=1) + LANES * number
        top[better] = highest[better]
    return best


def thread_count() -> int:
    """Threads this process may use: what ``OMP_NUM_THREADS`` says, else the cores it may run on."""
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wish.isdigit():
        return max(int(wish), 1)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def workers(count: int) -> Iterator[Callable[[Callable[[int], object]], object]]:
    """A function that runs a function for each of ``count`` worker numbers at once; the threads end with the block."""
    with ThreadPoolExecutor(count) as pool:
        yield lambda function: list(pool.map(function, range(count)))
