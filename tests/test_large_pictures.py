"""Memory of commands on large photographs: at most 1.5 GB and 40 bytes a pixel."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import BIN
from skimage.data import coffee

from uss_dagster.artifacts.mask_readers import open_masks
from uss_dagster.scoring.ground_truth import read_truth
from uss_dagster.scoring.masks import choose_families, score_masks

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


@pytest.mark.parametrize("kind", ["classes", "annotators"])
def test_scoring_takes_at_most_40_bytes_a_pixel(tmp_path: Path, kind: str) -> None:
    """There are 30 segments, so a byte a pixel for each of them would be too much."""
    values = np.random.default_rng(0).integers(0, 30, (2, 12, 16)).astype(np.uint8)
    peaks = []
    for side in (1, 100):  # the small picture first: it imports and compiles
        for name, small in zip(("truth", "masks"), values, strict=True):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(small.repeat(side, axis=0).repeat(side, axis=1)).save(tmp_path / name / "a.png")
        tracemalloc.start()
        truth, masks = read_truth(tmp_path / "truth", kind), open_masks(tmp_path / "masks")
        assert score_masks(masks, truth, choose_families([], truth, masks), ["full"], 0, print).rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 40 * 1600 * 1200
