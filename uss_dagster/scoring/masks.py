"""Scores of masks that were made elsewhere, with their intervals, and the files that hold them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uss_dagster import registry
from uss_dagster.artifacts.mask_base import Masks, empty, pair_up
from uss_dagster.artifacts.progress import Progress
from uss_dagster.errors import BadData, UsageError, did_you_mean
from uss_dagster.files import write_whole
from uss_dagster.regions import Regions
from uss_dagster.scoring.ground_truth import GroundTruth
from uss_dagster.scoring.intervals import interval
from uss_dagster.scoring.scorer import Convention, Scorer, check_grid, convention_of, prepared
from uss_dagster.text import few, number, span

SUFFIXES = (".csv", ".json", ".md", ".parquet")
TABLE = pa.schema(
    [
        *((name, pa.string()) for name in ("metric", "protocol", "scope", "grid")),
        *((name, pa.float64()) for name in ("value", "low", "high")),
        ("images", pa.int64()),
    ]
)
"""The columns of a table of scores."""


class IntervalRow(Convention):
    """One score over all images. low, high: its 95 % interval, NaN without replicates or for one image. images: how many images it is of."""

    value: float
    low: float
    high: float
    images: int


@dataclass
class Result:
    """Scores and what people must know of them.

    Parameters
    ----------
    rows : list
        One a metric and grid.
    skipped : dict
        Family → images it has no score for.
    images : int
        How many were scored.
    notes : list of str
        Sentences: which images, what values of label pictures mean, what is left out.
    """

    rows: list[IntervalRow]
    skipped: dict[str, list[str]]
    images: int
    notes: list[str]


def score_masks(
    prediction: Masks,
    truth: GroundTruth,
    families: Sequence[str],
    grids: Sequence[str],
    replicates: int,
    warn: Callable[[str], None],
    *,
    as_given: bool = False,
    only_predicted: bool = False,
) -> Result:
    """Score masks image by image, in the order of the ground truth's ids.

    Memory holds one image, at most 256 MB of a table (a whole COCO file), and the metrics' sums.

    Parameters
    ----------
    prediction : Masks
        The predicted masks. An image without one counts as predicting nothing.
    truth : GroundTruth
        What they are compared with.
    families : sequence of str
        Metric families, as ``choose_families`` gives them.
    grids : sequence of str
        Evaluation grids, 'full' or 'HxW' in cells.
    replicates : int
        Bootstrap replicates for the intervals; 0 for none.
    warn : callable
        Called with a sentence for each thing that was left out, ignored, or is probably meant otherwise.
    as_given : bool
        Proposals by COCO's own protocol; by default each mask counts once, and roots of trees do not.
    only_predicted : bool
        Leave out images without a prediction. Default: they count as predicting nothing.

    Raises
    ------
    BadData
        No image is in both, masks are broken or lack the score that a family ranks them by, or nothing could be scored.
    """
    from threadpoolctl import threadpool_limits

    pairs, strangers = pair_up(truth.masks, prediction)
    ranking = [name for name in families if registry.load("metric", name).SPEC.needs_scores]
    if ranking and prediction.unscored:
        raise BadData(
            f"{prediction.path}: {prediction.unscored} has no score, by which '{ranking[0]}' ranks masks. Give every mask a score, or choose "
            "other families with --metrics."
        )
    missing = [i for i in truth.masks.ids if i not in pairs]
    images = sorted(pairs) if only_predicted else truth.masks.ids
    notes = []
    if only_predicted:
        notes.append(f"scored: the {len(pairs)} of {len(truth.masks.ids)} images that have a prediction.")
    elif missing:
        warn(f"{_of(len(missing), len(truth.masks.ids))} no prediction, which counts as predicting nothing: {few(missing)}")
    if strangers:
        warn(f"left out, for want of ground truth: {len(strangers)} of {len(prediction.ids)} predicted images: {few(strangers)}")

    def predictions() -> Iterator[Regions]:
        for image_id, predicted_id in pairs.items():
            yield prediction.regions(predicted_id, truth.masks.shape(image_id))

    with threadpool_limits(1), _progress(len(images)) as progress:  # one thread: sums come out in one order
        scorer = Scorer(families, list(dict.fromkeys(grids)), replicates, prepared(families, predictions), as_given)
        for image_id in images:
            expected = truth.read(image_id)
            shape = expected.regions.shape
            scorer.add(image_id, expected, prediction.regions(pairs[image_id], shape) if image_id in pairs else empty(shape, image_id))
            if progress:
                progress.advance()
    for line in (*truth.complaints(), *prediction.complaints()):
        warn(line)
    notes += [*truth.rules(), *prediction.rules(), *scorer.notes()]
    rows = rows_with_intervals(scorer, ", images with a prediction only" if only_predicted else "")
    result = Result(rows, scorer.skipped(), scorer.images, notes)
    if not result.rows:
        raise BadData(f"None of the {scorer.images} images has a score with {', '.join(families)}: nothing in their ground truth counts.")
    return result


def check_request(grids: Sequence[str], replicates: int, out: Path | None) -> None:
    """Refuse a wrong grid, number of replicates or output file, before anything is read."""
    for grid in grids:
        check_grid(grid)
    if replicates == 1:
        raise UsageError("--bootstrap 1: an interval needs at least 2 replicates; 0 is for none.")
    if out is not None and out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--out {out}: the ending says the format; {', '.join(SUFFIXES)} are known.")
    if out is not None and out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file in it.")


def choose_families(names: Sequence[str], truth: GroundTruth, prediction: Masks) -> list[str]:
    """Metric families to compute: those named, each refused with its reason where it does not fit; without names all that fit but those on request."""
    families = []
    for name in names or registry.names("metric"):
        if name not in registry.names("metric"):
            raise UsageError(_unknown_family(name))
        spec = registry.load("metric", name).SPEC
        if (spec.needs_segmentation or spec.on_request) and not names:
            continue  # nothing says whether these masks are a segmentation
        reason = ""
        if truth.kind not in spec.truths:
            reason = f"is computed on ground truth of kind {' or '.join(spec.truths)}; {truth.masks.path} is of kind {truth.kind}."
        elif spec.needs_labels and (prediction.labelled is False or (prediction.labelled is None and not names)):
            reason = f"compares classes over the whole dataset, and the regions of {prediction.path} carry no labels."
        elif spec.needs_prompts:
            reason = "needs a model that can be asked; name it in a profile with an entry of the method student."
        if not reason:
            families.append(name)
        elif names:
            raise UsageError(f"Metric family '{name}' {reason} Leave it out of --metrics.")
    if not families:
        raise UsageError(f"No metric family fits ground truth of kind {truth.kind}.")
    return list(dict.fromkeys(families))


def rows_with_intervals(scorer: Scorer, images: str = "") -> list[IntervalRow]:
    """The scores over all images, each with the 95 % interval of its bootstrap replicates; without those that are arbitrary.

    images: which images these are, for the protocol.
    """
    samples: dict[tuple[str, ...], list[float]] = {}
    for replicate in scorer.replicate_rows():
        samples.setdefault(convention_of(replicate), []).append(replicate["value"])
    rows: list[IntervalRow] = []
    arbitrary = scorer.arbitrary()
    for row in scorer.dataset_rows():
        if row["metric"] in arbitrary:
            continue
        low, high = interval(row["value"], np.array(samples.get(convention_of(row), []), float), row["n"])
        metric, protocol, scope, grid = convention_of(row)
        convention = Convention(metric=metric, protocol=protocol + images, scope=scope, grid=grid)
        rows.append({**convention, "value": row["value"], "low": low, "high": high, "images": row["n"]})
    return rows


def sentences_on_skipped(result: Result) -> Iterator[str]:
    """A sentence for each family that could not score every image."""
    for family, ids in sorted(result.skipped.items()):
        yield f"{family}: {_of(len(ids), result.images)} no score: {few(ids)}"


def write_result(result: Result, out: Path) -> None:
    """Write the table in the format of the file's ending, one of ``SUFFIXES``; the same result gives the same bytes."""
    table = pa.Table.from_pylist(result.rows, schema=TABLE)
    suffix = out.suffix.lower()
    if suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", compression_level=3, store_schema=False)
        write_whole(out, sink.getvalue().to_pybytes())
    elif suffix == ".csv":
        write_whole(out, table.to_pandas().to_csv(index=False, float_format="%.9g", lineterminator="\n"))
    elif suffix == ".json":
        write_whole(out, json.dumps(result_report(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        head = "| Metric | Protocol | Scope | Grid | Value | 95 % interval | Images |\n| --- | --- | --- | --- | ---: | ---: | ---: |\n"
        write_whole(out, head + "".join(f"| {' | '.join(row_texts(row))} |\n" for row in result.rows))


def result_report(result: Result) -> dict[str, object]:
    """A result as JSON holds it; an undefined number is null."""
    rows = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in result.rows]
    return {"images": result.images, "skipped": result.skipped, "notes": result.notes, "scores": rows}


def row_texts(row: IntervalRow) -> list[str]:
    """A row as people read it: metric, protocol, scope, grid, value, interval, images."""
    return [*convention_of(row), number(row["value"]), span(row["low"], row["high"]), str(row["images"])]


def _unknown_family(name: str) -> str:
    for family in registry.names("metric"):
        if name in registry.load("metric", family).SPEC.metrics:
            return f"'{name}' is a number of the metric family '{family}'. Pass --metrics {family}."
    return f"Unknown metric '{name}'.{did_you_mean(name, registry.names('metric'))}"


def _of(some: int, total: int) -> str:
    return f"{some} of {total} images {'has' if some == 1 else 'have'}"


def _progress(total: int) -> AbstractContextManager[Progress | None]:
    """A progress bar on a terminal; nothing in a pipe."""
    return Progress("uss score", total) if sys.stderr.isatty() else nullcontext()
