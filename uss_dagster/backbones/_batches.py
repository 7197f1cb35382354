"""What backbones that run a network share: images of any sizes are grouped into passes that fit the memory of the device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from uss_dagster.errors import UsageError
from uss_dagster.pixels import check_image, resize_image

if TYPE_CHECKING:
    from torch import Tensor

Facets = dict[str, np.ndarray]
"""Name → float32 array of one image."""


class BatchedExtractor:
    """Groups images of one size into passes. A subclass defines ``input_size`` and ``_forward``.

    The kernel a matrix product gets, and so its last bits, can depend on the batch size and, on a CPU, on a row's place in it. On a CPU
    images therefore go one by one (8 to 30 % slower than eight at once, measured with ViT-S/16 on two cores). On a GPU a group is
    filled up to ``batch`` with copies of its last image, so that all passes have one shape (a collection of many sizes is faster with
    ``batch: 1``). When the GPU's memory is too small the batch is halved for the rest of the run.
    """

    advice: ClassVar[str]
    """What to change if one image does not fit the memory."""

    def __init__(self, device: Any, batch: int) -> None:
        self.device = device
        self.batch = 1 if device.type == "cpu" else batch

    def __call__(self, images: list[np.ndarray]) -> list[Facets]:
        """One dict of float32 facets an image, in the order given."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            sizes.setdefault(self.input_size(*check_image(image).shape[:2]), []).append(i)
        results: list[Facets] = [{} for _ in images]
        for size, members in sizes.items():
            resized = [resize_image(images[i], size) for i in members]
            for i, facets in zip(members, self._batches(resized), strict=True):
                results[i] = facets
        return results

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) an image is resized to."""
        raise NotImplementedError

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


class TimmExtractor(BatchedExtractor):
    """Passes batches through a network of timm, whose input is normalised.

    Parameters
    ----------
    network : torch.nn.Module
        With timm's configuration.
    params : dataclass
        Of the backbone, with image_size, batch and precision.
    facets : frozenset of str
    device : torch.device
    normalise : (sequence of float, sequence of float), optional
        Mean and deviation of the input; those of the configuration by default.
    """

    def __init__(self, network: Any, params: Any, facets: frozenset[str], device: Any, normalise: Any = None) -> None:
        import torch

        super().__init__(device, params.batch)
        self.network, self.facets, self.image_size = network.to(device), facets, params.image_size
        self.low_precision = params.precision == "bfloat16"
        config = network.pretrained_cfg
        self.mean, self.std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1) for values in normalise or (config["mean"], config["std"])
        )

    def scale(self, height: int, width: int) -> float:
        """How much larger the input is than an image."""
        return 1.0 if self.image_size is None else self.image_size / min(height, width)

    def normalised(self, images: np.ndarray) -> Tensor:
        """The input of a uint8 batch (B, H, W, 3)."""
        import torch

        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        return pixels.sub_(self.mean).div_(self.std)
