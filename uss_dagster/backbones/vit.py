"""Vision transformers through timm: DINO, DINOv2, DINOv3, CLIP, MAE, MoCo-v3, Perception Encoder, or any plain ViT timm knows.

Facets of the chosen block (the last by default), patches only, on the grid of patches:

- tokens (h, w, D): output of the block after the model's final norm; timm's ``forward_features`` without its prefix tokens.
- keys (h, w, D): the keys of its self-attention, heads side by side (what LOST, TokenCut and MaskCut cluster); ``queries`` and ``values``
  likewise. Rotary positions, of models that have them, are left out of these and counted in attention.
- cls (D,): the class token after the final norm; a model without one gives the mean of its patch tokens.
- cls_attention (h, w): how much the class token attends to each patch, mean over heads, rescaled to sum to 1; a model
  without a class token gives the attention each patch receives from all patches.
- attention (n, n): patch to patch, mean over heads, each row rescaled to sum to 1.

An image is resized to the nearest multiple of the patch in each direction, at most half a patch away, so the grid covers the image
exactly; ``image_size`` sets its size first. Sliding windows and overlapping patches are options. The forward pass keeps the fused
attention kernel: keys are read off the qkv layer, and attention is computed again from them only where it is asked for.

The bytes of an image's facets do not depend on its neighbours in a batch: see ``Extractor``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uss_dagster.backbones._batches import BatchedExtractor
from uss_dagster.backbones._geometry import InputParams
from uss_dagster.backbones._qkv import Qkv, QkvReader, rotary
from uss_dagster.backbones._timm_hub import hub_location
from uss_dagster.backbones._timm_weights import load_weights
from uss_dagster.backbones.base import FACETS, BackboneSpec, check_facets
from uss_dagster.bounds import at_least, check_bounds
from uss_dagster.errors import UsageError, did_you_mean
from uss_dagster.files import parse_yaml
from uss_dagster.runtime import torch_device
from uss_dagster.weights.catalogue import CATALOGUE, Weights
from uss_dagster.weights.store import fetch, identity, loaded_identity
from uss_dagster.weights.store import missing_weights as missing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Params(InputParams):
    """Parameters of ``vit``; those of the input's size are in ``InputParams``.

    Parameters
    ----------
    model : str, default "dino_vits16"
        A name of ``MODELS``, or ``timm:<name>``.
    facets : tuple of str, default ("tokens", "keys", "cls", "cls_attention")
        Facets to write; see the module.
    checkpoint : str or None, default None
        A local .safetensors file, or "random" for weights drawn from ``seed`` (for tests and dry runs: scores of random weights mean
        nothing). None takes the weights of the hub.
    revision : str or None, default None
        Commit of the hub's repository.
    stride : int or None, pixels, default None
        Distance between patches; below the patch size they overlap and the grid gets finer. None is the patch size.
    batch : int, default 8
        Images of one size in a forward pass on a GPU. On a CPU it is always 1.
    precision : {"float32", "bfloat16"}, default "float32"
        "bfloat16" runs under autocast; facets are float32 either way.
    layer : int, default -1
        Block that facets are read from, counted as in a list.
    seed : int, default 0
        Of random weights.
    """

    model: str = "dino_vits16"
    facets: tuple[str, ...] = ("tokens", "keys", "cls", "cls_attention")
    checkpoint: str | None = None
    revision: str | None = None
    stride: int | None = None
    batch: int = 8
    precision: Literal["float32", "bfloat16"] = "float32"
    layer: int = -1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bounds(self, batch=at_least(1), stride=at_least(1))
        if self.window is not None and "attention" in self.facets:
            raise ValueError(
                "window is set: patches of different windows have no attention to each other. Leave out the facet 'attention'."
            )


SPEC = BackboneSpec(
    name="vit",
    title="Vision transformer (timm)",
    params=Params,
    facets=FACETS,
    licence="by model: DINO, DINOv2, Perception Encoder Apache-2.0; DINOv3 its own licence; CLIP MIT; MAE, MoCo-v3 CC-BY-NC-4.0",
    paper="Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; Caron et al., DINO, ICCV 2021; Oquab et al., DINOv2, TMLR 2024; "
    "Darcet et al., Vision Transformers Need Registers, ICLR 2024; Radford et al., CLIP, ICML 2021; He et al., MAE, CVPR 2022; "
    "Chen, Xie, He, MoCo-v3, ICCV 2021. Weights drawn with checkpoint 'random' are for dry runs; their scores mean nothing.",
    device=True,
    comparable=True,
)

_QKV = {"queries", "keys", "values"}


@dataclass(frozen=True)
class _Source:
    """Where a friendly name leads: timm's name, further arguments of the architecture, and the input's (mean, std) where timm's is another.

    hub: whether timm's hub has these weights; without it only ``checkpoint`` can bring them.
    """

    timm: str
    arguments: Mapping[str, object] = field(default_factory=dict)
    normalise: Sequence[Sequence[float]] | None = None
    hub: bool = True
    catalogue: str = ""
    """Name of the weights in the catalogue, for those that come from a package."""


MODELS = {
    name: _Source(**(source if isinstance(source, dict) else {"timm": source}))
    for name, source in parse_yaml(Path(__file__).with_suffix(".yaml").read_bytes()).items()
}


def load(params: Params, device: str = "auto") -> Extractor:
    """A callable from uint8 RGB images of any sizes to their facets in float32. device: 'auto', 'cpu', 'cuda', 'cuda:1', …"""
    facets = check_facets(SPEC, params.facets)
    source = _source(params.model)
    weights = weights_file(params)
    model = _build(source, params.seed)
    if weights is not None:
        load_weights(model, weights)
    blocks = len(model.blocks)
    if not -blocks <= params.layer < blocks:
        raise UsageError(f"layer is {params.layer}, but '{params.model}' has {blocks} blocks: choose {-blocks} to {blocks - 1}.")
    model.blocks = model.blocks[: params.layer % blocks + 1]
    return Extractor(model, params, facets, torch_device(device), source.normalise)


def catalogue_weights(params: Params) -> Weights | None:
    """The weights of the catalogue that are loaded; None where others are, or none."""
    source = _source(params.model)
    return CATALOGUE[source.catalogue] if source.catalogue and params.checkpoint is None else None


def missing_weights(params: Params) -> str:
    """What has to be fetched first; '' for nothing."""
    from uss_dagster.weights.files import download_command

    local = missing(params.checkpoint, catalogue_weights(params))
    if local is not None:
        return local
    try:
        return download_command(*_hub_location(_source(params.model), params))
    except UsageError:
        return f"convert the weights of {params.model} to a .safetensors file and name it with 'checkpoint'"


def weights_identity(params: Params, identity_of: Callable[[Path], str] = identity) -> str | None:
    """See ``loaded_identity``."""
    return loaded_identity(params.checkpoint, catalogue_weights(params), identity_of)


def _source(name: str) -> _Source:
    if name.startswith("timm:"):
        return _Source(name.removeprefix("timm:"))
    if name not in MODELS:
        raise UsageError(f"backbone 'vit' has no model '{name}'.{did_you_mean(name, MODELS)} Any ViT of timm is 'timm:<name>'.")
    return MODELS[name]


def _timm(name: str) -> Any:
    """timm itself, imported once it is known to have the architecture of ``name`` ('architecture.weights')."""
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import timm

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise UsageError(f"timm has no model '{name}'.{did_you_mean(architecture, timm.list_models('vit_*'))}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = sorted(n for n in timm.list_pretrained() if n.startswith(f"{architecture}."))
        raise UsageError(f"timm has no weights '{name}' ({error}).{did_you_mean(name, known)}") from None
    return timm


def weights_file(params: Params) -> Path | None:
    """The .safetensors file to load, fetched from the hub where it must be, or None for random weights."""
    from uss_dagster.weights.files import hub_file, local_file

    source = _source(params.model)
    if params.checkpoint == "random":
        return None
    if params.checkpoint is not None:
        return local_file(params.checkpoint)
    if source.catalogue:
        return fetch(CATALOGUE[source.catalogue])
    return hub_file(*_hub_location(source, params), f"'{params.model}'")


def _hub_location(source: _Source, params: Params) -> tuple[str, str, str | None]:
    """Repository, file and revision of the weights on the hub."""
    config = _timm(source.timm).get_pretrained_cfg(source.timm) if source.hub else None
    return hub_location(config, source.timm, params.model, params.revision)


def _build(source: _Source, seed: int) -> Any:
    """The model without a head, its random weights drawn from ``seed`` and from nothing else."""
    timm = _timm(source.timm)
    import torch
    from timm.layers import Attention, PatchEmbed
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    refusal = UsageError(
        f"'{source.timm}' is no plain vision transformer (absolute or rotary rather than relative positions, one attention "
        f"layer a block), so its keys cannot be read. Choose another 'timm:vit_…', or a friendly name such as 'dino_vits16'."
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = timm.create_model(source.timm, pretrained=False, num_classes=0, dynamic_img_size=True, **source.arguments)
        except TypeError:
            raise refusal from None
    plain = isinstance(model, VisionTransformer | Eva) and type(model.patch_embed) is PatchEmbed
    layers: list[Any] = [getattr(block, "attn", None) for block in model.blocks] if plain else []
    if not plain or not all(type(layer) is Attention or rotary(layer) for layer in layers):
        raise refusal  # relative positions, hybrid stems, parallel or differential attention
    return model.eval().requires_grad_(False)


class Extractor(BatchedExtractor):
    """Passes batches through the transformer and reads the facets."""

    advice = "Set 'image_size' lower, precision: bfloat16, a smaller 'model', or leave out the facet 'attention'."

    def __init__(self, model: Any, params: Params, facets: frozenset[str], device: Any, normalise: Any = None) -> None:
        import torch

        patch: tuple[int, int] = model.patch_embed.patch_size
        stride = (params.stride, params.stride) if params.stride else patch
        super().__init__(device, params.batch, params, patch, stride)
        if any(size % step for size, step in zip(patch, stride, strict=True)):
            raise UsageError(f"stride is {params.stride}, but the patches of '{params.model}' have {patch[0]} pixels: choose a divisor.")
        self.model = model.to(device)
        self.facets = facets
        self.low_precision = params.precision == "bfloat16"
        if stride != patch:
            model.patch_embed.proj.stride = stride
            model.patch_embed.img_size = None  # the padded input of ``_forward`` is no multiple of the patch
        mean, std = normalise or (model.pretrained_cfg["mean"], model.pretrained_cfg["std"])
        self.mean = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(std, device=device).view(1, 3, 1, 1)
        self.qkv = QkvReader(model.blocks[-1].attn) if facets & {*_QKV, "cls_attention", "attention"} else None

    def _forward(self, images: np.ndarray) -> dict[str, Tensor]:
        """Facets of a uint8 batch (B, H, W, 3) whose sides are multiples of the patch."""
        import torch

        h, w = images.shape[1] // self.grid_cell[0], images.shape[2] // self.grid_cell[1]
        prefix = self.model.num_prefix_tokens
        with torch.inference_mode():
            pixels = self._on_device(images).div_(255)
            pixels = self._padded(pixels.sub_(self.mean).div_(self.std))
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.low_precision):
                output = self.model.forward_features(pixels).float()
            batch: dict[str, Tensor] = {}
            if "tokens" in self.facets:
                batch["tokens"] = output[:, prefix:].unflatten(1, (h, w))
            if "cls" in self.facets:
                batch["cls"] = output[:, prefix:].mean(1) if self.model.cls_token is None else output[:, 0]
            if self.qkv is not None and (qkv := self.qkv.take()) is not None:
                batch |= self._attention_facets(qkv, h, w)
        return batch

    def _padded(self, pixels: Tensor) -> Tensor:
        """With overlapping patches, the input with its edges repeated, so that patch i lies around the middle of cell i of the grid."""
        import torch

        (above, below), (left, right) = (((p - s) // 2, p - s - (p - s) // 2) for p, s in zip(self.cell, self.grid_cell, strict=True))
        return torch.nn.functional.pad(pixels, (left, right, above, below), mode="replicate") if self.cell != self.grid_cell else pixels

    def _attention_facets(self, qkv: Qkv, h: int, w: int) -> dict[str, Tensor]:
        """Queries, keys, values, cls_attention and attention of the last block."""
        import torch

        layer, prefix = self.model.blocks[-1].attn, self.model.num_prefix_tokens
        facets = {name: getattr(qkv, name)[:, prefix:].flatten(2).unflatten(1, (h, w)) for name in sorted(_QKV & self.facets)}
        if not self.facets & {"cls_attention", "attention"}:
            return facets

        queries, keys = qkv.rotated_queries * layer.scale, qkv.rotated_keys
        has_class = self.model.cls_token is not None
        dense: Any = None
        if "attention" in self.facets or not has_class:
            dense = torch.stack([self._patch_attention(q, k, prefix) for q, k in zip(queries, keys, strict=True)])
        if "attention" in self.facets:
            facets["attention"] = dense
        if "cls_attention" in self.facets:
            if has_class:
                scores = torch.einsum("bhd,bnhd->bhn", queries[:, 0], keys).softmax(-1)
                received = scores[:, :, prefix:].mean(1)
            else:
                assert dense is not None
                received = dense.mean(1)
            facets["cls_attention"] = (received / received.sum(1, keepdim=True)).unflatten(1, (h, w))
        return facets

    @staticmethod
    def _patch_attention(queries: Any, keys: Any, prefix: int) -> Any:
        """Head-mean attention among the patches of one image (n, n), rows summing to 1. queries, keys: (N, heads, d).

        The softmax runs over all tokens, as in the model, and one head at a time: n is thousands.
        """
        total = 0
        for head in range(queries.shape[1]):
            total = total + (queries[prefix:, head] @ keys[:, head].T).softmax(-1)[:, prefix:]
        return total / total.sum(-1, keepdim=True)  # type: ignore[attr-defined]
