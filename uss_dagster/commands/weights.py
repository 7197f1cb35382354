"""``uss weights``: pretrained weights: which there are, fetching them, checking them, and where they lie."""

from __future__ import annotations

from typing import Annotated

import typer

Names = Annotated[list[str] | None, typer.Argument(help="Names of weights; all when none is given.")]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(no_args_is_help=True, help="Pretrained weights: list, fetch, check.")
    app.add_typer(group, name="weights")
    group.command("list")(list_weights)
    group.command()(get)
    group.command()(check)
    group.command()(path)


def list_weights() -> None:
    """Show all weights by name: what they are, what labels they have seen, whether they are here."""
    from uss_dagster.weights.catalogue import CATALOGUE
    from uss_dagster.weights.store import present

    for weights in CATALOGUE.values():
        place = "here" if present(weights) else "not here"
        typer.echo(f"{weights.name:<26} {weights.title}")
        typer.echo(f"{'':<26} {weights.licence} · {f'has seen {weights.labels}' if weights.labels else 'no labels seen'} · {place}")


def get(names: Annotated[list[str], typer.Argument(help="Names of weights, see `uss weights list`.")]) -> None:
    """Fetch weights, check their hashes, and say where they lie."""
    from uss_dagster.weights.catalogue import weights_named
    from uss_dagster.weights.store import fetch

    for weights in [weights_named(name) for name in names]:
        typer.echo(f"{weights.name}: {fetch(weights)}")


def check(names: Names = None) -> None:
    """Hash the tensors of weights that are here, and compare them with what is expected."""
    from uss_dagster.errors import BadData
    from uss_dagster.weights.catalogue import CATALOGUE, weights_named
    from uss_dagster.weights.store import identity, present

    wrong = []
    for weights in [weights_named(name) for name in names or CATALOGUE]:
        file = present(weights)
        if file is None:
            typer.echo(f"{weights.name}: not here")
            continue
        found = identity(file)
        same = not weights.identity or found == weights.identity
        wrong += [] if same else [weights.name]
        typer.echo(f"{weights.name}: {found}" + ("" if same else f", expected {weights.identity}"))
    if wrong:
        raise BadData(
            f"The tensors of {', '.join(wrong)} are not those expected. Remove the files (`uss weights path`) and fetch them again."
        )


def path(name: Annotated[str, typer.Argument(help="Name of weights.")]) -> None:
    """Print where the file of weights lies; fails where it is not here."""
    from uss_dagster.errors import Unavailable
    from uss_dagster.weights.catalogue import weights_named
    from uss_dagster.weights.store import present

    file = present(weights_named(name))
    if file is None:
        raise Unavailable(f"The weights '{name}' are not here. Run `uss weights get {name}`.")
    typer.echo(file)
