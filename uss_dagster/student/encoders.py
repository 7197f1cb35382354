"""Encoders from timm in place of the network's own, with weights from a local .safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate

from uss_dagster.errors import BadData, UsageError
from uss_dagster.torchvision_import import ensure_torchvision


class TimmEncoder(nn.Module):
    """Four maps of a timm model, from the given stride on by halves; a model of one resolution, such as a ViT, is resampled."""

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
        self.picked = [min(range(len(reductions)), key=lambda i: (abs(reductions[i] - wanted), -i)) for wanted in self.strides]
        self.channels: list[int] = [info.channels()[i] for i in self.picked]
        self.train()

    def train(self, mode: bool = True) -> TimmEncoder:
        """Statistics of batch norms stay those that came with the weights: batches are small, and parts of images."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.model(x)
        side = x.shape[-1]
        sizes = [(side // stride, side // stride) for stride in self.strides]
        chosen = [maps[i] for i in self.picked]
        return [
            m if m.shape[-2:] == s else interpolate(m, s, mode="bilinear", align_corners=False) for m, s in zip(chosen, sizes, strict=True)
        ]


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Fill an encoder from a .safetensors file with the names of its timm model; heads and the like are left out, what is missing is refused."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadData(f"weights '{path}' is not a readable .safetensors file ({error}). Download or convert it again.") from None
    model = encoder.model if isinstance(encoder, TimmEncoder) else encoder
    expected = model.state_dict()  # type: ignore[union-attr]
    missing = [name for name, value in expected.items() if name not in state or state[name].shape != value.shape]
    if missing:
        raise BadData(
            f"weights '{path}' lack {len(missing)} tensors of this encoder, such as '{missing[0]}'. Choose the 'encoder' they were made for."
        )
    model.load_state_dict({name: state[name] for name in expected})  # type: ignore[union-attr]
