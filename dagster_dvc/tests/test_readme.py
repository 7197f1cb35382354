"""The README from top to bottom, and the package as its wheel brings it."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import dagster_dvc

PACKAGE = Path(dagster_dvc.__file__).parent
README = (PACKAGE / "README.md").read_text(encoding="utf-8") if (PACKAGE / "README.md").exists() else ""
pytestmark = pytest.mark.slow


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, and with what this one has but the package."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for path in PACKAGE.iterdir():
        if path.is_file():
            (source / path.name).write_bytes(path.read_bytes())
    run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source],
        folder,
        PYTHONPATH="",
    )
    (wheel,) = folder.glob("dagster_dvc-*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin/python"
    run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], folder, PYTHONPATH="")
    (site,) = environment.glob("lib/*/site-packages")
    shared = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "shared.pth").write_text(f"{shared}\n")
    for name, module in (("dvc", "dvc.cli"), ("dagster", "dagster._cli")):  # as pip writes them
        program = environment / "bin" / name
        program.write_text(f"#!{python}\nimport sys\nfrom {module} import main\nif __name__ == '__main__':\n    sys.exit(main())\n")
        program.chmod(0o755)
    return python


def test_the_five_minutes(installed: Path, tmp_path: Path) -> None:
    """As the wheel is installed: nothing of the checkout is on the path."""
    path = f"{installed.parent}{os.pathsep}{os.environ['PATH']}"
    script = "\n".join(["set -e", *blocks("sh")])
    out = run(
        ["bash", "-c", f"{script}\npython -c 'import dagster_dvc; print(dagster_dvc.__file__)'"],
        tmp_path,
        PATH=path,
        PYTHONPATH="",
        DVC_NO_ANALYTICS="1",
        DAGSTER_HOME="",
    )
    assert "Data and pipelines are up to date." in out
    assert Path(out.split()[-1]).is_relative_to(installed.parent.parent), "the wheel is what ran"
    assert (tmp_path / "started/metrics.json").read_text() == '{"mean": 3383.5}'


def test_its_python_and_yaml_are_sound(installed: Path, tmp_path: Path) -> None:
    """The examples that follow the first steps: each name exists, and the stages it yields are assets."""
    (example,) = blocks("python")
    (tmp_path / ".git").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages:\n  one: {cmd: echo 1 > one.txt, outs: [one.txt]}\n")
    run([installed, "-m", "dvc", "init", "-q", "--no-scm"], tmp_path, PYTHONPATH="")
    code = f"import dagster as dg\nfrom dagster_dvc import *\n{example}\nprint([spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()])"
    assert run([installed, "-c", code], tmp_path, PYTHONPATH="") == "['churn/one']\n"
    for name in re.findall(r"^\| `@?(\w+)(?:\([\w, ]*\))?`", README, flags=re.M):
        assert name in dagster_dvc.__all__ or name in ("asset", "group", "pool", "pull", "report", "facts", "checks", "prerequisite"), name
