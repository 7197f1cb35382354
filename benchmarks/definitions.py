"""How long Dagster's definitions take to load, and a refresh that finds nothing to do, beside what DVC alone needs to say as much.

    python benchmarks/definitions.py [CELLS …]      (default: 200 2000)

A cell is an entry on a dataset; each is two stages, and there are some more. The project is generated, its outputs are stand-ins of a few
bytes that DVC is told to take as built. The refresh is measured up to 400 cells: telling DVC takes long.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
DATASETS = 10
MOST_BUILT = 400
COPIED = ("dvc.yaml", "workspace.yaml", "dagster.yaml", ".dvcignore", ".gitignore", "uss_dagster", "constraints.txt")


def make_project(root: Path, cells: int) -> None:
    """A planned project: ``cells`` entries on datasets, half of them with features."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copyfile(source, root / name)
    (root / ".dvc").mkdir()
    shutil.copyfile(ROOT / ".dvc/config", root / ".dvc/config")
    entries: dict[str, dict] = {}
    for number in range(cells // DATASETS):
        plain = {"method": "felzenszwalb", "params": {"scales": 2 + number}}
        entries[f"e{number}"] = plain if number % 2 else {"method": "kmeans", "backbone": "patches", "params": {"k": 2 + number}}
    profile = {
        "title": "Generated",
        "settings": {"bootstrap": 2},
        "datasets": {f"d{number}": {"kind": "scenes", "images": 2, "seed": number} for number in range(DATASETS)},
        "metrics": ["covering"],
        "entries": entries,
    }
    (root / "profiles").mkdir()
    (root / "profiles/generated.yaml").write_text(yaml.safe_dump(profile))
    (root / "params.yaml").write_text("profile: generated\n")
    run(root, ["git", "init", "-q"])
    run(root, [sys.executable, "-m", "uss_dagster.cli", "plan"])


def build(root: Path) -> None:
    """Stand-ins for all outputs, and a dvc.lock that knows them."""
    from uss_dagster.dagster_dvc import DvcProject

    for stage in DvcProject(root).stages.values():
        for path in (*stage.outs, *stage.deps):
            inside = (
                ("images/images.parquet", "images/shard-00000.tar", "truth/classes.json", "manifest.json")
                if "datasets/" in path
                else ("x",)
            )
            target = root / path
            if target.suffix:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text("{}")
            elif stage.outs and path in stage.outs:
                for name in inside:
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    (target / name).write_text(path)
    run(root, [sys.executable, "-m", "dvc", "commit", "--force", "--quiet"])


def run(root: Path, words: list[str]) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    env = {**os.environ, "PYTHONPATH": str(root), "PATH": path, "DVC_NO_ANALYTICS": "1"}
    subprocess.run(words, cwd=root, env=env, check=True, stdout=subprocess.DEVNULL)


def measured(what: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds, those of child processes included."""
    started, before = time.perf_counter(), spent()
    what()
    return time.perf_counter() - started, spent() - before


def spent() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def show(what: str, took: tuple[float, float], beside: tuple[float, float], other: str) -> None:
    print(
        f"  {what:<34} {took[0]:6.1f} s ({took[1]:6.1f} s of processor)   {other}: {beside[0]:6.1f} s ({beside[1]:6.1f} s)   ×{took[1] / beside[1]:.2f}",
        flush=True,
    )


REFRESH = """
import sys, uss_dagster.definitions as d, dagster as dg
schedule = d.defs.get_repository_def().get_schedule_def("leaderboard_refresh")
import time, resource
with dg.DagsterInstance.ephemeral() as instance:
    started = time.perf_counter()
    cpu = sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (0, -1)))
    said = schedule.evaluate_tick(dg.build_schedule_context(instance=instance))
    cpu = sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (0, -1))) - cpu
    assert not said.run_requests and said.skip_message == "Everything is in step with DVC.", said
    print(time.perf_counter() - started, cpu)
"""


def main() -> None:
    for cells in map(int, sys.argv[1:] or ("200", "2000")):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "project"
            root.mkdir()
            make_project(root, cells)
            print(f"{cells} cells", flush=True)
            load = measured(lambda: run(root, [sys.executable, "-c", "import uss_dagster.definitions"]))  # noqa: B023
            listed = measured(lambda: run(root, [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"]))  # noqa: B023
            show("definitions load", load, listed, "dvc stage list")
            if cells <= MOST_BUILT:
                build(root)
                env = {**os.environ, "PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1"}
                done = subprocess.run([sys.executable, "-c", REFRESH], cwd=root, env=env, check=True, capture_output=True, text=True)
                wall, processor = map(float, done.stdout.split()[-2:])
                status = measured(lambda: run(root, [sys.executable, "-m", "dvc", "status", "--json"]))  # noqa: B023
                show("refresh with nothing to do", (wall, processor), status, "dvc status    ")


if __name__ == "__main__":
    main()
