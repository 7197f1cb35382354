"""The stage ``estimates``: entries on a dataset without ground truth, ranked without labels and apart from the leaderboard."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from projects import Project, make_project

from uss_dagster.metrics.unlabelled.votes import MEASURES
from uss_dagster.planning.plan import read_plan
from uss_dagster.stages.estimates import Estimates

PROFILE = """\
settings: {shard_images: 2, bootstrap: 20, samples: 2, unscored_samples: 2}
datasets:
  photographs: {limit: 3}
  scenes: {images: 2}
backbones:
  patches: {dictionary: false}
  saliency: {kind: vit, model: dinov2_vits14_saliency}
metrics: [covering]
entries:
  contour_merge: {}
  felzenszwalb: {params: {scales: 2}}
  kmeans: {backbone: patches, params: {k: 4, restarts: 1}}
  slic_merge: {backbone: patches}
  slic_merge_deep: {method: slic_merge, backbone: saliency, datasets: [photographs]}
"""
WITHOUT_DEEP = PROFILE.replace(PROFILE[PROFILE.index("  slic_merge_deep") :], "").replace(
    "  saliency: {kind: vit, model: dinov2_vits14_saliency}\n", ""
)


@pytest.fixture(scope="module")
def cell(tmp_path_factory) -> Estimates:
    project = make_project(tmp_path_factory.mktemp("estimates") / "project", PROFILE)
    (cell,) = read_plan(project.root).of(Estimates)
    return cell


def test_only_the_dataset_without_ground_truth_has_estimates(cell):
    assert cell.name == "estimates/photographs"
    assert cell.backbones == {"deep": "saliency", "patches": "patches"}
    assert cell.entry_kinds == {
        "contour_merge": "contour_merge/pixels",
        "felzenszwalb": "felzenszwalb/pixels",
        "kmeans": "kmeans/patches",
        "slic_merge": "slic_merge/patches",
        "slic_merge_deep": "slic_merge/deep",
    }


def test_without_the_pretrained_weights_the_others_are_compared(cell):
    less = cell.without({"features/saliency/photographs", "segments/slic_merge_deep/photographs"})
    assert less is not None
    assert less.backbones == {"patches": "patches"}
    assert list(less.methods) == list(less.entry_kinds) == ["contour_merge", "felzenszwalb", "kmeans", "slic_merge"]
    assert cell.without({f"segments/{entry}/photographs" for entry in ("contour_merge", "felzenszwalb", "kmeans")}) is None
    assert cell.without({"features/saliency/photographs", "features/patches/photographs"}) is None


@pytest.fixture
def project(tmp_path) -> Project:
    return make_project(tmp_path / "project", WITHOUT_DEEP)


@pytest.mark.slow
def test_estimates_are_shown_and_never_ranked_with_scores(project: Project):
    project.uss("repro")
    folder = project.root / "data/estimates/photographs"
    estimates, ranking = (pd.read_parquet(folder / f"{name}.parquet") for name in ("estimates", "ranking"))
    assert len(estimates) == 3 * 4 * len(MEASURES)
    assert estimates["expected"].between(0, 1).all()
    assert ranking.groupby("goal")["rank"].apply(list).to_dict() == {goal: [1, 2, 3, 4] for goal in MEASURES}
    assert json.loads((folder / "manifest.json").read_text())["features"] == "patches"
    board = pd.read_parquet(project.root / "reports/leaderboard/leaderboard.parquet")
    assert set(board["dataset"]) == {"scenes"}
    page = (project.root / "reports/site/datasets/photographs.html").read_text()
    assert "Estimated without labels" in page
    assert f"{ranking['score'][0]:.3f}" in page
    assert "Estimated without labels" not in (project.root / "reports/site/datasets/scenes.html").read_text()
    # A parameter of one entry computes that entry, the estimates and the page.
    project.edit("profiles/small.yaml", "{k: 4, restarts: 1}", "{k: 5, restarts: 1}")
    assert {"segments/kmeans/photographs", "estimates", "site"} <= set(project.repro())
    assert project.repro() == []


@pytest.mark.slow
def test_without_the_weights_the_demo_shows_the_estimates_of_the_others(tmp_path):
    project = make_project(tmp_path / "project", PROFILE)
    (project.root / "profiles/demo.yaml").write_text(PROFILE, encoding="utf-8")
    project.env |= {"USS_WEIGHTS": str(tmp_path / "none"), "PIP_NO_INDEX": "1"}
    assert "Left out: slic_merge_deep." in project.uss("demo").stdout
    assert json.loads((project.root / "data/estimates/photographs/manifest.json").read_text())["features"] == "patches"
    assert "Estimated without labels" in (project.root / "reports/site/datasets/photographs.html").read_text()
