"""``uss score``: masks made elsewhere against any ground truth → the numbers of the leaderboard, with their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uss_dagster.commands.options import AsJson, echo_error, echo_json, echo_lines

if TYPE_CHECKING:
    from uss_dagster.scoring.masks import Result


PredOption = Annotated[
    Path, typer.Option("--pred", metavar="PRED", help="Predicted masks: regions.parquet, COCO json, or a folder of label PNGs.")
]
GtOption = Annotated[
    Path,
    typer.Option("--gt", metavar="GT", help="Ground truth: any of these, data/datasets/NAME, or a folder of BSDS500 .mat files."),
]
MetricsOption = Annotated[
    str,
    typer.Option(
        "--metrics", metavar="A,B,…", help="Metric families; `uss list` shows all. [default: those that fit most masks]", show_default=False
    ),
]
ClassesOption = Annotated[Path | None, typer.Option("--classes", metavar="FILE", help="Class tree of the ground truth (classes.json).")]
TruthOption = Annotated[
    str | None,
    typer.Option(
        "--truth", metavar="KIND", help="What the ground truth is: classes, annotators or instances. [default: what its format says]"
    ),
]
VoidOption = Annotated[
    str | None,
    typer.Option(
        "--void",
        "--ignore",
        metavar="VALUE,…|none",
        help="Values of label PNGs in the ground truth that are not counted. "
        "[default: the greatest of their bits, 255 or 65535; of classes both, where the class tree does not name them]",
    ),
]
BackgroundOption = Annotated[
    int | None,
    typer.Option(metavar="VALUE", help="Value of label PNGs in the ground truth that is background. [default: 0 of instances]"),
]
PredVoidOption = Annotated[
    str | None,
    typer.Option(metavar="VALUE,…|none", help="Values of predicted label PNGs that are no region. [default: the greatest of their bits]"),
]
OnlyPredictedOption = Annotated[bool, typer.Option("--only-predicted", help="Score only the images that have a prediction.")]
DistinctMasksOption = Annotated[
    bool,
    typer.Option(
        "--distinct-masks",
        help="Proposals as the leaderboard scores them: each mask once, and without the root of a tree. [default: as COCO does]",
    ),
]
GridOption = Annotated[
    list[str] | None,
    typer.Option(metavar="full|HxW", help="Where pixels are compared; may be repeated. [default: full]", show_default=False),
]
BootstrapOption = Annotated[int, typer.Option(min=0, metavar="N", help="Replicates for the 95 % intervals over images; 0 for none.")]
OutOption = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the table too: .csv, .json, .parquet or .md.")]


def score(
    pred: PredOption,
    gt: GtOption,
    metrics: MetricsOption = "",
    classes: ClassesOption = None,
    truth: TruthOption = None,
    void: VoidOption = None,
    background: BackgroundOption = None,
    pred_void: PredVoidOption = None,
    only_predicted: OnlyPredictedOption = False,
    distinct_masks: DistinctMasksOption = False,
    grid: GridOption = None,
    bootstrap: BootstrapOption = 200,
    out: OutOption = None,
    json: AsJson = False,
) -> None:
    """Score masks that were made elsewhere.

    Images are matched by file name without its ending, or by COCO number. An image without a prediction counts as predicting
    nothing. In label PNGs every value is a region but those that the last lines name; metrics that compare classes over the whole
    dataset take values of predictions for cluster ids, and must be named with --metrics.
    """
    from uss_dagster.artifacts.mask_readers import open_masks
    from uss_dagster.scoring.ground_truth import read_truth
    from uss_dagster.scoring.masks import check_request, choose_families, result_report, score_masks, write_result

    grids = grid or ["full"]
    check_request(grids, bootstrap, out)
    ground_truth = read_truth(gt, truth, classes, _values(void, "--void"), background)
    prediction = open_masks(pred, _values(pred_void, "--pred-void"))
    families = choose_families([name.strip() for name in metrics.split(",") if name.strip()], ground_truth, prediction)
    result = score_masks(
        prediction,
        ground_truth,
        families,
        grids,
        bootstrap,
        lambda line: echo_error(f"warning: {line}"),
        as_given=not distinct_masks,
        only_predicted=only_predicted,
    )
    if json:
        echo_json(result_report(result))
    else:
        echo_lines(table_lines(result))
    if out is not None:
        write_result(result, out)


def table_lines(result: Result) -> list[str]:
    """The table for a terminal, and a line for each family that could not score every image."""
    from uss_dagster.scoring.masks import row_texts, sentences_on_skipped
    from uss_dagster.text import aligned

    head = ["metric", "protocol", "scope", "grid", "value", "95 % interval", "images"]
    lines = aligned(head, [row_texts(row) for row in result.rows], right=("value", "images")) if result.rows else []
    return [*lines, *result.notes, *sentences_on_skipped(result)]


def _values(text: str | None, option: str) -> frozenset[int] | None:
    """Whole numbers of a list such as '0,255', or 'none'."""
    from uss_dagster.errors import UsageError

    if text is None:
        return None
    words = [] if text.strip() == "none" else text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise UsageError(f"{option} {text}: whole numbers separated by commas are expected, or 'none'.")
    return frozenset(map(int, words))
