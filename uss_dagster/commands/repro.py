"""``uss repro``: plan, then `dvc repro`, with one sentence for each way the tools around it can be missing or busy."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from uss_dagster.errors import UsageError, did_you_mean

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def tool_environment() -> dict[str, str]:
    """The environment in which stages find the programs of this interpreter, quiet and without analytics."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    environment.update({"DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"})
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment


def check_tools(root: Path) -> None:
    """Refuse, with what to do, when DVC cannot work here."""
    if importlib.util.find_spec("dvc") is None:
        raise UsageError("DVC is not installed beside uss. Run `make setup`, or `pip install -c constraints.txt -e .`.")
    if not (root / ".dvc").is_dir():
        raise UsageError(f"{root} has no .dvc folder. Run `dvc init` there (`dvc init --no-scm` without git).")
    if not has_git(root) and not no_scm(root):
        why = "git is not installed" if shutil.which("git") is None else f"{root} is not a git repository"
        raise UsageError(f"DVC needs git here, and {why}. Run `git init`, or go without: `dvc config --local core.no_scm true`.")


def has_git(root: Path) -> bool:
    return shutil.which("git") is not None and any((p / ".git").exists() for p in (root, *root.parents))


def no_scm(root: Path) -> bool:
    """Whether DVC is told to work without git, in the shared or the local configuration."""
    import configparser

    parser = configparser.ConfigParser()
    parser.read([root / ".dvc" / "config", root / ".dvc" / "config.local"])
    return parser.getboolean("core", "no_scm", fallback=False)


DVC = str(Path(__file__).resolve().parent.parent / "dagster_dvc" / "dvc_program.py")
"""DVC's command line, which here parses the grid once and not once a stage."""


def dvc(root: Path, *words: str, **environment: str) -> int:
    """Run DVC in the project folder, output passed through; returns its exit code.

    A signal to end is passed on to DVC and to the stage it runs: DVC alone would leave the stage running.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", DVC, *words], cwd=root, env={**tool_environment(), **environment}, start_new_session=True
    )
    before = {number: signal.signal(number, lambda n, frame: os.killpg(process.pid, n)) for number in _ENDING}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code


def repro(root: Path, targets: list[str]) -> int:
    """Bring targets (all, when none are named) up to date. Another run is waited for; what a failed run removed is put back.

    Returns 0, the exit code of the stage that failed, or DVC's own.
    """
    check_tools(root)
    check_targets(root, targets)
    with tempfile.TemporaryDirectory() as folder:
        verdict = Path(folder) / "exit_code"
        while True:
            _wait_for_others(root)
            code = dvc(root, "--wait-for-lock", "repro", *targets, USS_VERDICT=str(verdict))
            # DVC waits for its main lock only: a stage that another run holds makes it fail at once.
            if code == 0 or verdict.exists() or not _others(root):
                break
        said = verdict.read_text(encoding="utf-8") if verdict.exists() else ""
    if code:
        _put_back(root)
    return int(said) if code and said.isdecimal() else code


def check_targets(root: Path, targets: list[str]) -> None:
    """Refuse a target that is neither a planned stage nor a file or folder."""
    from uss_dagster.planning import plan

    known = {*plan.STAGES, *_addresses(root)}
    for target in targets:
        if target not in known and not (root / target.partition(":")[0]).exists():
            raise UsageError(f"Unknown stage '{target}'.{did_you_mean(target, known if '@' in target else plan.STAGES)}")


def _addresses(root: Path) -> set[str]:
    """What DVC calls each planned stage."""
    from uss_dagster.planning import plan

    return {stage if stage == key else f"{stage}@{key}" for stage, key, _ in plan.iterate_cells(plan.read_grid(root))}


def _others(root: Path) -> dict[int, str]:
    """Process id → command of the living DVC processes that hold something here."""
    import psutil

    try:
        held = json.loads((root / ".dvc" / "tmp" / "rwlock").read_text(encoding="utf-8"))
        holders = [*held.get("write", {}).values(), *(one for many in held.get("read", {}).values() for one in many)]
        return {int(h["pid"]): str(h["cmd"]) for h in holders if psutil.pid_exists(int(h["pid"]))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent, or being written
        return {}


def _wait_for_others(root: Path) -> None:
    told = False
    while others := _others(root):
        if not told:
            told = True
            pid, command = next(iter(others.items()))
            print(f"Waiting for another run in this project: process {pid} ({command}).", file=sys.stderr, flush=True)
        time.sleep(0.5)


def _put_back(root: Path) -> None:
    """Fetch from DVC's cache the recorded outputs that are missing: DVC removes those of a stage before it runs."""
    from uss_dagster.planning.yaml_files import YamlFile

    if not (root / "dvc.lock").exists():
        return
    recorded = YamlFile(root / "dvc.lock").data.get("stages") or {}
    gone = [name for name, stage in recorded.items() if any(not os.path.lexists(root / out["path"]) for out in stage.get("outs") or [])]
    gone = sorted(_addresses(root).intersection(gone))
    if gone:
        subprocess.call(
            [sys.executable, "-m", "dvc", "--quiet", "--wait-for-lock", "checkout", *gone],
            cwd=root,
            env=tool_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
