"""A stage on Dask workers beside one process and beside worker processes.

    python benchmarks/cluster.py [--images 96] [--workers 2] [--rounds 2]

In a project of its own, the segments of ``contour_merge`` on drawn scenes are computed anew each time (nothing is reused), by one process, by
``--workers`` processes, by as many local Dask workers that the stage starts, and by as many that run already, on this disk and without it (where
``unshare`` can hide the results). Rounds alternate; the fastest of each way counts. Seconds are those of the whole command, and those that the stage
says; the bytes must be the same each time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uss_dagster.hashing import dvc_hash
from uss_dagster.planning.layout import Layout

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from dask_servers import hiding, servers
from projects import make_project

PROFILE = """\
settings: {{shard_images: 6}}
datasets:
  scenes: {{images: {images}}}
metrics: [covering]
entries:
  contour_merge: {{}}
"""
CELL, FILE = "segments/contour_merge/scenes", "pipelines/scenes/contour_merge/segments.yaml"

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2), "MALLOC_TRIM_THRESHOLD_": str(128 * 1024**2)}


@contextmanager
def running_cluster(folder: Path, workers: int, prefix: list[str]) -> Iterator[str]:
    """Address of a scheduler with workers, started as docs/deployment.md says."""
    with servers(folder, prefix, {**os.environ, **MALLOC}) as started:
        for _ in range(workers):
            started.start_worker()
        time.sleep(8)
        yield started.address


def main() -> None:
    parser = argparse.ArgumentParser(description="A stage on Dask workers beside one process and beside worker processes.")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    number = arguments.workers
    ways: dict[str, dict[str, str]] = {
        "one process": {"USS_WORKERS": "1"},
        f"{number} processes": {"USS_WORKERS": str(number)},
        f"{number} Dask workers, started by the stage": {"USS_CLUSTER": f"local:{number}"},
    }
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder, "project"), PROFILE.format(images=arguments.images))
        project.uss("repro", CELL)
        layout = Layout(project.root)
        expected = dvc_hash(layout.data(CELL))
        hidden = hiding(project.root / "data", project.root / ".uss")
        with running_cluster(Path(folder, "shared"), number, []) as shared, running_cluster(Path(folder, "apart"), number, hidden) as apart:
            ways[f"{number} Dask workers that run"] = {"USS_CLUSTER": shared}
            if hidden:
                ways[f"{number} Dask workers that run, without the disk"] = {"USS_CLUSTER": apart}
            fastest: dict[str, tuple[float, float]] = {}
            for way, environment in list(ways.items()) * arguments.rounds:
                started = time.perf_counter()
                project.uss("stage", FILE, cold=True, USS_REUSE="0", **environment)
                seconds = time.perf_counter() - started
                said = json.loads(layout.run_facts(CELL).read_text(encoding="utf-8"))["seconds"]
                assert dvc_hash(layout.data(CELL)) == expected, f"{way}: other bytes"
                fastest[way] = min(fastest.get(way, (seconds, said)), (seconds, said))
    one = fastest["one process"]
    print(f"{CELL}, {arguments.images} images, the same bytes each time\n{'':46}{'command':>9}{'ratio':>7}{'stage':>9}{'ratio':>7}")
    for way, (seconds, said) in fastest.items():
        print(f"{way:46}{seconds:8.1f} s{one[0] / seconds:7.2f}{said:8.1f} s{one[1] / said:7.2f}")


if __name__ == "__main__":
    main()
