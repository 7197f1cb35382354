"""The `uss` command: light, helpful, and with exit codes that a scheduler can read."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from projects import BIN, SOURCE, Project, tree_hash
from typer.main import get_group

from uss_dagster import __version__, cli, registry

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "dagster",
    "great_expectations",
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "skimage",
    "pyarrow",
    "dvc",
    "PIL",
)


@pytest.fixture
def here(tmp_path: Path) -> Project:
    """A folder that is no project."""
    return Project(tmp_path, {"PYTHONPATH": str(SOURCE)})


def imported(words: list[str], folder: Path) -> set[str]:
    """Top-level modules that a `uss` command imports, by running it."""
    program = (
        "import sys, uss_dagster.cli as cli\n"
        f"sys.argv = ['uss', *{words!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "print('MODULES', *{m.partition('.')[0] for m in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_is_instant(here: Project):
    seconds, processor_seconds = [], []
    for _ in range(4):
        started, before = time.perf_counter(), os.times()
        done = here.uss("--help", cold=True)
        after = os.times()
        seconds.append(time.perf_counter() - started)
        processor_seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(processor_seconds) <= 0.3
    assert min(seconds) <= 0.5, "other processes may take time too"
    for command in ("plan", "repro", "demo", "segment", "ui", "list", "doctor"):
        assert f"\n  {command} " in done.stdout
    for heading in filter(None, cli.COMMANDS):
        assert f"\n\n{heading}:\n  " in done.stdout
    assert done.stdout == here.uss("-h").stdout
    assert "…" not in done.stdout
    assert "..." not in done.stdout.replace("...", "", 1), "summaries fit on their line; the one '...' is click's usage"


def test_every_visible_command_stands_in_one_group(here: Project):
    visible = [name for name, command in get_group(cli.app).commands.items() if not command.hidden]
    listed = [line.split()[0] for line in here.uss("--help").stdout.split("\n\n", 3)[3].splitlines() if line.startswith("  ")]
    assert sorted(listed) == sorted(visible)


@pytest.mark.parametrize("module", [cli.identifier(name) for names in cli.COMMANDS.values() for name in names])
def test_a_command_module_imports_only_light_modules_at_its_top(module):
    """Each is imported whenever `uss` starts; a command imports what it runs when it runs."""
    tree = ast.parse((Path(cli.__file__).parent / "commands" / f"{module}.py").read_text(encoding="utf-8"))
    names = {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    own = [name for name in names if name.partition(".")[0] not in {*sys.stdlib_module_names, "typer"}]
    assert [name for name in own if name != "uss_dagster.errors" and not name.startswith("uss_dagster.commands")] == []


@pytest.mark.parametrize(
    ("line", "expected"),
    [("uss seg", ["segment"]), ("uss data ", ["list", "get", "check", "licences"]), ("uss segment --method contour", ["contour_merge"])],
)
def test_shell_completion(here: Project, line, expected):
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), "_USS_COMPLETE": "complete_bash"}
    assert here.uss(cold=True, **words).stdout.split() == expected


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["segment", "--help"], ["curate", "--help"], ["doctor", "--help"]], ids=" ".join
)
def test_light_commands_import_nothing_heavy(tmp_path, words):
    assert not imported(words, tmp_path).intersection(HEAVY)


def test_planning_imports_no_orchestrator_and_no_network(project: Project):
    assert not imported(["plan"], project.root).intersection(
        {"torch", "torchvision", "timm", "dagster", "great_expectations", "dvc", "sklearn"}
    )


def test_version(here: Project):
    assert here.uss("--version").stdout == f"uss_dagster {__version__}\n"


def test_list_shows_every_plugin(here: Project):
    lines = here.uss("list").stdout.splitlines()
    for family, heading in registry.FAMILIES.items():
        start = lines.index(f"{heading}:") + 1
        shown = [line.split(maxsplit=1) for line in lines[start : start + len(registry.names(family))]]
        assert [name for name, _ in shown] == list(registry.names(family))
        assert all(title for _, title in shown)


def test_doctor_in_a_project(project: Project):
    lines = project.uss("doctor").stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "note"}
    assert f"ok    project            {project.root}" in lines
    assert "ok    plan               The plan is up to date." in lines
    project.append("profiles/small.yaml", "  fine: {method: felzenszwalb}\n")
    out_of_date = project.uss("doctor", code=64)
    assert "fix   plan               The plan is out of date (leaderboard: entries, scores): run `uss plan`." in out_of_date.stdout
    assert out_of_date.stderr == "error: One thing to fix, see above.\n"


def test_doctor_outside(here: Project):
    said = here.uss("doctor").stdout
    assert "note  project " in said
    assert "`uss segment` works" in said


def test_plan_check(project: Project):
    assert project.uss_here("plan", "--check").stdout == "The plan is up to date.\n"
    before = tree_hash(project.root / "pipelines")
    project.edit("profiles/small.yaml", "superpixels: 60", "superpixels: 61")
    refused = project.uss("plan", "--check", code=64)
    assert refused.stdout == "  leaderboard: entries\n  segments/slic_merge/scenes: method\n"
    assert refused.stderr == "error: The plan is out of date (2 differences). Run `uss plan` and commit the result.\n"
    assert tree_hash(project.root / "pipelines") == before
    assert project.uss_here("plan").stdout.endswith("The plan changed in 2 places.\n")
    assert project.uss_here("plan", "--check").stdout == "The plan is up to date.\n"
    file = project.root / "pipelines/scenes/slic_merge/segments.yaml"
    file.write_text(file.read_text() + "broken: [\n")
    project.uss_here("plan", "--check", code=64)
    project.uss_here("plan")
    assert "superpixels: 61" in file.read_text()
    assert "broken" not in file.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["segmnt"], "No such command 'segmnt'"),
        (["plan", "--chek"], "No such option: --chek"),
        (["ui", "--port", "nought"], "Invalid value for '--port'"),
        (["plan", "more"], "unexpected extra argument"),
        ([], "Usage: uss"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_exit_with_64(here: Project, words, said):
    refused = here.uss(*words, code=64)
    assert said in refused.stderr + refused.stdout
    assert "Traceback" not in refused.stderr


def test_module_can_be_run(here: Project):
    assert here.run(sys.executable, "-m", "uss_dagster.cli", "--version").stdout.startswith("uss_dagster ")


def test_list_shows_the_parameters_of_a_plug_in(here: Project):
    lines = here.uss("list", "kmeans").stdout.splitlines()
    assert lines[0] == "method kmeans: k-means"
    assert [line.split() for line in lines if line.startswith(("parameter", "k ", "components"))] == [
        ["parameter", "default", "values"],
        ["k", "16", "whole", "number"],
        ["components", "true", "false,", "true"],
    ]
    assert "nm_covering" in here.uss("list", "covering").stdout
    assert "Nothing is called 'kmean'. Did you mean 'kmeans'?" in here.uss("list", "kmean", code=64).stderr


def test_a_closed_pipe_is_no_error(here: Project):
    done = subprocess.run(f"{BIN}/uss list | head -1", shell=True, cwd=here.root, capture_output=True, text=True)
    assert done.stdout == "methods:\n"
    assert "Traceback" not in done.stderr


def test_list_says_what_a_method_needs_and_what_each_parameter_means(here: Project):
    text = here.uss("list", "kmeans").stdout
    assert "features of a backbone: tokens\n" in text
    assert "    Clusters at the finest level. Default 16.\n" in text
    (about,) = json.loads(here.uss("list", "kmeans", "--json").stdout)
    assert (about["family"], about["features"]) == ("method", "tokens")
    assert about["parameters"][0] == {
        "name": "k", "default": 16, "choices": [], "type": "whole number", "description": "Clusters at the finest level. Default 16."
    }  # fmt: skip
    everything = json.loads(here.uss("list", "--json").stdout)
    assert {(p["family"], p["name"]) for p in everything} == {(f, n) for f in registry.FAMILIES for n in registry.names(f)}


def test_results_are_json_for_programs_and_progress_goes_to_standard_error(built: Project, tmp_path: Path):
    def read(*words: str) -> Any:
        return json.loads(built.uss(*words, "--json").stdout)

    assert {check["verdict"] for check in read("doctor")} <= {"ok", "note"}
    assert read("plan", "--check") == {"changes": [], "computed_features": []}
    assert read("verify")["differences"] == []
    goes = {part["part"]: part["bytes"] for part in read("gc")["goes"]}
    assert goes["features"] == 0
    datasets = {dataset["name"]: dataset for dataset in read("data", "list")}
    assert datasets["bsds500"]["images"] == {"train": 200, "val": 100, "test": 200}
    assert {"dinov2_vits14_saliency"} <= {entry["name"] for entry in read("weights", "list") if entry["labels"]}
    entries = sorted(path.name for path in (built.root / "data" / "scores").iterdir())
    row = read("compare", *entries[:2])[0]
    assert set(row["values"]) == set(entries[:2])
    assert row["difference"] == pytest.approx(row["values"][entries[0]] - row["values"][entries[1]])
    assert [version["known"] for version in read("history")["versions"]] == [True]

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 48, 3), np.uint8)).save(tmp_path / "a.png")
    done = built.uss(
        "segment", str(tmp_path / "a.png"), "--method", "felzenszwalb", "--out", str(tmp_path / "out"), "--no-explorer", "--json"
    )
    (row,) = json.loads(done.stdout)["images"]
    assert row["image"] == "a"
    assert row["regions"] > 1
    assert Path(row["overlay"]).is_file()
    assert "1/1" in done.stderr
    table = str(tmp_path / "out" / "regions.parquet")
    scores = read("score", "--pred", table, "--gt", table, "--truth", "instances", "--bootstrap", "0")
    assert {score["value"] for score in scores["scores"] if score["metric"] == "ar1000"} == {1.0}
    assert scores["images"] == 1


def test_a_dry_run_names_what_would_be_computed_and_writes_nothing(built: Project):
    assert built.uss("repro", "--dry-run").stdout == ""
    built.edit("profiles/small.yaml", "{k: 4}", "{k: 5}")
    before = tree_hash(built.root / "pipelines"), built.locks()
    would = built.uss("repro", "--dry-run").stdout.split()
    assert would == ["segments/kmeans/scenes", "scores/kmeans/scenes", "leaderboard", "site"]
    assert built.uss("repro", "--dry-run", "scores").stdout.split() == would[:2]
    assert (tree_hash(built.root / "pipelines"), built.locks()) == before
    assert "Did you mean 'scores'?" in built.uss("repro", "--dry-run", "score", code=64).stderr
    assert built.repro() == would
