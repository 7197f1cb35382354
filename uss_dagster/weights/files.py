"""Weight files: a local ``.safetensors``, or a file of the hub at a revision; never a pickle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from uss_dagster.errors import BadData, Unavailable, UsageError

if TYPE_CHECKING:
    from torch import Tensor

_CONNECT_SECONDS = 8


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


def read_tensors(path: Path, what: str = "checkpoint") -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file for torch, on the CPU. what: what the file is, for the message."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadData(f"{what} '{path}' is not a readable .safetensors file ({error}). Download or convert it again.") from None


def hub_file(repository: str, filename: str, revision: str | None, owner: str) -> Path:
    """A file of the hub, from the local cache if it is there.

    Without a revision the commit that was used is printed on stderr, so that it can be pinned.

    Parameters
    ----------
    repository, filename : str
    revision : str or None
        Commit, tag or branch. None is the newest.
    owner : str
        What the file belongs to, for messages.

    Raises
    ------
    Unavailable
        If the file is not in the cache and cannot be downloaded.
    UsageError
        If the repository has no such revision.
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


def download_command(repository: str, filename: str, revision: str | None) -> str:
    """The command that puts a file of the hub into the local cache; '' where it is there."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(repository, filename, revision=revision), str):
        return ""
    return f"hf download {repository}{'' if revision is None else f' --revision {revision}'}"


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
