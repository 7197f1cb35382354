"""``uss train diffusion``: a small diffusion UNet for the backbone ``diffusion``, from drawn scenes or a folder of images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import echo_error
from uss_dagster.errors import UsageError


def train_diffusion(
    images: Annotated[str, typer.Option("--images", metavar="FOLDER|scenes", help="Images to learn from; 'scenes' draws them.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the model; a stopped run continues from it.")],
    count: Annotated[
        int | None, typer.Option(metavar="N", help="Number of images. [default: 1600 scenes, or the whole folder]", show_default=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Optimiser steps. [default: 2400]", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="On a CPU; the weights are the same for the same number.")] = 2,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:1.")] = "cpu",
    licence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the weights, for the model card. [default: mit for scenes]", show_default=False)
    ] = None,
) -> None:
    """A small diffusion UNet in pixels, for the backbone 'diffusion'.

    The folder gets config.json, scheduler_config.json, float16 safetensors, a model card, the losses as CSV and a checkpoint.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"'{out}' is a file, expected a folder to write the model to. Choose another name.")
    from uss_dagster.artifacts.progress import Progress
    from uss_dagster.artifacts.training_runs import repeatable
    from uss_dagster.backbones.unet.pictures import SCENES, SCENES_SEED, drawn_scenes, folder_images
    from uss_dagster.backbones.unet.training import CHECKPOINT, Settings, Source, Trainer

    settings = Settings(seed=seed) if steps is None else Settings(seed=seed, steps=steps)
    if images == SCENES:
        squares = drawn_scenes(1600 if count is None else count)
        origin = f"{len(squares)} freshly drawn scenes of this package (series {SCENES_SEED}; the dataset `scenes` starts at series 0)."
    else:
        squares = folder_images(Path(images), count, seed)
        origin = f"{len(squares)} pictures of a folder `{Path(images).name}`."
    words = ["uss", "train", "diffusion", "--images", images, "--count", str(len(squares)), "--steps", str(settings.steps)]
    words += ["--seed", str(seed), "--threads", str(threads), *(["--device", device] if device != "cpu" else []), "--out", str(out)]
    source = Source(f"Trained on {origin}", licence or ("mit" if images == SCENES else "other"), shlex.join(words))
    with repeatable(threads):
        trainer = Trainer(squares, settings, device)
        trainer.resume(out)
        if trainer.done:
            echo_error(f"going on after step {trainer.done} of {out / CHECKPOINT}")
        with Progress("train diffusion", settings.steps, "steps") as progress:
            progress.advance(trainer.done)
            trainer.run(out, lambda done: progress.advance())
        trainer.publish(out, source)
    loss = trainer.losses[-1][2]
    echo_error(f"{out}: last loss {loss:.4f}. Use it with `--backbone diffusion --backbone-param checkpoint={out}`.")
