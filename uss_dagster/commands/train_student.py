"""``uss train student``: a student from a curated set, or from COCO json and the folder of its images."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.commands.options import echo_error
from uss_dagster.errors import UsageError

if TYPE_CHECKING:
    from uss_dagster.student.inputs import TrainingData
    from uss_dagster.student.settings import StudentSettings
    from uss_dagster.student.training import TrainResult

SCORES = {"AR": "ar1000", "click Max": "click_max", "click Oracle": "click_oracle"}
"""The scores that are printed."""
Size = Annotated[str, typer.Option(metavar="tiny|photo|S", help="tiny learns in minutes on a CPU, photo in hours; S is for a GPU.")]
Curves = Annotated[
    str,
    typer.Option(metavar="dvclive|tensorboard", help="Also write losses and scores for these, into the folder.", show_default=False),
]


def train_student(
    masks: Annotated[
        Path | None,
        typer.Option("--masks", metavar="FOLDER", help="A curated set: data/curated/NAME, or what `uss curate` wrote.", show_default=False),
    ] = None,
    coco: Annotated[
        Path | None, typer.Option("--coco", metavar="FILE", help="Or COCO json; its images are in --images.", show_default=False)
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", metavar="FOLDER", help="Folder of the images.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the model; a stopped run continues from it.")] = Path(
        "student"
    ),
    size: Size = "tiny",
    steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Optimiser steps. [default: the size's own]", show_default=False)
    ] = None,
    self_train: Annotated[
        Path | None,
        typer.Option(
            "--self-train", metavar="MODEL", help="A second round: masks that this student finds are added first.", show_default=False
        ),
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Any other setting, such as batch=4; can be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="On a CPU; the weights are the same for the same number.")] = 2,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, or auto.")] = "auto",
    curves: Curves = "",
    title: Annotated[str, typer.Option(metavar="TEXT", help="For the model card.")] = "Student",
    licence: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the weights, for the model card. [default: that of the set]", show_default=False)
    ] = None,
) -> None:
    """A student that learns from masks, for whole images and for clicks.

    The folder gets model.safetensors, config.json, the losses as CSV and picture, and a model card. On several GPUs or machines:
    `torchrun --nproc_per_node 4 -m uss_dagster.cli train student …`.
    """
    from uss_dagster.files import make_folder
    from uss_dagster.runtime import torch_device
    from uss_dagster.student.card import ModelCard
    from uss_dagster.student.rounds import Round, is_first_process, train_round

    words = param or []
    settings = _settings(size, steps, seed, words)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out '{out}' is a file, expected a folder to write the model to. Choose another name.")
    data = _training_data(masks, coco, images)
    options: list[tuple[str, object]] = [("--masks", masks), ("--coco", coco), ("--images", images)]
    options += [("--size", settings.size), ("--steps", settings.steps), ("--seed", settings.seed), ("--self-train", self_train)]
    options += [*(("--param", word) for word in words), ("--threads", threads), ("--out", out)]
    command = shlex.join(["uss", "train", "student", *(str(part) for option in options if option[1] is not None for part in option)])
    card = ModelCard(title, data.data, data.version, licence or data.licence, command)
    job = Round("train student", out, settings, card, str(torch_device(device)), threads, self_train, curves)
    make_folder(out)
    result, scores = train_round(data.train, data.val, job)
    if not is_first_process():
        return
    _report(out, result, scores, data)


def _report(out: Path, result: TrainResult, scores: dict[str, float], data: TrainingData) -> None:
    from uss_dagster.student.rounds import loss_fall

    numbers = ", ".join(f"{name} {scores[key]:.3f}" for name, key in SCORES.items() if key in scores)
    validation = (
        f"Validation on {len(data.val)} pictures: {numbers}." if numbers else "There is no validation split, so nothing was measured."
    )
    fall = loss_fall(result.losses)
    echo_error(f"{out}: {result.step} steps on {len(data.train)} pictures, the loss fell by {fall:.0%}. {validation}")
    echo_error(f"Try it: `uss prompt --serve --model {shlex.quote(str(out))}`")


def _settings(size: str, steps: int | None, seed: int, words: list[str]) -> StudentSettings:
    from uss_dagster import registry
    from uss_dagster.commands.parameters import parse_parameters
    from uss_dagster.student.settings import StudentSettings

    values = {"size": size, "seed": seed, **({} if steps is None else {"steps": steps})}
    return registry.build_params(StudentSettings, values | parse_parameters(words, StudentSettings, "student"), "student")


def _training_data(masks: Path | None, coco: Path | None, images: Path | None) -> TrainingData:
    from uss_dagster.student.inputs import coco_data, curated_data

    if masks is not None and coco is None:
        return curated_data(masks, images)
    if coco is None or masks is not None:
        raise UsageError("Name what to learn from: either --masks FOLDER (a curated set), or --coco FILE with --images FOLDER.")
    if images is None:
        raise UsageError("--coco needs --images FOLDER, where the pictures lie that the file names.")
    return coco_data(coco, images)
