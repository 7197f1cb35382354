"""The processes of deploy/compose.yaml with its commands and environment, without containers: Postgres, code server, page, daemon.

Only what containers give each process of its own is replaced: hosts, ports, and the folder of Dagster's settings.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml
from dagster_page import ENDED, DagsterPage
from postgres import Postgres, postgres_server
from processes import free_port, wait_for
from projects import BIN, SOURCE, Project

pytestmark = pytest.mark.slow
DEPLOY = SOURCE / "deploy"
SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
CODE_PORT, PAGE_PORT, HOME = "4266", "3000", "/opt/dagster"
RELOAD = 'mutation { reloadRepositoryLocation(repositoryLocationName: "uss_dagster") { __typename } }'
LOCATION = """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
    __typename ... on PythonError { message } } } } } }"""


@dataclass
class Containers:
    """Processes in place of the compose file's containers.

    Parameters
    ----------
    project
        Mounted at /project.
    database
        In place of the service ``postgres``.
    home
        In place of /opt/dagster.
    """

    project: Project
    database: Postgres
    home: Path
    ports: dict[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in (CODE_PORT, PAGE_PORT)})
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shutil.copyfile(DEPLOY / "dagster-postgres.yaml", self.home / "dagster.yaml")
        workspace = (DEPLOY / "workspace.yaml").read_text()
        assert "host: code\n" in workspace
        assert f"port: {CODE_PORT}\n" in workspace
        workspace = workspace.replace("host: code\n", "host: 127.0.0.1\n").replace(CODE_PORT, self.ports[CODE_PORT])
        (self.home / "workspace.yaml").write_text(workspace)

    def words(self, words: list[str]) -> list[str]:
        """A command of the compose file, for this machine."""
        local = {**self.ports, "0.0.0.0": "127.0.0.1"}
        program, *options = [local.get(word, word.replace(HOME, str(self.home))) for word in words]
        return [str(BIN / program), *options]

    def environment(self, service: str) -> dict[str, str]:
        """What the image and the compose file set for a service."""
        image = re.search(r"^ENV (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[1]
        declared = {**dict(pair.split("=") for pair in image.split()), **SERVICES[service].get("environment", {})}
        given = {"DAGSTER_PG_PASSWORD": self.database.password}
        values = {name: re.sub(r"\$\{(\w+):.*\}", lambda found: given.get(found[1], ""), value) for name, value in declared.items()}
        local = {"postgres": "127.0.0.1", "5432": str(self.database.port), HOME: str(self.home)}
        return {**self.project.env, **{name: local.get(value, value) for name, value in values.items()}}

    def start(self, service: str) -> None:
        with (self.home / f"{service}.log").open("ab") as log:
            self.running[service] = subprocess.Popen(
                self.words(SERVICES[service]["command"]),
                cwd=self.project.root,
                env=self.environment(service),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def healthy(self, service: str) -> bool:
        """Whether the check that the compose file names for a service passes."""
        assert self.running[service].poll() is None, self.log(service)
        test = self.words(SERVICES[service]["healthcheck"]["test"][1:])
        return subprocess.run(test, env=self.environment(service), cwd=self.project.root, capture_output=True).returncode == 0

    def log(self, service: str) -> str:
        return (self.home / f"{service}.log").read_text()

    def kill(self, service: str) -> None:
        """End a container as a lack of memory does: all its processes at once."""
        process = self.running.pop(service)
        family = [process, *psutil.Process(process.pid).children(recursive=True)]
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def containers(project: Project, tmp_path: Path) -> Iterator[Containers]:
    home = tmp_path / "home"
    home.mkdir()
    with postgres_server() as database:
        here = Containers(project, database, home)
        try:
            yield here
        finally:
            for service in list(here.running):
                here.kill(service)


def up(url: str, containers: Containers) -> bool:
    assert containers.running["page"].poll() is None, containers.log("page")
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/server_info", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def status(page: DagsterPage) -> list[tuple[str, str]]:
    """Location → what it loaded as."""
    entries = page.ask(LOCATION)["workspaceOrError"]["locationEntries"]
    return [(entry["name"], (entry["locationOrLoadError"] or {}).get("__typename", "")) for entry in entries]


def test_the_processes_of_the_compose_file_with_a_real_database(containers: Containers):
    containers.start("code")
    wait_for("the code server", lambda: containers.healthy("code"), 120)
    containers.start("page")
    containers.start("daemon")
    page = DagsterPage(f"http://127.0.0.1:{containers.ports[PAGE_PORT]}")
    wait_for("the page", lambda: up(page.url, containers), 120)
    assert status(page) == [("uss_dagster", "RepositoryLocation")]

    def run(asset: str) -> None:
        launched = page.launch(asset, "scenes")
        wait_for(f"the run of {asset}", lambda: page.runs()[launched] in ENDED, 180)
        assert page.runs()[launched] == "SUCCESS", (containers.log("daemon")[-3000:], page.events(launched)[-3:])
        stored = containers.database.ask(
            "SELECT count(*) FROM event_logs WHERE run_id = %s AND dagster_event_type = 'ASSET_MATERIALIZATION' AND partition = 'scenes'",
            launched,
        )
        assert stored == [(1,)]

    run("datasets")
    assert containers.project.lock()["datasets/scenes"]
    containers.kill("code")
    wait_for("the page to see that the code server is gone", lambda: containers.running["page"].poll() is None, 5)
    containers.start("code")
    wait_for("the code server again", lambda: containers.healthy("code"), 120)
    wait_for("the location again", lambda: status(page) == [("uss_dagster", "RepositoryLocation")], 60)
    run("features/patches")
    assert containers.project.lock()["features/patches/scenes"]
