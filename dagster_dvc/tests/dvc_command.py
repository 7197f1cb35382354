"""The real dvc, as tests call it, and waiting for what other processes do."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def dvc(root: Path, *arguments: str) -> str:
    """Run the real dvc and return what it printed."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    """Return when the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.02)
