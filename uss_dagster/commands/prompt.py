"""``uss prompt``: what a trained student finds under a point of a picture, as lines, a picture or json."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from uss_dagster.artifacts.image_files import decode
from uss_dagster.errors import BadData, UsageError
from uss_dagster.files import write_whole
from uss_dagster.regions.coco import annotation
from uss_dagster.regions.coded import CodedRegions

SIGNATURE = "uss prompt"
"""The PNG text ``Software`` of every picture that this draws; only such a picture is replaced."""
PANEL = 420
"""Longest side of one drawn panel, in pixels."""
SPLIT = 4
"""A click is answered from the whole picture and from windows of about a half and a third of its sides, each encoded when it is first needed."""


@dataclass(frozen=True)
class Answer:
    """What lies under a point (x, y) in pixels: masks with their predicted quality, best first."""

    point: tuple[int, int]
    masks: CodedRegions


def parse_point(text: str) -> tuple[int, int]:
    """'120,45' → (120, 45): pixels from the left and from the top."""
    parts = text.replace(" ", "").split(",")
    try:
        x, y = (int(part) for part in parts)
    except ValueError:
        raise UsageError(f"--point is '{text}', expected X,Y in whole pixels from the upper left corner, such as 120,45.") from None
    return x, y


def prompt(picture: Path, model: Path, points: Sequence[str], out: Path | None, device: str, tell: Callable[[str], None]) -> None:
    """Say what lies under each point, and write it to ``out`` (.png or .json) where that is given."""
    places = [parse_point(text) for text in points]
    if not places:
        raise UsageError("Nothing was asked: give --point X,Y, or --serve for a page to click on.")
    if out is not None:
        check_out(out, picture)
    try:
        data = picture.read_bytes()
    except OSError as error:
        raise UsageError(f"{picture} cannot be read ({error.strerror}). Name a picture.") from None
    image = decode(data, str(picture))
    for x, y in places:
        if not (0 <= x < image.shape[1] and 0 <= y < image.shape[0]):
            raise UsageError(f"--point {x},{y} lies outside {picture}, which is {image.shape[1]}×{image.shape[0]} pixels (width × height).")
    looked = load(model, device).encode(image, SPLIT)
    answers = [Answer(place, ask(looked, place, (image.shape[0], image.shape[1]))) for place in places]
    for line in lines_of(answers):
        tell(line)
    if out is not None and out.suffix.lower() == ".json":
        write_whole(out, json.dumps(as_json(picture.name, answers), indent=1) + "\n")
    elif out is not None:
        _write_png(out, drawn(image, answers))
    if out is not None:
        tell(f"{out} written")


def load(model: Path, device: str) -> Any:
    """The student in a folder."""
    from uss_dagster.student.model import Student

    return Student.load(model, device)


def ask(looked: Any, point: tuple[int, int], shape: tuple[int, int]) -> CodedRegions:
    """What lies under a point of a picture that was looked at; best first, duplicates left out."""
    found = looked.click(*point)
    return CodedRegions([answer.code for answer in found], shape, score=[answer.quality for answer in found], source=SIGNATURE)


def check_out(out: Path, picture: Path) -> None:
    """Refuse what is neither .png nor .json, the picture itself, and a picture that was drawn by something else."""
    if out.suffix.lower() not in (".png", ".json"):
        raise UsageError(f"--out is '{out}', expected a file that ends in .png or .json.")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UsageError(
            f"--out {out}: {'it is a folder' if out.is_dir() else f'{out.parent} is no folder'}. Name a file in a folder there."
        )
    if out.exists() and out.samefile(picture):
        raise UsageError(f"--out {out} is the picture itself. Choose another name; nothing was changed.")
    if out.exists() and out.suffix.lower() == ".png":
        try:
            with Image.open(out) as there:
                ours = there.info.get("Software") == SIGNATURE
        except (OSError, SyntaxError, ValueError):
            ours = False
        if not ours:
            raise UsageError(f"{out} is there already, and `{SIGNATURE}` did not draw it. Choose another name; nothing was changed.")


def lines_of(answers: Sequence[Answer]) -> list[str]:
    """One line a mask: its rank, predicted quality, area and box."""
    lines = []
    for answer in answers:
        masks = answer.masks
        lines.append(f"point {answer.point[0]},{answer.point[1]}: {len(masks)} {'mask' if len(masks) == 1 else 'masks'}")
        for number, (score, area, box) in enumerate(zip(masks.score.tolist(), masks.area.tolist(), masks.boxes.tolist(), strict=True), 1):
            share = area / (masks.shape[0] * masks.shape[1])
            lines.append(f"  {number}  quality {score:.2f}  {share:6.1%}  {area} pixels in x {box[0]}, y {box[1]}, {box[2]}×{box[3]}")
    return lines


def as_json(name: str, answers: Sequence[Answer]) -> dict[str, Any]:
    """Masks as COCO annotations, grouped by point; category 1 for all, since nothing here has a class."""
    height, width = answers[0].masks.shape
    found = []
    first = 1
    for answer in answers:
        masks, number = answer.masks, len(answer.masks)
        rows = zip(masks.area.tolist(), masks.boxes.tolist(), masks.rles(), masks.score.tolist(), strict=True)
        entries = [
            annotation(first + i, 1, -1, area, box, (height, width), code, round(score, 4), None)
            for i, (area, box, code, score) in enumerate(rows)
        ]
        first += number
        found.append({"point": list(answer.point), "masks": entries})
    return {"image": {"file_name": name, "height": height, "width": width}, "answers": found}


def drawn(image: np.ndarray, answers: Sequence[Answer]) -> np.ndarray:
    """Uint8 (H, W, 3): a row of panels for each point, one a mask, best first."""
    from uss_dagster.drawing import montage, paint, shrunk

    most = max(len(answer.masks) for answer in answers)
    if not most:
        raise BadData("No mask was found under any point, so there is nothing to draw.")
    blank = shrunk(np.full_like(image, 255), PANEL)
    panels, captions = [], []
    for answer in answers:
        for number in range(most):
            if number >= len(answer.masks):
                panels.append(blank)
                captions.append("")
                continue
            painted = paint(image, np.where(answer.masks.mask(number), 0, -1).astype(np.int32))
            panels.append(shrunk(_marked(painted, answer.point), PANEL))
            share = answer.masks.area[number] / (image.shape[0] * image.shape[1])
            captions.append(f"quality {answer.masks.score[number]:.2f}, {share:.1%}")
    return montage(panels, captions, columns=most)


def _marked(image: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """A ring around the point, black in white, that shows on any colour."""
    radius = max(3.0, max(image.shape[:2]) / 70)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot(y - point[1], x - point[0])
    marked = image.copy()
    marked[distance <= radius] = 255
    marked[distance <= 0.6 * radius] = 0
    return marked


def _write_png(out: Path, rgb: np.ndarray) -> None:
    import io

    note = PngInfo()
    note.add_text("Software", SIGNATURE)
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG", compress_level=6, pnginfo=note)
    write_whole(out, stream.getvalue())
