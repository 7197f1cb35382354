"""Small pictures of textured boxes, and a curation run over a folder of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from uss_dagster.commands.curate import parse_settings
from uss_dagster.own_images.curate import Request, curate_images
from uss_dagster.regions import Regions
from uss_dagster.segmenter import Segmenter


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Uint8 (height, width, 3): boxes within boxes on a shaded ground, with noise."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3))
    image[:] = rng.uniform(30, 220, 3) + np.linspace(0, 40, width)[None, :, None] * rng.uniform(-1, 1, 3)
    for _ in range(int(rng.integers(3, 7))):
        y, x = rng.integers(0, height - 16), rng.integers(0, width - 16)
        tall, wide = rng.integers(10, 30, 2)
        image[y : y + tall, x : x + wide] = rng.uniform(0, 255, 3)
        image[y + 3 : y + tall // 2, x + 3 : x + wide // 2] = rng.uniform(0, 255, 3)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(picture(first + number)).save(folder / f"p{number:05d}.png")


def run(
    folder: Path, out: Path, words: list[str] | None = None, preset: str = "train", formats: list[str] | None = None, **other: Any
) -> list[str]:
    """`uss curate` within this process, with a quick method; returns the lines that it reported."""
    pool, params = parse_settings(words or [], preset, formats or [])
    request = Request(Segmenter.of("felzenszwalb", {"scales": 2}, long_side=1024), out, pool, params, **other)
    lines: list[str] = []
    with patch.dict(os.environ, USS_WORKERS="1"):  # starting workers would take longer than the pictures
        curate_images([folder], request, lines.append, lines.append)
    return lines


def published(out: Path) -> dict[str, bytes]:
    """Path → content of everything in a folder of results, its private part left out."""
    files = (p for p in sorted(out.rglob("*")) if p.is_file() and ".curate" not in p.parts)
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files}


def box(shape: tuple[int, int], top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def boxes(shape: tuple[int, int], *places: tuple[int, int, int, int]) -> Regions:
    return Regions.from_masks([box(shape, *place) for place in places])
