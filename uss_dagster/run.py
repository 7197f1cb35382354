"""Runs one cell: reads its parameter file, refuses outdated code, computes, writes the facts of the run and a preview."""

from __future__ import annotations

import os
import pkgutil
import time
from contextlib import nullcontext
from pathlib import Path

from uss_dagster.artifacts import gate
from uss_dagster.artifacts.devices import leased_devices
from uss_dagster.artifacts.run_facts import write_facts
from uss_dagster.artifacts.verified_reads import verify_reads
from uss_dagster.errors import Unavailable, UsageError
from uss_dagster.files import write_whole
from uss_dagster.planning.cells import Cell
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import read_cell
from uss_dagster.runtime import peak_memory_mb

NO_GPU = "USS_NO_GPU"
"""Environment variable: cells of the pool ``gpu`` are taken from DVC's caches or refused, never computed. For machines of CI."""


def run_cell(file: str, root: Path) -> None:
    """Compute and publish the artefact of one cell. Every error leaves what was published before as it was.

    Parameters
    ----------
    file
        The cell's parameter file, from the project folder.
    root
        The project folder.
    """
    cell, layout = read_cell(root, file), Layout(root)
    if cell.pool == "gpu" and os.environ.get(NO_GPU):
        raise Unavailable(
            f"{cell.name} is not computed here ({NO_GPU} is set), and the run cache does not have it. Run it on a machine with a GPU, then "
            "`dvc push --run-cache` there."
        )
    if cell.code != cell.expected_code():
        raise UsageError(
            f"The code of {cell.name} is not the code that {file} was planned with. Run `uss plan`, then this again (`uss repro` does both)."
        )
    compute(cell, layout)


def compute(cell: Cell, layout: Layout) -> None:
    """Compute and publish the artefact of a cell; write the facts of the run and a preview."""
    gate.warm()
    started = time.perf_counter()
    verify_reads(cell.inputs(layout), layout.root)
    verified = time.perf_counter()
    with leased_devices(cell.most_devices) if cell.pool == "gpu" else nullcontext():
        facts = cell.run(layout)
    seconds = {"seconds": round(time.perf_counter() - verified, 3), "seconds_verifying": round(verified - started, 4)}
    cost = {**seconds, "peak_memory_mb": round(peak_memory_mb(), 1)}
    write_facts(layout.run_facts(cell.name), {**cost, **facts})
    _write_preview(cell, layout)


def _write_preview(cell: Cell, layout: Layout) -> None:
    if cell.preview_by is None:
        return
    picture = pkgutil.resolve_name(cell.preview_by)(cell, layout)
    if picture is not None:
        write_whole(layout.preview(cell.name), picture)
