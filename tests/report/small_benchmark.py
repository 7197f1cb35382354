"""Scores of a small made-up benchmark, as the scores stage writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ENTRIES: dict[str, dict[str, Any]] = {
    name: {
        "title": title,
        "method": name,
        "backbone": backbone,
        "params": {"levels": 3},
        "supervised": supervised,
        "reimplementation": True,
        "paper": "A paper. https://example.org/paper?a=1&b=2.",
        "licence": "MIT",
        "summary": "Cuts & merges.",
        "versions": {"cats": f"code-{name}"},
    }
    for name, title, backbone, supervised in [
        ("alpha", "Alpha", "vit", False),
        ("beta", "Beta <script>alert('x')</script> | *b*", None, False),
        ("gamma", "Gamma", "vit", False),
        ("labelled", "Labelled", "vit", True),
    ]
}
DATASETS: dict[str, dict[str, Any]] = {
    "cats": {"title": "Cats", "images": 40, "licence": "CC0", "citation": "Cat et al.", "truth": "classes", "version": "data-cats"},
    "dogs": {"title": "Dogs", "images": 40, "licence": "CC0", "citation": "Dog et al.", "truth": "annotators"},
}
METRICS: dict[str, dict[str, Any]] = {
    "overlap": {"title": "Overlap", "protocol": "strict", "higher_is_better": True, "oracle": False},
    "error": {"title": "Error", "protocol": "bits", "higher_is_better": False, "oracle": False},
    "ceiling": {"title": "Ceiling", "protocol": "strict", "higher_is_better": True, "oracle": True},
}


def image_values(entry: str, metric: str, n: int = 40) -> np.ndarray:
    """Scores of single images: hard images are hard for all; gamma is alpha with noise, beta is far behind, labelled far ahead."""
    difficulty = np.random.default_rng(1).normal(0, 0.25, n)
    noise = np.random.default_rng([2, *entry.encode()]).normal(0, 0.02, n)
    value = {"alpha": 0.5, "beta": 0.4, "gamma": 0.4999, "labelled": 0.7}[entry] + difficulty + noise
    return 2 - value if metric == "error" else value


def write_cell(folder: Path, entry: str, dataset: str, values: dict[tuple[str, str], np.ndarray], replicates: int = 300) -> Path:
    """A scores folder. values: (metric, protocol) → scores of single images."""
    weights = np.random.default_rng(5).poisson(1, (replicates, 40))
    scores, resampled = [], []
    for (metric, protocol), value in values.items():
        mean = np.full(1, np.nan) if np.isnan(value).any() else [value.mean()]
        scores.append((entry, dataset, None, metric, protocol, "image", "full", mean[0], len(value)))
        scores += [(entry, dataset, f"i{i}", metric, protocol, "image", "full", v, 1) for i, v in enumerate(value)]
        means = weights[:, : len(value)] @ value / weights[:, : len(value)].sum(axis=1)
        resampled += [(entry, dataset, metric, protocol, "image", "full", r, v) for r, v in enumerate(means)]
    target = folder / entry / dataset
    target.mkdir(parents=True)
    columns = ["entry", "dataset", "image_id", "metric", "protocol", "scope", "grid", "value", "n"]
    pd.DataFrame(scores, columns=columns).to_parquet(target / "scores.parquet")
    columns = ["entry", "dataset", "metric", "protocol", "scope", "grid", "replicate", "value"]
    pd.DataFrame(resampled, columns=columns).astype({"replicate": "int32"}).to_parquet(target / "replicates.parquet")
    return target
