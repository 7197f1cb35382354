"""How long Dagster's definitions take to load, and a refresh that finds nothing to do, beside what DVC alone needs to say as much.

    python benchmarks/definitions.py [CELLS …]      (default: 200 2000)

A cell is an entry on a dataset; each is two stages, and there are some more. The project is generated, its outputs are stand-ins of a few
bytes that DVC takes as built. Definitions load twice: as the first process does, and as the next ones do, which find the stages that it kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
DATASETS = 10
COPIED = ("workspace.yaml", "dagster.yaml", ".dvcignore", ".gitignore", "uss_dagster", "dagster_dvc", "constraints.txt")


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
    (root / "dvc.yaml").write_text("stages: {}\n")
    run(root, ["git", "init", "-q"])
    run(root, [sys.executable, "-m", "uss_dagster.cli", "plan"])


def build(root: Path) -> None:
    """Stand-ins for all outputs, and the dvc.lock files that DVC would write for them (``dvc commit`` takes a second a stage)."""
    from dagster_dvc import DvcProject

    stages = DvcProject(root).stages
    outs = {out for stage in stages.values() for out in stage.outs}
    paths = outs | {dep for stage in stages.values() for dep in stage.deps}
    folders = {str(above) for path in paths for above in Path(path).parents}
    for path in sorted(path for path in paths if not (root / path).exists()):
        target = root / path
        if path in folders:
            target.mkdir(parents=True, exist_ok=True)
        elif target.suffix or path not in outs:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("{}")
        else:
            target.mkdir(parents=True, exist_ok=True)
            (target / "x").write_text(path)
    locks: dict[str, dict[str, Any]] = {}
    for address, stage in stages.items():
        file, _, name = address.rpartition(":")
        entry = {"cmd": stage.cmd, "deps": [hashed(root, path) for path in stage.deps], "outs": [hashed(root, path) for path in stage.outs]}
        locks.setdefault(os.path.dirname(file), {})[name] = entry
    for folder, entries in locks.items():
        text = yaml.dump({"schema": "2.0", "stages": entries}, Dumper=yaml.CSafeDumper, sort_keys=False)
        (root / folder / "dvc.lock").write_text(text)


def hashed(root: Path, path: str) -> dict[str, Any]:
    """An output or dependency as dvc.lock records it; DVC's cache gets its content."""
    target = root / path
    if target.is_file():
        data = target.read_bytes()
        return {"path": path, "hash": "md5", "md5": stored(root, data), "size": len(data)}
    files = sorted(p for p in target.rglob("*") if p.is_file())
    listed = [{"md5": stored(root, p.read_bytes()), "relpath": p.relative_to(target).as_posix()} for p in files]
    digest = stored(root, json.dumps(listed, sort_keys=True).encode(), ".dir")
    return {"path": path, "hash": "md5", "md5": digest, "size": sum(p.stat().st_size for p in files), "nfiles": len(files)}


def stored(root: Path, data: bytes, ending: str = "") -> str:
    """The hash under which DVC's cache holds some content."""
    digest = hashlib.md5(data).hexdigest() + ending
    path = root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return digest


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
import resource, tempfile, time
with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
    started = time.perf_counter()
    cpu = sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (0, -1)))
    said = schedule.evaluate_tick(dg.build_schedule_context(instance=instance, repository_def=d.defs.get_repository_def()))
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
            imported = measured(lambda: run(root, [sys.executable, "-c", "import dagster"]))  # noqa: B023
            show("of that, `import dagster`", imported, listed, "dvc stage list")
            again = measured(lambda: run(root, [sys.executable, "-c", "import uss_dagster.definitions"]))  # noqa: B023
            show("definitions load again", again, listed, "dvc stage list")
            build(root)
            env = {**os.environ, "PYTHONPATH": str(root), "DVC_NO_ANALYTICS": "1"}
            done = subprocess.run([sys.executable, "-c", REFRESH], cwd=root, env=env, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            wall, processor = map(float, done.stdout.split()[-2:])
            status = measured(lambda: run(root, [sys.executable, "-m", "dvc", "status", "--json"]))  # noqa: B023
            show("refresh with nothing to do", (wall, processor), status, "dvc status    ")


if __name__ == "__main__":
    main()
