"""The real dvc, as tests call it."""

import subprocess
import sys
from pathlib import Path


def dvc(root: Path, *arguments: str) -> str:
    """Run the real dvc and return what it printed."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
