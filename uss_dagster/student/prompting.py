"""The answers of a student to points of an image: as lines of text, COCO json, and a drawing."""

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

SIGNATURE = "uss prompt"
"""The PNG text ``Software`` of every drawing; only a file with it is replaced."""
PANEL = 420
"""Longest side of one panel of the drawing, in pixels."""
SPLIT = 4
"""Windows a side, see ``Student.encode``: a click is answered from the whole image and from windows of about a half and a third of its sides."""


@dataclass(frozen=True)
class PointMasks:
    """The masks at a point.

    Parameters
    ----------
    point : tuple of int
        (x, y) in pixels.
    masks : CodedRegions
        Best first; the score is the expected quality.
    """

    point: tuple[int, int]
    masks: CodedRegions


def masks_at(image: EncodedImage, point: tuple[int, int]) -> PointMasks:
    """The masks at a point of an encoded image."""
    answers = image.click(*point)
    codes, quality = [answer.code for answer in answers], [answer.quality for answer in answers]
    return PointMasks(point, CodedRegions(codes, image.shape, score=quality, source=SIGNATURE))


def answer_lines(answers: Sequence[PointMasks]) -> list[str]:
    """One line a point, and one line a mask: its rank, quality, area and box."""
    lines = []
    for answer in answers:
        masks = answer.masks
        lines.append(f"point {answer.point[0]},{answer.point[1]}: {len(masks)} {'mask' if len(masks) == 1 else 'masks'}")
        for number, (score, area, box) in enumerate(zip(masks.score.tolist(), masks.area.tolist(), masks.boxes.tolist(), strict=True), 1):
            share = area / (masks.shape[0] * masks.shape[1])
            lines.append(f"  {number}  quality {score:.2f}  {share:6.1%}  {area} pixels in x {box[0]}, y {box[1]}, {box[2]}×{box[3]}")
    return lines


def answers_json(name: str, answers: Sequence[PointMasks]) -> dict[str, object]:
    """The content of ``uss prompt --out FILE.json``: COCO annotations by point, of category 1, since masks have no classes. name: of the image."""
    height, width = answers[0].masks.shape
    numbers = itertools.count(1)
    entries = []
    for answer in answers:
        masks = answer.masks
        rows = zip(masks.area.tolist(), masks.boxes.tolist(), masks.rles(), masks.score.tolist(), strict=True)
        annotations = [
            annotation(next(numbers), 1, -1, area, box, (height, width), code, round(score, 4), None) for area, box, code, score in rows
        ]
        entries.append({"point": list(answer.point), "masks": annotations})
    return {"image": {"file_name": name, "height": height, "width": width}, "answers": entries}


def draw_answers(image: np.ndarray, answers: Sequence[PointMasks]) -> bytes:
    """A PNG with one row a point and one panel a mask, best first.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
    answers : sequence of PointMasks

    Raises
    ------
    BadData
        If there is no mask.
    """
    from uss_dagster.drawing import montage, paint

    columns = max(len(answer.masks) for answer in answers)
    if not columns:
        raise BadData("No mask was found under any point, so there is nothing to draw.")
    blank = shrunk(np.full_like(image, 255), PANEL)
    panels, captions = [], []
    for answer in answers:
        for number in range(len(answer.masks)):
            painted = paint(image, np.where(answer.masks.mask(number), 0, -1).astype(np.int32))
            panels.append(shrunk(_with_ring(painted, answer.point), PANEL))
            share = answer.masks.area[number] / (image.shape[0] * image.shape[1])
            captions.append(f"quality {answer.masks.score[number]:.2f}, {share:.1%}")
        panels += [blank] * (columns - len(answer.masks))
        captions += [""] * (columns - len(answer.masks))
    note = PngInfo()
    note.add_text("Software", SIGNATURE)
    stream = io.BytesIO()
    Image.fromarray(montage(panels, captions, columns=columns)).save(stream, "PNG", compress_level=6, pnginfo=note)
    return stream.getvalue()


def _with_ring(image: np.ndarray, point: tuple[int, int]) -> np.ndarray:
    """A black disc in a white ring around the point, visible on any colour."""
    radius = max(3.0, max(image.shape[:2]) / 70)
    y, x = np.ogrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot(y - point[1], x - point[0])
    marked = image.copy()
    marked[distance <= radius] = 255
    marked[distance <= 0.6 * radius] = 0
    return marked
