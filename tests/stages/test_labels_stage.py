"""Labels over the dataset for regions found image by image: their stage, what depends on it, and grids of evaluation."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from projects import Project

WITH_LABELS = "metrics: [covering, semantic]"


@pytest.fixture
def labelled(built: Project) -> Project:
    built.edit("profiles/small.yaml", "metrics: [covering]", WITH_LABELS)
    return built


@pytest.mark.slow
def test_an_entry_without_labels_of_its_own_is_given_some_and_scored_by_them(labelled: Project):
    labelled.edit("profiles/small.yaml", "samples: 2}", "samples: 2, grids: [full, 30x40], label_regions: 6}")
    assert labelled.repro("scores/kmeans/scenes") == ["labels/kmeans/scenes", "scores/kmeans/scenes"]
    root = labelled.root
    labels = pd.read_parquet(root / "data/labels/kmeans/scenes/labels.parquet")
    shards = sorted((root / "data/segments/kmeans/scenes").glob("*.parquet"))
    regions = pd.concat(pd.read_parquet(p, columns=["image_id", "region", "height", "width", "area"]) for p in shards)
    joined = labels.merge(regions, on=["image_id", "region"], validate="one_to_one")
    assert len(joined) == len(labels)
    tiled = joined.groupby("image_id").agg(area=("area", "sum"), height=("height", "first"), width=("width", "first"))
    assert (tiled["area"] == tiled["height"] * tiled["width"]).all()
    assert labels["label"].nunique() > 1
    scores = pd.read_parquet(root / "data/scores/kmeans/scenes/scores.parquet")
    whole = scores[scores["image_id"].isna()]
    assert set(whole["grid"]) == {"full", "30x40"}
    assert set(whole.loc[whole["metric"].str.startswith("hungarian"), "scope"]) == {"dataset"}
    assert set(whole.loc[whole["metric"] == "nm_covering", "scope"]) == {"image"}
    assert not scores.duplicated(["image_id", "metric", "protocol", "scope", "grid"]).any()
    summary = json.loads((root / "reports/metrics/kmeans/scenes.json").read_text())
    assert {"nm_covering", "nm_covering@30x40", "hungarian_miou"} <= set(summary)

    # Asked again nothing runs; another metric's code reaches scores but not labels, the clustering's reaches both.
    assert labelled.repro("scores/kmeans/scenes") == []
    labelled.append("uss_dagster/metrics/semantic.py", "\n_UNUSED = 1\n")
    assert labelled.repro("scores/kmeans/scenes") == ["scores/kmeans/scenes"]
    labelled.append("uss_dagster/graphs/semantic_labels.py", "\n_UNUSED = 1\n")
    assert labelled.repro("scores/kmeans/scenes") == ["labels/kmeans/scenes"], "the same labels, so the scores stand"


@pytest.mark.slow
def test_one_worker_and_four_give_the_same_labels(labelled: Project):
    digests = []
    for workers in ("1", "4"):
        labelled.uss("plan")
        labelled.uss("stage", "pipelines/scenes/slic_merge/labels.yaml", USS_WORKERS=workers)
        digests.append((labelled.root / "data/labels/slic_merge/scenes/manifest.json").read_bytes())
    assert digests[0] == digests[1]


def test_settings_of_grids_and_labels_are_checked(built: Project):
    for setting, message in (
        ("grids: [60by60]", "an evaluation grid is 'full' or height x width in cells, such as '60x60', not '60by60'"),
        ("label_regions: 0", "'label_regions' of settings: input should be greater than or equal to 1, got 0"),
    ):
        built.edit("profiles/small.yaml", "samples: 2", f"samples: 2, {setting}")
        refused = built.uss("plan", code=64)
        assert message in refused.stderr
        built.edit("profiles/small.yaml", f"samples: 2, {setting}", "samples: 2")


@pytest.mark.slow
def test_own_segments_get_labels_and_scores_of_their_own(built: Project):
    """Of a method with an automatic threshold: its segments, not the shared cut, are labelled, and scored under names of their own."""
    built.edit("profiles/small.yaml", "metrics: [covering]", "metrics: [own_semantic, semantic]")
    built.edit("profiles/small.yaml", "samples: 2}", "samples: 2, label_regions: 3}")
    built.append("profiles/small.yaml", "  walk: {method: diffuse_walk_cut, backbone: patches}\n")
    built.repro("scores/walk/scenes", "scores/kmeans/scenes")
    root = built.root
    own, cut = (pd.read_parquet(root / f"data/labels/walk/scenes/{name}.parquet") for name in ("own", "labels"))
    regions = pd.concat(map(pd.read_parquet, sorted((root / "data/segments/walk/scenes").glob("*.parquet"))))
    leaves = regions[~regions.set_index(["image_id", "region"]).index.isin(regions.set_index(["image_id", "parent"]).index)]
    assert set(zip(own["image_id"], own["region"], strict=True)) == set(zip(leaves["image_id"], leaves["region"], strict=True))
    assert len(own) > len(cut)
    values = json.loads((root / "reports/metrics/walk/scenes.json").read_text())
    assert {"own_hungarian_miou", "hungarian_miou"} <= set(values)
    assert values["own_hungarian_miou"] != values["hungarian_miou"]
    assert not (root / "data/labels/kmeans/scenes/own.parquet").exists()
    assert not any(name.startswith("own_") for name in json.loads((root / "reports/metrics/kmeans/scenes.json").read_text()))
