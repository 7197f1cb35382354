"""The wheel and the source distribution: what they hold, and that a project works with the installed package alone, outside any clone."""

from __future__ import annotations

import site
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from projects import SOURCE, Project, executed

BUILD = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both, built from the files that git knows."""
    folder = tmp_path_factory.mktemp("build")
    files = subprocess.run(["git", "ls-files", "-z"], cwd=SOURCE, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-cf", folder / "all.tar", "--null", "-T", "-"], cwd=SOURCE, input=files, check=True)
    subprocess.run(["tar", "-xf", folder / "all.tar", "-C", folder], check=True)
    (folder / "dist").mkdir()
    subprocess.run([sys.executable, "-c", BUILD], cwd=folder, check=True, capture_output=True, timeout=300)
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A folder outside any clone, with the programs of a fresh environment: the wheel, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    wheel = next(dist.glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", folder / "venv", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True, timeout=300)
    (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")  # the .pth files in there do not count
    path = f"{folder / 'venv/bin'}:{Path(sys.executable).parent}:/usr/bin:/bin"
    return Project(folder, {"PYTHONPATH": "", "PATH": path, "USS_PROGRAM": ""})


@pytest.mark.slow
def test_both_hold_every_file_of_the_package(dist: Path) -> None:
    listed = subprocess.run(["git", "ls-files", "uss_dagster", "dagster_dvc"], cwd=SOURCE, capture_output=True, text=True, check=True)
    apart = ("dagster_dvc/tests/", "dagster_dvc/pyproject.toml", "dagster_dvc/README.md", "dagster_dvc/CHANGELOG.md", "dagster_dvc/LICENSE")
    files = {name for name in listed.stdout.split() if not name.startswith(apart)}  # the second package has a wheel of its own as well
    assert {
        "uss_dagster/profiles/demo.yaml",
        "uss_dagster/new_project/gitignore",
        "uss_dagster/__init__.pyi",
        "uss_dagster/py.typed",
    } <= files
    wheel = set(zipfile.ZipFile(next(dist.glob("*.whl"))).namelist())
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    assert files - wheel == set()
    assert files - source == set()
    assert {name for name in wheel - files if ".dist-info/" not in name} == set(), "nothing of the builder's machine"


@pytest.mark.slow
def test_a_project_is_made_and_computed_with_the_installed_package(installed: Project) -> None:
    uss, folder = str(installed.root / "venv/bin/uss"), installed.root
    where = installed.run(str(folder / "venv/bin/python"), "-c", "import uss_dagster; print(uss_dagster.__file__)").stdout
    assert Path(where.strip()).is_relative_to(folder / "venv")
    installed.run(uss, "init", "p")
    project = Project(folder / "p", installed.env)
    ran = executed(project.run(uss, "repro", timeout=900).stdout)
    assert {"segments/checkerboard/scenes", "leaderboard", "site"} <= set(ran)
    assert (project.root / "reports/site/index.html").is_file()
    assert executed(project.run(uss, "repro").stdout) == []
    project.run(uss, "plan", "--profile", "demo")
    assert "up to date" in project.run(uss, "plan", "--check").stdout
    written = [path for path in project.root.rglob("*") if path.name in ("dvc.yaml", "dvc.lock", "params.yaml")]
    assert not [path for path in written if str(SOURCE) in path.read_text() or str(folder) in path.read_text()]


@pytest.mark.slow
def test_the_python_example_runs_with_the_installed_package(installed: Project) -> None:
    code = "from skimage import data; import uss_dagster as uss; print(uss.segment(data.cat()).at(8).max(), len(uss.methods()))"
    assert installed.run(str(installed.root / "venv/bin/python"), "-c", code).stdout.split()[0] in "2345678"
