"""Training batches: random windows of images, stretched to a square, with their masks and clicks.

An image is read once, reduced as far as the smallest window still fills the square, and stored as atoms (see ``regions``) in a cache of bounded size. So
a window of any number of masks is one indexing operation. Each batch has its own random generator (seed, step). So a run that was stopped continues as
if it had not been stopped.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uss_dagster.regions import Regions
from uss_dagster.student.data import Example, Source
from uss_dagster.student.prediction import window_pixels
from uss_dagster.student.prompts import NO_POINT, POSITIVE, Prompts
from uss_dagster.student.settings import StudentSettings
from uss_dagster.student.training_prompts import WindowPrompts, sample_prompts

CACHE_BYTES = 512 * 1024**2
"""Greatest size of the cached images."""
OVERSAMPLE = 2
"""Samples along each side of a target's pixel; their mean is the share of the pixel in the mask."""
LARGEST = 0.95
"""A mask that covers more of a window is no target there: its border is not visible."""

RandomWindow = tuple[np.ndarray, np.ndarray, WindowPrompts]
"""Image float32 (3, S, S), targets float32 (K, s, s), and prompts; see ``Batch``."""


@dataclass
class Batch:
    """B windows with their targets and prompts; the last four as in ``training_prompts.WindowPrompts``.

    Parameters
    ----------
    images : float32 Tensor of shape (B, 3, S, S)
        In 0..1.
    targets : float32 Tensor of shape (B, K, s, s)
        The share of each pixel in each mask; zeros after the last mask of an image.
    valid : bool Tensor of shape (B, K)
        Which targets are masks.
    points : float32 Tensor of shape (B, P, 2)
    boxes : float32 Tensor of shape (B, P, 4)
    aims : int64 Tensor of shape (B, P)
    answers : int64 Tensor of shape (B, P, G)
    """

    images: Tensor
    targets: Tensor
    valid: Tensor
    points: Tensor
    boxes: Tensor
    aims: Tensor
    answers: Tensor

    def prompts(self) -> Prompts:
        """The prompts: a box where there is one, else a positive point."""
        boxed = self.boxes[..., 2] > self.boxes[..., 0]
        return Prompts(self.points[:, :, None], torch.where(boxed, NO_POINT, POSITIVE)[..., None], self.boxes)

    def corrected(self, slots: slice) -> Batch:
        """R prompts of each window as B · R windows with one prompt each, whose only target is the mask that it is meant for."""
        aims = self.aims[:, slots]
        targets = self.targets[torch.arange(len(aims), device=aims.device)[:, None], aims.clamp(min=0)].flatten(0, 1)[:, None]
        valid, points, boxes = (aims >= 0).view(-1, 1), self.points[:, slots], self.boxes[:, slots]
        answers = torch.full_like(self.answers[:, slots], -1)
        answers[..., 0] = torch.where(aims >= 0, 0, -1)
        each = (part.flatten(0, 1)[:, None] for part in (points, boxes, aims, answers))
        return Batch(self.images, targets * valid[..., None, None], valid, *each)

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))

    def parts(self, count: int) -> list[Batch]:
        """The batch in ``count`` equal parts, or as it is if it cannot be divided."""
        if len(self.images) % count:
            return [self]
        chunks = [getattr(self, name).chunk(count) for name in self.__dataclass_fields__]
        return [Batch(*(chunk[i] for chunk in chunks)) for i in range(count)]


@dataclass(frozen=True)
class ReducedExample:
    """An example at reduced size, with its masks as atoms.

    Parameters
    ----------
    image : uint8 array of shape (h, w, 3)
    atoms : uint16 or int32 array of shape (h, w)
        The atom of each pixel.
    members : bool array of shape (K, A)
        Which atoms each mask has.
    human : bool array of shape (K,)
        Which masks a person drew.
    """

    image: np.ndarray
    atoms: np.ndarray
    members: np.ndarray
    human: np.ndarray

    @property
    def bytes(self) -> int:
        return self.image.nbytes + self.atoms.nbytes + self.members.nbytes


class Views:
    """The batches of a training.

    Parameters
    ----------
    source : Source
    settings : StudentSettings
    """

    def __init__(self, source: Source, settings: StudentSettings) -> None:
        self.source, self.settings = source, settings
        self.side = settings.input
        self.mask_side = settings.input // settings.architecture.stride
        self._long = math.ceil(settings.input / settings.smallest_crop)
        self._cache: OrderedDict[int, ReducedExample] = OrderedDict()
        self._bytes = 0

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """The batch of a step, or ``part`` of its images, for one process of several."""
        chosen = self._chosen(step)
        seeds = np.random.default_rng([self.settings.seed, step]).integers(2**63, size=len(chosen))
        pairs = list(zip(chosen, seeds.tolist(), strict=True))[part]
        images, masks, prompts = zip(
            *(self._window(self._example(i), *self._generators(i, view, seed)) for (i, view), seed in pairs), strict=True
        )
        most = max(1, *(len(m) for m in masks))
        targets = np.zeros((len(pairs), most, self.mask_side, self.mask_side), np.float32)
        valid = np.zeros((len(pairs), most), bool)
        for i, m in enumerate(masks):
            targets[i, : len(m)], valid[i, : len(m)] = m, True
        return Batch(*(torch.from_numpy(array) for array in (np.stack(images), targets, valid, *map(np.stack, zip(*prompts, strict=True)))))

    def numbers(self, step: int, part: slice = slice(None)) -> list[int]:
        """Numbers of the fixed windows of a batch; equal numbers have equal pixels."""
        return [index * self.settings.views + view for index, view in self._chosen(step)[part]]

    def _indices(self, step: int) -> list[int]:
        """Indices of the examples of a batch; every pass over the source has another order."""
        count, size = len(self.source), self.settings.batch
        places = range(step * size, (step + 1) * size)
        orders = {p: np.random.default_rng([self.settings.seed, 1, p]).permutation(count) for p in {place // count for place in places}}
        return [int(orders[place // count][place % count]) for place in places]

    def _chosen(self, step: int) -> list[tuple[int, int]]:
        """(index of the example, number of its fixed window) of a batch; every pass over the source has another window."""
        first, views = step * self.settings.batch, max(1, self.settings.views)
        return [(index, (first + i) // len(self.source) % views) for i, index in enumerate(self._indices(step))]

    def _generators(self, index: int, view: int, seed: int) -> tuple[np.random.Generator, np.random.Generator]:
        """Of the pixels and masks of a window, and of its clicks. A fixed window has new clicks each time."""
        clicks = np.random.default_rng(seed)
        return (np.random.default_rng([self.settings.seed, 2, index, view]) if self.settings.views else clicks), clicks

    def _example(self, index: int) -> ReducedExample:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        example = reduce_example(self.source[index], self._long)
        self._cache[index] = example
        self._bytes += example.bytes
        while self._bytes > CACHE_BYTES and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1].bytes
        return example

    def _window(self, example: ReducedExample, rng: np.random.Generator, rng_of_prompts: np.random.Generator) -> RandomWindow:
        settings = self.settings
        height, width = example.atoms.shape
        share = settings.smallest_crop ** rng.random()  # as many windows of half a size as of the whole
        stretch = math.exp(rng.uniform(-0.2, 0.2))
        h, w = min(height, height * share * stretch), min(width, width * share / stretch)
        y, x = rng.uniform(0, height - h), rng.uniform(0, width - w)
        mirrored = rng.random() < 0.5
        image = jitter_colours(window_pixels(example.image, (y, x, h, w), self.side)[0], rng)
        masks = window_masks(example, (y, x, h, w), self.mask_side, settings.masks, rng)
        if mirrored:
            image, masks = image[:, :, ::-1].copy(), masks[:, :, ::-1].copy()
        return image, masks, sample_prompts(masks, settings, rng_of_prompts)


def reduce_example(example: Example, long: int) -> ReducedExample:
    """An example whose longer side has at most ``long`` pixels; masks are sampled at pixel centres."""
    height, width = example.shape
    scale = min(1.0, long / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    image = example.image
    if scale < 1:
        image = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR, reducing_gap=2.0))
    regions = Regions.from_codes(example.codes, example.shape).resized(h, w)
    keep = np.flatnonzero(regions.area > 0)
    regions = regions.select(keep).compact()
    atoms = regions.atoms.astype(np.uint16) if regions.members.shape[1] < 2**16 else regions.atoms
    return ReducedExample(np.ascontiguousarray(image), atoms, regions.members, example.human[keep])


def centres(start: float, extent: float, count: int) -> np.ndarray:
    """The pixels at the centres of ``count`` equal parts of an interval."""
    return (start + (np.arange(count) + 0.5) * extent / count).astype(np.int64)


def jitter_colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image, float32 (3, H, W) in 0..1, with random exposure, contrast and tint."""
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3)
    return np.clip((image - 0.5) * gain[:, None, None] + 0.5 + rng.uniform(-0.1, 0.1), 0, 1).astype(np.float32)


def window_masks(
    example: ReducedExample, window: tuple[float, float, float, float], side: int, most: int, rng: np.random.Generator
) -> np.ndarray:
    """The masks that are visible in a window.

    Parameters
    ----------
    example : ReducedExample
    window : tuple of float
        (y, x, height, width) in pixels.
    side : int
        Of the result.
    most : int
        Greatest number of masks. If more are visible, human masks have priority and the others are drawn at random.
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (K, side, side)
        The share of each pixel in each mask.
    """
    y, x, h, w = window
    fine = side * OVERSAMPLE
    atoms = example.atoms[centres(y, h, fine)[:, None], centres(x, w, fine)]
    area = example.members @ np.bincount(atoms.ravel(), minlength=example.members.shape[1])
    visible = np.flatnonzero((area >= OVERSAMPLE**2) & (area <= LARGEST * fine**2))
    if len(visible) > most:
        human = visible[example.human[visible]]
        first, others = (human, visible[~example.human[visible]]) if len(human) < most else (human[:0], human)
        visible = np.sort(np.concatenate([first, rng.choice(others, most - len(first), replace=False)]))
    cells = atoms.reshape(side, OVERSAMPLE, side, OVERSAMPLE).transpose(1, 3, 0, 2).reshape(OVERSAMPLE**2, -1)
    members = example.members[visible].astype(np.float32)
    share = sum(members[:, part] for part in cells) / OVERSAMPLE**2
    masks = np.asarray(share, np.float32).reshape(len(visible), side, side)
    return masks[(masks >= 0.5).any(axis=(1, 2))]
