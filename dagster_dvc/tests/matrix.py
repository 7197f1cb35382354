"""The tests of this package with each pair of versions in ``tested_versions.json``, each in an environment of its own.

    python dagster_dvc/tests/matrix.py FOLDER [NAME] [-- WORDS FOR PYTEST]

FOLDER gets an environment for each pair, or the one that is named; one that exists is used again. The checkout is tested, not the wheel, which
``test_readme`` tests. Exits with 1 where a test fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
VERSIONS = PACKAGE / "tested_versions.json"
TOOLS = [
    "pytest>=8",
    "hypothesis>=6.120",
    "setuptools>=77",
    "wheel",
    "dagster-pipes",
    "dvc-s3>=3.2",
    "moto[s3]>=5",
    "flask>=3",
    "flask-cors>=4",
]


def environment(folder: Path, pair: dict[str, str], also: list[str]) -> Path:
    """The Python of an environment with a pair of versions and what the tests need."""
    python = folder / pair["name"] / "bin" / "python"
    if not python.exists():
        venv.create(folder / pair["name"], with_pip=True)
    pins = [f"dagster=={pair['dagster']}", f"dagster-dg-cli=={pair['dagster']}", f"dvc=={pair['dvc']}"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *pins, *also, *TOOLS, str(PACKAGE)], check=True)
    subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "dagster_dvc"], check=True)  # what it needs stays
    subprocess.run([python, "-m", "pip", "check"], check=True)
    return python


def main() -> int:
    """Run the tests with each pair; 1 where any failed."""
    words, _, for_pytest = " ".join(sys.argv[1:]).partition(" -- ")
    folder, *names = words.split()
    failed = []
    for pair in json.loads(VERSIONS.read_text(encoding="utf-8")):
        also = pair.pop("also")
        if names and pair["name"] not in names:
            continue
        python = environment(Path(folder).resolve(), pair, also)
        env = {
            **os.environ,
            "PYTHONPATH": str(PACKAGE.parent),
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
        }
        done = subprocess.run([python, "-m", "pytest", *for_pytest.split(), PACKAGE / "tests"], cwd=PACKAGE.parent, env=env)
        print(f"Dagster {pair['dagster']}, DVC {pair['dvc']}: {'failed' if done.returncode else 'passed'}", flush=True)
        failed += [pair["name"]] if done.returncode else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
