"""``uss data``: which datasets there are, getting them, checking them, their licences."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.commands.options import AsJson, echo, echo_json, echo_lines
from uss_dagster.errors import BadData, UsageError

if TYPE_CHECKING:
    from uss_dagster.datasets.base import DatasetSpec


data = typer.Typer(help="Datasets: what there is, getting it, checking it.", no_args_is_help=True, rich_markup_mode=None)


@data.command("list")
def list_datasets(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="The tables of docs/datasets.md instead; says nothing of this machine.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Datasets, and which of them are here."""
    if json:
        echo_json([_facts(spec) for spec in _specs()])
    else:
        echo_lines(markdown_tables() if markdown else listing())


@data.command()
def get(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Datasets; `uss data list` shows all.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="PATH", help="Archives you have (one, or a folder of them), or an extracted tree; nothing is fetched."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="ARCHIVE", help="Only this archive of the release; may be repeated.")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licence that is shown; asked for at a terminal otherwise.")
    ] = False,
) -> None:
    """Fetch datasets, or take them from a disk.

    They go to $USS_MIRROR/NAME, or to data/sources/NAME of the project. Interrupted downloads go on where they stopped, everything is
    verified, and a dataset is there whole or not at all.
    """
    from uss_dagster.downloads.get import Request, get_dataset

    if source is not None and len(names) > 1:
        raise UsageError(f"--from gives the files of one dataset, but {len(names)} were named. Run this once for each.")

    def accept() -> str:
        if accept_licence:
            return "with --accept-licence"
        return "at a terminal" if sys.stdin.isatty() and typer.confirm("Accept this licence?") else ""

    for name in names:
        get_dataset(Request(name, source, only or (), accept), echo)


@data.command()
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A dataset of this project, or one that was fetched.", show_default=False)],
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="A parameter of its source, such as split=val; may be repeated."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Hold a dataset against its checks.

    The prepared one (data/datasets/NAME) where this project has it, else its source, of which nothing is written.
    """
    from uss_dagster.commands.parameters import parse_parameters
    from uss_dagster.datasets.preparation import checks
    from uss_dagster.files import find_project
    from uss_dagster.planning.layout import Layout

    root = find_project()
    prepared = Layout(root).dataset(name) if root else None
    report = checks.check(name, prepared, lambda params, owner: parse_parameters(param or [], params, owner))
    if json:
        echo_json(report.checks)
    for row in report.checks if not json else ():
        message = f": {row['message']}" if row["message"] else ""
        echo(f"{'ok  ' if row['success'] else 'FAIL'}  {row['check']}{message}")
    if not report.success:
        raise BadData(f"'{name}' breaks {len(report.reasons())} of {len(report.checks)} rules: {report.reasons()[0]}")


@data.command()
def licences() -> None:
    """Licences, sources and citations."""
    echo_lines(_licence_lines())


# -- what is printed ----------------------------------------------------------------------------------------------


def listing() -> Iterator[str]:
    """Three lines a dataset: name and title; images, ground truth and whether it is here; licence."""
    from uss_dagster.datasets.base import mirror_folder
    from uss_dagster.downloads.get import NOTHING_TO_GET, access

    for spec in _specs():
        state = access(spec)
        if state != NOTHING_TO_GET:
            folder = mirror_folder(spec.name)
            state += f" · here ({folder})" if folder else " · not here"
        images = f"{_counts(spec)} images" if spec.counts else "any number of images"
        yield f"{spec.name:<18} {spec.title}"
        yield f"{'':<18} {images} · truth: {spec.truth} · {state}"
        yield f"{'':<18} licence: {spec.licence}"


def _facts(spec: DatasetSpec) -> dict[str, object]:
    """A dataset as ``--json`` prints it; folder: where it is here."""
    from uss_dagster.datasets.base import mirror_folder
    from uss_dagster.downloads.get import access

    folder = mirror_folder(spec.name)
    shown = {name: getattr(spec, name) for name in ("name", "title", "truth", "licence", "homepage", "citation")}
    return shown | {"images": dict(spec.counts), "access": access(spec), "folder": str(folder) if folder else None}


def markdown_tables() -> Iterator[str]:
    """The tables of docs/datasets.md: every dataset, then what to do for those that cannot simply be fetched."""
    from uss_dagster.downloads.get import access

    yield "| name | dataset | images | ground truth | how to get it | archives | licence |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    specs = list(_specs())
    for spec in specs:
        title = f"[{spec.title}]({spec.homepage})" if spec.homepage.startswith("http") else spec.title
        archives = ", ".join(f"`{archive.name}`" for archive in spec.archives)
        yield f"| `{spec.name}` | {title} | {_counts(spec)} | {spec.truth} | {access(spec)} | {archives} | {spec.licence} |"
    for spec in specs:
        if spec.instructions:
            yield f"\n**{spec.title}** (`{spec.name}`): {spec.instructions}"


def _licence_lines() -> Iterator[str]:
    """Licence, source and citation of every dataset, and whether the licence was accepted here."""
    from uss_dagster.datasets.base import mirror_folder
    from uss_dagster.downloads.records import read_record

    for spec in _specs():
        folder = mirror_folder(spec.name)
        record = read_record(folder) if folder else None
        yield f"{spec.name}: {spec.licence}"
        if spec.homepage:
            yield f"  source: {spec.homepage}"
        if record:
            then = "" if record["licence"] == spec.licence else f", when it read: {record['licence']}"
            yield f"  accepted: {record['accepted']}{then}"
        if spec.citation:
            yield f"  cite: {spec.citation}"


def _specs() -> Iterator[DatasetSpec]:
    from uss_dagster import registry

    return (registry.load("dataset", name).SPEC for name in registry.names("dataset"))


def _counts(spec: DatasetSpec) -> str:
    """'train 200, val 100' of the official splits."""
    return ", ".join(f"{split} {count:,}" for split, count in spec.counts.items())
