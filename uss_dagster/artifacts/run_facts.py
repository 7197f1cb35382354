"""Facts about runs: seconds, memory, rows, library versions. Side files that no artefact's hash knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from uss_dagster.artifacts.staging import PRIVATE
from uss_dagster.files import write_whole


def facts_path(root: Path, stage: str, key: str) -> Path:
    """Where the facts of the last run of a cell lie."""
    return root / PRIVATE / "runs" / stage / f"{key}.json"


def write_facts(root: Path, stage: str, key: str, facts: dict[str, Any]) -> None:
    """Keep the facts of a run, replacing those of the run before."""
    text = json.dumps({**facts, "libraries": libraries()}, indent=1, sort_keys=True) + "\n"
    write_whole(facts_path(root, stage, key), text)


def libraries() -> dict[str, str]:
    """Versions of the libraries whose arithmetic a result may depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("numpy", "scipy", "scikit-image", "scikit-learn", "pillow", "torch", "timm", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # pragma: no cover - all are required
            continue
    return found


def read_facts(root: Path, stage: str, key: str) -> dict[str, Any] | None:
    """The facts of the last run of a cell on this machine, or None (never run here, or restored from the cache)."""
    try:
        found: dict[str, Any] = json.loads(facts_path(root, stage, key).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found
