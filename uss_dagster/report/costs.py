"""What runs cost on this machine, from the side files of runs: a script that pages load if it is there, and a table for people.

Not part of any artefact: timings differ from run to run, and the hashed pages must not.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from uss_dagster.artifacts.run_facts import read_facts
from uss_dagster.files import write_whole
from uss_dagster.planning.layout import Layout
from uss_dagster.report.html import packed


@dataclass(frozen=True)
class Cost:
    """What an entry's last run on a dataset took, its features included.

    Parameters
    ----------
    entry, dataset : str
        Names.
    seconds_per_image : float
        Wall-clock time of all workers together, by the number of images.
    peak_memory_mb : float
        MiB of the largest process.
    device : str
        'cpu', or the accelerator.
    images : int
        Number of images.
    """

    entry: str
    dataset: str
    seconds_per_image: float
    peak_memory_mb: float
    device: str
    images: int


def write_costs(layout: Layout, scores: Iterable[tuple[str, str]]) -> None:
    """Write ``costs.js`` (for pages) and ``costs.csv`` (for people) into the folder of the reports. scores: see ``read_costs``."""
    costs = read_costs(layout, scores)
    write_whole(layout.reports / "costs.js", costs_js(costs))
    write_whole(layout.reports / "costs.csv", costs_table(costs))


def read_costs(layout: Layout, scores: Iterable[tuple[str, str]]) -> list[Cost]:
    """Costs by entry and dataset, of those that ran on this machine. scores: (entry, dataset) of every scores cell."""
    costs = []
    for entry, dataset in sorted(scores):
        segments = read_facts(layout.run_facts(f"segments/{entry}/{dataset}")) or {}
        runs = [segments]
        if backbone := segments.get("backbone"):
            runs.append(read_facts(layout.run_facts(f"features/{backbone}/{dataset}")) or {})
        if all(run.get("seconds_per_image") is not None for run in runs):
            costs.append(
                Cost(
                    entry,
                    dataset,
                    seconds_per_image=round(sum(run["seconds_per_image"] for run in runs), 3),
                    peak_memory_mb=round(max(run["peak_memory_mb"] for run in runs)),
                    device=next((run["device"] for run in reversed(runs) if "device" in run), "cpu"),
                    images=int(segments["images"]),
                )
            )
    return costs


def costs_js(costs: Iterable[Cost]) -> str:
    """The text of ``costs.js``: entry → dataset → its other facts."""
    by_entry: dict[str, dict[str, object]] = {}
    for cost in costs:
        facts = {name: value for name, value in dataclasses.asdict(cost).items() if name not in ("entry", "dataset")}
        by_entry.setdefault(cost.entry, {})[cost.dataset] = facts
    return f"window.USS_COSTS = {packed(by_entry, indent=1)};\n"


def costs_table(costs: Iterable[Cost]) -> str:
    """The same facts as CSV, one row an entry and dataset."""
    columns = [field.name for field in dataclasses.fields(Cost)]
    return pd.DataFrame(list(costs), columns=columns).to_csv(index=False, lineterminator="\n")
