"""Masks that have all that a format may lose, and what came back of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uss_dagster.formats import catalogue
from uss_dagster.formats.base import UNLABELLED, MaskedImage, MaskSet
from uss_dagster.regions import Regions

HEIGHT, WIDTH = 37, 53
NAMES = {1: "cat", 2: "dog & <bird>", 7: "Käse"}
TOOLS = "USS_TOOLS_PYTHON"
PROGRAMS = Path(__file__).parent / "programs"


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def disc(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def example_images() -> list[MaskedImage]:
    """An image for each of what may be lost, ascending by id."""
    ring = disc(18, 26, 14) & ~disc(18, 26, 6)
    arm = box(5, 5, 12, 14) | box(8, 14, 9, 30)  # a part one pixel wide
    noise = np.random.default_rng(5).random((HEIGHT, WIDTH)) < 0.5
    plain = Regions.from_masks(
        [arm, disc(25, 15, 9), box(0, 40, HEIGHT, WIDTH)],
        score=[0.1, 0.75, 1 / 3],
        level=[0.0, 2.5, np.nan],
        label=[1, 7, -1],
        source=["view 1", "", "a & <b>"],
    )
    root = box(0, 0, HEIGHT, WIDTH)
    tree = Regions.from_masks(
        [root, root & ~box(0, 0, 20, WIDTH), box(0, 0, 20, WIDTH), box(3, 3, 15, 20), box(5, 5, 9, 9)],
        [-1, 0, 0, 2, 3],
        level=[4, 3, 2, 1, 0],
        label=[1, 1, 2, 2, 7],
    )
    made = {
        "holes": Regions.from_masks([ring, disc(18, 26, 3)]),
        "noisy": Regions.from_masks([noise & box(4, 6, 30, 40)]),
        "overlap": Regions.from_masks([box(2, 3, 20, 30), box(10, 10, 33, 50), disc(15, 15, 8)]),
        "parts": Regions.from_masks([box(2, 2, 10, 10) | box(20, 30, 30, 45) | disc(28, 8, 5), box(0, 30, 5, 40)]),
        "plain": plain,
        "tree": tree,
    }
    splits = ["val", "train", "test", "train", "val", "train"]
    images = []
    for seed, ((name, regions), split) in enumerate(zip(made.items(), splits, strict=True)):
        quality = np.full(len(regions), np.nan, np.float32)
        if name == "plain":
            quality[:] = 0.7, np.nan, 0.25
        file_name = "sub folder/päge 1.png" if name == "overlap" else f"{name}.png"
        image_id = "päge 1" if name == "overlap" else name
        images.append(MaskedImage(image_id, file_name, regions, quality, split, partial(picture, seed)))
    return sorted(images, key=lambda image: image.image_id)


def example_set() -> MaskSet:
    return MaskSet(lambda: iter(example_images()), NAMES, "Examples", "CC0-1.0")


def same_masks(before: MaskedImage, after: MaskedImage | None) -> bool:
    return (
        after is not None
        and before.regions.shape == after.regions.shape
        and len(before.regions) == len(after.regions)
        and all(np.array_equal(before.regions.mask(i), after.regions.mask(i)) for i in range(len(before.regions)))
    )


def aspects_kept(before: list[MaskedImage], after: list[MaskedImage], names: dict[int, str]) -> dict[str, bool]:
    """Aspect → whether it came back exactly. names: those of the classes that came back."""
    back = {image.image_id: image for image in after}
    was = {image.image_id: image for image in before}
    plain, again = was["plain"], back.get("plain")
    kept = {"masks": same_masks(plain, again)}
    kept |= {
        aspect: same_masks(was[name], back.get(name)) for aspect, name in (("overlap", "päge 1"), ("holes", "holes"), ("parts", "parts"))
    }
    kept["parts"] = kept["parts"] and same_masks(was["noisy"], back.get("noisy"))
    tree = back.get("tree")
    kept["parent"] = tree is not None and tree.regions.parent.tolist() == was["tree"].regions.parent.tolist()
    for column in ("level", "score", "source"):
        kept[column] = again is not None and np.array_equal(
            getattr(plain.regions, column), getattr(again.regions, column), equal_nan=column != "source"
        )
    kept["quality"] = again is not None and np.array_equal(plain.quality, again.quality, equal_nan=True)
    kept["label"] = again is not None and class_names(plain, NAMES) == class_names(again, names)
    kept["split"] = {i: image.split for i, image in was.items()} == {i: image.split for i, image in back.items()}
    return kept


def class_names(image: MaskedImage, names: dict[int, str]) -> list[str]:
    return [names.get(label, UNLABELLED) for label in image.regions.label.tolist()]


def tools_python(*packages: str) -> str:
    """The interpreter that has the programs; the test is skipped where none has."""
    if other := os.environ.get(TOOLS):
        return other
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: pip install 'uss_dagster[formats]', or set {TOOLS} to a Python that has it")
    return sys.executable


def written(name: str, folder: Path) -> Path:
    """A new folder with the example set in a format."""
    folder.mkdir()
    catalogue.load(name).write(example_set(), folder)
    return folder


def folders_of(name: str, place: Path) -> tuple[Path, Path]:
    """The example set in a format, and an empty folder for what a program writes."""
    out = place / "out"
    out.mkdir()
    return written(name, place / "set"), out


def run_program(name: str, packages: list[str], *words: str | Path) -> dict:
    """What a program of ``programs`` prints as JSON, with the interpreter that has these packages."""
    python = tools_python(*packages)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, PROGRAMS / f"{name}.py", *map(str, words)], capture_output=True, text=True, env=environment, timeout=300, check=False
    )
    if done.returncode == 3:
        pytest.skip(f"{python} has not all of {', '.join(packages)}: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def masks_seen(folder: Path) -> dict[str, np.ndarray]:
    """Image id → masks (K, H, W) that a program stored as ``<id>.npy``."""
    return {path.stem: np.load(path, allow_pickle=False).astype(bool) for path in sorted(folder.glob("*.npy"))}
