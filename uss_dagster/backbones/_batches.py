"""What backbones that run a network share: images of any sizes are grouped into passes that fit the memory of the device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from uss_dagster.backbones._geometry import InputParams, input_size, join_windows, windows
from uss_dagster.errors import UsageError
from uss_dagster.pixels import check_image, resize_image

if TYPE_CHECKING:
    from torch import Tensor

Facets = dict[str, np.ndarray]
"""Name → float32 array of one image."""


class BatchedExtractor:
    """Groups images of one size into passes. A subclass defines ``_forward``, and ``input_size`` where it has no ``input_params``.

    The kernel a matrix product gets, and so its last bits, can depend on the batch size and, on a CPU, on a row's place in it. On a CPU
    images therefore go one by one (8 to 30 % slower than eight at once, measured with ViT-S/16 on two cores). On a GPU a group is
    filled up to ``batch`` with copies of its last image, so that all passes have one shape (a collection of many sizes is faster with
    ``batch: 1``). When the GPU's memory is too small the batch is halved for the rest of the run.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    batch : int
        Images in a pass on a GPU.
    input_params : InputParams or None, default None
        Sizes and windows of the input.
    cell : (int, int), pixels, default (1, 1)
        Both sides of an input, and of a window, are multiples of it.
    grid_cell : (int, int) or None, pixels, default None
        Height and width of a cell of the feature grid; None is ``cell``.
    """

    advice: ClassVar[str]
    """What to change if one image does not fit the memory."""

    def __init__(
        self,
        device: Any,
        batch: int,
        input_params: InputParams | None = None,
        cell: tuple[int, int] = (1, 1),
        grid_cell: tuple[int, int] | None = None,
    ) -> None:
        self.device = device
        self.input_params, self.cell, self.grid_cell = input_params, cell, grid_cell or cell
        self.batch = 1 if device.type == "cpu" else batch

    def __call__(self, images: list[np.ndarray]) -> list[Facets]:
        """One dict of float32 facets an image, in the order given."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            sizes.setdefault(self.input_size(*check_image(image).shape[:2]), []).append(i)
        results: list[Facets] = [{} for _ in images]
        for size, members in sizes.items():
            resized = [resize_image(images[i], size) for i in members]
            for i, facets in zip(members, self._of_one_size(resized, size), strict=True):
                results[i] = facets
        return results

    def _of_one_size(self, images: list[np.ndarray], size: tuple[int, int]) -> Iterator[Facets]:
        """Facets of images of one size, through windows where the backbone has them."""
        places = [] if self.input_params is None else windows(self.input_params, size, self.cell)
        if len(places) < 2:
            yield from self._batches(images)
            return
        for image in images:
            yield join_windows(list(self._batches([image[place] for place in places])), places, size, self.grid_cell)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) an image is resized to."""
        if self.input_params is None:
            raise NotImplementedError
        return input_size(self.input_params, height, width, self.cell)

    def _forward(self, images: np.ndarray) -> dict[str, Tensor]:
        """Facets of a uint8 batch (B, H, W, 3) of that size, tensors (B, …)."""
        raise NotImplementedError

    def _checked(self, image: np.ndarray, facets: Facets) -> Facets:
        """The facets of one image; a subclass may compute them again if they are not finite."""
        return facets

    def _save_memory(self) -> str | None:
        """Use less memory for the rest of the run if a batch of one does not fit. Says how, or None if nothing more can be saved."""
        return None

    def _batches(self, images: list[np.ndarray]) -> Iterator[Facets]:
        """Facets of images of one size, ``batch`` at a time, fewer when the GPU's memory does not hold them."""
        start = 0
        while start < len(images):
            part = images[start : start + self.batch]
            copies = [part[-1]] * (self.batch - len(part))
            facets = self._attempt(part + copies)
            if facets is None:
                continue
            start += len(part)
            for image, one in zip(part, facets, strict=False):
                yield self._checked(image, one)

    def _attempt(self, images: list[np.ndarray]) -> list[Facets] | None:
        """Facets of one batch, or None if it did not fit the GPU's memory; the next attempt then uses less."""
        import torch

        try:
            arrays = {name: tensor.cpu().numpy() for name, tensor in self._forward(np.stack(images)).items()}
            return [{name: np.ascontiguousarray(array[i]) for name, array in arrays.items()} for i in range(len(images))]
        except torch.OutOfMemoryError:
            pass
        self._use_less_memory(images[0].shape[:2])  # outside the except clause, whose traceback keeps the tensors alive
        return None

    def _use_less_memory(self, size: tuple[int, ...]) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch //= 2
            change: str | None = f"batch {self.batch}"
        else:
            change = self._save_memory()
        if change is None:
            raise UsageError(f"One image of {size[0]}×{size[1]} pixels does not fit the memory of {self.device}. {self.advice}")
        print(f"the memory of {self.device} is too small: going on with {change}", file=sys.stderr)
