"""Facts about runs: seconds, memory, rows, library versions. Side files that no artefact's hash knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uss_dagster.files import read_json, write_whole

LIBRARIES = ("numpy", "scipy", "scikit-image", "scikit-learn", "pillow", "torch", "timm", "pyarrow")
"""Libraries whose arithmetic a result may depend on."""


def write_facts(path: Path, facts: Mapping[str, object]) -> None:
    """Write the facts of a run, replacing those of the run before."""
    write_whole(path, json.dumps({**facts, "libraries": library_versions()}, indent=1, sort_keys=True) + "\n")


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of the last run on this machine, or None (never run here, or restored from the cache)."""
    return read_json(path) or None


def library_versions() -> dict[str, str]:
    """Name → installed version of ``LIBRARIES``."""
    from importlib.metadata import version

    return {name: version(name) for name in LIBRARIES}
