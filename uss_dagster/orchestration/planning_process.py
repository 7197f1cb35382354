"""``uss`` in a new process, which reads the code as it is now.

Dagster's code server imports a method once; after an edit it would plan with the new fingerprint and the old defaults.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dagster_dvc import tool_environment
from uss_dagster.errors import UsageError

_TIMEOUT_S = 300


def plan_in_new_process(root: Path, check: bool = False) -> list[str]:
    """Plan, or with ``check`` only compare; returns a line for each cell that changed (or would).

    Raises
    ------
    UsageError
        The profile cannot be planned.
    """
    code, lines, error = run_uss(root, "plan", *(["--check"] if check else []), timeout_s=_TIMEOUT_S)
    changes = [line[2:] for line in lines if line.startswith("  ")]
    if code and not (check and changes):
        raise UsageError(error)
    return changes


def run_uss(root: Path, *words: str, timeout_s: float | None = None) -> tuple[int, list[str], str]:
    """Exit code, lines of output, and the sentence of a failure."""
    argv = [sys.executable, "-m", "uss_dagster.cli", *words]
    run = subprocess.run(argv, cwd=root, env=tool_environment(), capture_output=True, text=True, encoding="utf-8", timeout=timeout_s)
    errors = [line for line in run.stderr.splitlines() if line.strip() and not line.startswith("{")]
    error = errors[-1].removeprefix("error: ") if errors else f"`uss {words[0]}` exited with {run.returncode} and printed nothing."
    return run.returncode, run.stdout.splitlines(), error
