"""The ``uss`` command: finds the modules of ``commands``, and turns errors into one sentence and an exit code.

Only light modules are imported at the top, so that ``uss --help`` and shell completion are fast.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import keyword
import os
import signal
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer
import typer.core
import typer.main

from dagster_dvc.errors import VERDICT_FILE, DagsterDvcError
from uss_dagster import __version__
from uss_dagster.commands.options import STOPPED
from uss_dagster.errors import UsageError, UssError, from_lack_of_memory, from_os_error
from uss_dagster.runtime import quiet_environment
from uss_dagster.text import printable

COMMANDS = {
    "Your own images": ("recommend", "segment", "annotate", "curate", "score", "export", "import"),
    "A project": ("init", "plan", "repro", "reproduce", "verify", "gc", "demo", "compare", "history", "ui", "spot-check", "merge-lock"),
    "Trained models": ("train", "prompt"),
    "Plug-ins, datasets, this machine": ("list", "data", "weights", "doctor"),
    "": ("stage",),
}
"""Groups of the help, each with its commands in the order shown; the last one is hidden. A command stands in the module of its name."""
GOES_ON = ("recommend", "segment", "annotate", "curate", "repro", "reproduce", "demo", "train", "data", "weights", "stage")
"""Commands that a second call continues where the first was stopped."""


def identifier(command: str) -> str:
    """The name of a command's module and function."""
    return command.replace("-", "_") + "_" * keyword.iskeyword(command)


class Commands(Mapping[str, object]):
    """All commands by name, each made when it is first asked for: making one takes longer than importing its module."""

    def __init__(self) -> None:
        self._made: dict[str, object] = {}
        self._headings = {name: heading for heading, names in COMMANDS.items() for name in names}

    def __iter__(self) -> Iterator[str]:
        return iter(self._headings)

    def __len__(self) -> int:
        return len(self._headings)

    def __contains__(self, name: object) -> bool:
        return name in self._headings

    def __getitem__(self, name: str) -> object:
        if name not in self._made:
            self._made[name] = self._make(name, self._headings[name])
        return self._made[name]

    def summary(self, name: str) -> str:
        """The first sentence of its help."""
        function = _function(name)
        text = function.info.help if isinstance(function, typer.Typer) else inspect.getdoc(function)
        return " ".join(str(text).partition("\n\n")[0].split())

    def _make(self, name: str, heading: str) -> object:
        alone = typer.Typer(rich_markup_mode=None, add_completion=False)
        function = _function(name)
        if isinstance(function, typer.Typer):
            alone.add_typer(function, name=name)
            return typer.main.get_group(alone).commands[name]
        reader = getattr(_module(name), "Command", None)  # of a command that reads its words in a way of its own
        alone.command(name, cls=reader, hidden=not heading)(function)
        return typer.main.get_command(alone)


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"uss_dagster.commands.{identifier(command)}")


def _function(command: str) -> Any:
    """What carries it out, or, of a command that has commands, a ``typer.Typer``."""
    return getattr(_module(command), identifier(command))


class CommandGroup(typer.core.TyperGroup):
    """The commands of ``COMMANDS``; help lists them under their headings."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Commands = Commands()  # type: ignore[assignment]  # nothing adds a command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {heading: names for heading, names in COMMANDS.items() if heading}
        width = max(len(name) for names in shown.values() for name in names)
        for heading, names in shown.items():
            rows = [
                (f"{name:<{width}}", textwrap.shorten(self.commands.summary(name), formatter.width - width - 6, placeholder="..."))
                for name in names
            ]
            with formatter.section(heading):
                formatter.write_dl(rows)


app = typer.Typer(
    name="uss",
    cls=CommandGroup,
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


def main() -> None:
    """Entry point: an error that is meant for a person becomes one line on standard error."""
    quiet_environment()
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not of a job that runs in the background
        signal.signal(signal.SIGINT, _stop)
    click_usage_error: Any = typer.BadParameter.__mro__[1]  # newer versions of typer have a click of their own
    click_usage_error.exit_code = UsageError.exit_code
    try:
        app()
    except (UssError, DagsterDvcError) as error:
        _fail(error)
    except Exception as error:
        known = from_os_error(error) if isinstance(error, OSError) else from_lack_of_memory(error)
        if known is None:
            raise
        _fail(known)


def _stop(number: int, frame: object) -> NoReturn:
    """End after Ctrl-C or SIGTERM: workers are stopped, half-written files removed. A second signal ends at once."""
    signal.signal(number, signal.SIG_DFL)
    if number == signal.SIGINT:
        print(STOPPED if {*sys.argv[1:2]} & {*GOES_ON} else "stopped", file=sys.stderr)
    sys.exit(128 + number)


def _fail(error: UssError | DagsterDvcError) -> NoReturn:
    print("error: " + "\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)
    if sys.argv[1:2] == ["stage"]:
        _report_to_runner(error)
    raise SystemExit(error.exit_code)


def _report_to_runner(error: UssError | DagsterDvcError) -> None:
    """Tell what runs a stage why it failed: DVC does not pass on the exit code."""
    from uss_dagster.artifacts.progress import emit

    if file := os.environ.get(VERDICT_FILE):
        with contextlib.suppress(OSError):
            Path(file).write_text(str(error.exit_code), encoding="utf-8")
    if not sys.stderr.isatty():
        report = getattr(error, "report", None)
        emit("error", exit_code=error.exit_code, message=str(error), report=str(report) if report else None)


if __name__ == "__main__":
    main()
