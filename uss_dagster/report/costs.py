"""What runs cost on this machine: collected from the side files of runs into one script that the page loads if it is there.

Not part of any artefact: timings differ from run to run, and the hashed page must not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uss_dagster.artifacts.run_facts import read_facts
from uss_dagster.files import write_whole
from uss_dagster.planning.layout import Layout
from uss_dagster.report import site


def write_costs(layout: Layout, scores: Iterable[tuple[str, str]]) -> None:
    """Write ``reports/costs.js`` (for the page) and ``reports/costs.csv`` (for people) from the facts of the last runs."""
    costs = read_costs(layout, scores)
    write_whole(layout.reports / "costs.js", site.costs_js(costs))
    write_whole(layout.reports / "costs.csv", site.costs_table(costs))


def read_costs(layout: Layout, scores: Iterable[tuple[str, str]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Entry → dataset → seconds an image (features included), peak memory in MiB, device, images, for (entry, dataset) pairs."""
    costs: dict[str, dict[str, dict[str, Any]]] = {}
    for entry, dataset in scores:
        facts = read_facts(layout.run_facts(f"segments/{entry}/{dataset}"))
        if not facts or facts.get("seconds_per_image") is None:
            continue
        seconds, memory, device = facts["seconds_per_image"], facts["peak_memory_mb"], facts.get("device", "cpu")
        if facts["backbone"]:
            features = read_facts(layout.run_facts(f"features/{facts['backbone']}/{dataset}")) or {}
            if features.get("seconds_per_image") is None:
                continue
            seconds, memory = seconds + features["seconds_per_image"], max(memory, features["peak_memory_mb"])
            device = features.get("device", device)
        costs.setdefault(entry, {})[dataset] = {
            "seconds_per_image": round(seconds, 3),
            "peak_memory_mb": round(memory),
            "device": device,
            "images": int(facts["images"]),
        }
    return costs
