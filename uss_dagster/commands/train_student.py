"""``uss train student``: a student from a curated set, or from COCO json and the folder of its pictures.

Belongs here: where masks and pictures come from, and what is said. Does not belong here: the training itself (``student.training``).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.commands.parameters import parse_parameters
from uss_dagster.errors import BadData, UsageError
from uss_dagster.hashing import dvc_hash
from uss_dagster.student.settings import StudentSettings


@dataclass(frozen=True)
class Request:
    """What to learn from (``masks``, or ``coco`` with ``images``) and where the student goes. settings: NAME=VALUE words, above all others."""

    masks: Path | None
    coco: Path | None
    images: Path | None
    out: Path
    size: str = "tiny"
    steps: int | None = None
    seed: int = 0
    self_train: Path | None = None
    settings: Sequence[str] = ()
    threads: int = 2
    device: str = "auto"
    title: str = "Student"
    licence: str | None = None


def train_student(request: Request, tell: Callable[[str], None]) -> None:
    """Train, or go on training, and say how good it became on the validation split."""
    from uss_dagster.runtime import torch_device
    from uss_dagster.student.card import ModelCard
    from uss_dagster.student.rounds import Round, loss_fall, train_round

    settings = settings_of(request)
    if request.out.exists() and not request.out.is_dir():
        raise UsageError(f"--out '{request.out}' is a file, expected a folder to write the model to. Choose another name.")
    train, val, told = sources(request)
    device = str(torch_device(request.device))
    card = ModelCard(request.title, told["data"], told["version"], request.licence or told["licence"], command_of(request, settings))
    job = Round("train student", request.out, settings, card, device, request.threads, request.self_train)
    request.out.mkdir(parents=True, exist_ok=True)
    result, scores = train_round(train, val, job)
    if int(os.environ.get("RANK", "0")):
        return
    shown = {
        "AR": "ar1000",
        "click Max": "click_max",
        "click Oracle": "click_oracle",
    }
    numbers = ", ".join(f"{title} {scores[name]:.3f}" for title, name in shown.items() if name in scores)
    measured = f"Validation on {len(val)} pictures: {numbers}." if numbers else "There is no validation split, so nothing was measured."
    tell(f"{request.out}: {result.step} steps on {len(train)} pictures, the loss fell by {loss_fall(result.losses):.0%}. {measured}")
    tell(f"Try it: `uss prompt --serve --model {shlex.quote(str(request.out))}`")


def settings_of(request: Request) -> StudentSettings:
    """The settings that were asked for, checked."""
    given: dict[str, Any] = {"size": request.size, "seed": request.seed}
    if request.steps is not None:
        given["steps"] = request.steps
    given |= parse_parameters(list(request.settings), StudentSettings, "student")
    return registry.build_params(StudentSettings, given, "student")


def sources(request: Request) -> tuple[Any, Any, dict[str, str]]:
    """Examples to train on and to validate on, and for the model card: data, version, licence."""
    from uss_dagster.student.data import coco_source, curated_source

    if (request.masks is None) == (request.coco is None):
        raise UsageError("Name what to learn from: either --masks FOLDER (a curated set), or --coco FILE with --images FOLDER.")
    if request.coco is not None:
        if request.images is None:
            raise UsageError("--coco needs --images FOLDER, where the pictures lie that the file names.")
        for path, kind, there in ((request.coco, "file", request.coco.is_file()), (request.images, "folder", request.images.is_dir())):
            if not there:
                raise UsageError(f"{path} is no {kind}. Look for a slip in its name.")
        train, val = (coco_source(request.coco, request.images, split) for split in ("train", "val"))
        return train, val, {"data": request.coco.name, "version": _sha256(request.coco), "licence": "not stated"}
    assert request.masks is not None
    for name in ("masks.parquet", "images.parquet"):
        if not (request.masks / name).is_file():
            raise UsageError(
                f"{request.masks} has no {name}, so it is no curated set. Name what the stage `curated` or `uss curate` wrote, or use --coco."
            )
    pixels = pixels_of(request.masks, request.images)
    train, val = (curated_source(request.masks, pixels, split) for split in ("train", "val"))
    known = _manifest(request.masks)
    version = dvc_hash(request.masks) if known else _sha256(request.masks / "masks.parquet")
    return train, val, {"data": request.masks.absolute().name, "version": version, "licence": str(known.get("licence") or "not stated")}


def pixels_of(masks: Path, images: Path | None) -> Callable[[str], np.ndarray]:
    """Image id → uint8 (H, W, 3), for a curated set: from a folder of pictures, or from the dataset of the project that the set lies in."""
    if images is None:
        dataset = masks.absolute().parent.parent / "datasets" / _manifest(masks).get("dataset", "") / "images"
        if (dataset / "images.parquet").is_file():
            from uss_dagster.artifacts.images import Images

            return Images(dataset).pixels
        images = masks / "data"
    if not images.is_dir():
        raise UsageError(f"The pictures of {masks} are not known here (no {images}). Name the folder they lie in with --images.")
    from uss_dagster.artifacts.tables import read_table
    from uss_dagster.curation.tables import IMAGES

    table = read_table(masks / "images.parquet", IMAGES, columns=["image_id", "file_name", "sha256"])
    rows = {row["image_id"]: row for row in table.to_pylist()}

    def pixels(image_id: str) -> np.ndarray:
        row = rows[image_id]
        path = images / row["file_name"]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadData(f"{path} cannot be read ({error.strerror}). Name the folder of the set's pictures with --images.") from None
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            raise BadData(f"{path} is not the picture that the set was made from. Curate it again, or name the right folder with --images.")
        return decode(data, str(path))

    return pixels


def command_of(request: Request, settings: StudentSettings) -> str:
    """The command that gives this student again, for its card."""
    words = ["uss", "train", "student"]
    for name in ("masks", "coco", "images"):
        if (path := getattr(request, name)) is not None:
            words += [f"--{name}", str(path)]
    words += ["--size", settings.size, "--steps", str(settings.steps), "--seed", str(settings.seed)]
    words += ["--self-train", str(request.self_train)] if request.self_train else []
    words += [word for given in request.settings for word in ("--param", given)]
    return shlex.join([*words, "--threads", str(request.threads), "--out", str(request.out)])


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return f"sha256 {hashlib.file_digest(stream, 'sha256').hexdigest()}"
