"""timm models as encoders of the student, with weights from a local .safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from uss_dagster.errors import BadData, UsageError
from uss_dagster.torchvision_import import ensure_torchvision
from uss_dagster.weights.files import read_tensors


class TimmEncoder(nn.Module):
    """Four feature maps of a timm model, each of half the resolution of the one before.

    A model of one resolution, such as a ViT, is resampled.

    Parameters
    ----------
    name : str
        As in ``timm.list_models()``.
    stride : int
        Of the first map, in pixels.

    Raises
    ------
    UsageError
        If timm has no such model, or it gives no feature maps.
    """

    def __init__(self, name: str, stride: int) -> None:
        super().__init__()
        ensure_torchvision()
        import timm

        if name not in timm.list_models(name):
            raise UsageError(
                f"encoder is '{name}', which timm does not have. Use 'conv', or a name that timm.list_models() prints, such as resnet50."
            )
        try:
            self.model = timm.create_model(name, pretrained=False, features_only=True)
        except (RuntimeError, TypeError, AssertionError, ValueError) as error:
            raise UsageError(
                f"encoder '{name}' gives no feature maps in timm ({error}). Use a convolutional one, such as resnet50, or 'conv'."
            ) from None
        info: Any = self.model.feature_info
        reductions: list[int] = info.reduction()
        self.strides = [stride * 2**i for i in range(4)]
        self.indices = [min(range(len(reductions)), key=lambda i: (abs(reductions[i] - stride), -i)) for stride in self.strides]
        self.channels: list[int] = [info.channels()[i] for i in self.indices]
        self.train()

    def train(self, mode: bool = True) -> TimmEncoder:
        """Batch norms keep the statistics that came with the weights: batches are small, and windows of images."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.model(x)
        side = x.shape[-1]
        sizes = [(side // stride, side // stride) for stride in self.strides]
        return [
            maps[i] if maps[i].shape[-2:] == size else interpolate(maps[i], size, mode="bilinear", align_corners=False)
            for i, size in zip(self.indices, sizes, strict=True)
        ]


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Load the weights of an encoder.

    Parameters
    ----------
    encoder : torch.nn.Module
        A ``TimmEncoder``, or the network's own.
    path : Path
        A .safetensors file with the tensor names of the timm model. Other tensors, such as heads, are ignored.

    Raises
    ------
    BadData
        If the file cannot be read or lacks tensors.
    """
    state = read_tensors(path, "weights")
    model = encoder.model if isinstance(encoder, TimmEncoder) else encoder
    expected = model.state_dict()  # type: ignore[union-attr]
    missing = [name for name, value in expected.items() if name not in state or state[name].shape != value.shape]
    if missing:
        raise BadData(
            f"weights '{path}' lack {len(missing)} tensors of this encoder, such as '{missing[0]}'. Choose the 'encoder' they were made for."
        )
    model.load_state_dict({name: state[name] for name in expected})  # type: ignore[union-attr]
