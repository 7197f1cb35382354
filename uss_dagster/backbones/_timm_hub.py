"""Where timm's pretrained weights lie on the hub."""

from __future__ import annotations

from typing import Any

from uss_dagster.errors import UsageError


def hub_location(config: Any, name: str, model: str, revision: str | None) -> tuple[str, str, str | None]:
    """Repository, file and revision of weights on the hub.

    Parameters
    ----------
    config : timm.models.PretrainedCfg or None
        What timm knows of the weights.
    name : str
        timm's name.
    model : str
        What a person wrote.
    revision : str or None
        Commit that a person asks for; None for timm's own, where it has one.
    """
    if config is None or not config.hf_hub_id:
        raise UsageError(
            f"The hub has no weights of '{model}' that timm knows. Set 'checkpoint' to a local .safetensors file, "
            f"or name weights that it has, as in 'timm:vit_tiny_patch16_224.augreg_in21k'."
        )
    # timm's repositories hold a safetensors twin of each pickle, and its table names the pickle.
    filename = (config.hf_hub_filename or "model.safetensors").replace("pytorch_model.bin", "model.safetensors")
    if not filename.endswith(".safetensors"):
        raise UsageError(f"The hub has only a pickle of '{name}' ({filename}), which is never opened. Set 'checkpoint' to a .safetensors.")
    repository, _, pinned = config.hf_hub_id.partition("@")
    return repository, filename, revision or pinned or None
