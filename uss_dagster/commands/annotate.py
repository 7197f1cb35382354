"""``uss annotate``: ground truth by clicking regions, on a page of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import Images, LongSide, echo, echo_error
from uss_dagster.errors import UsageError

RunOption = Annotated[
    Path | None,
    typer.Option(
        "--from", metavar="RUN", help="Regions and ranking that `uss recommend` wrote. [default: segment the images]", show_default=False
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="FILE", help="COCO json, saved after each change; a second run goes on with it.")
]
ClassesOption = Annotated[str, typer.Option(metavar="A,B,…", help="Names that are offered from the start.", show_default=False)]
MethodsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--method", "-m", metavar="NAME", help="How regions are found; can be repeated. [default: contour_merge]", show_default=False
    ),
]
MarginOption = Annotated[float, typer.Option(min=0, metavar="X", help="Stop when choosing the leader costs at most so much NMCovering.")]


def annotate(
    images: Images,
    run: RunOption = None,
    out: OutOption = Path("annotations.json"),
    classes: ClassesOption = "",
    method: MethodsOption = None,
    long_side: LongSide = 1024,
    margin: MarginOption = 0.01,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 for any that is free.")] = 8766,
) -> None:
    """Label a little by clicking regions, and rank methods.

    Serves a page on 127.0.0.1: a click takes a region that the methods found, which can be widened, narrowed, joined and painted over,
    and gets a name. Images on which the methods differ come first. After each finished image the page shows the ranking with its
    intervals, and says when to stop. `uss score`, `uss curate --labels` and folder datasets read the file.
    """
    from uss_dagster.annotation.entries import Entries
    from uss_dagster.annotation.page import serve
    from uss_dagster.annotation.start import check_out, make_workbench, segmented
    from uss_dagster.commands.parameters import make_segmenter

    if run and method:
        raise UsageError("--from brings the regions of its own methods; leave out --method.")
    check_out(out)
    if run:
        entries = Entries.open(run)
    else:
        methods = dict.fromkeys(method or ["contour_merge"])
        entries = segmented(images, {name: make_segmenter(name, None, None, None, long_side) for name in methods}, out, echo, echo_error)
    names = [name for name in classes.split(",") if name.strip()]
    serve(make_workbench(images, entries, out, names, margin, echo_error), port, echo)
