"""Time and memory of every stage on 10⁴, 10⁵ and 10⁶ tiny images.

    python benchmarks/scale.py [--images 10000,100000] [--entries 1] [--folder FOLDER] [--json FILE]
    python benchmarks/scale.py --model

A project of its own gets its dataset and its method from plug-ins of another package (``scale_plugins``). It is planned, every stage runs
as DVC would run it, with its gate, in a process of its own, and DVC commits each result. A row is an image. Seconds are those of the
processor, of a process and its children, so that they hold on a busy machine. The targets: a row costs at most 1.2 times as much at any size
as at the smallest, and no process takes more than 1.5 GB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import scale_model

from uss_dagster.planning.cells import Cell
from uss_dagster.planning.layout import Layout
from uss_dagster.planning.plan import read_plan
from uss_dagster.text import aligned

MOST_MEMORY, MOST_GROWTH = 1.5e9, 1.2
PLUGINS = Path(__file__).resolve().parent
ENTRY_POINTS = """\
[uss_dagster.datasets]
squares = scale_plugins.squares
[uss_dagster.methods]
by_colour = scale_plugins.by_colour
"""
PROFILE = """\
title: Many tiny pictures
settings: {{shard_images: 100}}
datasets:
  squares: {{images: {images}}}
metrics: [covering]
entries:
"""


@dataclass(frozen=True)
class Use:
    """What a process and its children took: seconds, seconds of processor, greatest resident bytes of one process."""

    seconds: float
    processor: float
    memory: float


def environment(scratch: Path) -> dict[str, str]:
    """The environment of a process that sees the plug-ins as an installed package."""
    installed = scratch / "plugins" / "scale_plugins-1.0.dist-info"
    installed.mkdir(parents=True, exist_ok=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: scale_plugins\nVersion: 1.0\n", encoding="utf-8")
    (installed / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    places = [str(installed.parent), str(PLUGINS), os.environ.get("PYTHONPATH", "")]
    return {"USS_WORKERS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}


def write_project(root: Path, images: int, entries: int) -> None:
    """A project that is not planned yet."""
    (root / "profiles").mkdir(parents=True)
    lines = "".join(f"  entry{number}: {{method: by_colour, params: {{shift: {number}}}}}\n" for number in range(entries))
    (root / "profiles" / "scale.yaml").write_text(PROFILE.format(images=images) + lines, encoding="utf-8")
    (root / "params.yaml").write_text("profile: scale\n", encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (root / ".gitignore").write_text("/data/\n/reports/\n/.uss/\n", encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "base"], cwd=root, check=True
    )
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    link = '[core]\n    analytics = false\n    check_update = false\n[cache]\n    type = "reflink,hardlink,symlink"\n'
    (root / ".dvc" / "config").write_text(link, encoding="utf-8")


def run(words: list[str], root: Path, env: dict[str, str]) -> Use:
    """Run a Python command in a process of its own; its output is shown only if it fails."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], cwd=root, env=env, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = status
        if status:
            output.seek(0)
            sys.exit(output.read().decode()[-3000:])
    return Use(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def measure(images: int, entries: int, folder: Path | None = None) -> dict[str, Use]:
    """What each step took: planning, each stage, and DVC for each stage. folder: where the project stays; by default it is removed."""
    scratch = Path(tempfile.mkdtemp(prefix="scale-", dir=folder))
    root, env = scratch / "project", environment(scratch)
    write_project(root, images, entries)
    uses: dict[str, Use] = {}

    def step(name: str, *words: str) -> None:
        use = uses[name] = run(list(words), root, env)
        print(
            f"{images} {name}: {use.seconds:.1f} s, {use.processor:.1f} s of processor, {use.memory / 1e6:.0f} MB",
            file=sys.stderr,
            flush=True,
        )

    try:
        step("plan", "-m", "uss_dagster.cli", "plan")
        for cell in ordered(root, env):
            step(cell.name, "-m", "uss_dagster.cli", "stage", cell.file)
            step(f"dvc commit {cell.name}", "-m", "dvc", "commit", "--force", "--quiet", cell.address)
        step("dvc status", "-m", "dvc", "status")
        report_sizes(root)
    finally:
        if folder is None:
            shutil.rmtree(scratch, ignore_errors=True)
    return uses


def ordered(root: Path, env: dict[str, str]) -> list[Cell]:
    """The planned cells, each after what it reads."""
    sys.path[:0] = env["PYTHONPATH"].split(os.pathsep)
    return list(read_plan(root).cells)


def report_sizes(root: Path) -> None:
    """Print bytes and files of each artefact."""
    layout = Layout(root)
    for cell in read_plan(root).cells:
        files = [path for path in cell.artefact(layout).rglob("*") if path.is_file()]
        print(f"{cell.name}: {sum(path.stat().st_size for path in files) / 1e6:.1f} MB in {len(files)} files", file=sys.stderr, flush=True)


def table(uses: dict[int, dict[str, Use]]) -> list[str]:
    """A line a step: milliseconds of processor a row at each size, and a further row from one size to the next (so without starting the
    process); peak memory; whether both keep within the targets.
    """
    sizes = list(uses)
    steps = list(itertools.pairwise(sizes))
    columns = [*(f"ms, {n:,}" for n in sizes), *(f"further, to {n:,}" for _, n in steps), *(f"MB, {n:,}" for n in sizes)]
    rows = []
    for name in uses[sizes[0]]:
        seconds = [uses[n][name].processor for n in sizes]
        cost = [1000 * s / n for s, n in zip(seconds, sizes, strict=True)]
        further = [1000 * (uses[b][name].processor - uses[a][name].processor) / (b - a) for a, b in steps]
        memory = [uses[n][name].memory for n in sizes]
        within = max(cost) <= MOST_GROWTH * cost[0] and max(memory) <= MOST_MEMORY
        rows.append([name, *(f"{v:.3f}" for v in (*cost, *further)), *(f"{m / 1e6:.0f}" for m in memory), "yes" if within else "no"])
    return aligned(["step", *columns, "within"], rows, right=columns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="10000,100000", help="Sizes, the smallest first.")
    parser.add_argument("--entries", type=int, default=1, help="Entries that are segmented and scored.")
    parser.add_argument("--folder", type=Path, help="Where the projects stay; by default they are removed.")
    parser.add_argument("--json", type=Path, help="Where the numbers are written too.")
    parser.add_argument("--model", action="store_true", help="Only print what many images cost, by the numbers in scale_model.py.")
    options = parser.parse_args()
    if options.model:
        print("\n".join(scale_model.tables()))
        return
    uses = {images: measure(images, options.entries, options.folder) for images in map(int, options.images.split(","))}
    print("\n".join(table(uses)))
    if options.json:
        plain = {images: {name: vars(use) for name, use in of_size.items()} for images, of_size in uses.items()}
        options.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
