"""Weights for timm models: from a local ``.safetensors`` or from the hub at a revision, never from a pickle.

Belongs here: finding the file, reading it, fitting its names to the model, and the sentence a person reads when one
of these fails. Does not belong here: building the model.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from uss_dagster.errors import BadData, Unavailable, UsageError

_CONNECT_SECONDS = 8
_WRAPPERS = ("module.base_encoder.", "teacher.backbone.", "module.backbone.", "module.", "backbone.")
"""Prefixes that published training code puts before the encoder's own names (MoCo-v3, DINO, DDP)."""


def local_file(checkpoint: str) -> Path:
    """The path of a local checkpoint; a pickle or a missing file is refused."""
    path = Path(checkpoint).expanduser()
    if path.suffix != ".safetensors":
        raise UsageError(
            f"checkpoint '{checkpoint}' is not a .safetensors file: pickles can run code, so they are never opened; convert it "
            f"where you trust it with safetensors.torch.save_file(torch.load(file, weights_only=True), 'model.safetensors')."
        )
    if not path.is_file():
        raise UsageError(f"checkpoint '{checkpoint}' does not exist. Give the path of a local .safetensors file.")
    return path


def hub_file(repository: str, filename: str, revision: str | None, owner: str) -> Path:
    """A hub file at a revision (None: the newest), from the local cache where it is there already.

    Without a pin the commit that was used is said on stderr, so that it can be pinned.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, RevisionNotFoundError

    get_it = (
        f"Set 'checkpoint' to a local .safetensors file, or run once with a network so that {repository}/{filename} "
        f"lands in the cache (HF_HOME says where), or use the backbone 'patches', which needs no weights."
    )
    try:
        path = Path(hf_hub_download(repository, filename, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        if constants.HF_HUB_OFFLINE:
            raise Unavailable(f"The weights of {owner} are not in the cache and HF_HUB_OFFLINE is set. {get_it}") from None
        if not _reachable(constants.ENDPOINT):
            raise Unavailable(f"The weights of {owner} are not in the cache and {constants.ENDPOINT} cannot be reached. {get_it}") from None
        try:
            path = Path(hf_hub_download(repository, filename, revision=revision, etag_timeout=_CONNECT_SECONDS))
        except RevisionNotFoundError:
            raise UsageError(
                f"{repository} has no revision '{revision}'. Give a commit of that repository, or leave 'revision' out."
            ) from None
        except (EntryNotFoundError, HfHubHTTPError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise Unavailable(f"The weights of {owner} could not be downloaded ({reason}). {get_it}") from None
    if revision is None:
        print(f"weights of {owner}: {repository} at {path.parent.name}; set 'revision' to it to stay there", file=sys.stderr)
    return path


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers at all. Asked first because the hub's client retries for half a minute."""
    import ssl
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_CONNECT_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # the hub's client may have other certificates
    except OSError:
        return False
    return True


def load_weights(model: Any, path: Path) -> None:
    """Fill a timm ``VisionTransformer`` (built without a head) from a ``.safetensors`` file, refusing one that does not fit.

    Names of the original releases (DINO, DINOv2, CLIP, MoCo-v3, MAE) are translated by timm; a positional embedding of another
    grid is resampled, as timm does; heads are dropped. Anything else missing, left over or of another shape is refused.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from timm.models.vision_transformer import checkpoint_filter_fn

    try:
        state = load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise BadData(f"checkpoint '{path}' is not a readable .safetensors file ({error}). Download or convert it again.") from None
    for prefix in _WRAPPERS:
        if any(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
            break
    patch = state.get("patch_embed.proj.weight")
    want = model.patch_embed.proj.weight.shape
    if patch is not None and patch.shape != want:
        raise BadData(_misfit(path, [f"patch_embed.proj.weight is {tuple(patch.shape)}, the model's is {tuple(want)}"]))
    try:
        state = checkpoint_filter_fn(state, model)
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


def _misfit(path: Path, faults: list[str], shown: int = 3) -> str:
    more = f" and {len(faults) - shown} more" if len(faults) > shown else ""
    return (
        f"checkpoint '{path}' does not fit this model: {'; '.join(faults[:shown])}{more}. Choose the 'model' these weights were made for."
    )
