"""The processes of deploy/compose.yaml and deploy/helm-values.yaml without containers: Postgres, code server, page, daemon.

Commands and environment are those of the files. Only what containers give each process of its own is replaced: hosts, ports, and the folder
of Dagster's settings.
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
CHART = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
CODE_PORT, PAGE_PORT, HOME = "4266", "3000", "/opt/dagster"
LOADED = [("uss_dagster", "RepositoryLocation")]
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
    commands
        Service → its command.
    """

    project: Project
    database: Postgres
    home: Path
    commands: dict[str, list[str]] = field(default_factory=lambda: {name: service.get("command", []) for name, service in SERVICES.items()})
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
                self.words(self.commands[service]),
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

    def open_page(self) -> DagsterPage:
        """Start code server, page and daemon; the page, once it answers."""
        self.start("code")
        wait_for("the code server", lambda: self.healthy("code"), 120)
        self.start("page")
        self.start("daemon")
        page = DagsterPage(f"http://127.0.0.1:{self.ports[PAGE_PORT]}")
        wait_for("the page", lambda: self.answers(page), 120)
        assert locations(page) == LOADED
        return page

    def answers(self, page: DagsterPage) -> bool:
        """Whether the page is up."""
        assert self.running["page"].poll() is None, self.log("page")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{page.url}/server_info", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    def run(self, page: DagsterPage, asset: str) -> None:
        """Launch a run on the page; it must succeed, and its materialisation be in the database."""
        launched = page.launch(asset, "scenes")
        wait_for(f"the run of {asset}", lambda: page.runs()[launched] in ENDED, 180)
        assert page.runs()[launched] == "SUCCESS", (self.log("daemon")[-3000:], page.events(launched)[-3:])
        materialized = (
            "SELECT count(*) FROM event_logs WHERE run_id = %s AND dagster_event_type = 'ASSET_MATERIALIZATION' AND partition = %s"
        )
        assert self.database.ask(materialized, launched, "scenes") == [(1,)]

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


def locations(page: DagsterPage) -> list[tuple[str, str]]:
    """Location → what it loaded as."""
    entries = page.ask(LOCATION)["workspaceOrError"]["locationEntries"]
    return [(entry["name"], (entry["locationOrLoadError"] or {}).get("__typename", "")) for entry in entries]


def test_the_processes_of_the_compose_file_with_a_real_database(containers: Containers):
    page = containers.open_page()
    containers.run(page, "datasets")
    assert containers.project.lock()["datasets/scenes"]
    containers.kill("code")
    containers.start("code")
    wait_for("the code server again", lambda: containers.healthy("code"), 120)
    wait_for("the location again", lambda: locations(page) == LOADED, 60)
    containers.run(page, "features/patches")
    assert containers.project.lock()["features/patches/scenes"]


def test_what_the_values_of_the_chart_claim(containers: Containers):
    """The chart's own templates make settings and a command of these values, as here."""
    (deployment,) = CHART["dagster-user-deployments"]["deployments"]
    arguments = ["--working-directory", str(containers.project.root)]
    assert deployment["codeServerArgs"][2:] == ["--working-directory", "/project"]
    start = ["dagster", "code-server", "start", "-h", "0.0.0.0", "-p", str(deployment["port"])]
    containers.commands["code"] = [*start, *deployment["codeServerArgs"][:2], *arguments]
    launcher = CHART["runLauncher"]["config"]["customRunLauncher"]
    coordinator = CHART["dagsterDaemon"]["runCoordinator"]
    storage = yaml.safe_load((DEPLOY / "dagster-postgres.yaml").read_text())["storage"]["postgres"]
    storage["postgres_db"]["scheme"] = CHART["postgresql"]["postgresqlScheme"]
    settings = {
        "telemetry": {"enabled": False},
        "storage": {"postgres": storage},
        "run_launcher": launcher,
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": coordinator["type"],
            "config": {"max_concurrent_runs": coordinator["config"]["queuedRunCoordinator"]["maxConcurrentRuns"]},
        },
    }
    (containers.home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    page = containers.open_page()
    seen: set[str] = set()
    server = psutil.Process(containers.running["code"].pid)

    class Watched(DagsterPage):
        def runs(self) -> dict[str, str]:
            with contextlib.suppress(psutil.Error):
                seen.update(" ".join(process.cmdline()) for process in server.children(recursive=True))
            return super().runs()

    containers.run(Watched(page.url), "datasets")
    assert any("dvc_program.py" in command and "datasets" in command for command in seen), "runs are processes of the code server"
    # The chart sets no limit for pools; docs/deployment.md says how.
    limit = ["dagster", "instance", "concurrency", "set", "gpu", "1"]
    assert " ".join(limit) in (SOURCE / "docs/deployment.md").read_text()
    done = subprocess.run(containers.words(limit), env=containers.environment("code"), capture_output=True, text=True)
    assert "Set concurrency limit for gpu to 1" in done.stdout, done.stderr
