"""Small pictures of textured boxes, and a curation run over a folder of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from uss_dagster.commands import curate as command
from uss_dagster.commands.own_images import Reader
from uss_dagster.regions import Regions


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
    """`uss curate` within this process, with a quick method; returns what it said and complained of."""
    pool, params = command.settings_of(words or [], preset, formats or [])
    job = command.Job({"scales": 2}, Reader("felzenszwalb", None, 1024), out, pool, params, **other)
    said: list[str] = []
    with patch.dict(os.environ, USS_WORKERS="1"):  # starting workers would take longer than the pictures
        command.curate_pictures([folder], job, said.append, said.append)
    return said


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
