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
from uss_dagster.commands.options import Profile
from uss_dagster.errors import BadData, UsageError, UssError, from_lack_of_memory, from_os_error
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


def _repro(app: typer.Typer) -> None:
    @app.command()
    def repro(
        targets: Annotated[list[str] | None, typer.Argument(help="Stages such as scores@slic_merge__scenes; all by default.")] = None,
        profile: Profile = None,
    ) -> None:
        """Plan, then compute what is out of date, and only that."""
        from uss_dagster.commands import repro as command
        from uss_dagster.planning import plan as planning
        from uss_dagster.planning.profiles import find_root

        root = find_root()
        command.check_tools(root)
        for line in planning.write_plan(root, profile):
            typer.echo(f"planned  {line}")
        raise typer.Exit(command.repro(root, targets or []))

    @app.command()
    def demo() -> None:
        """A leaderboard from nothing, without a network.

        Drawn scenes, the embedded backbone, classic methods; a table here, and a page in reports/site.
        """
        from uss_dagster.commands import repro as command
        from uss_dagster.planning import plan as planning
        from uss_dagster.planning.profiles import find_root

        root = find_root()
        command.check_tools(root)
        planning.write_plan(root, "demo")
        code = command.repro(root, [])
        if code == 0:
            table = root / "reports" / "leaderboard" / "leaderboard.md"
            page = os.path.relpath(root / "reports" / "site" / "index.html")
            typer.echo(f"\n{table.read_text(encoding='utf-8').strip()}\n\nOpen {page}")
        raise typer.Exit(code)


def _score(app: typer.Typer) -> None:
    @app.command()
    def score(
        pred: Annotated[
            Path, typer.Option("--pred", metavar="PRED", help="Predicted masks: regions.parquet, COCO json, or a folder of label PNGs.")
        ],
        gt: Annotated[
            Path,
            typer.Option("--gt", metavar="GT", help="Ground truth: any of these, data/datasets/NAME, or a folder of BSDS500 .mat files."),
        ],
        metrics: Annotated[
            str,
            typer.Option(
                "--metrics", metavar="A,B,…", help="Metric families; `uss list` shows all. [default: all that fit]", show_default=False
            ),
        ] = "",
        classes: Annotated[
            Path | None, typer.Option("--classes", metavar="FILE", help="Class tree of the ground truth (classes.json).")
        ] = None,
        truth: Annotated[
            str | None,
            typer.Option(
                "--truth",
                metavar="KIND",
                help="What the ground truth is: classes, annotators or instances. [default: what its format says]",
            ),
        ] = None,
        ignore: Annotated[
            int | None,
            typer.Option(metavar="VALUE", help="Value of label PNGs in the ground truth that is not counted. [default: 255 for classes]"),
        ] = None,
        grid: Annotated[
            list[str] | None,
            typer.Option(metavar="full|HxW", help="Where pixels are compared; may be repeated. [default: full]", show_default=False),
        ] = None,
        bootstrap: Annotated[
            int, typer.Option(min=0, metavar="N", help="Replicates for the 95 % intervals over images; 0 for none.")
        ] = 200,
        out: Annotated[
            Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the table too: .csv, .json, .parquet or .md.")
        ] = None,
    ) -> None:
        """Score masks that were made elsewhere.

        Images are matched by file name without its ending, or by COCO number. An image without a prediction counts as predicting
        nothing. Areas are those of the masks; the 'area' of COCO annotations is not read. In label PNGs every value is a region; metrics
        that compare classes over the whole dataset take values of predictions for cluster ids, and must be named with --metrics.
        """
        from uss_dagster.artifacts.mask_readers import open_masks
        from uss_dagster.commands import score as command

        grids = grid or ["full"]
        command.check_request(grids, bootstrap)
        command.check_out(out)
        ground_truth = command.read_truth(gt, truth, classes, ignore)
        prediction = open_masks(pred)
        families = command.choose_families([name.strip() for name in metrics.split(",") if name.strip()], ground_truth, prediction)
        result = command.score_masks(
            prediction, ground_truth, families, grids, bootstrap, lambda line: typer.echo(f"warning: {line}", err=True)
        )
        for line in command.lines_of(result):
            typer.echo(line)
        if out is not None:
            command.write_result(result, out)


def _ui(app: typer.Typer) -> None:
    @app.command()
    def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 3000) -> None:
        """Dagster's web page for this project, on 127.0.0.1."""
        from uss_dagster.commands.ui import serve
        from uss_dagster.planning.profiles import find_root

        serve(find_root(), port)


def _data(app: typer.Typer) -> None:
    data_app = typer.Typer(help="Datasets: what there is, getting it, checking it.", no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(data_app, name="data")

    @data_app.command("list")
    def data_list(
        markdown: Annotated[
            bool, typer.Option("--markdown", help="The tables of docs/datasets.md instead; says nothing of this machine.")
        ] = False,
    ) -> None:
        """Datasets, and which of them are here."""
        from uss_dagster.commands import data as command

        for line in command.markdown() if markdown else command.listing():
            typer.echo(line)

    @data_app.command("get")
    def data_get(
        names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Datasets; `uss data list` shows all.", show_default=False)],
        given: Annotated[
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
        from uss_dagster.commands import data as command

        if given is not None and len(names) > 1:
            raise UsageError(f"--from gives the files of one dataset, but {len(names)} were named. Run this once for each.")

        def accepted() -> str:
            if accept_licence:
                return "with --accept-licence"
            return "at a terminal" if sys.stdin.isatty() and typer.confirm("Accept this licence?") else ""

        for name in names:
            command.get(command.Request(name, given, only or (), accepted), typer.echo)

    @data_app.command("check")
    def data_check(
        name: Annotated[
            str, typer.Argument(metavar="NAME", help="A dataset of this project, or one that was fetched.", show_default=False)
        ],
        param: Annotated[
            list[str] | None,
            typer.Option("--param", metavar="NAME=VALUE", help="A parameter of its source, such as split=val; may be repeated."),
        ] = None,
    ) -> None:
        """Hold a dataset against its checks.

        The prepared one (data/datasets/NAME) where this project has it, else its source, of which nothing is written.
        """
        from uss_dagster.commands import data as command

        report = command.check(name, param or (), typer.echo)
        if not report.success:
            raise BadData(f"'{name}' breaks {len(report.reasons())} of {len(report.checks)} rules: {report.reasons()[0]}")

    @data_app.command("licences")
    def data_licences() -> None:
        """Licences, sources and citations."""
        from uss_dagster.commands import data as command

        for line in command.licences():
            typer.echo(line)


def _spot_check(app: typer.Typer) -> None:
    @app.command(name="spot-check")
    def spot_check(
        stage: Annotated[
            str, typer.Argument(metavar="STAGE", help="A segments stage, such as segments@slic_merge__scenes.", show_default=False)
        ],
        images: Annotated[int, typer.Option(min=1, metavar="N", help="How many images to compute again.")] = 2,
    ) -> None:
        """Compute a few images again: same inputs, same bytes?"""
        from uss_dagster.commands.spot_check import spot_check as compare
        from uss_dagster.planning.profiles import find_root

        chosen = compare(find_root(), stage, images)
        typer.echo(f"{len(chosen)} images give the same bytes again: {', '.join(chosen)}.")


def _merge_lock(app: typer.Typer) -> None:
    @app.command("merge-lock")
    def merge_lock(
        files: Annotated[
            list[str] | None, typer.Argument(metavar="BASE OURS THEIRS PATH", help="As git calls it.", show_default=False)
        ] = None,
        install: Annotated[bool, typer.Option("--install", help="Tell git, in this clone, to merge with this.")] = False,
    ) -> None:
        """Merge dvc.lock and grid.yaml, stage by stage (for git)."""
        from uss_dagster.commands import merge_lock as command
        from uss_dagster.planning.profiles import find_root

        if install:
            for line in command.install(find_root()):
                typer.echo(line)
            return
        if files is None or len(files) != 4:
            raise UsageError(
                f"merge-lock takes four files (base, ours, theirs, path), as git gives them, got {len(files or [])}; or --install."
            )
        base, ours, theirs, name = files
        for stage in command.merge_files(Path(base), Path(ours), Path(theirs), name):
            typer.echo(f"{name}: both branches changed {stage}; run `uss repro` to build it anew.", err=True)


def _doctor(app: typer.Typer) -> None:
    @app.command()
    def doctor() -> None:
        """What this machine has and lacks, and what to do."""
        from uss_dagster.commands.doctor import findings
        from uss_dagster.planning.profiles import find_root

        try:
            root: Path | None = find_root()
        except UsageError:
            root = None
        wrong = 0
        for verdict, what, sentence in findings(root):
            wrong += verdict == "fix"
            typer.echo(f"{verdict:<5} {what:<18} {sentence}")
        if wrong:
            raise UsageError("One thing to fix, see above." if wrong == 1 else f"{wrong} things to fix, see above.")


BLOCKS: dict[str, Callable[[typer.Typer], None]] = {
    "repro": _repro,
    "score": _score,
    "ui": _ui,
    "data": _data,
    "spot_check": _spot_check,
    "merge_lock": _merge_lock,
    "doctor": _doctor,
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
