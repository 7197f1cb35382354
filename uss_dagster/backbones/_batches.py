"""What backbones that run a network share: images of any sizes are grouped into passes that fit the memory of the device."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from uss_dagster.backbones._geometry import InputParams, input_size, join_windows, windows
from uss_dagster.errors import UsageError
from uss_dagster.pixels import check_image, resize_image

if TYPE_CHECKING:
    from torch import Tensor

Facets = dict[str, np.ndarray]
"""Name → float32 array of one image."""


class _Launched:
    """The facets of a batch, on their way from the device: a GPU copies them to pinned memory while it computes the next batch."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        import torch

        self._done: Any = None
        devices = [tensor.device for tensor in tensors.values() if tensor.device.type == "cuda"]
        if not devices:
            self._tensors = dict(tensors)
            return
        copies = _copy_stream(devices[0])
        copies.wait_stream(torch.cuda.current_stream(devices[0]))
        with torch.cuda.stream(copies):
            self._tensors = {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}
            self._done = copies.record_event()
        for tensor in tensors.values():
            tensor.record_stream(copies)

    def arrays(self) -> dict[str, np.ndarray]:
        """Name → array, once it is there."""
        if self._done is not None:
            self._done.synchronize()
        return {name: tensor.numpy() for name, tensor in self._tensors.items()}


@cache
def _copy_stream(device: Any) -> Any:
    """A stream of its own for copies from a GPU."""
    import torch

    return torch.cuda.Stream(device)


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
        start, before = 0, None
        while start < len(images):
            part = images[start : start + self.batch]
            copies = [part[-1]] * (self.batch - len(part))
            launched = self._launch(part + copies)
            if before is not None:  # while the GPU computes the next batch
                yield from self._facets(*before)
                before = None
            if launched is None:
                self._use_less_memory(part[0].shape[:2])
                continue
            before = part, launched
            start += len(part)
        if before is not None:
            yield from self._facets(*before)

    def _facets(self, images: list[np.ndarray], launched: _Launched) -> Iterator[Facets]:
        """Facets of the images of a batch; the copies that filled it up are left out."""
        arrays = launched.arrays()
        for i, image in enumerate(images):
            yield self._checked(image, {name: np.ascontiguousarray(array[i]) for name, array in arrays.items()})

    def _attempt(self, images: list[np.ndarray]) -> list[Facets] | None:
        """Facets of one batch, or None if it did not fit the GPU's memory; the next attempt then uses less."""
        launched = self._launch(images)
        if launched is None:
            self._use_less_memory(images[0].shape[:2])
            return None
        arrays = launched.arrays()
        return [{name: np.ascontiguousarray(array[i]) for name, array in arrays.items()} for i in range(len(images))]

    def _launch(self, images: list[np.ndarray]) -> _Launched | None:
        """Start one batch, or None if it does not fit the GPU's memory."""
        import torch

        try:
            return _Launched(self._forward(np.stack(images)))
        except torch.OutOfMemoryError:
            return None

    def _on_device(self, images: np.ndarray) -> Tensor:
        """A uint8 batch (B, H, W, 3) as a float tensor (B, 3, H, W) on the device, 0 to 255."""
        import torch

        batch = torch.from_numpy(images)
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        return batch.permute(0, 3, 1, 2).float()

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
