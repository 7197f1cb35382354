"""``uss recommend``: which entry to use on a person's own images, without labels."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from uss_dagster.commands.options import AsJson, Images, LongSide, echo, echo_error
from uss_dagster.errors import UsageError

OUT = Path("recommended")


class Goal(StrEnum):
    """What the regions are for."""

    PARTS = "parts"
    OBJECTS = "objects"
    SCENES = "scenes"
    MASKS = "masks"


def recommend(
    images: Images,
    goal: Annotated[
        Goal,
        typer.Option(
            "--goal",
            help="parts: regions of every size; objects: found at an IoU of .5; scenes: one flat segmentation; masks: precise masks.",
        ),
    ] = Goal.PARTS,
    budget: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Most seconds an image for an entry, as 2 or 2s.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the results; made if it is not there.")] = OUT,
    sample: Annotated[int, typer.Option(min=1, metavar="N", help="Most images to use, evenly spaced in their names.")] = 40,
    long_side: LongSide = 512,
    json: AsJson = False,
) -> None:
    """Rank segmentation methods on your own images, without labels.

    Runs every entry on a sample, estimates how well each covers what a person would annotate, and says how sure that is: intervals, which
    entries can't be told apart, the expected regret. The folder gets index.html with pictures side by side, ranking.parquet,
    quality.parquet (a row an image and entry), recommendation.json, and the regions of each entry. A stopped run goes on with the same
    command. Entries on the pretrained encoder take part once its weights are here (`uss weights get dinov2_vits14_saliency`).
    """
    from uss_dagster.own_images.recommend import SUMMARY, Request
    from uss_dagster.own_images.recommend import recommend as run

    run(images, Request(out, goal.value, parse_seconds(budget), sample, long_side), echo_error if json else echo, echo_error)
    if json:
        typer.echo((out / SUMMARY).read_text(encoding="utf-8"), nl=False)


def parse_seconds(text: str | None) -> float | None:
    """'2s' or '2' → 2.0."""
    if text is None:
        return None
    try:
        seconds = float(text.strip().removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"--budget is '{text}', expected seconds an image, such as 2s.")
    return seconds
