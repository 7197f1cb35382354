"""The versions that are tested are those that the package asks for, and those of its workflow."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import dagster_dvc

PACKAGE = Path(dagster_dvc.__file__).parent


def test_tested_versions_are_asked_for() -> None:
    pairs = json.loads((PACKAGE / "tested_versions.json").read_text())
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    required = {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}
    for name in ("dagster", "dvc"):
        versions = [pair[name] for pair in pairs]
        assert len(set(versions)) >= 2
        assert all(required[name].specifier.contains(version) for version in versions)
    workflow = PACKAGE.parent / ".github/workflows/dagster_dvc.yml"
    if not workflow.exists():
        pytest.skip("NOT TESTED: the workflow, which is not here. Run this in a checkout.")
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    assert jobs["tests"]["strategy"]["matrix"]["versions"] == [pair["name"] for pair in pairs]
