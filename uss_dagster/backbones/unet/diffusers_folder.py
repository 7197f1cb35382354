"""A diffusion model in a folder of diffusers' layout, from disk or from the hub's cache: its UNet, VAE, noise levels and conditioning.

Belongs here: finding, checking and loading files. Does not belong here: images, and what is read off the UNet (``diffusion``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uss_dagster.errors import BadData, Unavailable, UsageError

_LAYOUT = (
    "a folder in diffusers' layout: 'unet', 'scheduler' and, where the model has them, 'vae', 'text_encoder' and 'tokenizer', "
    "each with its JSON and .safetensors files, as a pipeline's save_pretrained writes them"
)
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")


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


def local_folder(checkpoint: str) -> Path:
    path = Path(checkpoint).expanduser()
    if path.suffix in _PICKLES and not path.is_dir():
        raise UsageError(f"checkpoint '{checkpoint}' is a pickle, which can run code, so it is never opened. Give {_LAYOUT}.")
    if not path.is_dir():
        raise UsageError(f"checkpoint '{checkpoint}' is {'a file' if path.exists() else 'not there'}. Give {_LAYOUT}.")
    return path


def hub_folder(repository: str, name: str, revision: str | None, variant: str | None, with_text: bool) -> Path:
    """The pipeline's folder in the hub's cache, with the files that are needed fetched where they are not there. name: what a person wrote."""
    from uss_dagster.weights.files import hub_file

    suffix = f".{variant}.safetensors" if variant else ".safetensors"

    def fetch(file: str) -> Path:
        try:
            return hub_file(repository, file, revision, f"'{name}'")
        except Unavailable as error:
            reason = str(error).partition(" Set 'checkpoint'")[0]
            raise Unavailable(
                f"{reason} Set 'checkpoint' to {_LAYOUT}; or run once with a network so that {repository}/{file} lands in the cache "
                f"(HF_HOME says where); or use the backbone 'patches', which needs no weights."
            ) from None

    index = fetch("model_index.json")
    revision = index.parent.name  # the commit: all other files come from it too
    parts = {name for name, value in _json(index).items() if isinstance(value, list) and value[0] is not None}
    names = ["scheduler/scheduler_config.json"]
    for part in sorted(parts & {"unet", "vae"}):
        names += [f"{part}/config.json", f"{part}/diffusion_pytorch_model{suffix}"]
    if with_text:
        for part in sorted(parts & {"text_encoder", "text_encoder_2"}):
            names += [f"{part}/config.json", f"{part}/model{suffix}"]
        for part in sorted(parts & {"tokenizer", "tokenizer_2"}):
            names += [f"{part}/{file}" for file in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")]
    for needed in names:
        fetch(needed)
    return index.parent


def load_folder(folder: Path, variant: str | None, precision: str, conditioning: Literal["empty", "zeros"], prompt: str = "") -> Model:
    """The model of a pipeline's folder, or of a folder that holds one UNet (its scheduler beside it). precision: of the UNet."""
    from uss_dagster.torchvision_import import ensure_torchvision

    ensure_torchvision()
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel

    with _quiet():
        unet = _network(_part(folder, "unet"), (UNet2DConditionModel, UNet2DModel), variant, getattr(torch, precision))
        vae = _network(folder / "vae", (AutoencoderKL,), variant, torch.float32) if (folder / "vae").is_dir() else None
        alphas, prediction = _noise_levels(folder)
        text, pooled = _conditioning(folder, unet, variant, conditioning, prompt)
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
    by_name = {cls.__name__: cls for cls in classes}
    name = _json(folder / "config.json").get("_class_name")
    if name not in by_name:
        raise UsageError(f"'{folder}' holds a {name}, expected {' or '.join(by_name)}. Choose a UNet-based diffusion model.")
    arguments = {"low_cpu_mem_usage": False, "torch_dtype": dtype}
    return _pretrained(by_name[name], folder, "diffusion_pytorch_model", variant, arguments)


def _pretrained(cls: Any, folder: Path, stem: str, variant: str | None, arguments: Mapping[str, object]) -> Any:
    from safetensors import SafetensorError

    try:
        model, info = cls.from_pretrained(
            str(folder),
            variant=_variant(folder, stem, variant),
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **arguments,
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


def _conditioning(folder: Path, unet: Any, variant: str | None, conditioning: str, prompt: str) -> tuple[Any, Any]:
    """What the UNet's cross-attention sees (1, tokens, width) and SDXL's pooled text (1, width); None where the UNet has no use for it."""
    import torch
    from diffusers.models.attention_processor import Attention

    if not any(isinstance(module, Attention) and module.is_cross_attention for module in unet.modules()):
        if prompt:
            raise UsageError(
                f"prompt is '{prompt}', but the UNet in '{folder}' attends to no text. Leave 'prompt' out, or choose another model."
            )
        return None, None
    config = unet.config
    with_pooled = config.addition_embed_type == "text_time"
    if conditioning == "zeros":
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
    encoded = [_encoded(prompt, folder, name, variant) for name in names]
    if not with_pooled:
        return encoded[0].last_hidden_state, None
    # SDXL reads the layer before the last of each encoder, side by side, and the last encoder's projection.
    return torch.cat([output.hidden_states[-2] for output in encoded], -1), encoded[-1].text_embeds


def _encoded(prompt: str, folder: Path, name: str, variant: str | None) -> Any:
    """A text encoder's outputs for the prompt, padded or cut to the tokenizer's length as the pipelines do."""
    import torch
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    by_name = {cls.__name__: cls for cls in (CLIPTextModel, CLIPTextModelWithProjection)}
    architecture = (_json(folder / name / "config.json").get("architectures") or [None])[0]
    if architecture not in by_name:
        raise UsageError(
            f"'{folder / name}' holds a {architecture}, expected {' or '.join(by_name)}. Choose a model with CLIP text encoders."
        )
    words = folder / name.replace("text_encoder", "tokenizer")
    if not words.is_dir():
        raise UsageError(f"'{folder}' has the {name} but no {words.name}: put that folder of the same model there.")
    encoder = _pretrained(by_name[architecture], folder / name, "model", variant, {"dtype": torch.float32})
    try:
        tokenizer = CLIPTokenizer.from_pretrained(str(words), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadData(f"'{words}' is not a readable CLIP tokenizer ({error}). Copy or download that folder again.") from None
    length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
    tokens = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    with torch.inference_mode():
        return encoder(tokens, output_hidden_states=True)
