"""The cells of the small benchmark, on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_benchmark import ENTRIES, METRICS, image_values, write_cell


@pytest.fixture
def cells(tmp_path: Path) -> list[Path]:
    """All entries on cats; alpha and beta on dogs, where beta's error is undefined and its overlap is of another protocol."""
    folders = []
    for entry in ENTRIES:
        values = {(m, str(METRICS[m]["protocol"])): image_values(entry, m) for m in METRICS if (entry, m) != ("gamma", "ceiling")}
        folders.append(write_cell(tmp_path / "scores", entry, "cats", values))
    alpha = {("overlap", "strict"): image_values("alpha", "overlap"), ("error", "bits"): image_values("alpha", "error")}
    beta = {("overlap", "loose"): image_values("beta", "overlap") + 0.4, ("error", "bits"): np.full(40, np.nan)}
    return [*folders, write_cell(tmp_path / "scores", "alpha", "dogs", alpha), write_cell(tmp_path / "scores", "beta", "dogs", beta)]
