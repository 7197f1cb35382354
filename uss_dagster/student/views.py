"""Training batches: random windows of images, stretched to a square, with their masks and clicks.

An image is reduced as far as the smallest window still fills the square, and stored on disk (``example_shards``) and in a cache of bounded size. Each
batch has its own random generator (seed, step). So a run that was stopped continues as if it had not been stopped, and any number of processes give
the same batches.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from uss_dagster.student.data import Source
from uss_dagster.student.example_shards import ExampleShards
from uss_dagster.student.loader import in_order
from uss_dagster.student.reduced import ReducedExample, read_reduced
from uss_dagster.student.settings import StudentSettings
from uss_dagster.student.windows import OVERSAMPLE, jittered, masks_of, paste, random_window, view_of

CACHE_BYTES = 512 * 1024**2
"""Greatest size of the cached images."""
DISC = 0.1
"""Radius of the disc around the middle of a mask in which a click falls, relative to the shorter side of the mask's box."""
ANYWHERE = 4
"""One click of so many falls anywhere, on a mask or not."""

RandomWindow = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Image float32 (3, S, S), targets float32 (K, s, s), clicks float32 (P, 2), and their answers int64 (P, G); see ``Batch``."""


@dataclass
class Batch:
    """B windows with their targets and clicks.

    Parameters
    ----------
    images : float32 Tensor of shape (B, 3, S, S)
        In 0..1.
    targets : float32 Tensor of shape (B, K, s, s)
        The share of each pixel in each mask; zeros after the last mask of an image.
    valid : bool Tensor of shape (B, K)
        Which targets are masks.
    points : float32 Tensor of shape (B, P, 2)
        Clicks as (x, y) in 0..1.
    answers : int64 Tensor of shape (B, P, G)
        Indices of the targets at each click, small ones first; -1 after the last.
    """

    images: Tensor
    targets: Tensor
    valid: Tensor
    points: Tensor
    answers: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on another device, as it was before ``packed``."""
        batch = self._each(lambda value: value.to(device, non_blocking=True))
        return batch if batch.targets.is_floating_point() else replace(batch, targets=batch.targets.float() / OVERSAMPLE**2)

    def packed(self) -> Batch:
        """The batch with targets as numbers of samples, uint8: a quarter of the size on the way from a process."""
        return replace(self, targets=(self.targets * OVERSAMPLE**2).byte())

    def pin_memory(self) -> Batch:
        """The batch in memory from which a GPU copies while it computes."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(*(change(getattr(self, name)) for name in self.__dataclass_fields__))

    def parts(self, count: int) -> list[Batch]:
        """The batch in ``count`` equal parts, or as it is if it cannot be divided."""
        if len(self.images) % count:
            return [self]
        chunks = [getattr(self, name).chunk(count) for name in self.__dataclass_fields__]
        return [Batch(*(chunk[i] for chunk in chunks)) for i in range(count)]


def longest_side(settings: StudentSettings) -> int:
    """Of a reduced image: the smallest window of it still fills the square."""
    return math.ceil(settings.input / settings.smallest_crop)


class Views:
    """The batches of a training.

    Parameters
    ----------
    source : Source
    settings : StudentSettings
    shards : ExampleShards, optional
        Where the examples are stored; without, they are read from the source.
    cache : int
        Greatest size in bytes of the examples in memory.
    """

    def __init__(self, source: Source, settings: StudentSettings, shards: ExampleShards | None = None, cache: int = CACHE_BYTES) -> None:
        self.source, self.settings, self.shards, self.cache = source, settings, shards, cache
        self.side = settings.input
        self.mask_side = settings.input // settings.architecture.stride
        self._long = longest_side(settings)
        self._cache: OrderedDict[int, ReducedExample] = OrderedDict()
        self._bytes = 0

    def batch(self, step: int, part: slice = slice(None)) -> Batch:
        """The batch of a step, or ``part`` of its images, for one process of several."""
        chosen = self._chosen(step)
        seeds = np.random.default_rng([self.settings.seed, step]).integers(2**63, size=len(chosen))
        pairs = list(zip(chosen, seeds.tolist(), strict=True))[part]
        images, masks, points, answers = zip(
            *(self._window(self._example(i), *self._generators(i, view, seed)) for (i, view), seed in pairs), strict=True
        )
        most = max(1, *(len(m) for m in masks))
        targets = np.zeros((len(pairs), most, self.mask_side, self.mask_side), np.float32)
        valid = np.zeros((len(pairs), most), bool)
        for i, m in enumerate(masks):
            targets[i, : len(m)], valid[i, : len(m)] = m, True
        return Batch(*(torch.from_numpy(array) for array in (np.stack(images), targets, valid, np.stack(points), np.stack(answers))))

    def numbers(self, step: int, part: slice = slice(None)) -> list[int]:
        """Numbers of the fixed windows of a batch; equal numbers have equal pixels."""
        return [index * self.settings.views + view for index, view in self._chosen(step)[part]]

    def batches(self, steps: range, part: slice = slice(None), loaders: int = 0, pinned: bool = False) -> Iterator[Batch]:
        """The batches of steps, computed ahead; see ``in_order``. Call ``Batch.to`` on each.

        Parameters
        ----------
        steps : range
        part : slice
            See ``batch``.
        loaders : int, default 0
            Number of processes; the batches are the same for any number.
        pinned : bool, default False
            In memory from which a GPU copies while it computes.
        """
        if loaders:
            return in_order(lambda step: self.batch(step, part).packed(), steps, loaders, pinned)
        return in_order(lambda step: self.batch(step, part), steps)

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
        example = read_reduced(self.source, index, self._long) if self.shards is None else self.shards[index]
        self._cache[index] = example
        self._bytes += example.bytes
        while self._bytes > self.cache and len(self._cache) > 1:
            self._bytes -= self._cache.popitem(last=False)[1].bytes
        return example

    def _window(self, example: ReducedExample, rng: np.random.Generator, rng_of_clicks: np.random.Generator) -> RandomWindow:
        settings, grains = self.settings, self.settings.architecture.grains
        image, masks = self._seen(example, rng)
        points = np.full((settings.clicks, 2), 0.5, np.float32)
        answers = np.full((settings.clicks, grains), -1, np.int64)
        if len(masks):
            points = sample_clicks(masks, settings.clicks, rng_of_clicks)
            anywhere = settings.clicks // ANYWHERE
            points[:anywhere] = rng_of_clicks.random((anywhere, 2), np.float32)
            answers = click_answers(masks, points, grains)
        return image, masks, points, answers

    def _seen(self, example: ReducedExample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random window: its image, float32 (3, S, S), and its masks, float32 (K, s, s)."""
        settings, samples = self.settings, self.mask_side * OVERSAMPLE
        view = view_of(example, random_window(example.atoms.shape, settings, rng), self.side, samples)
        mirrored = rng.random() < 0.5
        if settings.paste and rng.random() < settings.paste:
            other = self._example(int(rng.integers(len(self.source))))
            view = paste(view, view_of(other, random_window(other.atoms.shape, settings, rng), self.side, samples), rng)
        image = jittered(view.image, rng)
        masks = masks_of(view, settings.masks, rng)
        return (image[:, :, ::-1].copy(), masks[:, :, ::-1].copy()) if mirrored else (image, masks)


def sample_clicks(masks: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Clicks near the middle of random masks, each inside its mask.

    The middle is where the sum of the mask's means over squares of several sizes is greatest.

    Parameters
    ----------
    masks : float32 array of shape (K, s, s)
    count : int
    rng : numpy.random.Generator

    Returns
    -------
    float32 array of shape (count, 2)
        (x, y) in 0..1.
    """
    side = masks.shape[-1]
    from scipy.ndimage import uniform_filter

    clicked = masks[rng.integers(len(masks), size=count)] >= 0.5
    depth = sum(uniform_filter(clicked.astype(np.float32), (0, size, size), mode="constant") for size in (3, 7, 13, 25))
    middle = (depth * clicked).reshape(count, -1).argmax(axis=1)
    points = np.empty((count, 2), np.float32)
    for i, place in enumerate(middle.tolist()):
        mask = clicked[i]
        y, x = divmod(place, side)
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        radius = DISC * min(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) * math.sqrt(rng.random())
        angle = rng.uniform(0, 2 * math.pi)
        px, py = x + 0.5 + radius * math.cos(angle), y + 0.5 + radius * math.sin(angle)
        inside = 0 <= px < side and 0 <= py < side and mask[int(py), int(px)]
        points[i] = (px / side, py / side) if inside else ((x + 0.5) / side, (y + 0.5) / side)
    return points


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
