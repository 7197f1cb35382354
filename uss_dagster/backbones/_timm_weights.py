"""Weights for timm models: read a ``.safetensors`` file, translate its names, check that it fits the model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from uss_dagster.errors import BadData
from uss_dagster.weights.files import read_tensors

_WRAPPERS = ("module.base_encoder.", "teacher.backbone.", "module.backbone.", "module.", "backbone.")
"""Prefixes that published training code puts before the encoder's own names (MoCo-v3, DINO, DDP)."""
_HEADS = ("head.", "fc.", "classifier.")
"""Prefixes of what follows the encoder in timm's models."""


def load_weights(model: Any, path: Path, what: str = "checkpoint", model_setting: str = "model") -> None:
    """Fill a timm model (built without a head) from a ``.safetensors`` file, refusing one that does not fit.

    Names of the original releases (such as DINOv2, CLIP, MAE, Swin, ConvNeXt) are translated by timm; a positional embedding of another
    grid is resampled, as timm does; heads are dropped. Anything else missing, left over or of another shape is refused.

    Parameters
    ----------
    model : torch.nn.Module
    path : Path
    what, model_setting : str
        The settings that name the file and the model, for messages.
    """
    state = read_tensors(path, what)

    def misfit(faults: list[str], most: int = 3) -> BadData:
        more = f" and {len(faults) - most} more" if len(faults) > most else ""
        list_of_faults = "; ".join(faults[:most]) + more
        return BadData(
            f"{what} '{path}' does not fit this model: {list_of_faults}. Choose the '{model_setting}' these weights were made for."
        )

    for prefix in _WRAPPERS:
        if any(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
            break
    expected = model.state_dict()
    patch = "patch_embed.proj.weight"  # timm would resample it
    if patch in state and patch in expected and state[patch].shape != expected[patch].shape:
        raise misfit([f"{patch} is {tuple(state[patch].shape)}, the model's is {tuple(expected[patch].shape)}"])
    try:
        translate = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        state = translate(state, model) if translate else state
    except (KeyError, RuntimeError, ValueError, AssertionError, AttributeError, IndexError) as error:
        raise misfit([f"{type(error).__name__} while translating its names: {error}"]) from None
    state = {name: tensor for name, tensor in state.items() if name in expected or not name.startswith(_HEADS)}
    faults = [f"{name} is missing" for name in expected if name not in state]
    faults += [f"{name} is not in the model" for name in state if name not in expected]
    faults += [
        f"{name} is {tuple(state[name].shape)}, the model's is {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        raise misfit(faults)
    model.load_state_dict(state)
