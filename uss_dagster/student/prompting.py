"""The answers of a student to prompts: as lines of text, COCO json, and a drawing."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from uss_dagster.artifacts.image_files import shrunk
from uss_dagster.errors import BadData
from uss_dagster.regions.coco import annotation
from uss_dagster.regions.coded import CodedRegions
from uss_dagster.student.model import EncodedImage
from uss_dagster.student.prompt_input import Prompt
from uss_dagster.student.prompts import NEGATIVE, POSITIVE

SIGNATURE = "uss prompt"
"""The PNG text ``Software`` of every drawing; only a file with it is replaced."""
PANEL = 420
"""Longest side of one panel of the drawing, in pixels."""
SPLIT = 4
"""Windows a side, see ``Student.encode``: a click is answered from the whole image and from windows of about a half and a third of its sides."""


@dataclass(frozen=True)
class ObjectMasks:
    """The masks of one object.

    Parameters
    ----------
    prompt : Prompt
        What was asked.
    masks : CodedRegions
        Best first; the score is the expected quality.
    """

    prompt: Prompt
    masks: CodedRegions


def masks_of(image: EncodedImage, prompt: Prompt, granularity: float | None = None) -> ObjectMasks:
    """The masks of an object in an encoded image."""
    answers = image.ask(prompt, granularity)
    codes, quality = [answer.code for answer in answers], [answer.quality for answer in answers]
    return ObjectMasks(prompt, CodedRegions(codes, image.shape, score=quality, source=SIGNATURE))


def described(prompt: Prompt) -> str:
    """A prompt in words, such as 'point 120,45, negative 30,40, box 10,10,80,90'."""
    kinds = {POSITIVE: "point", NEGATIVE: "negative"}
    parts = [f"{kinds[label]} {x:g},{y:g}" for (x, y), label in zip(prompt.points, prompt.labels, strict=True)]
    parts += ["box " + ",".join(f"{side:g}" for side in prompt.box)] if prompt.box else []
    return ", ".join([*parts, *(["a previous mask"] if prompt.mask is not None else [])])


def answer_lines(answers: Sequence[ObjectMasks]) -> list[str]:
    """One line an object, and one line a mask: its rank, quality, area and box."""
    lines = []
    for answer in answers:
        masks = answer.masks
        lines.append(f"{described(answer.prompt)}: {len(masks)} {'mask' if len(masks) == 1 else 'masks'}")
        for number, (score, area, box) in enumerate(zip(masks.score.tolist(), masks.area.tolist(), masks.boxes.tolist(), strict=True), 1):
            share = area / (masks.shape[0] * masks.shape[1])
            lines.append(f"  {number}  quality {score:.2f}  {share:6.1%}  {area} pixels in x {box[0]}, y {box[1]}, {box[2]}×{box[3]}")
    return lines


def answers_json(name: str, answers: Sequence[ObjectMasks]) -> dict[str, object]:
    """The content of ``uss prompt --out FILE.json``: COCO annotations by object, of category 1, since masks have no classes. name: of the image.

    An object has ``points`` and ``labels`` (1 positive, 0 negative), and where they apply ``box``, ``refined``, and ``point``, a single positive point.
    """
    height, width = answers[0].masks.shape
    numbers = itertools.count(1)
    entries = []
    for answer in answers:
        masks, prompt = answer.masks, answer.prompt
        rows = zip(masks.area.tolist(), masks.boxes.tolist(), masks.rles(), masks.score.tolist(), strict=True)
        annotations = [
            annotation(next(numbers), 1, -1, area, box, (height, width), code, round(score, 4), None) for area, box, code, score in rows
        ]
        points = [list(point) for point in prompt.points]
        alone = prompt.labels == (POSITIVE,) and not prompt.box and prompt.mask is None
        entries.append(
            {
                **({"point": points[0]} if alone else {}),
                "points": points,
                "labels": list(prompt.labels),
                **({"box": list(prompt.box)} if prompt.box else {}),
                **({"refined": True} if prompt.mask is not None else {}),
                "masks": annotations,
            }
        )
    return {"image": {"file_name": name, "height": height, "width": width}, "answers": entries}


def draw_answers(image: np.ndarray, answers: Sequence[ObjectMasks]) -> bytes:
    """A PNG with one row an object and one panel a mask, best first.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    answers : sequence of ObjectMasks

    Raises
    ------
    BadData
        If there is no mask.
    """
    from uss_dagster.drawing import montage, paint

    columns = max(len(answer.masks) for answer in answers)
    if not columns:
        raise BadData("The student finds no mask there, so there is nothing to draw.")
    blank = shrunk(np.full_like(image, 255), PANEL)
    panels, captions = [], []
    for answer in answers:
        for number in range(len(answer.masks)):
            painted = paint(image, np.where(answer.masks.mask(number), 0, -1).astype(np.int32))
            panels.append(shrunk(_marked(painted, answer.prompt), PANEL))
            share = answer.masks.area[number] / (image.shape[0] * image.shape[1])
            captions.append(f"quality {answer.masks.score[number]:.2f}, {share:.1%}")
        panels += [blank] * (columns - len(answer.masks))
        captions += [""] * (columns - len(answer.masks))
    return _signed_png(montage(panels, captions, columns=columns))


def mask_png(answer: ObjectMasks) -> bytes:
    """The best mask of an object as a PNG, white on black.

    Raises
    ------
    BadData
        If there is no mask.
    """
    if not len(answer.masks):
        raise BadData("The student finds no mask there, so there is none to write.")
    return _signed_png(np.where(answer.masks.mask(0), 255, 0).astype(np.uint8))


def _signed_png(pixels: np.ndarray) -> bytes:
    """A PNG that says that ``uss prompt`` drew it, so that it may be replaced."""
    note = PngInfo()
    note.add_text("Software", SIGNATURE)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=6, pnginfo=note)
    return stream.getvalue()


def _marked(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    """A black disc in a white ring around each positive point, a red one around each negative point, and the box as a white line in a black one."""
    radius = max(3.0, max(image.shape[:2]) / 70)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    marked = image.copy()
    if prompt.box:
        left, top, right, bottom = prompt.box
        outside = np.maximum(np.maximum(left - x, x - right), np.maximum(top - y, y - bottom))
        marked[np.abs(outside) <= radius / 2] = 0
        marked[np.abs(outside) <= radius / 5] = 255
    for (column, row), label in zip(prompt.points, prompt.labels, strict=True):
        distance = np.hypot(y - row, x - column)
        marked[distance <= radius] = 255
        marked[distance <= 0.6 * radius] = 0 if label == POSITIVE else (214, 39, 40)
    return marked
