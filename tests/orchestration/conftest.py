"""A planned project with nothing computed, once for all tests of this folder that only look at definitions."""

import pytest
from projects import Project, make_project


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("planned") / "project")
