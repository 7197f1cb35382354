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
from uss_dagster.student.prompts import NO_POINT, POSITIVE, Prompts
from uss_dagster.student.reduced import ReducedExample, read_reduced
from uss_dagster.student.settings import StudentSettings
from uss_dagster.student.training_prompts import WindowPrompts, sample_prompts
from uss_dagster.student.windows import OVERSAMPLE, jittered, masks_of, paste, random_window, view_of

CACHE_BYTES = 512 * 1024**2
"""Greatest size of the cached images."""

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

    def _window(self, example: ReducedExample, rng: np.random.Generator, rng_of_prompts: np.random.Generator) -> RandomWindow:
        image, masks = self._seen(example, rng)
        return image, masks, sample_prompts(masks, self.settings, rng_of_prompts)

    def _seen(self, example: ReducedExample, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A random window: its image, float32 (3, S, S), and its masks, float32 (K, s, s)."""
        settings, samples = self.settings, self.mask_side * OVERSAMPLE
        view = view_of(example, random_window(example.atoms.shape, settings, rng), self.side, samples)
        mirrored = rng.random() < 0.5
        if settings.paste and rng.random() < settings.paste:
            other = self._example(int(rng.integers(len(self.source))))
            view = paste(view, view_of(other, random_window(other.atoms.shape, settings, rng), self.side, samples), rng)
        if mirrored:
            view = replace(view, image=view.image[:, ::-1], atoms=view.atoms[:, ::-1])
        return jittered(view.image, rng), masks_of(view, settings.masks, rng)
