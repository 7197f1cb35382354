"""``uss train diffusion``: a small diffusion UNet for the backbone ``diffusion``, from drawn scenes or a folder of pictures.

Belongs here: where the pictures come from and what is said on the way. Does not belong here: the training itself
(``backbones._diffusion_training``).
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from uss_dagster.artifacts.image_files import decode, find_images
from uss_dagster.artifacts.progress import Progress
from uss_dagster.artifacts.shards import map_shards
from uss_dagster.errors import UsageError

SCENES = "scenes"
SCENES_SEED = 20001
"""Of the drawn scenes that are trained on: a series of its own, so that no picture of a dataset ``scenes`` with another seed is among them."""
POOL_SIDE = 176
"""Pixels on a side of the squares that pictures are squeezed into, for crops to be taken from."""
DRAWN_AT_ONCE = 20


def train_diffusion(
    images: str,
    out: Path,
    count: int | None,
    seed: int,
    steps: int | None,
    threads: int,
    device: str,
    licence: str | None,
    tell: Callable[[str], None],
) -> None:
    """images: 'scenes' or a folder. count: pictures to train on; None: 1600 scenes, or all of the folder. steps: None for the usual number.

    The folder ``out`` gets the model, its card, ``losses.csv`` and a checkpoint from which the same command goes on.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"'{out}' is a file, expected a folder to write the model to. Choose another name.")
    from uss_dagster.backbones.unet.training import CHECKPOINT, Settings, Source, Trainer, repeatable

    settings = Settings(seed=seed) if steps is None else Settings(seed=seed, steps=steps)
    if images == SCENES:
        count = 1600 if count is None else count
        pool = drawn_scenes(count)
        told = f"Trained on {count} freshly drawn scenes of this package (series {SCENES_SEED}; the dataset `scenes` starts at series 0)."
    else:
        pool = pictures_of(Path(images), count, seed)
        told = f"Trained on {len(pool)} pictures of a folder `{Path(images).name}`."
    words = ["uss", "train", "diffusion", "--images", images, "--count", str(len(pool)), "--steps", str(settings.steps)]
    words += ["--seed", str(seed), "--threads", str(threads), *(["--device", device] if device != "cpu" else []), "--out", str(out)]
    with repeatable(threads):
        trainer = Trainer(pool, settings, device)
        trainer.resume(out)
        if trainer.done:
            tell(f"going on after step {trainer.done} of {out / CHECKPOINT}")
        with Progress("train diffusion", settings.steps, "steps") as progress:
            progress.advance(trainer.done)
            trainer.run(out, lambda done: progress.advance())
        trainer.publish(out, Source(told, licence or ("mit" if images == SCENES else "other"), shlex.join(words)))
    tell(f"{out}: last loss {trainer.losses[-1][2]:.4f}. Use it with `--backbone diffusion --backbone-param checkpoint={out}`.")


def drawn_scenes(count: int) -> np.ndarray:
    """The first pictures of the training series, uint8 (count, S, S, 3)."""
    if count < 1:
        raise UsageError(f"count is {count}, expected at least 1 picture to train on.")
    jobs = [(start, min(start + DRAWN_AT_ONCE, count)) for start in range(0, count, DRAWN_AT_ONCE)]
    squares = []
    with Progress("draw scenes", count, "scenes") as progress:
        for part in map_shards(_drawn, jobs):
            squares.append(part)
            progress.advance(len(part))
    return np.concatenate(squares)


def _drawn(job: tuple[int, int]) -> np.ndarray:
    from uss_dagster.scenes.views import draw

    squares = []
    for number in range(*job):
        canvas = draw(SCENES_SEED, number)
        squares.append(_square(np.asarray(Image.open(io.BytesIO(canvas.photograph())))))
    return np.stack(squares)


def pictures_of(folder: Path, count: int | None, seed: int) -> np.ndarray:
    """So many pictures of a folder, drawn by the seed, or all of them, uint8 (N, S, S, 3)."""
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is not a folder of pictures. Name one, or '{SCENES}' for drawn scenes.")
    paths = find_images([folder])
    if count is not None and not 1 <= count <= len(paths):
        raise UsageError(f"count is {count}, but '{folder}' has {len(paths)} pictures: choose 1 to {len(paths)}.")
    if count is not None:
        paths = [paths[i] for i in np.sort(np.random.default_rng(seed).permutation(len(paths))[:count])]
    squares = np.empty((len(paths), POOL_SIDE, POOL_SIDE, 3), np.uint8)
    with Progress("read pictures", len(paths), "pictures") as progress:
        for square, path in zip(squares, paths, strict=True):
            square[:] = _square(decode(path.read_bytes(), str(path)))
            progress.advance()
    return squares


def _square(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((POOL_SIDE, POOL_SIDE), Image.Resampling.BOX))
