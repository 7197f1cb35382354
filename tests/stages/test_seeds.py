"""An entry with several seeds: one run a seed, and scores that are their means."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from projects import Project, make_project

PROFILE = """\
settings: {shard_images: 2, bootstrap: 20, samples: 2}
datasets: {scenes: {images: 3}}
backbones: {patches: {dictionary: false}}
metrics: [covering, matching]
entries:
  kmeans: {backbone: patches, params: {k: 4, restarts: 1, seed: 7}, seeds: 3}
  one: {method: kmeans, backbone: patches, params: {k: 4, restarts: 1, seed: 8}}
  felzenszwalb: {params: {scales: 2}}
"""
KEYS = ["metric", "protocol", "scope", "grid"]


@pytest.fixture
def seeded(tmp_path) -> Project:
    return make_project(tmp_path / "project", PROFILE)


@pytest.mark.slow
def test_the_row_is_the_mean_of_its_seeds(seeded: Project):
    seeded.uss("repro")
    data = seeded.root / "data"
    assert sorted(path.parent.name for path in data.glob("segments/kmeans*/scenes")) == ["kmeans", "kmeans_seed_8", "kmeans_seed_9"]
    assert sorted(path.parent.name for path in data.glob("scores/*/scenes")) == ["felzenszwalb", "kmeans", "one"]
    runs = pd.read_parquet(data / "scores/kmeans/scenes/runs.parquet")
    scores = pd.read_parquet(data / "scores/kmeans/scenes/scores.parquet")
    dataset_scores = scores[scores["image_id"].isna()].set_index(KEYS)["value"]
    means, deviations = (runs.groupby(KEYS)["value"].agg(function) for function in ("mean", "std"))
    assert means.sort_index().to_numpy() == pytest.approx(dataset_scores.sort_index().to_numpy(), abs=1e-12)

    # The run with seed 8 is what an entry with that seed is.
    alone = pd.read_parquet(data / "scores/one/scenes/scores.parquet")
    expected = alone[alone["image_id"].isna()].set_index(KEYS)["value"].sort_index()
    second = runs[runs["run"] == "kmeans_seed_8"].set_index(KEYS)["value"].sort_index()
    assert second.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-12)

    board = pd.read_parquet(seeded.root / "reports/leaderboard/leaderboard.parquet").set_index(["entry", *KEYS]).sort_index()
    rows = board.loc["kmeans"].sort_index()
    assert set(rows["runs"]) == {3}
    assert rows["run_std"].to_numpy() == pytest.approx(deviations.sort_index().to_numpy(), abs=1e-12)
    assert rows["run_std"].max() > 0
    assert np.isnan(board.loc["one", "run_std"]).all()
    assert set(board.index.get_level_values("entry")) == {"kmeans", "one", "felzenszwalb"}
    assert "(3 seeds, SD 0." in (seeded.root / "reports/leaderboard/leaderboard.md").read_text()
    assert "3 seeds, SD 0." in (seeded.root / "reports/site/data/board-scenes.js").read_text()
    assert not (seeded.root / "data/scores/one/scenes/runs.parquet").exists()
    assert "nm_covering" in json.loads((seeded.root / "reports/metrics/kmeans/scenes.json").read_text())

    # One more seed computes that run, and the scores that it is part of.
    seeded.edit("profiles/small.yaml", "seeds: 3", "seeds: 4")
    ran = seeded.repro()
    assert [name for name in ran if name.startswith(("features", "segments", "scores"))] == [
        "segments/kmeans_seed_10/scenes",
        "scores/kmeans/scenes",
    ]


def test_what_has_no_seed_is_refused_with_its_line(seeded: Project):
    seeded.edit("profiles/small.yaml", "{scales: 2}}", "{scales: 2}, seeds: 2}")
    refused = seeded.uss("plan", code=64).stderr
    assert "profiles/small.yaml:8: method 'felzenszwalb' draws nothing at random, so it has no seeds." in refused
    seeded.edit("profiles/small.yaml", "seeds: 2}", "seeds: 0}")
    assert "'seeds' of entry 'felzenszwalb': input should be greater than or equal to 1, got 0" in seeded.uss("plan", code=64).stderr
