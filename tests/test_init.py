"""``uss init``: a project with the package as its dependency, outside any clone."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from projects import SOURCE, Project, executed
from test_contributing import block

from uss_dagster.commands.init import FILES

NEW = SOURCE / "uss_dagster" / "new_project"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("outside")
    outside = Project(folder, {"PYTHONPATH": str(SOURCE)})
    said = outside.uss_here("init", "mine").stdout
    assert said.splitlines()[:2] == ["mine is a project. Next:", "  cd mine"]
    return Project(folder / "mine", {"PYTHONPATH": str(SOURCE)})


def test_a_new_project_is_planned_and_has_all_that_its_tools_need(made: Project) -> None:
    for name in (*FILES.values(), "requirements.txt", "dvc.yaml", ".git", ".dvc/.gitignore", "pipelines/scenes/checkerboard/segments.yaml"):
        assert (made.root / name).exists(), name
    assert (made.root / "README.md").read_text().startswith("# mine\n")
    assert re.fullmatch(r"uss_dagster==[\d.]+\n", (made.root / "requirements.txt").read_text())
    assert "up to date" in made.uss_here("plan", "--check").stdout
    assert made.run("git", "check-ignore", "data/x", "reports/x", ".uss").stdout.split() == ["data/x", "reports/x", ".uss"]
    assert str(SOURCE) not in "".join(path.read_text() for path in made.root.rglob("*.yaml")), "no path of this machine"


def test_a_method_beside_the_project_is_a_method_there_and_nowhere_else(made: Project) -> None:
    assert "checkerboard" in made.uss_here("list").stdout
    assert "Side of a square" in (made.root / "uss_plugins/methods/checkerboard.py").read_text()
    assert "checkerboard" not in Project(made.root.parent, {"PYTHONPATH": str(SOURCE)}).uss_here("list").stdout
    plan = (made.root / "pipelines/dvc.yaml").read_text()
    assert re.search(r"deps:\n(    - \S+\n)*    - uss_plugins\n", plan), "an edit of it makes the plan out of date"


@pytest.mark.slow
def test_an_edit_of_the_own_method_reaches_its_cells_alone(made: Project, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(made.root, root, symlinks=True)
    copy = Project(root, {"PYTHONPATH": str(SOURCE)})
    copy.edit("uss_plugins/methods/checkerboard.py", "size: int = 64", "size: int = 32")
    changes = copy.uss("plan").stdout
    assert "segments/checkerboard/scenes: " in changes
    assert "felzenszwalb" not in changes
    copy.edit("uss_plugins/methods/checkerboard.py", "import numpy as np", "import numppy as np")
    assert "cannot be imported" in copy.uss("plan", code=64).stderr


def test_the_profiles_of_the_package_are_there_and_own_ones_come_first(made: Project, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(made.root, root, symlinks=True)
    copy = Project(root, {"PYTHONPATH": str(SOURCE)})
    copy.uss_here("plan", "--profile", "demo")
    assert (root / "params.yaml").read_text().endswith("profile: demo\n")
    assert (root / "pipelines/photographs/dvc.yaml").is_file()
    (root / "profiles/demo.yaml").write_text("datasets: {scenes: {images: 3}}\nentries: {felzenszwalb: {}}\n")
    copy.uss_here("plan")
    assert not (root / "pipelines/photographs").exists()
    (root / "profiles/more.yaml").write_text("include: photos\nentries: {felzenswalb: {}}\n")
    assert "profiles/more.yaml:2: Unknown method" in copy.uss_here("plan", "--profile", "more", code=64).stderr


def test_a_folder_with_files_is_refused_and_left_as_it_is(tmp_path: Path, made: Project) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    here = Project(tmp_path, {"PYTHONPATH": str(SOURCE)})
    assert "full is not empty (it holds thesis.txt)." in here.uss_here("init", "full", code=64).stderr
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    assert "file is a file" in here.uss_here("init", "file", code=64).stderr
    assert "would lie in the project" in made.uss_here("init", "inner", code=64).stderr
    assert not (made.root / "inner").exists()


@pytest.mark.slow
def test_without_git_and_inside_a_repository(tmp_path: Path) -> None:
    here = Project(tmp_path, {"PYTHONPATH": str(SOURCE)})
    here.uss_here("init", "plain", PATH="/nonexistent")
    assert "no_scm = true" in (tmp_path / "plain/.dvc/config").read_text()
    here.run("git", "init", "-q", "repository")
    (tmp_path / "repository/clean").mkdir()
    inside = Project(tmp_path / "repository", {"PYTHONPATH": str(SOURCE)})
    inside.uss_here("init", "clean")
    assert not (tmp_path / "repository/clean/.git").exists()
    Project(tmp_path / "repository/clean", {"PYTHONPATH": str(SOURCE)}).dvc("status", "-q", code=None)


def test_this_repository_is_such_a_project() -> None:
    for name, place in FILES.items():
        if name in ("workspace.yaml", "dagster.yaml", "dvc_config", "dvcignore", "leaderboard.json", "gitattributes"):
            assert (NEW / name).read_bytes() == (SOURCE / place).read_bytes(), place
    assert {path.name for path in NEW.iterdir()} == FILES.keys()
    assert (NEW / "checkerboard.txt").read_text() == block("python", 'name="checkerboard"'), "as CONTRIBUTING shows it"


@pytest.mark.slow
def test_it_is_computed_and_dagster_loads_it(made: Project) -> None:
    ran = executed(made.uss("repro").stdout)
    assert {"segments/checkerboard/scenes", "scores/felzenszwalb/scenes", "leaderboard", "site"} <= set(ran)
    assert "checkerboard" in (made.root / "reports/leaderboard/leaderboard.csv").read_text()
    assert executed(made.uss("repro").stdout) == []
    assert "segments/checkerboard" in made.dagster("asset", "list", "-m", "uss_dagster.definitions").stdout
    made.dagster("definitions", "validate", "-w", "workspace.yaml")
