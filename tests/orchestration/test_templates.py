"""The files that other machines run: workflows, images, units. Their commands exist, their options are known, nothing is open to a network."""

import configparser
import importlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from projects import BIN, SMALL, SOURCE, make_project

from uss_dagster.planning.plan import read_plan
from uss_dagster.stages.models import Models

WORKFLOWS = sorted((SOURCE / ".github/workflows").glob("*.yml"))
DEPLOY = SOURCE / "deploy"
MADE = {line.partition(":")[0] for line in (SOURCE / "Makefile").read_text().splitlines() if re.match(r"[a-z-]+:", line)}
SHELL = {"cat", "cd", "echo", "exit", "gh", "git", "if", "then", "fi", "{", "}", "python", "pip"}
"""Of the runner and of actions/setup-python."""


def load(path: Path) -> dict:
    found = yaml.safe_load(path.read_text())
    assert isinstance(found, dict), path
    return found


def scripts(workflow: dict) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def check_words(words: list[str]) -> None:
    """A command of ours must exist and take these options."""
    program = Path(words[0]).name
    if program == "dvc":
        from dvc.cli.parser import get_main_parser

        get_main_parser().parse_args(words[1:])
    elif program == "uss":
        from typer.main import get_group

        from uss_dagster.cli import app

        assert words[1] in get_group(app).commands, f"uss has no {words[1]}"
    elif program == "make":
        assert set(words[1:]) <= MADE
    elif words[0].startswith("."):
        assert (SOURCE / words[0]).stat().st_mode & 0o111, f"{words[0]} cannot be run"
    else:
        assert program in SHELL, f"what is {program}?"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_are_sound(path):
    workflow = load(path)
    assert {"name", True, "jobs", "permissions"} <= set(workflow), "YAML reads the key `on` as true"
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"] <= 360
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step), step
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]), "only GitHub's own actions, at a version"
    for script in scripts(workflow):
        plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
        done = subprocess.run(["bash", "-n"], input=plain, text=True, capture_output=True)
        assert done.returncode == 0, f"{script}\n{done.stderr}"
        for line in re.split(r"\n|\|\||; ", plain):
            words = re.sub(r'"[^"]*"', "X", line.partition(" >")[0]).split()
            if words:
                check_words(words)


def test_the_gate_is_the_one_that_people_run():
    assert scripts(load(SOURCE / ".github/workflows/ci.yml")) == [".ci/run"]


@pytest.mark.parametrize("name", ["demo", "nightly"])
def test_stages_on_a_gpu_are_never_computed_there(name):
    for job in load(SOURCE / f".github/workflows/{name}.yml")["jobs"].values():
        assert job["env"]["USS_NO_GPU"]


def test_a_stage_on_a_gpu_refuses_to_be_computed_there(tmp_path):
    students = "curated:\n  masks: {dataset: scenes, entry: kmeans}\nstudents:\n  first: {curated: masks}\n"
    project = make_project(tmp_path / "project", SMALL + students)
    (cell,) = read_plan(project.root).of(Models)
    done = project.uss("stage", cell.file, code=69, USS_NO_GPU="1")
    assert "models/first is not computed here (USS_NO_GPU is set)" in done.stderr


def exists(words: list[str]) -> None:
    """A command line of Dagster: the program is installed, and its help knows the options."""
    program, options = words[0].rpartition("/")[2], [word for word in words if word.startswith("--")]
    assert (BIN / program).exists(), f"{program} is not installed with the package"
    module = {"dagster": "dagster._cli", "dagster-daemon": "dagster._daemon.cli", "dagster-webserver": "dagster_webserver.cli"}[program]
    import importlib

    command = importlib.import_module(module)
    command = getattr(
        command, {"dagster": "create_dagster_cli", "dagster-daemon": "create_dagster_daemon_cli"}.get(program, "dagster_webserver")
    )
    command = command() if program != "dagster-webserver" else command
    for word in words[1:]:
        if not word.startswith("-") and hasattr(command, "commands") and word in command.commands:
            command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(options) <= known, f"{program} does not know {set(options) - known}"


def test_compose_starts_what_exists_and_opens_the_page_to_this_machine_only():
    compose = load(DEPLOY / "compose.yaml")
    services = compose["services"]
    assert set(services) == {"postgres", "code", "page", "daemon"}
    for name in ("code", "page", "daemon"):
        exists(services[name]["command"])
        assert (DEPLOY / services[name]["build"]["context"] / services[name]["build"]["dockerfile"]).is_file()
    exists(services["code"]["healthcheck"]["test"][1:])
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:3000:3000"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= {"..", *compose["volumes"]}
    (server,) = load(DEPLOY / "workspace.yaml")["load_from"]
    assert server["grpc_server"]["host"] in services
    assert str(server["grpc_server"]["port"]) in services["code"]["command"]
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        done = subprocess.run(
            ["docker", "compose", "-f", DEPLOY / "compose.yaml", "config", "-q"], env={**os.environ, "DAGSTER_PG_PASSWORD": "x"}
        )
        assert done.returncode == 0


def test_the_image_copies_what_there_is():
    lines = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text()).splitlines()
    known = {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER"}
    instructions = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    assert {words[0] for words in instructions} == known
    assert instructions[0][0] == "FROM"
    assert instructions[-1] == ["USER", "uss"], "not as root"
    for words in instructions:
        if words[0] == "COPY":
            assert all((SOURCE / source).exists() for source in words[1:-1]), words


def test_settings_of_the_server_are_ones_that_dagster_takes():
    from dagster._config import validate_config
    from dagster._core.instance.config import dagster_instance_config_schema

    for path in (DEPLOY / "dagster-postgres.yaml", SOURCE / "dagster.yaml"):
        checked = validate_config(dagster_instance_config_schema(), load(path))
        assert checked.success, checked.errors
    here, there = load(SOURCE / "dagster.yaml"), load(DEPLOY / "dagster-postgres.yaml")
    assert here.items() <= there.items(), "a server differs in its storage only"


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.service")), ids=lambda path: path.stem)
def test_units_start_what_exists_on_the_loopback_interface(path):
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    assert set(unit) - {"DEFAULT"} == {"Unit", "Service", "Install"}
    words = unit["Service"]["ExecStart"].split()
    exists(words)
    assert unit["Service"]["User"] != "root"
    hosts = [words[place + 1] for place, word in enumerate(words) if word in ("--host", "--grpc-host")]
    assert set(hosts) == {"127.0.0.1"}
    for other in unit["Unit"].get("After", "").split():
        assert other == "network.target" or (DEPLOY / other).is_file()


def test_values_of_the_chart():
    values = load(DEPLOY / "helm-values.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert "uss_dagster.definitions" in deployment["codeServerArgs"]
    volumes = {volume["name"] for volume in deployment["volumes"]}
    assert {mount["name"] for mount in deployment["volumeMounts"]} == volumes
    assert values["dagsterWebserver"]["service"]["type"] == "ClusterIP"
    assert "volumes" not in str(values["runLauncher"]), "DVC's locks do not hold between pods: one alone has the clone"
    launcher = values["runLauncher"]["config"]["customRunLauncher"]
    assert getattr(importlib.import_module(launcher["module"]), launcher["class"])
    assert (deployment["replicaCount"], deployment["deploymentStrategy"]) == (1, {"type": "Recreate"})


def test_the_page_names_every_file():
    text = (SOURCE / "docs/deployment.md").read_text()
    for path in [*DEPLOY.iterdir()]:
        if not path.name.endswith("ignore"):
            assert path.name in text, path.name
