"""The prompts of training: clicks and boxes in a window, the masks that answer them, and clicks that correct an answer.

Some prompts of each window are corrected: the network answers them, the next point falls into the larger error (positive where the mask is missed,
negative where the answer is wrong), and the network answers again, with its answer as the previous mask. So it learns from its own mistakes (RITM:
Sofiiuk, Petrov & Konushin, ICIP 2022; SAM: Kirillov et al., ICCV 2023). The image is encoded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from uss_dagster.student.net import Output
from uss_dagster.student.prompts import NEGATIVE, NO_POINT, POSITIVE, Prompts
from uss_dagster.student.settings import StudentSettings

if TYPE_CHECKING:
    from uss_dagster.student.views import Batch

DISC = 0.1
"""Radius of the disc around the middle of a mask in which a click falls, relative to the shorter side of the mask's box."""
ANYWHERE = 4
"""One click of so many falls anywhere, on a mask or not."""
JITTER = 0.1
"""Standard deviation of each side of a box, relative to the box; twice as much at most."""
MIDDLE = (3, 7, 13, 25)
"""Sides of the squares whose means tell how far inside a mask a pixel is."""


class WindowPrompts(NamedTuple):
    """P prompts in a window.

    Parameters
    ----------
    points : float32 array of shape (P, 2)
        (x, y) in 0..1; not part of the prompts that have a box.
    boxes : float32 array of shape (P, 4)
        Left, top, right, bottom in 0..1; zeros for no box.
    aims : int64 array of shape (P,)
        The mask that a prompt is meant for; -1 for none.
    answers : int64 array of shape (P, G)
        The masks that answer a prompt, small ones first; -1 after the last.
    """

    points: np.ndarray
    boxes: np.ndarray
    aims: np.ndarray
    answers: np.ndarray


@dataclass(frozen=True)
class Slots:
    """Which of the P prompts of a window are of which kind: first those that fall anywhere, then clicks, then boxes.

    Parameters
    ----------
    anywhere : int
        Number of clicks that fall anywhere.
    boxes : int
        Number of boxes.
    corrected : slice
        The prompts that are corrected: one third boxes, the others clicks.
    """

    anywhere: int
    boxes: int
    corrected: slice

    @classmethod
    def of(cls, settings: StudentSettings) -> Slots:
        """The kinds of prompts by the settings' shares."""
        count = settings.clicks
        anywhere, boxes, corrected = count // ANYWHERE, int(settings.box_share * count), int(settings.corrected_share * count)
        last = count - boxes + min(boxes, corrected // 3)
        return cls(anywhere, boxes, slice(max(anywhere, last - corrected), last))


def sample_prompts(masks: np.ndarray, settings: StudentSettings, rng: np.random.Generator) -> WindowPrompts:
    """The prompts of a window with masks float32 (K, s, s)."""
    count, grains, slots = settings.clicks, settings.architecture.grains, Slots.of(settings)
    boxes, aims = np.zeros((count, 4), np.float32), np.full(count, -1, np.int64)
    if not len(masks):
        return WindowPrompts(np.full((count, 2), 0.5, np.float32), boxes, aims, np.full((count, grains), -1, np.int64))
    aims = rng.integers(len(masks), size=count)
    points = sample_clicks(masks, aims, rng)
    points[: slots.anywhere] = rng.random((slots.anywhere, 2), np.float32)
    answers = click_answers(masks, points, grains)
    aims[: slots.anywhere] = -1
    for i in range(count - slots.boxes, count):
        boxes[i] = sample_box(masks[aims[i]] >= 0.5, rng)
        answers[i, 0], answers[i, 1:] = aims[i], -1
    return WindowPrompts(points, boxes, aims, answers)


def sample_box(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The box of a mask, bool (s, s) and not empty, with each side moved at random: left, top, right, bottom in 0..1."""
    low, high = (np.array([f(np.flatnonzero(mask.any(axis=axis))) for axis in (0, 1)]) for f in (np.min, np.max))
    low, high = low / mask.shape[0], (high + 1) / mask.shape[0]
    moved = np.clip(rng.normal(0, JITTER, (2, 2)), -2 * JITTER, 2 * JITTER) * (high - low)
    return np.clip(np.concatenate([low + moved[0], high + moved[1]]), 0, 1).astype(np.float32)


def sample_clicks(masks: np.ndarray, aims: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One click a prompt, near the middle of its mask and inside it.

    Parameters
    ----------
    masks : float32 array of shape (K, s, s)
    aims : int array of shape (P,)
        The mask of each prompt.
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (P, 2)
        (x, y) in 0..1.
    """
    side = masks.shape[-1]
    clicked = {aim: masks[aim] >= 0.5 for aim in np.unique(aims).tolist()}
    middles = {aim: _middle(mask) for aim, mask in clicked.items()}
    points = np.empty((len(aims), 2), np.float32)
    for i, aim in enumerate(aims.tolist()):
        y, x, extent = middles[aim]
        radius, angle = DISC * extent * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        px, py = x + 0.5 + radius * math.cos(angle), y + 0.5 + radius * math.sin(angle)
        inside = 0 <= px < side and 0 <= py < side and clicked[aim][int(py), int(px)]
        points[i] = (px / side, py / side) if inside else ((x + 0.5) / side, (y + 0.5) / side)
    return points


def _middle(mask: np.ndarray) -> tuple[int, int, int]:
    """Row and column of the pixel where the sum of the mask's means over squares of several sizes is greatest; and the shorter side of its box."""
    from scipy.ndimage import uniform_filter

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)  # beyond it, the means count zeros
    depth = sum(uniform_filter(box, size, mode="constant") for size in MIDDLE)
    y, x = divmod(int((depth * box).argmax()), box.shape[1])
    return y + int(rows[0]), x + int(columns[0]), min(box.shape)


def click_answers(masks: np.ndarray, points: np.ndarray, grains: int) -> np.ndarray:
    """The masks at each click.

    Parameters
    ----------
    masks : float32 array of shape (K, s, s)
    points : float32 array of shape (P, 2)
        (x, y) in 0..1.
    grains : int
        Greatest number of masks a click. Of more, those stay that are evenly spaced by rank of area.

    Returns
    -------
    int64 array of shape (P, grains)
        Indices of masks, small ones first; -1 after the last.
    """
    side = masks.shape[-1]
    answers = np.full((len(points), grains), -1, np.int64)
    area = masks.sum(axis=(1, 2))
    for i, (x, y) in enumerate((points * side).astype(np.int64).tolist()):
        at_click = np.flatnonzero(masks[:, y, x] >= 0.5)
        at_click = at_click[np.argsort(area[at_click], kind="stable")]
        if len(at_click) > grains:
            at_click = at_click[np.round(np.linspace(0, len(at_click) - 1, grains)).astype(np.int64)]
        answers[i, : len(at_click)] = at_click
    return answers


def corrections_of(batch: Batch, settings: StudentSettings, generator: torch.Generator) -> list[Correction]:
    """The corrections of a batch, one a round; none where no prompt is corrected. generator: on the CPU."""
    slots, count = Slots.of(settings).corrected, len(batch.points)
    if slots.start == slots.stop:
        return []
    targets = batch.corrected(slots).targets[:, 0].unflatten(0, (count, -1)) >= 0.5
    noise = [torch.rand(targets.shape, generator=generator).to(targets.device) for _ in range(settings.corrections)]
    grains = settings.architecture.grains
    return [Correction(targets, slots if number == 0 else slice(None), grains, part) for number, part in enumerate(noise)]


@dataclass(frozen=True)
class Correction:
    """The next click on some prompts of a batch; see ``net.Corrections``.

    Parameters
    ----------
    targets : bool Tensor of shape (B, R, s, s)
        What the R corrected prompts are meant for; empty for nothing.
    slots : slice
        Which prompts are corrected.
    grains : int
        Masks a prompt.
    noise : Tensor of shape (B, R, s, s)
        In 0..1: draws one of the pixels deep inside an error.
    """

    targets: Tensor
    slots: slice
    grains: int
    noise: Tensor

    @torch.no_grad()
    def __call__(self, prompts: Prompts, output: Output) -> Prompts:
        """The prompts with one more point, and with the answer of the best quality as the previous mask."""
        count = prompts.points.shape[1]
        last = slice(-count * self.grains, None)  # learned queries come first
        masks, quality = (t[:, last].unflatten(1, (count, self.grains))[:, self.slots] for t in (output.masks, output.quality))
        best = quality.argmax(-1)
        side = masks.shape[-1]
        answer = masks.gather(2, best[:, :, None, None, None].expand(-1, -1, 1, side, side))[:, :, 0] > 0
        points, labels = next_points(self.targets, answer, self.noise)
        return prompts.select(self.slots).after(points, labels, answer.float())


def next_points(targets: Tensor, answers: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Points (B, R, 2) deep in the larger error of each answer, bool (B, R, s, s), and their labels (B, R); no point where there is no error."""
    errors = torch.stack([answers & ~targets, targets & ~answers], 2).float()  # in the order of the labels
    side = errors.shape[-1]
    inside = sum(square_means(errors.flatten(0, 2), size).view_as(errors) for size in MIDDLE)
    value, place = (errors * inside * (1 + noise[:, :, None] / 2)).flatten(2).max(-1)
    labels = torch.where(value > 0, torch.where(place < side * side, NEGATIVE, POSITIVE), NO_POINT)
    x, y = place % side, place // side % side
    return (torch.stack([x, y], -1) + 0.5) / side, labels


def square_means(maps: Tensor, size: int) -> Tensor:
    """The mean of maps (M, s, s) over a square around each pixel, 0 beyond the border. size: of the square, odd."""
    rows = avg_pool2d(maps, (size, 1), 1, (size // 2, 0))  # rows and columns one after the other: 2 · size additions a pixel
    return avg_pool2d(rows, (1, size), 1, (0, size // 2))
