"""CONTRIBUTING's promise: a method is one file and one entry. Done as written there, in a folder of its own."""

import re
from pathlib import Path

import pytest
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
    assert stages == ["segments@checkerboard__scenes", "scores@checkerboard__scenes", "leaderboard", "site"]
    assert "checkerboard" in (project.root / "reports/leaderboard/leaderboard.csv").read_text(encoding="utf-8")
    listed = project.dagster("asset", "list", "-m", "uss_dagster.definitions").stdout
    assert "segments/checkerboard" in listed
    assert "scores/checkerboard" in listed
    assert "checkerboard" in project.uss("list").stdout


def test_the_guide_names_files_that_exist():
    for path in re.findall(r"`((?:uss_dagster|tests|profiles|benchmarks)/[\w/.]+\.\w+)`", GUIDE.read_text(encoding="utf-8")):
        assert (SOURCE / path).exists() or "checkerboard" in path, path
    assert Path(GUIDE).stat().st_size > 1000
