"""Batches to learn from: random windows of pictures, stretched to a square, with their masks and clicks.

A picture is read once, reduced so far that the smallest window still fills the square, and kept as atoms (see ``regions``) in a cache of bounded
size: a window of any number of masks is then one look-up. Each batch draws from a generator of its own (seed, step), whoever asks and in
whatever order, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uss_dagster.regions import Regions, rle
from uss_dagster.student.data import Example, Source
from uss_dagster.student.settings import StudentSettings

CACHE_BYTES = 512 * 1024**2
OVERSAMPLE = 2
"""Samples of a mask along each side of a pixel of its target, whose mean is the share of the pixel that it holds."""
DISC = 0.1
"""Radius of the disc in which a click falls, in the shorter side of the mask's box."""
ANYWHERE = 4
"""One click of so many falls anywhere, on a mask or not."""
LARGEST = 0.95
"""A mask that has more of a window is no target there: nothing of its border is seen."""


@dataclass
class Batch:
    """images: float32 (B, 3, S, S), 0..1. targets: float32 (B, K, s, s), shares of pixels that masks hold, zeros behind the last one of an image.
    known: bool (B, K), which are masks. points: float32 (B, P, 2), clicks as (x, y) in 0..1. wanted: int64 (B, P, G), the masks at a click, small ones
    first, -1 behind the last one; none at all where an image has no masks.
    """

    images: Tensor
    targets: Tensor
    known: Tensor
    points: Tensor
    wanted: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))

    def parts(self, count: int) -> list[Batch]:
        """So many equal parts; the batch itself where it cannot be divided."""
        if len(self.images) % count:
            return [self]
        chunks = [getattr(self, name).chunk(count) for name in self.__dataclass_fields__]
        return [Batch(*(chunk[i] for chunk in chunks)) for i in range(count)]


@dataclass(frozen=True)
class Picture:
    """image: uint8 (h, w, 3). atoms: uint16 or int32 (h, w). members: bool (K, A). human: bool (K,), the masks that a person drew."""

    image: np.ndarray
    atoms: np.ndarray
    members: np.ndarray
    human: np.ndarray

    @property
    def bytes(self) -> int:
        return self.image.nbytes + self.atoms.nbytes + self.members.nbytes


class Views:
    """Batches of a source by the settings of a training."""

    def __init__(self, source: Source, settings: StudentSettings) -> None:
        self.source, self.settings = source, settings
        self.side = settings.input
        self.mask_side = settings.input // settings.architecture.stride
        self._long = math.ceil(settings.input / settings.smallest_crop)
        self._kept: OrderedDict[int, Picture] = OrderedDict()
        self._bytes = 0

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """Batch number ``step``, or the images of it that ``part`` names (of one process of several)."""
        chosen = self._chosen(step)
        seeds = np.random.default_rng([self.settings.seed, step]).integers(2**63, size=len(chosen))
        drawn = [self._view(self._picture(i), np.random.default_rng(s)) for i, s in list(zip(chosen, seeds.tolist(), strict=True))[part]]
        most = max(1, *(len(masks) for _, masks, _, _ in drawn))
        targets = np.zeros((len(drawn), most, self.mask_side, self.mask_side), np.float32)
        known = np.zeros((len(drawn), most), bool)
        for i, (_, masks, _, _) in enumerate(drawn):
            targets[i, : len(masks)], known[i, : len(masks)] = masks, True
        return Batch(
            torch.from_numpy(np.stack([image for image, _, _, _ in drawn])),
            torch.from_numpy(targets),
            torch.from_numpy(known),
            torch.from_numpy(np.stack([points for _, _, points, _ in drawn])),
            torch.from_numpy(np.stack([wanted for _, _, _, wanted in drawn])),
        )

    def _chosen(self, step: int) -> list[int]:
        """Indices of the examples of a batch: shuffled anew in each pass over the source."""
        count, size = len(self.source), self.settings.batch
        places = range(step * size, (step + 1) * size)
        orders = {p: np.random.default_rng([self.settings.seed, 1, p]).permutation(count) for p in {place // count for place in places}}
        return [int(orders[place // count][place % count]) for place in places]

    def _picture(self, index: int) -> Picture:
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        picture = reduced(self.source[index], self._long)
        self._kept[index] = picture
        self._bytes += picture.bytes
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].bytes
        return picture

    def _view(self, picture: Picture, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Image (3, S, S), targets (K, s, s), clicks (P, 2) and what they want (P, G) of a random window."""
        settings, grains = self.settings, self.settings.architecture.grains
        height, width = picture.atoms.shape
        share = settings.smallest_crop ** rng.random()  # as many windows of half a size as of the whole
        stretch = math.exp(rng.uniform(-0.2, 0.2))
        h, w = min(height, height * share * stretch), min(width, width * share / stretch)
        y, x = rng.uniform(0, height - h), rng.uniform(0, width - w)
        mirrored = rng.random() < 0.5
        image = colours(pixels(picture.image, (y, x, h, w), self.side), rng)
        masks = windowed(picture, (y, x, h, w), self.mask_side, settings.masks, rng)
        if mirrored:
            image, masks = image[:, :, ::-1].copy(), masks[:, :, ::-1].copy()
        points = np.full((settings.clicks, 2), 0.5, np.float32)
        wanted = np.full((settings.clicks, grains), -1, np.int64)
        if len(masks):
            points = clicks(masks, settings.clicks, rng)
            anywhere = settings.clicks // ANYWHERE
            points[:anywhere] = rng.random((anywhere, 2), np.float32)
            wanted = answers(masks, points, grains)
        return image, masks, points, wanted


def reduced(example: Example, long: int) -> Picture:
    """An example no longer than ``long`` pixels: its image, and its masks by their value at pixel centres."""
    height, width = example.shape
    scale = min(1.0, long / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    image = example.image
    if scale < 1:
        image = np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR, reducing_gap=2.0))
    rows, columns = centres(0, height, h), centres(0, width, w)
    masks = [rle.decode(code, height, width)[rows[:, None], columns] for code in example.codes]
    some = [i for i, mask in enumerate(masks) if mask.any()]
    regions = Regions.from_masks([masks[i] for i in some], shape=(h, w))
    atoms = regions.atoms.astype(np.uint16) if regions.members.shape[1] < 2**16 else regions.atoms
    return Picture(np.ascontiguousarray(image), atoms, regions.members, example.human[some])


def centres(start: float, extent: float, count: int) -> np.ndarray:
    """Pixels at the centres of ``count`` equal parts of a stretch."""
    return (start + (np.arange(count) + 0.5) * extent / count).astype(np.int64)


def pixels(image: np.ndarray, window: tuple[float, float, float, float], side: int) -> np.ndarray:
    """Float32 (3, side, side) in 0..1 of a window (y, x, height, width)."""
    y, x, h, w = window
    square = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR, (x, y, x + w, y + h))
    return np.asarray(square, np.float32).transpose(2, 0, 1) / 255


def colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image with another exposure, contrast and tint."""
    gain = rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3)
    return np.clip((image - 0.5) * gain[:, None, None] + 0.5 + rng.uniform(-0.1, 0.1), 0, 1).astype(np.float32)


def windowed(picture: Picture, window: tuple[float, float, float, float], side: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Float32 (K, side, side): the share of each pixel of a window that a mask holds; of at most ``most`` masks, those that can be seen there.
    Where there are more, those that a person drew go first."""
    y, x, h, w = window
    fine = side * OVERSAMPLE
    atoms = picture.atoms[centres(y, h, fine)[:, None], centres(x, w, fine)]
    count = picture.members.shape[1]
    seen = np.bincount(atoms.ravel(), minlength=count)
    area = picture.members @ seen
    there = np.flatnonzero((area >= OVERSAMPLE**2) & (area <= LARGEST * fine**2))
    if len(there) > most:
        drawn = there[picture.human[there]]
        first, others = (drawn, there[~picture.human[there]]) if len(drawn) < most else (drawn[:0], drawn)
        there = np.sort(np.concatenate([first, rng.choice(others, most - len(first), replace=False)]))
    cells = atoms.reshape(side, OVERSAMPLE, side, OVERSAMPLE).transpose(1, 3, 0, 2).reshape(OVERSAMPLE**2, -1)
    members = picture.members[there].astype(np.float32)
    share = sum(members[:, part] for part in cells) / OVERSAMPLE**2
    masks = np.asarray(share, np.float32).reshape(len(there), side, side)
    return masks[(masks >= 0.5).any(axis=(1, 2))]


def clicks(masks: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Float32 (count, 2), (x, y) in 0..1: clicks near the middle of random masks (K, s, s), each in it.

    The middle is where the mask's means over squares of several sizes add up to most.
    """
    side = masks.shape[-1]
    from scipy.ndimage import uniform_filter

    held = masks[rng.integers(len(masks), size=count)] >= 0.5
    depth = sum(uniform_filter(held.astype(np.float32), (0, size, size), mode="constant") for size in (3, 7, 13, 25))
    middle = (depth * held).reshape(count, -1).argmax(axis=1)
    points = np.empty((count, 2), np.float32)
    for i, place in enumerate(middle.tolist()):
        mask = held[i]
        y, x = divmod(place, side)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        radius = DISC * min(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) * math.sqrt(rng.random())
        angle = rng.uniform(0, 2 * math.pi)
        px, py = x + 0.5 + radius * math.cos(angle), y + 0.5 + radius * math.sin(angle)
        inside = 0 <= px < side and 0 <= py < side and mask[int(py), int(px)]
        points[i] = (px / side, py / side) if inside else ((x + 0.5) / side, (y + 0.5) / side)
    return points


def answers(masks: np.ndarray, points: np.ndarray, grains: int) -> np.ndarray:
    """Int64 (P, grains): the masks that hold each click, small ones first, -1 behind the last; of more than that, those evenly spaced by rank of area."""
    side = masks.shape[-1]
    wanted = np.full((len(points), grains), -1, np.int64)
    area = masks.sum(axis=(1, 2))
    for i, (x, y) in enumerate((points * side).astype(np.int64).tolist()):
        here = np.flatnonzero(masks[:, y, x] >= 0.5)
        here = here[np.argsort(area[here], kind="stable")]
        if len(here) > grains:
            here = here[np.round(np.linspace(0, len(here) - 1, grains)).astype(np.int64)]
        wanted[i, : len(here)] = here
    return wanted
