"""Convolutional networks through timm: the feature map of one stage as tokens, and pooled features as the class vector.

Facets: ``tokens`` (h, w, C), the feature map of the chosen stage; ``cls`` (C,), the mean of the deepest feature map. A network without
attention has no keys and no attention.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uss_dagster.backbones._batches import BatchedExtractor
from uss_dagster.backbones._geometry import InputParams
from uss_dagster.backbones._timm_hub import hub_location
from uss_dagster.backbones.base import BackboneSpec, check_facets
from uss_dagster.bounds import at_least, check_bounds
from uss_dagster.errors import UsageError, did_you_mean
from uss_dagster.runtime import torch_device
from uss_dagster.weights.catalogue import CATALOGUE, Weights
from uss_dagster.weights.files import hub_file, local_file, read_tensors
from uss_dagster.weights.store import fetch, identity, loaded_identity
from uss_dagster.weights.store import missing_weights as missing

FACETS = ("tokens", "cls")


@dataclass(frozen=True)
class Params(InputParams):
    """Parameters of ``cnn``; those of the input's size are in ``InputParams``.

    Parameters
    ----------
    model : str, default 'efficientnet_lite0'
        Weights of the catalogue (`uss weights list`), or ``timm:<name>``, such as 'timm:resnet50.a1_in1k' (its weights have seen labels).
    facets : tuple of str, default ('tokens', 'cls')
        Which facets are written.
    checkpoint : str or None, default None
        A local .safetensors file, 'random' (drawn from ``seed``, for tests), or None for the catalogue's weights or those of the hub.
    revision : str or None, default None
        Commit of the hub's repository.
    stage : int, default 3
        Stage whose feature map gives the tokens, counted from 0, or from the end when negative.
    batch : int, default 8
        Images in one pass on a GPU.
    precision : {'float32', 'bfloat16'}, default 'float32'
        'bfloat16' runs under autocast.
    seed : int, default 0
        Of random weights.
    """

    model: str = "efficientnet_lite0"
    facets: tuple[str, ...] = FACETS
    checkpoint: str | None = None
    revision: str | None = None
    stage: int = 3
    batch: int = 8
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, batch=at_least(1))


SPEC = BackboneSpec(
    name="cnn",
    title="Convolutional network (timm)",
    params=Params,
    facets=FACETS,
    licence="by model: EfficientNet-Lite0 Apache-2.0",
    paper="Tan & Le, EfficientNet, ICML 2019; He et al., Deep Residual Learning, CVPR 2016; weights through timm.",
    device=True,
    comparable=True,
)


def catalogue_weights(params: Params) -> Weights | None:
    """The weights of the catalogue that are loaded; None where others are, or none."""
    return CATALOGUE.get(params.model) if params.checkpoint is None else None


def missing_weights(params: Params) -> str:
    """What has to be fetched first; '' for nothing."""
    from uss_dagster.weights.files import download_command

    local = missing(params.checkpoint, catalogue_weights(params))
    if local is not None:
        return local
    name = params.model.removeprefix("timm:")
    return download_command(*hub_location(_config(name), name, params.model, params.revision))


def weights_identity(params: Params, identity_of: Callable[[Path], str] = identity) -> str | None:
    """See ``loaded_identity``."""
    return loaded_identity(params.checkpoint, catalogue_weights(params), identity_of)


def load(params: Params, device: str = "auto") -> Extractor:
    """A callable from uint8 RGB images of any sizes to their facets in float32."""
    return Extractor(_network(params), params, check_facets(SPEC, params.facets), torch_device(device))


def _network(params: Params) -> Any:
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import timm
    import torch

    known = CATALOGUE.get(params.model)
    name = known.model if known else params.model.removeprefix("timm:")
    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"backbone 'cnn' has no model '{params.model}'. Known: {', '.join(CATALOGUE)}, or 'timm:<name>'.")
    config = _config(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        try:
            network: Any = timm.create_model(name, pretrained=False, features_only=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise UsageError(f"timm gives no feature maps of '{name}' ({error}). Choose a convolutional network.") from None
    if params.checkpoint != "random":
        file = _weights(params, name, config)
        result = network.load_state_dict(read_tensors(file), strict=False)
        if result.missing_keys:
            raise UsageError(f"{file} lacks tensors of '{name}', such as {result.missing_keys[0]}.")
    if not -len(network.feature_info) <= params.stage < len(network.feature_info):
        raise UsageError(f"stage is {params.stage}, but '{params.model}' has {len(network.feature_info)} stages.")
    network.pretrained_cfg = config.to_dict()
    return network.eval().requires_grad_(False)


def _config(name: str) -> Any:
    """What timm knows of weights of this name."""
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import timm

    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = sorted(other for other in timm.list_pretrained() if other.startswith(f"{name.partition('.')[0]}."))
        raise UsageError(f"timm has no weights '{name}' ({error}).{did_you_mean(name, known)}") from None


def _weights(params: Params, name: str, config: Any) -> Path:
    """The .safetensors file to load. name, config: timm's."""
    if params.checkpoint is not None:
        return local_file(params.checkpoint)
    if params.model in CATALOGUE:
        return fetch(CATALOGUE[params.model])
    return hub_file(*hub_location(config, name, params.model, params.revision), f"'{params.model}'")


class Extractor(BatchedExtractor):
    """Passes batches through the network."""

    advice = "Set 'image_size' lower, or precision: bfloat16."

    def __init__(self, network: Any, params: Params, facets: frozenset[str], device: Any) -> None:
        import torch

        stride = max(info["reduction"] for info in network.feature_info.info)
        reduction = network.feature_info.info[params.stage]["reduction"]
        super().__init__(device, params.batch, params, (stride, stride), (reduction, reduction))
        self.network, self.facets, self.stage = network.to(device), facets, params.stage
        self.low_precision = params.precision == "bfloat16"
        self.mean = torch.tensor(network.pretrained_cfg["mean"], device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(network.pretrained_cfg["std"], device=device).view(1, 3, 1, 1)

    def _forward(self, images: np.ndarray) -> dict[str, Any]:
        import torch

        with torch.inference_mode():
            pixels = self._on_device(images).div_(255)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low_precision):
                maps = self.network(pixels.sub_(self.mean).div_(self.std))
            facets = {"tokens": maps[self.stage].float().permute(0, 2, 3, 1), "cls": maps[-1].float().mean((2, 3))}
        return {name: facets[name] for name in sorted(self.facets)}
