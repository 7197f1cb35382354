"""Self-attention of a diffusion UNet through diffusers: Stable Diffusion 1, 2 and XL, SSD-1B, any small UNet in a local folder, or the
embedded one, which comes with this package and needs no download.

An image is brought to the space the UNet works in (the mean of the VAE's posterior, times its scaling factor; or, without a VAE,
pixels in [-1, 1], folded p×p into channels where the UNet takes 3·p² of them), noised, and passed through the UNet with ``prompt``, by default the
empty one, and no guidance. Its self-attention layers are found as they run and read through diffusers' processor interface
(``unet.attention_capture``). Facets, on a grid of h by w cells that tiles the image, n = h·w:

- attention (n, n): mean over heads, layers (``attention_layers``) and steps a resolution, lumped or upsampled to the grid, then a weighted mean
  over resolutions; float32, rows summing to 1. The matrix of Diffuse–Walk–Cut.
- tokens (h, w, C): output of one self-attention layer (``layer``), its keys (``tokens_from: keys``), or its input (``tokens_from: hidden``).
- keys, queries, values (h, w, C): those of that layer, heads side by side.

Which UNet calls are read (``extraction``):

- single: Gaussian noise of ``seed``, the same for all images of one size, for ``timestep`` (100); one call (Couairon et al., DiffCut, NeurIPS 2024).
- clean: no noise, the UNet told ``timestep`` (300); one call (Tian et al., Diffuse, Attend, and Segment, CVPR 2024).
- ddim: deterministic inversion up ``n_steps`` of a ``schedule_steps`` grid, then the same steps down; the mean over the calls on the way down
  (Song, Meng, Ermon, Denoising Diffusion Implicit Models, ICLR 2021; its use here: Ivanova et al., arXiv 2412.04678). 2 · ``n_steps`` calls.

Low precision holds the UNet alone: the VAE, the text encoder and every softmax over attention that is captured run in float32. An image
whose attention comes out as NaN or infinite is computed again in float32, with a line on stderr.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uss_dagster.backbones._batches import BatchedExtractor, Facets
from uss_dagster.backbones.base import BackboneSpec, check_facets
from uss_dagster.backbones.unet.diffusers_folder import Model, hub_folder, load_folder, local_folder
from uss_dagster.bounds import at_least, check_bounds, wrong_value
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.files import parse_yaml
from uss_dagster.runtime import torch_device
from uss_dagster.weights.store import missing_weights as missing

if TYPE_CHECKING:
    from torch import Tensor

    from uss_dagster.backbones.unet.attention_capture import LayerFacet


@dataclass(frozen=True)
class Params:
    """Parameters of ``diffusion``.

    Parameters
    ----------
    model : str, default "sd14"
        "embedded", a name of ``MODELS``, or ``hub:<owner>/<name>``.
    checkpoint : str or None, default None
        A local folder in the layout of diffusers instead: a pipeline, or one UNet, with .safetensors files only.
    revision : str or None, default None
        Commit of the hub's repository.
    variant : {"fp16"} or None, default None
        "fp16" takes the weights of half the size.
    facets : tuple of str, default ("attention", "tokens")
        Facets to write; see the module.
    extraction : {"single", "clean", "ddim"} or None, default None
        Which calls of the UNet are read; see the module. None is "clean" for the embedded model and "single" for others.
    timestep : int or None, default None
        Noise level, of 1000. None is 100 for "single", 300 for "clean", and 100 for "clean" with the embedded model.
    schedule_steps : int, default 50
        Steps of the full schedule of "ddim".
    n_steps : int, default 10
        Steps of it that are taken, fewer than ``schedule_steps``.
    seed : int, default 42
        Of the noise of "single".
    image_size : int or None, default None
        Short side of the input, in pixels. None is the size that the UNet was trained at.
    shape : {"square", "aspect"}, default "square"
        "square" squeezes the image into a square, which bounds the cost; "aspect" keeps its proportions.
    grid : int, default 32
        Cells on the short side. The nearest scale of the UNet is taken (64, 32, 16 or 8 at 512 pixels).
    weights : {"proportional", "uniform"} or list of float, default "proportional"
        Of the resolutions in ``attention``; "proportional" to their side, or one each, the finest first (64, 32, 16 and 8 at 512 pixels); a
        resolution of weight 0 is left out.
    attention_layers : list of int or None, default None
        Self-attention layers that ``attention`` is the mean of, counted in running order as in a list. None is all.
    tokens_from : {"outputs", "keys", "hidden"}, default "outputs"
        What the facet ``tokens`` holds.
    layer : int or None, default None
        Self-attention layer of the other facets, counted likewise. None is the last one on the way down at the resolution of the grid.
    prompt : str, default ""
        The text that the image is said to show. Needs a text encoder and ``conditioning`` "empty".
    conditioning : {"empty", "zeros"}, default "empty"
        "empty" is the text encoder's answer to ``prompt``, empty by default; "zeros" one zero vector, for UNets trained without text.
    batch : int, default 4
        Images of one size in a pass on a GPU. On a CPU it is always 1.
    precision : {"float32", "bfloat16", "float16"}, default "float32"
        Of the UNet.
    """

    model: str = "sd14"
    checkpoint: str | None = None
    revision: str | None = None
    variant: Literal["fp16"] | None = None
    facets: tuple[str, ...] = ("attention", "tokens")
    extraction: Literal["single", "clean", "ddim"] | None = None
    timestep: int | None = None
    schedule_steps: int = 50
    n_steps: int = 10
    seed: int = 42
    image_size: int | None = None
    shape: Literal["square", "aspect"] = "square"
    grid: int = 32
    weights: Literal["proportional", "uniform"] | tuple[float, ...] = "proportional"
    attention_layers: tuple[int, ...] | None = None
    tokens_from: Literal["outputs", "keys", "hidden"] = "outputs"
    layer: int | None = None
    prompt: str = ""
    conditioning: Literal["empty", "zeros"] = "empty"
    batch: int = 4
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        one = at_least(1)
        check_bounds(self, schedule_steps=one, n_steps=one, grid=one, batch=one, image_size=one, timestep=at_least(0))
        if self.extraction == "ddim" and self.timestep:
            raise wrong_value("timestep", self.timestep, "none: extraction 'ddim' takes the steps of 'schedule_steps' and 'n_steps'")
        if self.n_steps >= self.schedule_steps:
            raise ValueError(f"n_steps is {self.n_steps}, expected fewer than schedule_steps ({self.schedule_steps}).")
        if isinstance(self.weights, tuple) and (min(self.weights, default=-1) < 0 or not any(self.weights)):
            raise wrong_value("weights", list(self.weights), "0 or more for each resolution, the finest first, not all of them 0")
        if self.attention_layers == ():
            raise wrong_value("attention_layers", "[]", "one layer or more, or null for all")
        if self.prompt and self.conditioning == "zeros":
            raise wrong_value("prompt", f"'{self.prompt}'", "none: conditioning 'zeros' stands for no text")


SPEC = BackboneSpec(
    name="diffusion",
    title="Diffusion UNet self-attention (diffusers)",
    params=Params,
    facets=("attention", "tokens", "keys", "queries", "values"),
    licence="by model: embedded MIT (this project); Stable Diffusion 1 CreativeML OpenRAIL-M; 2 and XL CreativeML OpenRAIL++-M; SSD-1B Apache-2.0",
    paper="Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022; Podell et al., SDXL, ICLR 2024; "
    "Gupta et al., Progressive Knowledge Distillation of Stable Diffusion XL, 2024; captured as in Ivanova et al., Unsupervised "
    "Segmentation by Diffusing, Walking and Cutting, arXiv 2412.04678 (reimplementation).",
    device=True,
    comparable=True,
)

_TABLES = parse_yaml(Path(__file__).with_suffix(".yaml").read_bytes())
MODELS: dict[str, str] = _TABLES["models"]

EMBEDDED = Path(__file__).parent / "weights" / "scenes_diffusion"
"""A network of 4 million parameters, trained on drawn scenes by `uss train diffusion`; its README.md says how."""
EMBEDDED_SHA256: dict[str, str] = _TABLES["embedded_sha256"]
_DEFAULT_TIMESTEP = {"single": 100, "clean": 300, "ddim": 0}
_EMBEDDED_TIMESTEP = 100


def load(params: Params, device: str = "auto") -> Extractor:
    """A callable from uint8 RGB images of any sizes to their facets in float32. device: 'auto', 'cpu', 'cuda', 'cuda:1', …"""
    facets = check_facets(SPEC, params.facets)
    place = torch_device(device)
    params = _settled(params)
    model = load_folder(_folder(params), params.variant, params.precision, params.conditioning, params.prompt)
    return Extractor(model, params, facets, place)


def _settled(params: Params) -> Params:
    """The parameters with what is None by default filled in."""
    embedded = params.model == "embedded" and params.checkpoint is None
    extraction = params.extraction or ("clean" if embedded else "single")
    timestep = _EMBEDDED_TIMESTEP if embedded and extraction == "clean" else _DEFAULT_TIMESTEP[extraction]
    return replace(params, extraction=extraction, timestep=timestep if params.timestep is None else params.timestep)


def missing_weights(params: Params) -> str:
    """What has to be fetched first; '' for nothing."""
    from uss_dagster.weights.files import download_command

    if params.checkpoint is not None or params.model == "embedded":
        return missing(params.checkpoint, None) or ""
    return download_command(_repository(params), "model_index.json", params.revision)


def _folder(params: Params) -> Path:
    if params.checkpoint is not None:
        return local_folder(params.checkpoint)
    if params.model == "embedded":
        return _embedded_folder(EMBEDDED)
    return hub_folder(_repository(params), params.model, params.revision, params.variant, params.conditioning == "empty")


def _repository(params: Params) -> str:
    if params.model not in MODELS and not params.model.startswith("hub:"):
        raise UsageError(
            f"backbone 'diffusion' has no model '{params.model}'.{did_you_mean(params.model, ('embedded', *MODELS))} Others: 'hub:<owner>/<name>'."
        )
    return MODELS.get(params.model) or params.model.removeprefix("hub:")


def _embedded_folder(folder: Path) -> Path:
    """The folder, once its files are known to be those that this code was tested with: their hashes are part of its fingerprint."""
    for name, expected in EMBEDDED_SHA256.items():
        try:
            actual = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except FileNotFoundError:
            raise BadData(f"The embedded diffusion model lacks '{folder / name}'. Install the package again.") from None
        if actual != expected:
            raise BadData(
                f"'{folder / name}' is not the file of this version of the package (sha256 {actual[:12]}…, expected {expected[:12]}…). Install the "
                f"package again; a model of your own goes by 'checkpoint'."
            )
    return folder


class Extractor(BatchedExtractor):
    """Passes batches through the UNet and reads the facets. Where the GPU's memory does not hold one image, blocks of scores are quartered."""

    advice = "Set 'image_size' lower, precision: float16 or bfloat16, a smaller 'grid', or a smaller 'model'."

    def __init__(self, model: Model, params: Params, facets: frozenset[str], device: Any) -> None:
        from uss_dagster.backbones.unet.attention_capture import CPU_BLOCK, GPU_BLOCK, check_layers

        self.model = model
        self.params = params
        self.facets = facets
        super().__init__(device, params.batch)
        self.block_bytes = CPU_BLOCK if device.type == "cpu" else GPU_BLOCK
        assert params.timestep is not None
        self.timestep = params.timestep
        self.blocks = len(model.unet.config.block_out_channels)
        self.dtype = model.unet.dtype
        if model.alphas is None and params.extraction != "clean":
            raise UsageError(
                f"extraction '{params.extraction}' adds noise, and the model's folder has no scheduler/scheduler_config.json to say how much. "
                f"Put the one it was trained with there, or set extraction: clean."
            )
        if model.alphas is not None and self.timestep >= len(model.alphas):
            raise UsageError(
                f"timestep is {self.timestep}, but the model was trained with {len(model.alphas)}: choose 0 to {len(model.alphas) - 1}."
            )
        check_layers(model.unet, [*(params.attention_layers or ()), *([] if params.layer is None else [params.layer])])
        model.unet.to(device)
        if model.vae is not None:
            model.vae.to(device)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """The size (height, width) an image is resized to: multiples of the coarsest scale of the UNet, at least one."""
        cell = self.model.cell
        if min(height, width) < cell:
            raise BadData(
                f"An image of {height}×{width} pixels is smaller than one latent patch of this model ({cell}×{cell} pixels). "
                f"Leave it out, or enlarge it before."
            )
        trained = self.model.unet.config.sample_size or 64
        short = self.params.image_size or (trained if isinstance(trained, int) else min(trained)) * cell
        sides = (short, short) if self.params.shape == "square" else tuple(short * side / min(height, width) for side in (height, width))
        step = cell * 2 ** (self.blocks - 1)
        return max(1, int(sides[0] / step + 0.5)) * step, max(1, int(sides[1] / step + 0.5)) * step

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """The scale of the UNet (rows, columns) whose short side is nearest ``grid``, in ratio, for an input of ``size`` pixels."""
        from uss_dagster.backbones.unet.attention_capture import scales

        sizes = scales((size[0] // self.model.cell, size[1] // self.model.cell), self.blocks)
        return min(sizes, key=lambda scale: abs(math.log2(min(scale) / self.params.grid)))

    def _checked(self, image: np.ndarray, facets: Facets) -> Facets:
        return facets if _finite(facets) else self._again_in_float32(image)

    def _save_memory(self) -> str | None:
        from uss_dagster.backbones.unet.attention_capture import SMALLEST_BLOCK

        if self.block_bytes <= SMALLEST_BLOCK:
            return None
        self.block_bytes = max(SMALLEST_BLOCK, self.block_bytes // 4)
        return f"blocks of {self.block_bytes // 1024} KiB"

    def _again_in_float32(self, image: np.ndarray) -> Facets:
        """One image with the UNet in float32, after which it is what it was: going up and back down changes no weight."""
        import torch

        if self.dtype != torch.float32:
            print(f"the UNet gave NaN or infinity in {self.params.precision}: this image is computed again in float32", file=sys.stderr)
            batch, self.batch = self.batch, 1
            self.model.unet.float()
            try:
                facets = None
                while facets is None:
                    facets = self._attempt([image])
            finally:
                # diffusers' own method warns about modules kept in float32, of which there are none
                torch.nn.Module.to(self.model.unet, self.dtype)
                self.batch = batch
            if _finite(facets[0]):
                return facets[0]
        raise BadData(
            f"The UNet gives NaN or infinity in float32 too (image of {image.shape[0]}×{image.shape[1]} pixels): its weights are damaged or do "
            f"not belong to its configuration. Copy or download the model again."
        )

    def _forward(self, images: np.ndarray) -> dict[str, Tensor]:
        """Facets of a uint8 batch (B, H, W, 3) whose sides fit the UNet."""
        import torch

        from uss_dagster.backbones.unet.attention_capture import Recorder

        height, width = images.shape[1:3]
        with torch.inference_mode():
            clean = self._encode(images)
            recorder = Recorder(
                self.model.unet,
                (clean.shape[2], clean.shape[3]),
                self.grid((height, width)),
                maps="attention" in self.facets,
                layers=self.params.attention_layers,
                layer=self.params.layer,
                facets=set(self._of_layer.values()),
                block_bytes=self.block_bytes,
            )
            if self.params.extraction == "ddim":
                self._invert_and_return(clean, recorder, (height, width))
            else:
                latent = clean if self.params.extraction == "clean" else self._noised(clean)
                with recorder.recording():
                    self._predict(latent, self.timestep, (height, width))
            facets = {name: recorder.of_layer(read) for name, read in self._of_layer.items()}
            return {"attention": recorder.attention(self.params.weights), **facets} if "attention" in self.facets else facets

    @property
    def _of_layer(self) -> dict[str, LayerFacet]:
        """Facet → what of the layer it holds."""
        held: dict[str, LayerFacet] = {"tokens": self.params.tokens_from, "keys": "keys", "queries": "queries", "values": "values"}
        return {name: read for name, read in held.items() if name in self.facets}

    def _encode(self, images: np.ndarray) -> Any:
        """The clean input of the UNet (B, C, h, w) in float32."""
        from torch.nn.functional import pixel_unshuffle

        pixels = self._on_device(images).div_(127.5).sub_(1)
        if self.model.vae is None:
            return pixel_unshuffle(pixels, self.model.fold)
        config = self.model.vae.config
        mean = self.model.vae.encode(pixels).latent_dist.mean
        return (mean - (getattr(config, "shift_factor", None) or 0)) * config.scaling_factor

    def _noised(self, clean: Any) -> Any:
        """sqrt(a) x + sqrt(1 - a) noise at ``timestep``; the noise is drawn from ``seed`` for one image and shared by all of its size."""
        import torch

        noise = np.random.default_rng(self.params.seed).standard_normal(clean.shape[1:], np.float32)
        alpha = self._alpha(self.timestep)
        return math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * torch.from_numpy(noise).to(clean.device)

    def _alpha(self, timestep: int) -> float:
        assert self.model.alphas is not None
        return float(self.model.alphas[timestep])

    def _predict(self, latent: Any, timestep: int, size: tuple[int, int]) -> Any:
        """The UNet's own output for a float32 latent, in float32. size: the image's (height, width), which SDXL is told."""
        import torch

        unet = self.model.unet
        arguments: dict[str, object] = {}
        if type(unet).__name__ == "UNet2DConditionModel":
            arguments["encoder_hidden_states"] = None
            if self.model.text is not None:
                arguments["encoder_hidden_states"] = self.model.text.to(latent.device, unet.dtype).expand(len(latent), -1, -1)
        if self.model.pooled is not None:
            sizes = torch.tensor([[*size, 0, 0, *size]], device=latent.device, dtype=unet.dtype)  # original size, crop, target size
            arguments["added_cond_kwargs"] = {
                "text_embeds": self.model.pooled.to(latent.device, unet.dtype).expand(len(latent), -1),
                "time_ids": sizes.expand(len(latent), -1),
            }
        output = unet(latent.to(unet.dtype), timestep, **arguments).sample
        return output[:, : latent.shape[1]].float()  # a UNet that also learnt its variance gives twice the channels

    def _invert_and_return(self, clean: Any, recorder: Any, size: tuple[int, int]) -> None:
        """DDIM inversion over the first ``n_steps`` of the schedule, then the same steps back down, recorded."""
        assert self.model.alphas is not None
        stride = len(self.model.alphas) // self.params.schedule_steps
        if stride == 0:
            raise UsageError(
                f"schedule_steps is {self.params.schedule_steps}, but the model was trained with {len(self.model.alphas)} steps."
            )
        times = [stride * i for i in range(self.params.n_steps + 1)]
        latent = clean
        for now, then in itertools.pairwise(times):
            latent = self._ddim_step(latent, self._predict(latent, now, size), now, then)
        for now, then in itertools.pairwise(reversed(times)):
            with recorder.recording():
                output = self._predict(latent, now, size)
            latent = self._ddim_step(latent, output, now, then)

    def _ddim_step(self, latent: Any, output: Any, now: int, then: int) -> Any:
        """x at time ``then``: sqrt(a') x0 + sqrt(1 - a') eps, both read off x at ``now`` and the UNet's output (eta = 0)."""
        signal, noise = math.sqrt(self._alpha(now)), math.sqrt(1 - self._alpha(now))
        if self.model.prediction == "epsilon":
            eps = output
            start = (latent - noise * eps) / signal
        elif self.model.prediction == "sample":
            start = output
            eps = (latent - signal * start) / noise
        else:  # velocity: Salimans and Ho, Progressive Distillation, ICLR 2022
            start = signal * latent - noise * output
            eps = signal * output + noise * latent
        return math.sqrt(self._alpha(then)) * start + math.sqrt(1 - self._alpha(then)) * eps


def _finite(facets: Facets) -> bool:
    return all(bool(np.isfinite(array).all()) for array in facets.values())
