"""What runs cost on this machine: collected from the side files of runs into one script that the page loads if it is there.

Not part of any artefact: timings differ from run to run, and the hashed page must not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uss_dagster.artifacts.run_facts import read_facts
from uss_dagster.files import write_whole
from uss_dagster.planning.yaml_files import YamlFile
from uss_dagster.report import site


def write_costs(root: Path) -> None:
    """Write ``reports/costs.js`` (for the page) and ``reports/costs.csv`` (for people) from the facts of the last runs."""
    costs = read_costs(root)
    write_whole(root / "reports" / "costs.js", site.costs_js(costs))
    write_whole(root / "reports" / "costs.csv", site.costs_table(costs))


def read_costs(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Entry → dataset → seconds an image (features included), peak memory in MiB, device, images."""
    costs: dict[str, dict[str, dict[str, Any]]] = {}
    for key, cell in YamlFile(root / "grid.yaml").data["grid"]["segments"].items():
        facts = read_facts(root, "segments", key)
        if not facts or facts.get("seconds_per_image") is None:
            continue
        seconds, memory, device = facts["seconds_per_image"], facts["peak_memory_mb"], facts.get("device", "cpu")
        if cell["backbone"]:
            of_features = read_facts(root, "features", f"{cell['backbone']}__{cell['dataset']}") or {}
            if of_features.get("seconds_per_image") is None:
                continue
            seconds, memory = seconds + of_features["seconds_per_image"], max(memory, of_features["peak_memory_mb"])
            device = of_features.get("device", device)
        costs.setdefault(cell["entry"], {})[cell["dataset"]] = {
            "seconds_per_image": round(seconds, 3),
            "peak_memory_mb": round(memory),
            "device": device,
            "images": int(facts["images"]),
        }
    return costs
