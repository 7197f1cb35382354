"""Fixtures that every test may use; what they hand out is in ``projects``."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from projects import BIN, SOURCE, Project, copy_project, executed, make_project
from threadpoolctl import threadpool_limits

__all__ = ["BIN", "SOURCE", "Project", "executed", "make_project"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread_a_process() -> Iterator[None]:
    """Test processes side by side take one core each: the threads of a BLAS library would spin against each other."""
    with threadpool_limits(1) if "PYTEST_XDIST_WORKER" in os.environ else nullcontext():
        yield


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project in which nothing is computed yet."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small project in which everything is computed, once for all test processes. Do not change it: see ``built``."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, done = shared / "finished", shared / "finished.ok"
    with open(shared / "finished.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            assert len(make_project(folder).repro()) == 10
            done.touch()
    return Project(folder)


@pytest.fixture
def built(finished: Project, tmp_path: Path) -> Project:
    """A project of the test's own in which everything is computed."""
    return copy_project(finished, tmp_path / "project")
