"""What DVC itself costs a pipeline in the form that ``uss plan`` writes, with stages that do nothing.

    python benchmarks/pipeline.py [DATASETS×CELLS …]      (default: 2x20 2x100 20x100)

A cell is a stage. The commands' own time is measured alone and subtracted from the first run. Processor time includes child processes. The
targets: at most 2.5 s of processor for the status of 200 stages and for a run with nothing to do, at most 0.25 s a stage for a first run,
and at 2,000 stages at most 1.5 times the cost a stage of 200.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from dagster_dvc import DvcRunner

SIZES = ("2x20", "2x100", "20x100")
PARAMETERS = 25
REPRO = "import sys; from pathlib import Path; from dagster_dvc import DvcRunner; sys.exit(DvcRunner(Path(sys.argv[1])).repro([], print))"
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class Stage:
    """One stage: the folder of its dvc.yaml, its name there, what it reads, and the folder that it writes."""

    folder: str
    name: str
    deps: tuple[str, ...]
    out: str

    @property
    def file(self) -> str:
        return f"{self.folder or 'pipelines'}/{self.name}.yaml"

    @property
    def command(self) -> str:
        return f"mkdir -p {self.out} && cp {self.file} {self.out}/data"


def stages_of(datasets: int, cells: int) -> list[Stage]:
    """For each dataset the dataset, its features, and the segments and scores of entries; at the end the leaderboard."""
    stages: list[Stage] = []
    for dataset in (f"d{number}" for number in range(datasets)):
        images, features, folder = f"data/datasets/{dataset}", f"data/features/patches/{dataset}", f"pipelines/{dataset}"
        stages += [Stage(folder, "datasets", (), images), Stage(folder, "features-patches", (images,), features)]
        for entry in (f"e{number}" for number in range((cells - 2) // 2)):
            segments, scores = f"data/segments/{entry}/{dataset}", f"data/scores/{entry}/{dataset}"
            stages.append(Stage(f"{folder}/{entry}", "segments", (images, features), segments))
            stages.append(Stage(f"{folder}/{entry}", "scores", (images, segments), scores))
    scores = tuple(stage.out for stage in stages if stage.name == "scores")
    return [*stages, Stage("", "leaderboard", scores, "reports/leaderboard")]


def write_project(root: Path, stages: list[Stage]) -> None:
    """The files of a project, committed to git."""
    pipelines: dict[str, dict[str, object]] = {}
    for stage in stages:
        meta = {"asset": stage.out, "group": stage.name, "code_version": "0" * 16, "tags": {"stage": stage.name}}
        pipelines.setdefault(stage.folder, {})[stage.name] = {
            "desc": stage.out,
            "cmd": stage.command,
            "wdir": "/".join([".."] * len(stage.folder.split("/"))) if stage.folder else ".",
            "deps": [stage.file, *stage.deps],
            "outs": [stage.out],
            "meta": {"dagster": meta},
        }
        (root / stage.file).parent.mkdir(parents=True, exist_ok=True)
        values = {"stage": stage.name, "out": stage.out, "params": {f"parameter_{number}": number for number in range(PARAMETERS)}}
        (root / stage.file).write_text(yaml.dump(values, Dumper=_DUMPER))
    for folder, content in pipelines.items():
        (root / folder / "dvc.yaml").write_text(yaml.dump({"stages": content}, Dumper=_DUMPER, sort_keys=False, width=160))
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (root / ".gitignore").write_text("/data/\n/reports/\n/.dvc/tmp\n/.dvc/cache\n")
    subprocess.run("git init -q && git add -A && git -c user.name=a -c user.email=a@b commit -qm base", shell=True, cwd=root, check=True)


def cost(function: Callable[[], object]) -> tuple[float, float]:
    """(seconds, seconds of processor of child processes) of a call."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    function()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(datasets: int, cells: int) -> None:
    """Print one row of the table."""
    stages = stages_of(datasets, cells)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_project(root, stages)
        runner = DvcRunner(root)

        def dvc(*words: str) -> None:
            lines: list[str] = []
            if runner.run(*words, read=lines.append):
                sys.exit("\n".join(lines[-20:]))

        def commands() -> None:
            for stage in stages:
                subprocess.run(stage.command, shell=True, cwd=root, check=True)

        own, own_cpu = cost(commands)
        for folder in ("data", "reports"):
            shutil.rmtree(root / folder)
        first, first_cpu = cost(lambda: dvc("repro", "--all-pipelines"))
        _, status_cpu = cost(lambda: dvc("status", "--json"))
        _, dvc_cpu = cost(lambda: dvc("repro", "--all-pipelines"))
        _, again_cpu = cost(lambda: subprocess.run([sys.executable, "-c", REPRO, str(root)], check=True, capture_output=True))
        lines = sum(len(path.read_text().splitlines()) for path in root.rglob("dvc.lock"))
    count = len(stages)
    print(
        f"| {count} | {(first - own) / count:.3f} | {(first_cpu - own_cpu) / count:.3f} | {status_cpu:.2f} | {dvc_cpu:.2f} | {again_cpu:.2f} "
        f"| {1000 * status_cpu / count:.1f} | {1000 * again_cpu / count:.1f} | {lines} |",
        flush=True,
    )


def main() -> None:
    print(
        "| stages | first run, s a stage | of processor | status, s of processor | no-op dvc repro | uss repro | status, ms a stage | no-op | lock lines |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for size in sys.argv[1:] or SIZES:
        datasets, _, cells = size.partition("x")
        measure(int(datasets), int(cells))


if __name__ == "__main__":
    main()
