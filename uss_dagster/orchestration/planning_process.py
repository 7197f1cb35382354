"""``uss plan`` in a new process, which reads the code as it is now.

Dagster's code server imports a method once; after an edit it would plan with the new fingerprint and the old defaults.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from uss_dagster.dagster_dvc.runner import tool_environment
from uss_dagster.errors import UsageError

_TIMEOUT_S = 300


def plan_in_new_process(root: Path, check: bool = False) -> list[str]:
    """Plan, or with ``check`` only compare; returns a line for each cell that changed (or would).

    Raises
    ------
    UsageError
        The profile cannot be planned.
    """
    words = [sys.executable, "-m", "uss_dagster.cli", "plan", *(["--check"] if check else [])]
    done = subprocess.run(words, cwd=root, env=tool_environment(), capture_output=True, text=True, encoding="utf-8", timeout=_TIMEOUT_S)
    changes = [line[2:] for line in done.stdout.splitlines() if line.startswith("  ")]
    if done.returncode and not (check and changes):
        errors = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("{")]
        raise UsageError(errors[-1].removeprefix("error: ") if errors else f"`uss plan` exited with {done.returncode} and printed nothing.")
    return changes
