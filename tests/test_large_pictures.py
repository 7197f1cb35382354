"""Memory of commands on large photographs: at most 1.5 GB and 40 bytes a pixel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from projects import BIN
from skimage.data import coffee

MEASURE = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=2)
print(1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""
"""A small process between the test and the command: what a process holds when it starts another counts as memory of that one."""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["segment", "curate"])
def test_twelve_megapixels(tmp_path: Path, command: str) -> None:
    Image.fromarray(coffee()).resize((4000, 3000), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=90)
    words = [sys.executable, "-c", MEASURE, str(BIN / "uss"), command, "a.jpg", "--out", "out"]
    done = subprocess.run(words, cwd=tmp_path, check=True, stdout=subprocess.PIPE, text=True, timeout=900)
    assert int(done.stdout) <= 1.5e9 + 40 * 12e6
    assert (tmp_path / "out" / "explorer.html").exists()
