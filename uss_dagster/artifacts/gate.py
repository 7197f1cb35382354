"""The gate every artefact passes before it counts: structural contract, then a Great Expectations suite.

Belongs here: running checks and turning them into one report. A check yields sentences; none means it passed. Great
Expectations (1.x, ephemeral context, pandas, suites in code, analytics off) does what it is good at: columns of tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pycocotools import mask as coco

from uss_dagster.artifacts.tables import batches, rows_by_image
from uss_dagster.errors import BadData
from uss_dagster.regions import rle

MOST_SENTENCES = 20
FRAME_ROWS = 2**17
"""Rows that Great Expectations gets at once."""


@dataclass(frozen=True)
class Expectation:
    """One Great Expectations rule: its snake-case name and keyword arguments."""

    rule: str
    arguments: dict[str, object]

    def __str__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())
        return f"{self.rule}({shown})"


def expect(rule: str, **arguments: object) -> Expectation:
    return Expectation(rule, arguments)


def between(column: str, low: float, high: float | None = None) -> Expectation:
    """Values of a column lie in low..high; without ``high`` only below is a bound."""
    bounds = {"min_value": low} if high is None else {"min_value": low, "max_value": high}
    return expect("expect_column_values_to_be_between", column=column, **bounds)


def not_null(column: str) -> Expectation:
    return expect("expect_column_values_to_not_be_null", column=column)


def greater(column: str, other: str) -> Expectation:
    return expect("expect_column_pair_values_a_to_be_greater_than_b", column_A=column, column_B=other)


class Check(TypedDict):
    """One row of a report."""

    check: str
    success: bool
    message: str


@dataclass
class Report:
    """The verdict on one artefact: one row a check, in order; written beside the artefact as ``validation.json``."""

    what: str
    checks: list[Check] = field(default_factory=list)

    @property
    def success(self) -> bool:
        return all(check["success"] for check in self.checks)

    def add(self, check: str, success: bool, message: str = "") -> None:
        self.checks.append({"check": check, "success": success, "message": message})

    def reasons(self) -> list[str]:
        return [f"{c['check']}: {c['message']}" if c["message"] else c["check"] for c in self.checks if not c["success"]]

    def to_json(self) -> str:
        return json.dumps({"what": self.what, "success": self.success, "checks": self.checks}, indent=1, ensure_ascii=False) + "\n"

    def write(self, folder: Path) -> None:
        (folder / "validation.json").write_text(self.to_json(), encoding="utf-8")


@dataclass
class Problems:
    """What breaks one rule, told while rows pass by: the first few sentences, and how many there are."""

    first: list[str] = field(default_factory=list)
    count: int = 0

    def add(self, sentences: Iterable[str]) -> None:
        """Add sentences; where something cannot be read, that is the only one."""
        try:
            for sentence in sentences:
                self.count += 1
                if self.count <= MOST_SENTENCES:
                    self.first.append(sentence)
        except BadData as error:
            self.first, self.count = [str(error)], 1

    def __str__(self) -> str:
        more = f" … and {self.count - MOST_SENTENCES} more." if self.count > MOST_SENTENCES else ""
        return " ".join(self.first) + more


def check_contract(report: Report, rule: str, problems: Iterable[str] | Problems) -> bool:
    """Add one structural rule."""
    if not isinstance(problems, Problems):
        sentences, problems = problems, Problems()
        problems.add(sentences)
    report.add(rule, not problems.count, str(problems))
    return not problems.count


def frames(tables: Iterable[pa.Table]) -> Iterator[Any]:
    """The rows of tables as pandas frames of ``FRAME_ROWS``, one in memory at a time."""
    return (table.to_pandas() for table in batches(tables, FRAME_ROWS))


def warm() -> None:
    """Start importing Great Expectations (seconds) beside the stage's own work, which mostly waits for its worker processes."""
    import importlib
    import threading

    threading.Thread(target=importlib.import_module, args=("great_expectations",), daemon=True).start()


def check_expectations(report: Report, rows: Any, expectations: Sequence[Expectation]) -> None:
    """Run a suite over a pandas frame, or over several that come one at a time (see ``frames``), and add one row a rule.

    A rule that compares rows with each other sees those of one frame.
    """
    import contextlib
    import io
    import logging

    from uss_dagster.runtime import quiet_environment

    quiet_environment()
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        import great_expectations as gx
        import great_expectations.expectations as gxe

        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = gx.get_context(mode="ephemeral")
        batch = context.data_sources.add_pandas("artefact").add_dataframe_asset("table").add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name="suite"))
        for expectation in expectations:
            cls = getattr(gxe, "".join(part.title() for part in expectation.rule.split("_")))
            suite.add_expectation(cls(**expectation.arguments, meta={"rule": str(expectation)}))
        definition = context.validation_definitions.add(gx.ValidationDefinition(name="validation", data=batch, suite=suite))
        outcomes = {str(expectation): _Outcome() for expectation in expectations}
        for frame in [rows] if hasattr(rows, "columns") else rows:
            for result in definition.run(batch_parameters={"dataframe": frame}, result_format="SUMMARY").results:
                if result.expectation_config:
                    outcomes[result.expectation_config.meta["rule"]].add(result)
    for rule, outcome in outcomes.items():
        report.add(rule, outcome.success, "" if outcome.success else outcome.explanation)


@dataclass
class _Outcome:
    """What one rule gave over all frames."""

    success: bool = True
    broken: int = 0
    values: int = 0
    examples: list[object] = field(default_factory=list)
    other: str = ""

    def add(self, result: Any) -> None:
        facts = result.result or {}
        self.values += facts.get("element_count") or 0
        if result.success:
            return
        self.success = False
        if result.exception_info and result.exception_info.get("raised_exception"):
            self.other = self.other or str(result.exception_info.get("exception_message"))
        elif "unexpected_count" in facts:
            self.broken += facts["unexpected_count"]
            self.examples += list(facts.get("partial_unexpected_list", []))[: 3 - len(self.examples)]
        else:
            self.other = self.other or f"observed {facts.get('observed_value', facts)}."

    @property
    def explanation(self) -> str:
        return self.other or f"{self.broken} of {self.values} values break it, such as {self.examples}."


# -- structural rules -----------------------------------------------------------------------------------------


class RowOrder:
    """Whether rows ascend strictly in some columns, within tables and from one to the next."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self._last: pa.Table | None = None

    def problems(self, table: pa.Table) -> Iterator[str]:
        """A sentence for each row of the next table that does not come after the one before it."""
        rows = table.select(self.columns)
        if self._last is not None:
            rows = pa.concat_tables([self._last, rows])
        self._last = rows.slice(max(rows.num_rows - 1, 0))
        ascends, equal = np.zeros(max(rows.num_rows - 1, 0), bool), np.True_
        for column in rows.columns:
            before, after = column.slice(0, len(ascends)), column.slice(1)
            ascends |= equal & pc.less(before, after).to_numpy()
            equal = equal & pc.equal(before, after).to_numpy()
        for row in np.flatnonzero(~ascends):
            before, after = rows.slice(int(row), 2).to_pylist()
            yield f"Row {after} follows {before}."


def sorted_unique(table: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    """Rows ascend strictly in these columns."""
    yield from RowOrder(columns).problems(table)


def same_images(expected: Iterable[str], actual: Iterable[str]) -> Iterator[str]:
    """Both name the same images."""
    wanted, there = (pc.unique(ids if isinstance(ids, pa.ChunkedArray) else pa.array(ids, pa.string())) for ids in (expected, actual))
    sides = ((wanted, there), (there, wanted))
    if differing := sorted(i for ids, others in sides for i in ids.filter(pc.invert(pc.is_in(ids, others))).to_pylist()):
        yield f"Differing images: {differing[:5]}."


def no_nan(table: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    """No NaN and no infinity in these columns, naming the row."""
    for column in columns:
        values = table[column].to_numpy()
        for row in np.flatnonzero(~np.isfinite(values.astype(np.float64))):
            named = {c: table[c][int(row)].as_py() for c in table.column_names[:6] if c != column and c != "rle"}
            yield f"{column} is {values[row]} at {named}."


def valid_regions(tables: Iterable[pa.Table], overlap: bool) -> Iterator[str]:
    """Every code decodes to its image's size, area and box; children lie inside their parents; and, unless the method declares
    overlap, regions without a common line of descent share no pixel.

    Works on the run-length codes in C, one table (of whole images) in memory at a time.
    """
    columns = ["region", "parent", "depth", "area", "bbox", "rle", "height", "width"]
    for table in tables:
        for image, rows in rows_by_image(table):
            yield from _valid_image(image, rows.select(columns).to_pydict(), overlap)


def _valid_image(image: str, rows: dict[str, list[Any]], overlap: bool) -> Iterator[str]:
    k = len(rows["rle"])
    height, width = rows["height"][0], rows["width"][0]
    if set(rows["height"]) != {height} or set(rows["width"]) != {width}:
        yield f"Image {image}: its regions name several image sizes."
        return
    if rows["region"] != list(range(k)):
        yield f"Image {image}: region numbers are not 0..{k - 1} in order."
        return
    codes, areas = [], []
    for region, counts in enumerate(rows["rle"]):
        try:
            runs = rle.runs(counts)
        except BadData as error:
            yield f"Image {image}, region {region}: {error}"
            return
        if int(runs.sum()) != height * width:
            yield f"Image {image}, region {region}: its code covers {runs.sum()} pixels, the image has {height}×{width} = {height * width}."
            return
        codes.append({"size": [height, width], "counts": counts})
        areas.append(int(runs[1::2].sum()))
    boxes = coco.toBbox(codes)
    children: dict[int, list[int]] = {}
    for region in range(k):
        parent = rows["parent"][region]
        if not -1 <= parent < region:
            yield f"Image {image}, region {region}: parent is {parent}, expected -1 or a smaller number than its own."
            return
        children.setdefault(parent, []).append(region)
        if rows["depth"][region] != (rows["depth"][parent] + 1 if parent >= 0 else 0):
            yield f"Image {image}, region {region}: depth is {rows['depth'][region]}, its parent {parent} says otherwise."
        if areas[region] != rows["area"][region] or areas[region] == 0:
            yield f"Image {image}, region {region}: area is {rows['area'][region]}, its code holds {areas[region]} pixels (0 is not allowed)."
        elif rows["bbox"][region] != [int(v) for v in boxes[region]]:
            yield f"Image {image}, region {region}: bbox is {rows['bbox'][region]}, its code spans {[int(v) for v in boxes[region]]}."
        if parent >= 0:
            inside = int(coco.area(coco.merge([codes[region], codes[parent]], intersect=True)))
            if inside != areas[region]:
                yield f"Image {image}, region {region}: {areas[region] - inside} of its {areas[region]} pixels lie outside its parent {parent}."
    if not overlap:
        for parent, siblings in children.items():
            together = int(coco.area(coco.merge([codes[s] for s in siblings])))
            separate = sum(areas[s] for s in siblings)
            if together != separate:
                above = f"region {parent}" if parent >= 0 else "no parent"
                named = f"{siblings[:4]}{'…' if len(siblings) > 4 else ''}"
                yield f"Image {image}: regions {named} under {above} share {separate - together} pixels; siblings must be disjoint."
