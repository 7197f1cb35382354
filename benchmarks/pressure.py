"""Kills and damage: does the next command give the same bytes, and is what is damaged named and never used?

    python benchmarks/pressure.py [--kills 30] [--damages 40] [--seed 0]

A small project is computed once without a disturbance. Then ``uss repro`` is killed with all its processes (SIGKILL) at random moments of its
run, each time in a project in which nothing is computed, and run again: it has to end with 0, with the same dvc.lock files and the same bytes.

Then one file is damaged at a time, of the results (half of these leave its copy in DVC's cache whole) or of the cache. ``uss verify`` has to name it,
and each stage that reads it has to refuse (65, or 75 where it is missing) or to give the same bytes; outputs whose cache is damaged are checked out
from it first. Missing and additional objects in the cache change no result: ``uss verify`` has to find all results whole.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from dagster_dvc import DvcProject
from uss_dagster.artifacts.dvc_cache import cache_folder
from uss_dagster.planning.plan import read_plan
from uss_dagster.stage_server import stage_server
from uss_dagster.text import aligned

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from projects import Project, make_project

PROFILE = """\
title: A few small pictures
settings: {shard_images: 1, bootstrap: 20, samples: 2}
datasets:
  scenes: {images: 3}
backbones:
  patches: {dictionary: false}
metrics: [covering]
entries:
  slic_merge: {backbone: patches, params: {superpixels: 60}}
"""
USS = [sys.executable, "-m", "uss_dagster.cli"]
RESTORED = "its last good copy was restored"
REFUSALS = (65, 75)
"""Exit codes of a stage that reads what is damaged, and of one that reads what is missing."""
HARMLESS = {("cache", "deleted"), ("cache", "added")}
"""Damages of the cache that no result can feel."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="Number of runs that are killed.")
    parser.add_argument("--damages", type=int, default=40, help="Number of files that are damaged.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of moments, files and kinds of damage.")
    options = parser.parse_args()
    generator = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        planned, computed = make_project(place / "planned", PROFILE), place / "computed"
        for root in (place / "warm", computed):  # numba's compiled code is kept beside the source, for the runs after the first
            copy(planned.root, root)
            started = time.perf_counter()
            uss(root, "repro")
            seconds = time.perf_counter() - started
            shutil.copytree(root / "uss_dagster", planned.root / "uss_dagster", dirs_exist_ok=True)
        say(f"undisturbed: {seconds:.1f} s")
        wrong = kills(planned.root, computed, options.kills, seconds, generator) + damages(computed, options.damages, generator)
    sys.exit(min(wrong, 1))


# -- kills ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Killed:
    """A run that was killed, and the one after it.

    Parameters
    ----------
    seconds
        When it was killed.
    cell
        The cell that DVC ran then; empty before the first one.
    recorded
        Cells that dvc.lock files recorded.
    shards
        Stored shards of cells.
    restored
        Locks that the next run restored from their copies.
    recorded_again, shards_again
        Recorded cells and stored shards that the next run computed again.
    wrong
        What the next run did wrong; empty where nothing.
    """

    seconds: float
    cell: str
    recorded: int
    shards: int
    restored: int
    recorded_again: int
    shards_again: int
    wrong: str


def kills(planned: Path, computed: Path, count: int, seconds: float, generator: random.Random) -> int:
    """Kill runs at random moments and print a table; returns how many of the next runs did something wrong."""
    runs: list[Killed] = []
    while len(runs) < count:
        run = kill(planned, computed, generator.uniform(0, seconds))
        if run is not None:
            runs.append(run)
            say(f"kill {len(runs)}: {run}")
    rows = [
        [
            f"{run.seconds:.1f}",
            run.cell,
            *map(str, (run.recorded, run.recorded_again, run.shards, run.shards_again, run.restored)),
            run.wrong,
        ]
        for run in sorted(runs, key=lambda run: run.seconds)
    ]
    header = ["killed after s", "in cell", "recorded", "again", "shards", "again ", "locks restored", "wrong"]
    print(*aligned(header, rows, right=header[:1] + header[2:7]), sep="\n")
    right = sum(not run.wrong for run in runs)
    print(
        f"{count} kills: {right} times exit 0 with the same locks and bytes; restored locks {sum(run.restored > 0 for run in runs)}; recorded "
        f"cells computed again {sum(run.recorded_again for run in runs)} of {sum(run.recorded for run in runs)}, "
        f"stored shards computed again {sum(run.shards_again for run in runs)} of {sum(run.shards for run in runs)}"
    )
    return count - right


def kill(planned: Path, computed: Path, moment: float) -> Killed | None:
    """Kill a run and start the next; None where the run had ended by then."""
    root = computed.with_name("killed")
    copy(planned, root)
    with tempfile.TemporaryFile("w+") as output:
        run = subprocess.Popen(
            [*USS, "repro"], cwd=root, env=environment(root), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        time.sleep(moment)
        if run.poll() is not None:
            return None
        end_all(root)
        run.wait()
        output.seek(0)
        begun = addresses_of(output.read())
    recorded, shards = recorded_stages(root), states(root / ".uss" / "shards")
    done = uss(root, "repro", code=None)
    after = states(root / ".uss" / "shards")
    wrong = [
        f"exit {done.returncode}: {done.stderr.strip()[-200:]}" if done.returncode else "",
        "" if locks(root) == locks(computed) else "other locks",
        "" if results(root) == results(computed) else "other bytes",
    ]
    return Killed(
        seconds=moment,
        cell=begun[-1] if begun else "",
        recorded=len(recorded),
        shards=len(shards),
        restored=done.stderr.count(RESTORED),
        recorded_again=len(recorded & set(addresses_of(done.stdout))),
        shards_again=sum(after.get(path) != state for path, state in shards.items()),
        wrong="; ".join(filter(None, wrong)),
    )


def end_all(root: Path) -> None:
    """SIGKILL for every process that works in a folder, again until there is none."""
    while True:
        living = False
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(root) and process.status() != psutil.STATUS_ZOMBIE:
                    living = True
                    process.kill()
            except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
                continue
        if not living:
            return


def recorded_stages(root: Path) -> set[str]:
    """Addresses of the stages that have recorded outputs; those of locks that cannot be read are left out."""
    project, recorded = DvcProject(root), set()
    for cell in read_plan(root).cells:
        try:
            if project.outs_version(cell.address):
                recorded.add(cell.address)
        except (ValueError, AttributeError):
            continue
    return recorded


def addresses_of(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)


def states(folder: Path) -> dict[str, tuple[int, int]]:
    """(inode, time) of each file."""
    return {str(path.relative_to(folder)): (s.st_ino, s.st_mtime_ns) for path in folder.rglob("*") if path.is_file() and (s := path.stat())}


# -- damages ----------------------------------------------------------------------------------------------------------

KINDS = ("flipped", "cut", "zeroed", "deleted", "added")


def damages(computed: Path, count: int, generator: random.Random) -> int:
    """Damage one file at a time and print counts; returns how many damages were not named, or were used."""
    counts: Counter[tuple[str, str, str]] = Counter()
    wrong = 0
    for number in range(count):
        root = computed.with_name("damaged")
        copy(computed, root)
        where, kind = ("result", "cache")[number % 2], KINDS[number // 2 % len(KINDS)]
        path = damage(root, where, kind, generator)
        named, used = verify_and_use(root, path, where, computed)
        expected = "not named" if (where, kind) in HARMLESS else "named"
        bad = named != expected or used.startswith(("used", "exit"))
        wrong += bad
        counts[where, kind, f"{named}, {used}"] += 1
        say(f"damage {number + 1}: {path} {kind}: {named}, {used}{' WRONG' if bad else ''}")
    rows = [[*key, str(value)] for key, value in sorted(counts.items())]
    print(*aligned(["of", "damage", "outcome", "files"], rows, right=("files",)), sep="\n")
    print(f"{count} damages: {count - wrong} right")
    return wrong


def damage(root: Path, where: str, kind: str, generator: random.Random) -> str:
    """Damage one file of a random output, with its size, mode and time where the kind leaves its size; returns its path from the root."""
    address = generator.choice(sorted(a for a in DvcProject(root).stages if DvcProject(root).outs_version(a)))
    if where == "cache":
        files = sorted(map(root.joinpath, objects(root, address)))
    else:
        files = sorted(root / path for out in DvcProject(root).outs_version(address) for path in tree(root, out))
    path = generator.choice(files)
    if kind == "added":
        path = path.with_name(hashlib.md5(path.name.encode(), usedforsecurity=False).hexdigest()[2:])
        path.write_bytes(generator.randbytes(100))
    elif kind == "deleted":
        path.unlink()
    else:
        overwrite(path, changed(path.read_bytes(), kind, generator), in_place=where == "cache" or generator.random() < 0.5)
    return path.relative_to(root).as_posix()


def changed(text: bytes, kind: str, generator: random.Random) -> bytes:
    """Other bytes, by a kind of damage."""
    at = generator.randrange(len(text))
    if kind == "cut":
        return text[:at]
    if kind == "zeroed":
        at = generator.choice([place for place, byte in enumerate(text) if byte])  # some files have zeros at the end
        return text[:at] + bytes(min(4096, len(text) - at)) + text[at + 4096 :]
    return text[:at] + bytes([text[at] ^ 1 << generator.randrange(8)]) + text[at + 1 :]


def overwrite(path: Path, text: bytes, in_place: bool) -> None:
    """Write a file, with its mode and times. in_place: with all its hard links, in the cache for example."""
    state = path.stat()
    if in_place:
        path.chmod(0o644)
    else:
        path.unlink()
    path.write_bytes(text)
    path.chmod(state.st_mode)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def verify_and_use(root: Path, path: str, where: str, computed: Path) -> tuple[str, str]:
    """Whether ``uss verify`` names the file, and what the stages that read it do, with it in the cache from a checkout."""
    done = uss(root, "verify", code=None)
    lines = done.stdout.splitlines()
    named = "named" if done.returncode == 65 and any(line.startswith(f"  {path} ") for line in lines) else "not named"
    if named == "not named" and done.returncode:
        return f"exit {done.returncode}", "not asked"
    project = DvcProject(root)
    holders = [a for a in project.stages if any(touches(path, out) for out in project.outs_version(a))]
    if where == "cache":
        holders = [address for address in project.stages if path in objects(computed, address)]
        for address in holders:
            for out in project.outs_version(address):
                remove(root / out)
        subprocess.run([sys.executable, "-m", "dvc", "checkout", *holders], cwd=root, env=environment(root), capture_output=True)
    outs = {out for address in holders for out in project.outs_version(address)}
    readers = [s for s in project.stages.values() if any(touches(dep, out) or touches(out, dep) for dep in s.deps for out in outs)]
    return named, use(root, computed, [reader.address for reader in readers])


def objects(root: Path, address: str) -> set[str]:
    """Paths from the root of the objects in the cache that hold the outputs of a stage, none of them damaged."""
    top = cache_folder(root) / "files" / "md5"
    names = set(DvcProject(root).outs_version(address).values())
    for listing in [name for name in names if name.endswith(".dir")]:
        names |= {item["md5"] for item in json.loads((top / listing[:2] / listing[2:]).read_text(encoding="utf-8"))}
    return {(top / name[:2] / name[2:]).relative_to(root).as_posix() for name in names}


def touches(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def use(root: Path, computed: Path, readers: Sequence[str]) -> str:
    """Run stages and compare what they wrote: 'refused', 'same bytes', 'no reader', 'used by' one of them, or the exit code of a failure."""
    cells = {cell.address: cell for cell in read_plan(root).cells}
    answers = set()
    with stage_server() as variables:
        for address in readers:
            words = ["sh", "pipelines/uss", "stage", cells[address].file]
            done = subprocess.run(words, cwd=root, env=environment(root) | variables, capture_output=True, text=True)
            outs = DvcProject(computed).outs_version(address)
            same = all(tree(root, out) == tree(computed, out) for out in outs)
            if done.returncode not in (0, *REFUSALS):
                return f"exit {done.returncode} of {address}"
            if done.returncode == 0 and not same:
                return f"used by {address}"
            answers.add("refused" if done.returncode else "same bytes")
    return " and ".join(sorted(answers)) or "no reader"


# -- projects ---------------------------------------------------------------------------------------------------------


def environment(root: Path) -> dict[str, str]:
    """That of the tests' projects, with one worker a stage; stages run in forks, as a person has them."""
    return {**Project(root).env, "USS_FORK": "1"}


def uss(root: Path, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*USS, *words], cwd=root, env=environment(root), capture_output=True, text=True)
    if code is not None and done.returncode != code:
        sys.exit(f"uss {' '.join(words)} exited with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def copy(source: Path, target: Path) -> None:
    """A copy of a project with its hard links and times, in place of what is there."""
    remove(target)
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def locks(root: Path) -> dict[str, bytes]:
    return Project(root).locks()


def results(root: Path) -> dict[str, str]:
    """Digest of every file of the recorded outputs, by its path."""
    project = DvcProject(root)
    outs = {out for address in project.stages for out in project.outs_version(address)}
    return {path: digest for out in sorted(outs) for path, digest in tree(root, out).items()}


def tree(root: Path, out: str) -> dict[str, str]:
    top = root / out
    files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
