"""What CONTRIBUTING says: a method is one file and one entry, a dataset one file with YAML beside it, a stage one file. Done as written there."""

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from projects import BIN, SOURCE, Project

GUIDE = SOURCE / "CONTRIBUTING.md"


def block(language: str, containing: str) -> str:
    """The fenced block of CONTRIBUTING.md in this language that contains this text."""
    for text in re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.S):
        if containing in text:
            return text
    raise AssertionError(f"CONTRIBUTING.md shows no {language} block with {containing!r}")


@pytest.fixture
def with_grid_method(built: Project) -> Project:
    (built.root / "uss_dagster/methods/checkerboard.py").write_text(block("python", 'name="checkerboard"'), encoding="utf-8")
    built.append("profiles/small.yaml", block("yaml", "checkerboard").replace("entries:\n", ""))
    return built


def test_a_method_is_one_file_and_one_entry(with_grid_method: Project):
    project = with_grid_method
    planned = project.uss("plan").stdout
    assert "segments/checkerboard/scenes: new" in planned
    assert "scores/checkerboard/scenes: new" in planned
    assert project.repro() == ["segments/checkerboard/scenes", "scores/checkerboard/scenes", "leaderboard", "site"]
    assert "checkerboard" in (project.root / "reports/leaderboard/leaderboard.csv").read_text(encoding="utf-8")
    listed = project.dagster("asset", "list", "-m", "uss_dagster.definitions").stdout
    assert "segments/checkerboard" in listed
    assert "scores/checkerboard" in listed
    assert "checkerboard" in project.uss("list").stdout


def test_a_dataset_is_one_file_and_one_class_tree(project: Project, tmp_path):
    folder = project.root / "uss_dagster/datasets"
    tree = block("yaml", "cow: foreground")
    (folder / "farm.py").write_text(block("python", 'load_classes("farm")'), encoding="utf-8")
    (folder / "farm.yaml").write_text(tree, encoding="utf-8")
    about = block("yaml", "name: farm.zip")
    (folder / "farm_about.yaml").write_text(about, encoding="utf-8")
    labels = np.zeros((30, 40), np.uint8)
    labels[:10, :10], labels[20:, 20:], labels[15] = 1, 2, 255
    (tmp_path / "mirror/farm/val").mkdir(parents=True)
    for number in range(2):
        stem = tmp_path / f"mirror/farm/val/{number}"
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)).save(stem.with_suffix(".jpg"))
        Image.fromarray(labels).save(stem.with_suffix(".png"))
    project.env["USS_MIRROR"] = str(tmp_path / "mirror")
    project.append("params.yaml", "datasets:\n  farm: {split: val}\n")
    assert "datasets/farm: new" in project.uss("plan").stdout
    project.uss("stage", "pipelines/farm/datasets.yaml")
    published = project.root / "data/datasets/farm"
    assert json.loads((published / "manifest.json").read_text())["counts"] == {"images": 2, "regions": 12}
    report = (published / "validation.json").read_text()
    assert "a sample: 2 of 200 images." in report
    assert "4 of 4." in report
    (folder / "farm.yaml").write_text("# The animals.\n" + tree, encoding="utf-8")
    project.uss("plan", "--check")
    (folder / "farm.yaml").write_text(tree.replace("hen", "goose"), encoding="utf-8")
    assert "datasets/farm: code" in project.uss("plan", "--check", code=64).stdout
    (folder / "farm.yaml").write_text(tree, encoding="utf-8")
    (folder / "farm_about.yaml").write_text(about.replace("md5: 0", "md5: 1"), encoding="utf-8")
    assert "datasets/farm: code" in project.uss("plan", "--check", code=64).stdout
    (folder / "farm_about.yaml").write_text(about.replace("homepage:", "homepag:"), encoding="utf-8")
    assert "farm_about.yaml has no parameter 'homepag'. Did you mean 'homepage'?" in project.uss("plan", "--check", code=64).stderr


ENTRIES = ("felzenszwalb", "kmeans", "slic_merge")


@pytest.mark.slow
def test_a_stage_is_one_file(built: Project):
    source = block("python", "class Sizes(")
    (built.root / "uss_dagster/stages/sizes.py").write_text(source, encoding="utf-8")
    cells = [f"sizes/{entry}/scenes" for entry in ENTRIES]
    lines = [line.strip() for line in built.uss("plan").stdout.splitlines()]
    assert lines == [*(f"{cell}: new" for cell in cells), "The plan changed in 3 places."]
    before = built.lock()
    assert sorted(built.repro()) == cells, "its own cells and nothing else"
    assert built.repro() == []
    after = built.lock()
    assert {name: after[name] for name in before} == before
    assert sorted(after.keys() - before.keys()) == cells
    for cell in cells:
        counts = pq.read_table(built.root / "data" / cell / "sizes.parquet")["regions"].to_pylist()
        shards = sorted((built.root / "data" / cell.replace("sizes", "segments")).glob("shard-*.parquet"))
        areas = np.concatenate([pq.read_table(shard, columns=["area"])["area"].to_numpy() for shard in shards])
        assert counts == [int(((areas >= 2**n) & (areas < 2 ** (n + 1))).sum()) for n in range(24)]
        assert json.loads((built.root / f".uss/runs/{cell}.json").read_text())["regions"] == len(areas)
    listed = built.dagster("asset", "list", "-m", "uss_dagster.definitions").stdout.split()
    assert {f"sizes/{entry}" for entry in ENTRIES} <= set(listed)

    # The code of the stage counts for its cells alone; the same bytes stop there.
    built.edit("uss_dagster/stages/sizes.py", "bins: int = 24", "bins: int = 25")
    assert [line.strip() for line in built.uss("plan").stdout.splitlines()][:-1] == [f"{cell}: bins, code" for cell in cells]
    assert sorted(built.repro()) == cells

    # Without the file the project is as it was, but for the locks, so that coming back computes nothing.
    (built.root / "uss_dagster/stages/sizes.py").unlink()
    built.uss("plan")
    assert not list((built.root / "pipelines").rglob("sizes.yaml"))
    assert built.repro() == []


def test_the_example_stage_follows_the_rules_of_the_source(tmp_path):
    from source_code import Module, private_imports
    from test_layers import upward_imports

    module = Module("stages/sizes.py", block("python", "class Sizes("))
    assert list(private_imports(module)) == upward_imports(module) == []
    for path, text in (("methods/checkerboard.py", 'name="checkerboard"'), ("datasets/farm.py", 'load_classes("farm")')):
        module = Module(path, block("python", text))
        assert list(private_imports(module)) == upward_imports(module) == []
    for number, text in enumerate(re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.S)):
        (tmp_path / f"block{number}.py").write_text(text)
    checked = subprocess.run(
        [BIN / "ruff", "check", "--config", SOURCE / "pyproject.toml", "--no-cache", tmp_path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


def test_the_guide_names_files_that_exist():
    for path in re.findall(r"`((?:uss_dagster|tests|profiles|benchmarks)/[\w/.]+\.\w+)`", GUIDE.read_text(encoding="utf-8")):
        assert (SOURCE / path).exists() or path.rpartition("/")[2].split(".")[0] in ("checkerboard", "farm", "farm_about", "sizes"), path
    assert Path(GUIDE).stat().st_size > 1000
