"""The ``uss`` command: puts the modules of ``commands`` together, and turns errors into one sentence and an exit code.

Only light modules are imported at the top, so that ``uss --help`` and shell completion are fast.
"""

from __future__ import annotations

import contextlib
import keyword
import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import typer.core

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


class GroupedHelp(typer.core.TyperGroup):
    """Lists commands under the headings of ``COMMANDS``."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = [command for command in self.commands.values() if not command.hidden]
        width = max(len(str(command.name)) for command in commands)
        for heading in filter(None, COMMANDS):
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


def identifier(command: str) -> str:
    """The name of a command's module and function."""
    return command.replace("-", "_") + "_" * keyword.iskeyword(command)


# -- assembly -----------------------------------------------------------------------------------------------------


for _heading, _names in COMMANDS.items():
    for _name in _names:
        _module = pkgutil.resolve_name(f"uss_dagster.commands.{identifier(_name)}")
        _command = getattr(_module, identifier(_name))
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_heading)
        else:
            _class = getattr(_module, "Command", None)  # of a command that reads its words in a way of its own
            app.command(_name, cls=_class, hidden=not _heading, rich_help_panel=_heading)(_command)


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
