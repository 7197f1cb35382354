"""``uss score``: masks made elsewhere against any ground truth → the numbers of the leaderboard, with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.commands.options import echo_error, echo_lines

if TYPE_CHECKING:
    from uss_dagster.scoring.masks import Result


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
            "--truth", metavar="KIND", help="What the ground truth is: classes, annotators or instances. [default: what its format says]"
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
    bootstrap: Annotated[int, typer.Option(min=0, metavar="N", help="Replicates for the 95 % intervals over images; 0 for none.")] = 200,
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
    from uss_dagster.scoring.ground_truth import read_truth
    from uss_dagster.scoring.masks import check_request, choose_families, score_masks, write_result

    grids = grid or ["full"]
    check_request(grids, bootstrap, out)
    ground_truth = read_truth(gt, truth, classes, ignore)
    prediction = open_masks(pred)
    families = choose_families([name.strip() for name in metrics.split(",") if name.strip()], ground_truth, prediction)
    result = score_masks(prediction, ground_truth, families, grids, bootstrap, lambda line: echo_error(f"warning: {line}"))
    echo_lines(table_lines(result))
    if out is not None:
        write_result(result, out)


def table_lines(result: Result) -> list[str]:
    """The table for a terminal, and a line for each family that could not score every image."""
    from uss_dagster.scoring.masks import row_texts, sentences_on_skipped
    from uss_dagster.text import aligned

    head = ["metric", "protocol", "scope", "grid", "value", "95 % interval", "images"]
    lines = aligned(head, [row_texts(row) for row in result.rows], right=("value", "images")) if result.rows else []
    return [*lines, *sentences_on_skipped(result)]
