"""The documentation as a site: built whole, without a warning, and with every plug-in and command on it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from projects import SOURCE

import uss_dagster
from uss_dagster import cli, registry

BUILDS = all(importlib.util.find_spec(name) for name in ("mkdocs", "material", "mkdocstrings"))


@pytest.mark.slow
@pytest.mark.skipif(not BUILDS, reason="needs the extra docs: pip install -c constraints.txt -e '.[docs]'")
def test_the_site_is_built_without_a_warning_and_has_every_plugin_command_and_public_name(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=SOURCE, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    text = {
        page: (tmp_path / "reference" / page / "index.html").read_text()
        for page in ("methods", "backbones", "metrics", "commands", "python")
    }
    for family in ("method", "backbone", "metric"):
        assert all(f"<code>{name}</code>" in text[f"{family}s"] for name in registry.names(family))
    assert all(f"uss {name}" in text["commands"] for heading, names in cli.COMMANDS.items() if heading for name in names)
    assert all(name in text["python"] for name in uss_dagster.__all__)
    assert 'href="../dagster_dvc/"' in (tmp_path / "architecture" / "index.html").read_text()
