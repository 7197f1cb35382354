"""The maps of a frozen encoder for fixed windows of images, computed once, and stored as float16 in one file a window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from uss_dagster.files import remove, write_whole

FOLDER = "features"
"""In that of the model, until training has ended."""


class StoredFeatures:
    """The maps that an encoder gives for windows with numbers.

    Each window is encoded alone, so its maps do not depend on the other windows of a batch, and a run that was stopped reads what it wrote.

    Parameters
    ----------
    encode : callable
        float32 Tensor of shape (1, 3, S, S) → list of Tensor of shape (1, C, h, w).
    folder : Path
        Of these windows with this encoder alone.
    """

    def __init__(self, encode: Callable[[Tensor], list[Tensor]], folder: Path) -> None:
        self.encode, self.folder = encode, folder

    def __call__(self, images: Tensor, numbers: Sequence[int]) -> tuple[Tensor, ...]:
        """The maps of a batch, float16 Tensors of shape (B, C, h, w). images: of shape (B, 3, S, S). numbers: one an image."""
        each = [self._of(image[None], number) for image, number in zip(images, numbers, strict=True)]
        return tuple(torch.cat(maps) for maps in zip(*each, strict=True))

    def remove(self) -> None:
        """Remove the files of all windows, also of earlier runs in the same folder."""
        remove(self.folder.parent)

    def _of(self, image: Tensor, number: int) -> list[Tensor]:
        from safetensors.torch import load_file, save

        path = self.folder / f"{number // 1000:04d}" / f"{number % 1000:03d}.safetensors"
        if path.exists():
            stored = load_file(path)
            return [stored[name] for name in sorted(stored)]
        maps = [value.half().cpu().contiguous() for value in self.encode(image)]
        write_whole(path, save({str(level): value for level, value in enumerate(maps)}))
        return maps
