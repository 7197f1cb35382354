"""CONTRIBUTING's promises: a method is one file and one entry, a dataset one file and one class tree. Done as written there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from projects import SOURCE, Project

GUIDE = SOURCE / "CONTRIBUTING.md"


def block(language: str, containing: str) -> str:
    """The fenced block of CONTRIBUTING.md in this language that contains this text."""
    for found in re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.S):
        if containing in found:
            return found
    raise AssertionError(f"CONTRIBUTING.md shows no {language} block with {containing!r}")


@pytest.fixture
def with_grid_method(built: Project) -> Project:
    (built.root / "uss_dagster/methods/checkerboard.py").write_text(block("python", 'name="checkerboard"'), encoding="utf-8")
    built.append("profiles/small.yaml", block("yaml", "checkerboard").replace("entries:\n", ""))
    return built


def test_a_method_is_one_file_and_one_entry(with_grid_method: Project):
    project = with_grid_method
    planned = project.uss("plan").stdout
    assert "segments checkerboard__scenes: new" in planned
    assert "scores checkerboard__scenes: new" in planned
    stages = project.repro()
    assert stages == ["segments/checkerboard/scenes", "scores/checkerboard/scenes", "leaderboard", "site"]
    assert "checkerboard" in (project.root / "reports/leaderboard/leaderboard.csv").read_text(encoding="utf-8")
    listed = project.dagster("asset", "list", "-m", "uss_dagster.definitions").stdout
    assert "segments/checkerboard" in listed
    assert "scores/checkerboard" in listed
    assert "checkerboard" in project.uss("list").stdout


def test_a_dataset_is_one_file_and_one_class_tree(project: Project, tmp_path):
    folder = project.root / "uss_dagster/datasets"
    tree = block("yaml", "cow: foreground")
    (folder / "farm.py").write_text(block("python", 'name="farm"'), encoding="utf-8")
    (folder / "farm.yaml").write_text(tree, encoding="utf-8")
    labels = np.zeros((30, 40), np.uint8)
    labels[:10, :10], labels[20:, 20:], labels[15] = 1, 2, 255
    (tmp_path / "mirror/farm/val").mkdir(parents=True)
    for number in range(2):
        stem = tmp_path / f"mirror/farm/val/{number}"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)).save(stem.with_suffix(".jpg"))
        Image.fromarray(labels).save(stem.with_suffix(".png"))
    project.env["USS_MIRROR"] = str(tmp_path / "mirror")
    project.append("params.yaml", "datasets:\n  farm: {split: val}\n")
    assert "datasets farm: new" in project.uss("plan").stdout
    project.uss("stage", "pipelines/farm/datasets.yaml")
    published = project.root / "data/datasets/farm"
    assert json.loads((published / "manifest.json").read_text())["counts"] == {"images": 2, "regions": 12}
    said = (published / "validation.json").read_text()
    assert "a sample: 2 of 200 images." in said
    assert "4 of 4." in said
    (folder / "farm.yaml").write_text("# The animals.\n" + tree, encoding="utf-8")
    project.uss("plan", "--check")
    (folder / "farm.yaml").write_text(tree.replace("hen", "goose"), encoding="utf-8")
    assert "datasets farm: code" in project.uss("plan", "--check", code=64).stdout


def test_the_guide_names_files_that_exist():
    for path in re.findall(r"`((?:uss_dagster|tests|profiles|benchmarks)/[\w/.]+\.\w+)`", GUIDE.read_text(encoding="utf-8")):
        assert (SOURCE / path).exists() or "checkerboard" in path or "farm." in path, path
    assert Path(GUIDE).stat().st_size > 1000
