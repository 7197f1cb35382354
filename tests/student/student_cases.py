"""Small things to learn from, which the tests of the student share."""

from __future__ import annotations

from typing import Any

import numpy as np

from uss_dagster.regions import rle
from uss_dagster.student.data import Example, Source
from uss_dagster.student.settings import StudentSettings


def disc(height: int, width: int, y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def example(number: int, height: int = 40, width: int = 48) -> Example:
    """A picture of two discs, the first with a part of its own colour."""
    rng = np.random.default_rng([3, number])
    first = disc(height, width, rng.uniform(12, 28), rng.uniform(10, 16), 9)
    part = first & (np.arange(width)[None] < 12)
    second = disc(height, width, rng.uniform(12, 28), rng.uniform(32, 38), 8)
    image = np.full((height, width, 3), rng.integers(0, 80, 3), np.uint8)
    for mask in (first, part, second):
        image[mask] = rng.integers(100, 256, 3)
    masks = [mask for mask in (first, part, second) if mask.any()]
    return Example(f"picture{number}", image, tuple(rle.encode(np.array(masks))))


def source(count: int = 6) -> Source:
    examples = {f"picture{i}": example(i) for i in range(count)}
    return Source(list(examples), lambda i: examples[i].image, lambda i: (examples[i].codes, np.zeros(len(examples[i].codes), bool)))


def settings(**values: Any) -> StudentSettings:
    return StudentSettings("tiny", **({"steps": 6, "batch": 2, "clicks": 2, "input": 32, "test_input": 32, "every": 2} | values))
