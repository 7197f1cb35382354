"""``uss doctor``: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import typer

from uss_dagster.commands.options import AsJson, echo_json
from uss_dagster.commands.requirements import has_git, no_scm, remotes, unusable_remotes
from uss_dagster.errors import UsageError, UssError

REQUIRED = (
    "dagster",
    "dagster-webserver",
    "dvc",
    "torch",
    "torchvision",
    "timm",
    "diffusers",
    "transformers",
    "great-expectations",
    "pycocotools",
)


def doctor(json: AsJson = False) -> None:
    """What this machine has and lacks, and what to do."""
    from uss_dagster.files import find_project

    checks = []
    for verdict, subject, sentence in findings(find_project()):
        checks.append({"verdict": verdict, "subject": subject, "sentence": sentence})
        if not json:
            typer.echo(f"{verdict:<5} {subject:<18} {sentence}")
    if json:
        echo_json(checks)
    wrong = sum(check["verdict"] == "fix" for check in checks)
    if wrong:
        raise UsageError("One thing to fix, see above." if wrong == 1 else f"{wrong} things to fix, see above.")


def findings(root: Path | None) -> Iterator[tuple[str, str, str]]:
    """(ok | note | fix, subject, sentence) one by one, in the order a person would solve them."""
    for name in REQUIRED:
        if version := _version(name):
            yield "ok", name, version
        else:
            yield "fix", name, "is not installed: run `pip install uss_dagster` (in a clone `make setup`)."
    yield _antlr()
    yield _device()
    if root is None:
        yield "note", "project", "no params.yaml and dvc.yaml here or above; `uss segment` works, the pipeline does not."
        return
    yield "ok", "project", str(root)
    if has_git(root):
        yield "ok", "git", shutil.which("git") or ""
    elif no_scm(root):
        yield "note", "git", "not used (core.no_scm)."
    else:
        yield "fix", "git", "no git repository: run `git init`, or `dvc config --local core.no_scm true`."
    lacking = dict(unusable_remotes(root))
    for name, address in remotes(root).items():
        yield ("fix", "remote", lacking[name]) if name in lacking else ("ok", "remote", f"{name}: {address}")
    yield _plan(root)
    yield from _features(root)
    free = shutil.disk_usage(root).free / 1024**3
    yield "ok" if free > 5 else "note", "disk", f"{free:.0f} GiB free."
    if mirror := os.environ.get("USS_MIRROR"):
        yield "ok", "USS_MIRROR", mirror
    else:
        yield "note", "USS_MIRROR", "is not set; datasets that cannot be downloaded freely need it."


def _version(package: str) -> str | None:
    """The version of an installed package."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plan(root: Path) -> tuple[str, str, str]:
    from uss_dagster.planning.plan import write_plan

    try:
        changes = write_plan(root, check=True)
    except UssError as error:
        return "fix", "plan", str(error)
    if changes:
        return "fix", "plan", f"The plan is out of date ({changes[0]}): run `uss plan`."
    return "ok", "plan", "The plan is up to date."


def _features(root: Path) -> Iterator[tuple[str, str, str]]:
    """What the stored features of each backbone take."""
    from uss_dagster.artifacts.staging import files_of, read_manifest
    from uss_dagster.commands.plan import computing_lines
    from uss_dagster.planning.layout import Layout
    from uss_dagster.planning.plan import read_plan
    from uss_dagster.stages.features import Features

    layout, stored, images = Layout(root), Counter[str](), Counter[str]()
    try:
        for cell in read_plan(root).of(Features):
            if cell.artefact(layout).is_dir():
                manifest = read_manifest(cell.artefact(layout))
                stored[cell.backbone] += sum(file["size"] for file in files_of(manifest).values())
                images[cell.backbone] += manifest["counts"]["images"]
        lines = list(computing_lines(root))
    except UssError:  # the line of the plan says why, or `uss verify`
        return
    for backbone, size in sorted(stored.items()):
        each = size / images[backbone] / 1e6
        yield (
            "ok",
            "features",
            f"'{backbone}': {size / 1e6:,.1f} MB stored, {each:.2f} MB an image; none with `keep: false` in the profile.",
        )
    yield from (("ok", "features", f"{line.removeprefix('features of ')}.") for line in lines)


def _antlr() -> tuple[str, str, str]:
    antlr = _version("antlr4-python3-runtime")
    if antlr is None:
        return "note", "antlr4", "is not installed."
    if antlr.startswith("4.13"):
        return "ok", "antlr4", antlr
    return "fix", "antlr4", f"{antlr} breaks Dagster's asset selection: run `pip install -c constraints.txt antlr4-python3-runtime`."


def _device() -> tuple[str, str, str]:
    if importlib.util.find_spec("torch") is None:
        return "fix", "device", "torch is not installed: run `pip install uss_dagster` (in a clone `make setup`)."
    import torch

    if torch.cuda.is_available():
        return "ok", "device", torch.cuda.get_device_name(0)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "note", "device", f"no GPU; {cores} CPU cores."
