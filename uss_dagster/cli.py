"""The ``uss`` command: puts the modules of ``commands`` together, and turns errors into one sentence and an exit code.

Only light modules are imported at the top, so that ``uss --help`` and shell completion are fast.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import typer.core

from uss_dagster import __version__
from uss_dagster.errors import UsageError, UssError, from_lack_of_memory, from_os_error
from uss_dagster.runtime import quiet_environment

COMMANDS = {
    "Your own images": ("segment", "curate", "score"),
    "A project": ("plan", "repro", "compare", "history", "ui", "spot_check", "stage", "merge_lock"),
    "Trained models": ("train", "prompt", "export"),
    "Plug-ins, datasets, this machine": ("list_plugins", "data", "doctor"),
}
"""Groups of the help, each with its modules of ``uss_dagster.commands`` in the order shown."""


class GroupedHelp(typer.core.TyperGroup):
    """Lists commands under the headings of ``COMMANDS``."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [command for command in self.commands.values() if not command.hidden]
        width = max(len(str(command.name)) for command in commands)
        for heading in COMMANDS:
            rows = [
                (f"{command.name:<{width}}", command.get_short_help_str(formatter.width - width - 6))
                for command in commands
                if getattr(command, "rich_help_panel", None) == heading
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)


app = typer.Typer(
    name="uss",
    cls=GroupedHelp,
    help="Find out which unsupervised segmentation method to use on your images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"uss_dagster {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    pass


# -- commands whose module declares no options yet: one block each ------------------------------------------------


def _train(app: typer.Typer) -> None:
    train_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Train the small networks of this package.")
    app.add_typer(train_app, name="train")

    @train_app.command("diffusion")
    def train_diffusion(
        images: Annotated[str, typer.Option("--images", metavar="FOLDER|scenes", help="Pictures to learn from; 'scenes' draws them.")],
        out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the model; a stopped run goes on from it.")],
        count: Annotated[
            int | None, typer.Option(metavar="N", help="How many pictures. [default: 1600 scenes, or the whole folder]", show_default=False)
        ] = None,
        steps: Annotated[
            int | None, typer.Option(min=1, metavar="N", help="Steps of the optimiser. [default: 2400]", show_default=False)
        ] = None,
        seed: Annotated[int, typer.Option(min=0)] = 0,
        threads: Annotated[int, typer.Option(min=1, help="On a CPU; the weights are the same for the same number.")] = 2,
        device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or cuda:1.")] = "cpu",
        licence: Annotated[
            str | None,
            typer.Option(metavar="NAME", help="Of the weights, for the model card. [default: mit for scenes]", show_default=False),
        ] = None,
    ) -> None:
        """A small diffusion UNet in pixels, for the backbone 'diffusion'.

        The folder gets config.json, scheduler_config.json, float16 safetensors, a model card, the losses as CSV and a checkpoint.
        """
        from uss_dagster.commands.train import train_diffusion as command

        command(images, out, count, seed, steps, threads, device, licence, lambda line: typer.echo(line, err=True))

    @train_app.command("student")
    def train_student(
        masks: Annotated[
            Path | None,
            typer.Option(
                "--masks", metavar="FOLDER", help="A curated set: data/curated/NAME, or what `uss curate` wrote.", show_default=False
            ),
        ] = None,
        coco: Annotated[
            Path | None, typer.Option("--coco", metavar="FILE", help="Or COCO json; its pictures lie in --images.", show_default=False)
        ] = None,
        images: Annotated[
            Path | None, typer.Option("--images", metavar="FOLDER", help="Where the pictures lie.", show_default=False)
        ] = None,
        out: Annotated[
            Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the model; a stopped run goes on from it.")
        ] = Path("student"),
        size: Annotated[str, typer.Option(metavar="tiny|S", help="tiny learns in minutes on a CPU; S is for a GPU.")] = "tiny",
        steps: Annotated[
            int | None, typer.Option(min=1, metavar="N", help="Steps of the optimiser. [default: the size's own]", show_default=False)
        ] = None,
        self_train: Annotated[
            Path | None,
            typer.Option(
                "--self-train", metavar="MODEL", help="A second round: masks that this student finds are added first.", show_default=False
            ),
        ] = None,
        param: Annotated[
            list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Any other setting, such as batch=4; may be repeated.")
        ] = None,
        seed: Annotated[int, typer.Option(min=0)] = 0,
        threads: Annotated[int, typer.Option(min=1, help="On a CPU; the weights are the same for the same number.")] = 2,
        device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, or auto.")] = "auto",
        title: Annotated[str, typer.Option(metavar="TEXT", help="For the model card.")] = "Student",
        licence: Annotated[
            str | None,
            typer.Option(metavar="NAME", help="Of the weights, for the model card. [default: that of the set]", show_default=False),
        ] = None,
    ) -> None:
        """A student that learns from masks, for whole pictures and for clicks.

        The folder gets model.safetensors, config.json, the losses as CSV and picture, and a model card. On several GPUs or machines:
        `torchrun --nproc_per_node 4 -m uss_dagster.cli train student …`.
        """
        from uss_dagster.commands.train_student import Request
        from uss_dagster.commands.train_student import train_student as command

        command(
            Request(masks, coco, images, out, size, steps, seed, self_train, param or [], threads, device, title, licence),
            lambda line: typer.echo(line, err=True),
        )


def _prompt(app: typer.Typer) -> None:
    @app.command()
    def prompt(
        picture: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="The picture that is asked.", show_default=False)] = None,
        model: Annotated[Path, typer.Option("--model", metavar="DIR", help="A trained student.")] = Path("student"),
        point: Annotated[
            list[str] | None,
            typer.Option("--point", metavar="X,Y", help="Pixels from the upper left corner; may be repeated.", show_default=False),
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option("--out", "-o", metavar="FILE", help="Write the masks: a picture (.png) or COCO (.json).", show_default=False),
        ] = None,
        serve: Annotated[bool, typer.Option("--serve", help="A page to click on, on 127.0.0.1 only.")] = False,
        images: Annotated[
            Path | None, typer.Option("--images", metavar="FOLDER", help="Pictures that the page offers.", show_default=False)
        ] = None,
        port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 for any that is free.")] = 8765,
        device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, or auto.")] = "auto",
    ) -> None:
        """Ask a student what is at a point: nested masks with qualities."""
        if serve:
            from uss_dagster.commands.prompt_page import serve_pictures

            if point or out:
                raise UsageError("--serve shows masks on its page; leave out --point and --out.")
            serve_pictures(model, [given for given in (picture, images) if given], port, device, typer.echo)
            return
        from uss_dagster.commands.prompt import prompt as command

        if picture is None or images is not None:
            raise UsageError("Name one picture to ask, as in `uss prompt IMAGE --point 120,45`; --images goes with --serve.")
        command(picture, model, point or [], out, device, typer.echo)


BLOCKS: dict[str, Callable[[typer.Typer], None]] = {
    "train": _train,
    "prompt": _prompt,
}

# -- assembly -----------------------------------------------------------------------------------------------------


def _register_all() -> None:
    for heading, modules in COMMANDS.items():
        commands, groups = len(app.registered_commands), len(app.registered_groups)
        for name in modules:
            register = BLOCKS.get(name) or importlib.import_module(f"uss_dagster.commands.{name}").register
            register(app)
        for command in app.registered_commands[commands:]:
            command.rich_help_panel = heading
        for group in app.registered_groups[groups:]:
            group.rich_help_panel = heading


_register_all()


def main() -> None:
    """Entry point: an error that is meant for a person becomes one line on standard error."""
    quiet_environment()
    # On SIGTERM the program ends as after Ctrl-C: workers are stopped, half-written files removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    click_usage_error: Any = typer.BadParameter.__mro__[1]  # newer versions of typer have a click of their own
    click_usage_error.exit_code = UsageError.exit_code
    try:
        app()
    except UssError as error:
        _fail(error)
    except Exception as error:
        known = from_os_error(error) if isinstance(error, OSError) else from_lack_of_memory(error)
        if known is None:
            raise
        _fail(known)


def _fail(error: UssError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    if sys.argv[1:2] == ["stage"]:
        _report_to_runner(error)
    raise SystemExit(error.exit_code)


def _report_to_runner(error: UssError) -> None:
    """Tell what runs a stage why it failed: DVC does not pass on the exit code."""
    from uss_dagster.artifacts.progress import emit

    if file := os.environ.get("USS_VERDICT"):
        with contextlib.suppress(OSError):
            Path(file).write_text(str(error.exit_code), encoding="utf-8")
    if not sys.stderr.isatty():
        report = getattr(error, "report", None)
        emit("error", exit_code=error.exit_code, message=str(error), report=str(report) if report else None)


if __name__ == "__main__":
    main()
