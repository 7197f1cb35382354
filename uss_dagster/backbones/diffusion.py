"""Self-attention of a diffusion UNet through diffusers: Stable Diffusion 1, 2 and XL, SSD-1B, or any small UNet in a local folder.

An image is brought to the space the UNet works in (the mean of the VAE's posterior, times its scaling factor; or, without a VAE,
pixels in [-1, 1], folded p×p into channels where the UNet takes 3·p² of them), noised, and passed through the UNet with the empty
prompt and no guidance. Its self-attention layers are found as they run and read through diffusers' processor interface
(``_attention_capture``). Facets, on a grid of h by w cells that tiles the image, n = h·w:

- attention (n, n): mean over heads, layers and steps a resolution, lumped or upsampled to the grid, then a weighted mean over
  resolutions; float32, rows summing to 1. The matrix of Diffuse–Walk–Cut.
- tokens (h, w, C): output of one self-attention layer (``layer``), or its keys (``tokens_from: keys``).
- keys (h, w, C): the keys of that layer, heads side by side.

Which UNet calls are read (``extraction``):

- single: Gaussian noise of ``seed``, the same for all images of one size, for ``timestep`` (100); one call (Couairon et al., DiffCut, NeurIPS 2024).
- clean: no noise, the UNet told ``timestep`` (300); one call (Tian et al., Diffuse, Attend, and Segment, CVPR 2024).
- ddim: deterministic inversion up ``n_steps`` of a ``schedule_steps`` grid, then the same steps down; the mean over the calls on the way down
  (Song, Meng, Ermon, Denoising Diffusion Implicit Models, ICLR 2021; its use here: Ivanova et al., arXiv 2412.04678). 2 · ``n_steps`` calls.

Low precision holds the UNet alone: the VAE, the text encoder and every softmax over attention that is captured run in float32. An image
whose attention comes out as NaN or infinite is computed again in float32, with a line on stderr.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uss_dagster.backbones._support import check_facets, check_image, resize_image
from uss_dagster.backbones.base import BackboneSpec
from uss_dagster.errors import BadData, Unavailable, UsageError, did_you_mean


@dataclass(frozen=True)
class Params:
    """Parameters of ``diffusion``.

    model: a name of ``MODELS`` or ``hub:<owner>/<name>``. checkpoint: a local folder in diffusers' layout instead (a pipeline, or one UNet),
    safetensors only. revision: the hub commit. variant: 'fp16' takes the half-size weights. facets: which to write.
    extraction, timestep (None: 100 for 'single', 300 for 'clean'; of 1000), schedule_steps, n_steps, seed: see the module.
    image_size: short side in pixels, None for the size the UNet was trained at. shape: 'square' squeezes the image into a square (bounded
    cost), 'aspect' keeps its proportions. grid: cells on the short side; the nearest scale of the UNet is taken (64, 32, 16, 8 at 512 pixels).
    weights: of the resolutions in ``attention``; 'proportional' to their side. tokens_from, layer: which tokens; a layer counts in running
    order as in a list, None is the last on the way down at the grid's resolution.
    conditioning: 'empty' is the text encoder on the empty prompt, 'zeros' one zero vector, for UNets trained without text.
    batch: images a pass on a GPU, where they share a size. precision: of the UNet.
    """

    model: str = "sd14"
    checkpoint: str | None = None
    revision: str | None = None
    variant: Literal["fp16"] | None = None
    facets: tuple[str, ...] = ("attention", "tokens")
    extraction: Literal["single", "clean", "ddim"] = "single"
    timestep: int | None = None
    schedule_steps: int = 50
    n_steps: int = 10
    seed: int = 42
    image_size: int | None = None
    shape: Literal["square", "aspect"] = "square"
    grid: int = 32
    weights: Literal["proportional", "uniform"] = "proportional"
    tokens_from: Literal["outputs", "keys"] = "outputs"
    layer: int | None = None
    conditioning: Literal["empty", "zeros"] = "empty"
    batch: int = 4
    precision: Literal["float32", "bfloat16", "float16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("schedule_steps", "n_steps", "grid", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more.")
        if self.n_steps >= self.schedule_steps:
            raise ValueError(f"n_steps is {self.n_steps}, expected fewer than schedule_steps ({self.schedule_steps}).")
        if self.timestep is not None and self.timestep < 0:
            raise ValueError(f"timestep is {self.timestep}, expected 0 or more.")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size is {self.image_size}, expected a number of pixels, or null for the size the UNet was trained at.")


SPEC = BackboneSpec(
    name="diffusion",
    title="Diffusion UNet self-attention (diffusers)",
    params=Params,
    facets=("attention", "tokens", "keys"),
    licence="by model: Stable Diffusion 1 CreativeML OpenRAIL-M; 2 and XL CreativeML OpenRAIL++-M; SSD-1B Apache-2.0",
    paper="Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022; Podell et al., SDXL, ICLR 2024; "
    "Gupta et al., Progressive Knowledge Distillation of Stable Diffusion XL, 2024; captured as in Ivanova et al., Unsupervised "
    "Segmentation by Diffusing, Walking and Cutting, arXiv 2412.04678 (reimplementation).",
    device=True,
    comparable=True,
)

MODELS = {
    "sd14": "CompVis/stable-diffusion-v1-4",
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd21": "stabilityai/stable-diffusion-2-1",
    "ssd1b": "segmind/SSD-1B",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}

_LAYOUT = (
    "a folder in diffusers' layout: 'unet', 'scheduler' and, where the model has them, 'vae', 'text_encoder' and 'tokenizer', "
    "each with its JSON and .safetensors files, as a pipeline's save_pretrained writes them"
)
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_SAID_TIMESTEP = {"single": 100, "clean": 300, "ddim": 0}


@dataclass
class Model:
    """A loaded diffusion model, on the CPU. ``cell``: pixels on a side of one position of the UNet's input."""

    unet: Any
    vae: Any
    alphas: np.ndarray | None
    """Signal variance after each training step, decreasing; None where the folder has no scheduler."""
    prediction: str
    text: Any
    """Conditioning (1, tokens, width), or None for a UNet without cross-attention."""
    pooled: Any
    """SDXL's second text vector (1, width), or None."""
    cell: int
    fold: int


def load(params: Params, device: str = "auto") -> Extractor:
    """A callable from uint8 RGB images of any sizes to their facets in float32. device: 'auto', 'cpu', 'cuda', 'cuda:1', …"""
    facets = check_facets(SPEC, params.facets)
    place = _device(device)
    folder = _hub_folder(params) if params.checkpoint is None else _local_folder(params.checkpoint)
    return Extractor(load_folder(folder, params), params, facets, place)


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device is '{name}', expected auto, cpu, cuda or cuda:<number>.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device is '{name}', but torch sees {torch.cuda.device_count()} CUDA devices here. Use 'auto' or 'cpu'.")
    return device


def _local_folder(checkpoint: str) -> Path:
    path = Path(checkpoint).expanduser()
    if path.suffix in _PICKLES and not path.is_dir():
        raise UsageError(f"checkpoint '{checkpoint}' is a pickle, which can run code, so it is never opened. Give {_LAYOUT}.")
    if not path.is_dir():
        raise UsageError(f"checkpoint '{checkpoint}' is {'a file' if path.exists() else 'not there'}. Give {_LAYOUT}.")
    return path


def _hub_folder(params: Params) -> Path:
    """The pipeline's folder in the hub's cache, with the files that are needed fetched where they are not there."""
    from uss_dagster.backbones._checkpoints import hub_file

    repository = MODELS.get(params.model) or params.model.removeprefix("hub:")
    if params.model not in MODELS and not params.model.startswith("hub:"):
        raise UsageError(
            f"backbone 'diffusion' has no model '{params.model}'.{did_you_mean(params.model, MODELS)} Others: 'hub:<owner>/<name>'."
        )
    suffix = f".{params.variant}.safetensors" if params.variant else ".safetensors"
    revision = params.revision

    def fetch(name: str) -> Path:
        try:
            return hub_file(repository, name, revision, f"'{params.model}'")
        except Unavailable as error:
            reason = str(error).partition(" Set 'checkpoint'")[0]
            raise Unavailable(
                f"{reason} Set 'checkpoint' to {_LAYOUT}; or run once with a network so that {repository}/{name} lands in the cache "
                f"(HF_HOME says where); or use the backbone 'patches', which needs no weights."
            ) from None

    index = fetch("model_index.json")
    revision = index.parent.name  # the commit: all other files come from it too
    parts = {name for name, value in _json(index).items() if isinstance(value, list) and value[0] is not None}
    names = ["scheduler/scheduler_config.json"]
    for part in sorted(parts & {"unet", "vae"}):
        names += [f"{part}/config.json", f"{part}/diffusion_pytorch_model{suffix}"]
    if params.conditioning == "empty":
        for part in sorted(parts & {"text_encoder", "text_encoder_2"}):
            names += [f"{part}/config.json", f"{part}/model{suffix}"]
        for part in sorted(parts & {"tokenizer", "tokenizer_2"}):
            names += [f"{part}/{file}" for file in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")]
    for name in names:
        fetch(name)
    return index.parent


def load_folder(folder: Path, params: Params) -> Model:
    """The model of a pipeline's folder, or of a folder that holds one UNet (its scheduler beside it)."""
    from uss_dagster.backbones._torchvision import ensure_torchvision

    ensure_torchvision()
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel

    with _quiet():
        unet = _network(_part(folder, "unet"), (UNet2DConditionModel, UNet2DModel), params.variant, getattr(torch, params.precision))
        vae = _network(folder / "vae", (AutoencoderKL,), params.variant, torch.float32) if (folder / "vae").is_dir() else None
        alphas, prediction = _noise_levels(folder)
        text, pooled = _conditioning(folder, unet, params)
    if vae is not None:
        vae.decoder = None  # half its memory, never used
    channels = unet.config.in_channels
    fold = 1 if vae is not None else math.isqrt(channels // 3)
    if channels != (3 * fold**2 if vae is None else vae.config.latent_channels):
        raise BadData(
            f"The UNet in '{folder}' takes {channels} channels, and "
            + (
                f"its VAE gives {vae.config.latent_channels}"
                if vae is not None
                else "without a folder 'vae' images have 3 (or 3·p², folded)"
            )
            + ". Use a plain text-to-image or unconditional model, complete with its VAE where it works on latents."
        )
    if getattr(unet, "class_embedding", None) is not None or getattr(unet.config, "addition_embed_type", None) not in (None, "text_time"):
        raise UsageError(f"The UNet in '{folder}' is conditioned on classes or images, which an image to be segmented does not come with.")
    factor = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
    return Model(unet, vae, alphas, prediction, text, pooled, factor * fold, fold)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from diffusers and transformers while they load: what goes wrong is checked here."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    both = (diffusers_logging, transformers_logging)
    levels = [module.get_verbosity() for module in both]
    bars = [module.is_progress_bar_enabled() for module in both]
    try:
        for module in both:
            module.set_verbosity_error()
            module.disable_progress_bar()
        yield
    finally:
        for module, level, bar in zip(both, levels, bars, strict=True):
            module.set_verbosity(level)
            if bar:
                module.enable_progress_bar()


def _part(folder: Path, name: str) -> Path:
    """A pipeline keeps each part in a folder of its own; a folder of one network is that part."""
    return folder / name if (folder / name).is_dir() else folder


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"'{path.parent}' has no {path.name}. Expected {_LAYOUT}.") from None
    except (ValueError, OSError) as error:
        raise BadData(f"'{path}' is not readable JSON ({error}). Copy or download it again.") from None
    if not isinstance(value, dict):
        raise BadData(f"'{path}' is not a JSON object. Copy or download it again.")
    return value


def _variant(folder: Path, stem: str, wanted: str | None) -> str | None:
    """Which weights of a part to read: the wanted variant, else the plain ones, else the only ones. Pickles are refused."""
    there = sorted(path.name for path in folder.iterdir())
    for variant in dict.fromkeys((wanted, None, "fp16")):
        name = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
        index = f"{stem}.safetensors.index.{variant}.json" if variant else f"{stem}.safetensors.index.json"
        if name in there or index in there:
            return variant
    pickles = [name for name in there if name.endswith(_PICKLES)]
    if pickles:
        raise UsageError(
            f"'{folder}' has its weights only as a pickle ({pickles[0]}), which can run code, so it is never opened. Put {stem}.safetensors "
            f"there: the publisher's, or converted where you trust it with the model's save_pretrained(…, safe_serialization=True)."
        )
    raise UsageError(f"'{folder}' has no {stem}.safetensors. Expected {_LAYOUT}.")


def _network(folder: Path, classes: tuple[Any, ...], variant: str | None, dtype: Any) -> Any:
    """A diffusers network with all its weights from safetensors, for inference."""
    known = {cls.__name__: cls for cls in classes}
    name = _json(folder / "config.json").get("_class_name")
    if name not in known:
        raise UsageError(f"'{folder}' holds a {name}, expected {' or '.join(known)}. Choose a UNet-based diffusion model.")
    arguments = {"low_cpu_mem_usage": False, "torch_dtype": dtype}
    return _pretrained(known[name], folder, "diffusion_pytorch_model", variant, arguments)


def _pretrained(cls: Any, folder: Path, stem: str, variant: str | None, arguments: dict[str, Any]) -> Any:
    from safetensors import SafetensorError

    found = _variant(folder, stem, variant)
    try:
        model, info = cls.from_pretrained(
            str(folder), variant=found, use_safetensors=True, local_files_only=True, output_loading_info=True, **arguments
        )
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadData(f"The weights in '{folder}' do not load as a {cls.__name__}: {reason} Copy or download that folder again.") from None
    missing = sorted(info["missing_keys"])
    if missing:
        raise BadData(
            f"The weights in '{folder}' lack {len(missing)} of the tensors of its {cls.__name__} ({missing[0]}, …). "
            f"Copy or download that folder again."
        )
    return model.eval().requires_grad_(False)


def _noise_levels(folder: Path) -> tuple[np.ndarray | None, str]:
    """Signal variance after each training step, and what the UNet predicts, from the scheduler's configuration."""
    from diffusers import DDIMScheduler

    places = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        return None, "epsilon"
    scheduler = DDIMScheduler.from_config(_json(path))
    prediction = scheduler.config.prediction_type
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise UsageError(f"'{path}' says prediction_type '{prediction}', expected epsilon, v_prediction or sample.")
    return scheduler.alphas_cumprod.double().numpy(), prediction


def _conditioning(folder: Path, unet: Any, params: Params) -> tuple[Any, Any]:
    """What the UNet's cross-attention sees (1, tokens, width) and SDXL's pooled text (1, width); None where the UNet has no use for it."""
    import torch
    from diffusers.models.attention_processor import Attention

    if not any(isinstance(module, Attention) and module.is_cross_attention for module in unet.modules()):
        return None, None
    config = unet.config
    with_pooled = config.addition_embed_type == "text_time"
    if params.conditioning == "zeros":
        width = config.cross_attention_dim
        text = torch.zeros(1, 1, width if isinstance(width, int) else width[0])
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim if with_pooled else 0
        return text, torch.zeros(1, pooled) if with_pooled else None

    names = [part for part in ("text_encoder", "text_encoder_2") if (folder / part).is_dir()]
    if not names or (with_pooled and "text_encoder_2" not in names):
        lacking = "text_encoder_2" if names else "text_encoder"
        raise UsageError(
            f"'{folder}' has no {lacking}, and its UNet attends to text: put the folders '{lacking}' and "
            f"'{lacking.replace('text_encoder', 'tokenizer')}' of the same model there, or set conditioning: zeros where it was trained without text."
        )
    encoded = [_empty_prompt(folder, name, params.variant) for name in names]
    if not with_pooled:
        return encoded[0].last_hidden_state, None
    # SDXL reads the layer before the last of each encoder, side by side, and the last encoder's projection.
    return torch.cat([output.hidden_states[-2] for output in encoded], -1), encoded[-1].text_embeds


def _empty_prompt(folder: Path, name: str, variant: str | None) -> Any:
    """A text encoder's outputs for the empty prompt, padded to the tokenizer's length as the pipelines pad it."""
    import torch
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    known = {cls.__name__: cls for cls in (CLIPTextModel, CLIPTextModelWithProjection)}
    architecture = (_json(folder / name / "config.json").get("architectures") or [None])[0]
    if architecture not in known:
        raise UsageError(
            f"'{folder / name}' holds a {architecture}, expected {' or '.join(known)}. Choose a model with CLIP text encoders."
        )
    words = folder / name.replace("text_encoder", "tokenizer")
    if not words.is_dir():
        raise UsageError(f"'{folder}' has the {name} but no {words.name}: put that folder of the same model there.")
    encoder = _pretrained(known[architecture], folder / name, "model", variant, {"dtype": torch.float32})
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(words), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"'{words}' is not a readable CLIP tokenizer ({error}). Copy or download that folder again.") from None
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    tokens = tokenizer("", padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    with torch.inference_mode():
        return encoder(tokens, output_hidden_states=True)


class Extractor:
    """Groups images of one size into passes of the UNet and reads the facets.

    As in the backbone ``vit``, images go one by one on a CPU, and on a GPU a group is filled up to ``batch`` with copies of its last
    image, so that an image's facets do not depend on its neighbours. When the GPU's memory is too small the batch is halved for the
    rest of the run, then the blocks of captured scores are quartered.
    """

    def __init__(self, model: Model, params: Params, facets: frozenset[str], device: Any) -> None:
        from uss_dagster.backbones._attention_capture import CPU_BLOCK, GPU_BLOCK, check_layers

        self.model = model
        self.params = params
        self.facets = facets
        self.device = device
        self.batch = 1 if device.type == "cpu" else params.batch
        self.block_bytes = CPU_BLOCK if device.type == "cpu" else GPU_BLOCK
        self.timestep = _SAID_TIMESTEP[params.extraction] if params.timestep is None else params.timestep
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
        check_layers(model.unet, params.layer)
        model.unet.to(device)
        if model.vae is not None:
            model.vae.to(device)

    def __call__(self, images: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """One dict of float32 facets an image, in the order given."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(images):
            sizes.setdefault(self.input_size(*check_image(image).shape[:2]), []).append(i)
        results: list[dict[str, np.ndarray]] = [{} for _ in images]
        for size, members in sizes.items():
            resized = [resize_image(images[i], size) for i in members]
            for i, facets in zip(members, self._batches(resized), strict=True):
                results[i] = facets
        return results

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
        from uss_dagster.backbones._attention_capture import scales

        known = scales((size[0] // self.model.cell, size[1] // self.model.cell), self.blocks)
        return min(known, key=lambda scale: abs(math.log2(min(scale) / self.params.grid)))

    def _batches(self, images: list[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Facets of images of one size, ``batch`` at a time, fewer when the GPU's memory does not hold them."""
        start = 0
        while start < len(images):
            part = images[start : start + self.batch]
            copies = [part[-1]] * (self.batch - len(part))
            facets = self._attempt(part + copies)
            if facets is None:
                continue
            start += len(part)
            for image, found in zip(part, facets, strict=False):
                yield found if _finite(found) else self._again_in_float32(image)

    def _attempt(self, images: list[np.ndarray]) -> list[dict[str, np.ndarray]] | None:
        """Facets of one batch, or None where the GPU's memory did not hold it and less will be asked for next time."""
        import torch

        try:
            return self._forward(np.stack(images))
        except torch.OutOfMemoryError:
            pass
        self._ask_for_less(images[0].shape[:2])  # outside the except clause, whose traceback keeps the tensors alive
        return None

    def _ask_for_less(self, size: tuple[int, ...]) -> None:
        import torch

        from uss_dagster.backbones._attention_capture import SMALLEST_BLOCK

        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch > 1:
            self.batch //= 2
            print(f"the memory of {self.device} is too small: going on with batch {self.batch}", file=sys.stderr)
        elif self.block_bytes > SMALLEST_BLOCK:
            self.block_bytes = max(SMALLEST_BLOCK, self.block_bytes // 4)
            print(f"the memory of {self.device} is too small: going on with blocks of {self.block_bytes // 1024} KiB", file=sys.stderr)
        else:
            raise UsageError(
                f"One image of {size[0]}×{size[1]} pixels does not fit the memory of {self.device}. "
                f"Set 'image_size' lower, precision: float16 or bfloat16, a smaller 'grid', or a smaller 'model'."
            )

    def _again_in_float32(self, image: np.ndarray) -> dict[str, np.ndarray]:
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
                torch.nn.Module.to(
                    self.model.unet, self.dtype
                )  # diffusers' own warns about modules kept in float32, of which there are none
                self.batch = batch
            if _finite(facets[0]):
                return facets[0]
        raise BadData(
            f"The UNet gives NaN or infinity in float32 too (image of {image.shape[0]}×{image.shape[1]} pixels): its weights are damaged or do "
            f"not belong to its configuration. Copy or download the model again."
        )

    def _forward(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Facets of a uint8 batch (B, H, W, 3) whose sides fit the UNet."""
        import torch

        from uss_dagster.backbones._attention_capture import Recorder

        height, width = images.shape[1:3]
        with torch.inference_mode():
            clean = self._encode(images)
            recorder = Recorder(
                self.model.unet,
                (clean.shape[2], clean.shape[3]),
                self.grid((height, width)),
                maps="attention" in self.facets,
                layer=self.params.layer,
                block_bytes=self.block_bytes,
            )
            if self.params.extraction == "ddim":
                self._invert_and_return(clean, recorder, (height, width))
            else:
                latent = clean if self.params.extraction == "clean" else self._noised(clean)
                with recorder.recording():
                    self._predict(latent, self.timestep, (height, width))
            found: dict[str, Any] = {}
            if "attention" in self.facets:
                found["attention"] = recorder.attention(self.params.weights)
            if "tokens" in self.facets:
                found["tokens"] = recorder.keys() if self.params.tokens_from == "keys" else recorder.tokens()
            if "keys" in self.facets:
                found["keys"] = recorder.keys()
            arrays = {name: tensor.cpu().numpy() for name, tensor in found.items()}
        return [{name: np.ascontiguousarray(array[i]) for name, array in arrays.items()} for i in range(len(images))]

    def _encode(self, images: np.ndarray) -> Any:
        """The clean input of the UNet (B, C, h, w) in float32."""
        import torch
        from torch.nn.functional import pixel_unshuffle

        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
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
        arguments: dict[str, Any] = {}
        if type(unet).__name__ == "UNet2DConditionModel":
            arguments["encoder_hidden_states"] = None
            if self.model.text is not None:
                arguments["encoder_hidden_states"] = self.model.text.to(latent.device, unet.dtype).expand(len(latent), -1, -1)
        if self.model.pooled is not None:
            told = torch.tensor([[*size, 0, 0, *size]], device=latent.device, dtype=unet.dtype)  # original size, crop, target size
            arguments["added_cond_kwargs"] = {
                "text_embeds": self.model.pooled.to(latent.device, unet.dtype).expand(len(latent), -1),
                "time_ids": told.expand(len(latent), -1),
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


def _finite(facets: dict[str, np.ndarray]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in facets.values())
