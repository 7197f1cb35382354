"""Models of timm as encoders of the student, with any size of image, and the files of their weights.

A model with maps at several resolutions, such as ResNet, ConvNeXt, Swin or Hiera, gives its own. A model of one resolution, such as a ViT, gets a
simple feature pyramid (ViTDet: Li et al., ECCV 2022), to whose finest maps a few convolutions on the image are added: patches of 14 pixels show no
fine borders.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from uss_dagster.backbones import vit
from uss_dagster.errors import BadData, UsageError
from uss_dagster.student.net import DEVIATION, MEAN, group_norm
from uss_dagster.student.settings import RANDOM, EncoderConfig, StudentSettings
from uss_dagster.torchvision_import import ensure_torchvision
from uss_dagster.weights.catalogue import CATALOGUE, Weights
from uss_dagster.weights.files import local_file, read_tensors
from uss_dagster.weights.store import fetch, identity

ensure_torchvision()
import timm  # noqa: E402 (needs what comes before)

from uss_dagster.student import timm_sizes  # noqa: E402

LEVELS = 4
"""Maps of an encoder, each of half the resolution of the one before."""
SIZE_ARGUMENTS: tuple[dict[str, object], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Arguments with which models of timm take images of any size; those of the first that a model knows."""


@dataclass(frozen=True)
class Named:
    """What the name of an encoder stands for.

    Parameters
    ----------
    timm : str
        timm's name of the model.
    arguments : mapping, optional
        Further ones of the model.
    normalise : sequence, optional
        Mean and deviation of its pixels, where they are not those of timm.
    backbone : bool, default False
        It is a name of ``backbones.vit``, which has its weights.
    weights : Weights, optional
        Those of the catalogue.
    """

    timm: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    normalise: Sequence[Sequence[float]] | None = None
    backbone: bool = False
    weights: Weights | None = None


def named(encoder: str) -> Named:
    """What the setting ``encoder`` stands for: a model of ``backbones.vit``, weights of the catalogue, or a model of timm."""
    if encoder in vit.MODELS:
        source = vit.MODELS[encoder]
        return Named(source.timm, source.arguments, source.normalise, True, CATALOGUE.get(source.catalogue))
    if encoder in CATALOGUE:
        return Named(CATALOGUE[encoder].model, weights=CATALOGUE[encoder])
    return Named(encoder)


class TimmEncoder(nn.Module):
    """Four feature maps of a timm model, each of half the resolution of the one before.

    Parameters
    ----------
    name : str
        See ``named``.
    stride : int
        Of the first map, in pixels.
    width : int
        Channels of the pyramid of a model of one resolution.
    frozen : bool, default False
        The model itself does not learn.

    Attributes
    ----------
    model : torch.nn.Module
        timm's model, with its names of tensors, without what follows the maps.

    Raises
    ------
    UsageError
        If timm has no such model, or it gives no feature maps.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, stride: int, width: int, frozen: bool = False) -> None:
        super().__init__()
        self.source, self.frozen = named(name), frozen
        self.model = timm_model(name, self.source)
        reductions = [int(info["reduction"]) for info in self.model.feature_info]
        channels = [int(info["num_chs"]) for info in self.model.feature_info]
        self.strides = [stride * 2**i for i in range(LEVELS)]
        self.pyramid: Pyramid | None = None
        if len(set(reductions)) == 1:
            self.patch = reductions[0]
            self.indices = [len(reductions) - 1]
            level = min(range(LEVELS), key=lambda i: abs(self.strides[i] / self.patch - 1))
            self.grid = self.strides[level]
            self.pyramid = Pyramid(channels[-1], width, stride, level)
            self.channels = self.pyramid.channels
            self.levels = [0] * LEVELS
        else:
            self.patch = self.grid = reductions[-1]
            nearest = [min(range(len(reductions)), key=lambda i: (abs(reductions[i] - stride), -i)) for stride in self.strides]
            self.indices = sorted(set(nearest))
            self.levels = [self.indices.index(i) for i in nearest]
            self.channels = [channels[i] for i in nearest]
        prune(self.model, self.indices, self.pyramid is not None)
        mean, deviation = self.source.normalise or (self.model.pretrained_cfg["mean"], self.model.pretrained_cfg["std"])
        of_input, of_model = (torch.tensor(v).view(2, 1, 3, 1, 1) for v in ((MEAN, DEVIATION), (mean, deviation)))
        self.register_buffer("scale", of_input[1] / of_model[1], persistent=False)
        self.register_buffer("shift", (of_input[0] - of_model[0]) / of_model[1], persistent=False)
        if frozen:
            self.model.requires_grad_(False)
        self._check_sizes(name)
        self.train()

    def _check_sizes(self, name: str) -> None:
        """Refuse a model that takes only images of its own size."""
        self.eval()
        try:
            with torch.no_grad():
                self.features(torch.zeros(1, 3, 2 * self.grid, 2 * self.grid))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(f"encoder '{name}' does not take images of any size ({reason}). Use another one, such as resnet50.") from None

    def train(self, mode: bool = True) -> TimmEncoder:
        """Batch norms keep the statistics that came with the weights: batches are small, and windows of images."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps of the timm model. x: (B, 3, S, S), normalised as ImageNet."""
        side = self.side_of(int(x.shape[-1]))
        if side != x.shape[-1]:
            x = interpolate(x, (side, side), mode="bilinear", align_corners=False)
        timm_sizes.resize(self.model, side)
        with torch.no_grad() if self.frozen else nullcontext():
            return list(
                self.model.forward_intermediates(
                    x * self.scale + self.shift,
                    indices=self.indices,
                    norm=self.pyramid is not None,
                    output_fmt="NCHW",
                    intermediates_only=True,
                )
            )

    def side_of(self, side: int) -> int:
        """Side to which images are resized for the timm model. side: of the images."""
        return max(1, round(side / self.grid)) * self.patch

    def fix_size(self, side: int) -> None:
        """Make the timm model one for images with this side alone, for formats that cannot express others."""
        timm_sizes.fix(self.model, self.side_of(side))

    def forward(self, x: Tensor, features: Sequence[Tensor] = ()) -> list[Tensor]:
        """Four maps. features: what ``features`` gave for these images, if it was computed before."""
        maps = list(features) or self.features(x)
        side = int(x.shape[-1])
        sizes = [(side // stride, side // stride) for stride in self.strides]
        if self.pyramid is not None:
            return self.pyramid(x, fitted(maps[0], (side // self.grid, side // self.grid)))
        levels = [fitted(maps[level], size) for level, size in zip(self.levels, sizes, strict=True)]
        if torch.jit.is_tracing():  # a graph of a model that computes with sizes, such as Swin, does not know those of its maps
            return [level.reshape(int(x.shape[0]), width, *size) for level, width, size in zip(levels, self.channels, sizes, strict=True)]
        return levels


class Pyramid(nn.Module):
    """Maps at four strides from tokens at one of them, and convolutions on the image, added to the two finest maps.

    Parameters
    ----------
    inside : int
        Channels of the tokens.
    width : int
        Channels of the map of the tokens and of coarser ones; finer ones have half.
    stride : int
        Of the first map.
    level : int
        The map that has the resolution of the tokens.
    """

    def __init__(self, inside: int, width: int, stride: int, level: int) -> None:
        super().__init__()
        self.level = level
        self.channels = [width // 2 if i < level else width for i in range(LEVELS)]
        self.reduce = nn.Sequential(nn.Conv2d(inside, width, 1, bias=False), group_norm(width))
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(self.channels[i + 1], self.channels[i], 2, 2, bias=False),
                group_norm(self.channels[i]),
                nn.SiLU(inplace=True),
            )
            for i in range(level)
        )
        steps = stride.bit_length() - 1
        widths = [3, *[max(8, width // 2 ** (steps - i + 1)) for i in range(steps - 1)], *self.channels[:2]]
        convolutions = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1, bias=False), group_norm(b), nn.SiLU(inplace=True)) for a, b in itertools.pairwise(widths)
        ]
        self.stem = nn.ModuleList([nn.Sequential(*convolutions[:-1]), convolutions[-1]])

    def forward(self, x: Tensor, tokens: Tensor) -> list[Tensor]:
        """x: images (B, 3, S, S). tokens: (B, C, h, w)."""
        maps = [self.reduce(tokens)]
        for up in reversed(self.up):
            maps.insert(0, up(maps[0]))
        while len(maps) < LEVELS:
            maps.append(nn.functional.max_pool2d(maps[-1], 2))
        for i, convolve in enumerate(self.stem):
            x = convolve(x)
            maps[i] = maps[i] + x
        return maps


def fitted(x: Tensor, size: tuple[int, int]) -> Tensor:
    """A map at another size."""
    return x if x.shape[-2:] == size else interpolate(x, size, mode="bilinear", align_corners=False)


def timm_model(name: str, source: Named) -> Any:
    """timm's model with random weights, for images of any size, without a head."""
    architecture = source.timm.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(name, [*vit.MODELS, *CATALOGUE, *timm.list_models()], 1)
        hint = f"Did you mean '{close[0]}'?" if close else "Use 'conv', or a name that timm.list_models() prints, such as resnet50."
        raise UsageError(f"encoder is '{name}', which timm does not have. {hint}")
    create: Any = timm.create_model
    for arguments in SIZE_ARGUMENTS:
        try:
            model = create(source.timm, pretrained=False, num_classes=0, **source.arguments, **arguments)
        except TypeError:
            continue
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UsageError(f"timm makes no encoder of '{name}' ({error}). Use another one, such as resnet50, or 'conv'.") from None
        if hasattr(model, "forward_intermediates") and hasattr(model, "prune_intermediate_layers"):
            return timm_sizes.any_size(model)
    raise UsageError(f"encoder '{name}' gives no feature maps in timm. Use another one, such as resnet50, or 'conv'.")


def prune(model: Any, indices: Sequence[int], norm: bool) -> None:
    """Remove what the maps at ``indices`` do not need. norm: they are normalised by the model's last norm."""
    model.prune_intermediate_layers(list(indices), prune_norm=not norm, prune_head=True)


# -- weights --------------------------------------------------------------------------------------------


def encoder_weights(settings: StudentSettings) -> tuple[Path | None, EncoderConfig]:
    """The file with the weights of the encoder, None for random ones, and what the config says of them.

    A name of ``backbones.vit`` or of the catalogue stands for its own file, which is fetched where it must be.
    """
    source = named(settings.encoder)
    own = not settings.weights and (source.backbone or source.weights is not None)
    path: Path | None = None
    if own:
        path = fetch(source.weights) if source.weights else vit.weights_file(vit.Params(model=settings.encoder))
    elif settings.weights and settings.weights != RANDOM:
        path = local_file(settings.weights)
    title = settings.encoder if own else Path(settings.weights).name
    labels = source.weights.labels if own and source.weights else ""
    return path, {"weights": title, "identity": identity(path) if path else "", "labels": labels}


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Load the weights of an encoder.

    Parameters
    ----------
    encoder : torch.nn.Module
        A ``TimmEncoder``, or the network's own.
    path : Path
        A .safetensors file with the tensor names of the timm model, or those of its original release. Heads are ignored.

    Raises
    ------
    BadData
        If the file cannot be read or does not fit.
    """
    if isinstance(encoder, TimmEncoder):
        whole = timm_model(encoder.source.timm, encoder.source)
        vit.load_weights(whole, path, "weights", "encoder")
        prune(whole, encoder.indices, encoder.pyramid is not None)
        encoder.model.load_state_dict(whole.state_dict())
        return
    state, expected = read_tensors(path, "weights"), encoder.state_dict()
    missing = [name for name, value in expected.items() if name not in state or state[name].shape != value.shape]
    if missing:
        raise BadData(
            f"weights '{path}' lack {len(missing)} tensors of this encoder, such as '{missing[0]}'. Choose the 'encoder' they were made for."
        )
    encoder.load_state_dict({name: state[name] for name in expected})
