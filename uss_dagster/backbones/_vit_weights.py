"""Weights for timm vision transformers: read a ``.safetensors`` file, translate its names, check that it fits the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uss_dagster.errors import BadData
from uss_dagster.weights.files import read_tensors

_WRAPPERS = ("module.base_encoder.", "teacher.backbone.", "module.backbone.", "module.", "backbone.")
"""Prefixes that published training code puts before the encoder's own names (MoCo-v3, DINO, DDP)."""


def load_weights(model: Any, path: Path) -> None:
    """Fill a timm vision transformer (built without a head) from a ``.safetensors`` file, refusing one that does not fit.

    Names of the original releases (DINO, DINOv2, CLIP, MoCo-v3, MAE) are translated by timm; a positional embedding of another
    grid is resampled, as timm does; heads are dropped. Anything else missing, left over or of another shape is refused.
    """
    from timm.models import eva, vision_transformer

    state = read_tensors(path)
    for prefix in _WRAPPERS:
        if any(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
            break
    patch = state.get("patch_embed.proj.weight")
    expected_shape = model.patch_embed.proj.weight.shape
    if patch is not None and patch.shape != expected_shape:
        raise BadData(_misfit(path, [f"patch_embed.proj.weight is {tuple(patch.shape)}, the model's is {tuple(expected_shape)}"]))
    try:
        translate = eva.checkpoint_filter_fn if isinstance(model, eva.Eva) else vision_transformer.checkpoint_filter_fn
        state = translate(state, model)
    except (KeyError, RuntimeError, ValueError, AssertionError, AttributeError, IndexError) as error:
        raise BadData(_misfit(path, [f"{type(error).__name__} while translating its names: {error}"])) from None
    state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    expected = model.state_dict()
    faults = [f"{name} is missing" for name in expected if name not in state]
    faults += [f"{name} is not in the model" for name in state if name not in expected]
    faults += [
        f"{name} is {tuple(state[name].shape)}, the model's is {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        raise BadData(_misfit(path, faults))
    model.load_state_dict(state)


def _misfit(path: Path, faults: list[str], most: int = 3) -> str:
    more = f" and {len(faults) - most} more" if len(faults) > most else ""
    return f"checkpoint '{path}' does not fit this model: {'; '.join(faults[:most])}{more}. Choose the 'model' these weights were made for."
