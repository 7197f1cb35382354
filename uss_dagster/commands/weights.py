"""``uss weights``: pretrained weights: which there are, fetching them, checking them, and where they lie."""

from __future__ import annotations

from typing import Annotated

import typer

from uss_dagster.commands.options import AsJson, echo_json

Names = Annotated[list[str] | None, typer.Argument(help="Names of weights; all when none is given.")]


weights = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Pretrained weights: list, fetch, check.")


@weights.command("list")
def list_weights(json: AsJson = False) -> None:
    """Show all weights by name: what they are, what labels they have seen, whether they are here."""
    from uss_dagster.weights.catalogue import CATALOGUE
    from uss_dagster.weights.store import present

    if json:
        shown = ("name", "title", "licence", "labels", "identity")
        echo_json([{name: getattr(entry, name) for name in shown} | {"here": bool(present(entry))} for entry in CATALOGUE.values()])
        return
    for entry in CATALOGUE.values():
        place = "here" if present(entry) else "not here"
        typer.echo(f"{entry.name:<26} {entry.title}")
        typer.echo(f"{'':<26} {entry.licence} · {f'has seen {entry.labels}' if entry.labels else 'no labels seen'} · {place}")


@weights.command()
def get(names: Annotated[list[str], typer.Argument(help="Names of weights, see `uss weights list`.")]) -> None:
    """Fetch weights, check their hashes, and say where they lie."""
    from uss_dagster.weights.catalogue import weights_named
    from uss_dagster.weights.store import fetch

    for entry in [weights_named(name) for name in names]:
        typer.echo(f"{entry.name}: {fetch(entry)}")


@weights.command()
def check(names: Names = None) -> None:
    """Hash the tensors of weights that are here, and compare them with what is expected."""
    from uss_dagster.errors import BadData
    from uss_dagster.weights.catalogue import CATALOGUE, weights_named
    from uss_dagster.weights.store import identity, present

    wrong = []
    for entry in [weights_named(name) for name in names or CATALOGUE]:
        file = present(entry)
        if file is None:
            typer.echo(f"{entry.name}: not here")
            continue
        found = identity(file)
        same = not entry.identity or found == entry.identity
        wrong += [] if same else [entry.name]
        typer.echo(f"{entry.name}: {found}" + ("" if same else f", expected {entry.identity}"))
    if wrong:
        raise BadData(
            f"The tensors of {', '.join(wrong)} are not those expected. Remove the files (`uss weights path`) and fetch them again."
        )


@weights.command()
def path(name: Annotated[str, typer.Argument(help="Name of weights.")]) -> None:
    """Print where the file of weights lies; fails where it is not here."""
    from uss_dagster.errors import Unavailable
    from uss_dagster.weights.catalogue import weights_named
    from uss_dagster.weights.store import present

    file = present(weights_named(name))
    if file is None:
        raise Unavailable(f"The weights '{name}' are not here. Run `uss weights get {name}`.")
    typer.echo(file)
