"""Runs one cell of one stage: reads its row of the grid, refuses stale code, calls the stage, keeps the facts of the run."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

from uss_dagster.artifacts import gate
from uss_dagster.artifacts.run_facts import facts_path, write_facts
from uss_dagster.errors import Unavailable, UsageError, did_you_mean
from uss_dagster.planning import plan
from uss_dagster.planning.cells import expected_code
from uss_dagster.runtime import peak_memory_mb

NO_GPU = "USS_NO_GPU"
"""Environment variable: stages of the pool ``gpu`` are taken from DVC's caches or refused, never computed. For machines of CI."""


def run_cell(stage: str, key: str, root: Path) -> None:
    """Produce and publish one artefact. Every error leaves what was published before as it was."""
    grid = plan.read_grid(root)
    if stage not in plan.STAGES:
        raise UsageError(f"Unknown stage '{stage}'.{did_you_mean(stage, plan.STAGES)}")
    cells = {stage: grid[stage]} if stage in ("leaderboard", "site") else grid.get(stage) or {}
    if key not in cells:
        raise UsageError(
            f"{plan.GRID} has no cell '{key}' of stage '{stage}'.{did_you_mean(key, cells)} If you just added it, run `uss plan`."
        )
    cell = cells[key]
    if cell.get("pool") == "gpu" and os.environ.get(NO_GPU):
        raise Unavailable(
            f"{stage} '{key}' is not computed here ({NO_GPU} is set), and the run cache does not have it. Run it on a machine with a GPU, then "
            "`dvc push --run-cache` there."
        )
    if cell["code"] != expected_code(stage, cell):
        raise UsageError(
            f"The code of {stage} '{key}' is not the code that {plan.GRID} was planned with. Run `uss plan`, then this again "
            "(`uss repro` does both)."
        )
    module = importlib.import_module(f"uss_dagster.stages.{stage}")
    gate.warm()
    started = time.perf_counter()
    facts: dict[str, Any] = module.produce(key, cell, root) or {}
    facts = {"seconds": round(time.perf_counter() - started, 3), "peak_memory_mb": round(peak_memory_mb(), 1), **facts}
    write_facts(root, stage, key, facts)
    if stage in ("segments", "pool", "curated"):
        from uss_dagster.report import previews

        draw = {"segments": previews.write_segments_preview, "pool": previews.write_pool_preview, "curated": previews.write_curated_preview}
        draw[stage](root, cell, facts_path(root, stage, key).with_suffix(".png"))
