"""Published figures beside ours: for each entry that repeats a row of a paper's table, both values, their difference, and why they may differ.

The interval of a difference is that of our value: the published one is taken as it is printed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from uss_dagster import registry
from uss_dagster.report.facts import Datasets, Entries, EntryFacts
from uss_dagster.report.leaderboard import Ranking, Row, rows_of
from uss_dagster.report.published import PublishedRow

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "published.parquet"


@dataclass(frozen=True)
class Repeated:
    """One number of an entry, and the published one that it repeats.

    Parameters
    ----------
    dataset, metric, protocol, scope, grid : str
        As in ``Ranking``.
    key : str
        The published row, 'table/row'.
    published_title, source : str
        Its method, and where it can be looked up.
    published : float
        Its value.
    entry, title, metric_title : str
        Of our row.
    value : float
        Our value.
    difference, low, high : float
        Ours less the published value, and its 95 % interval; NaN where our value or its interval is.
    n : int
        Images of our value.
    why : str
        Why the two may differ.
    """

    dataset: str
    metric: str
    protocol: str
    scope: str
    grid: str
    key: str
    published_title: str
    source: str
    published: float
    entry: str
    title: str
    metric_title: str
    value: float
    difference: float
    low: float
    high: float
    n: int
    why: str

    @property
    def ranking(self) -> Ranking:
        """What our value is ranked within."""
        return Ranking(self.dataset, self.metric, self.protocol, self.scope, self.grid)

    @property
    def difference_text(self) -> str:
        """'difference (low to high)'."""
        signed = [f"{number:+.3f}".replace("-", "−") for number in (self.difference, self.low, self.high)]
        return "n/a" if math.isnan(self.difference) else signed[0] + ("" if math.isnan(self.low) else f" ({signed[1]} to {signed[2]})")


COLUMNS = [field.name for field in dataclasses.fields(Repeated)]


def build(frame: pd.DataFrame, entries: Entries, datasets: Datasets) -> pd.DataFrame:
    """The columns of ``Repeated``, in the order of the leaderboard ``frame``; no rows where no entry repeats a published one."""
    rows = [dataclasses.astuple(row) for row in _rows(frame, entries, datasets)]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n": "int64"})


def _rows(frame: pd.DataFrame, entries: Entries, datasets: Datasets) -> Iterator[Repeated]:
    for row in rows_of(frame):
        facts = entries[row.entry]
        for work in datasets[row.dataset].published:
            if facts.published and work.key == facts.published and row.metric in work.values:
                figure = work.values[row.metric]
                yield Repeated(
                    dataset=row.dataset,
                    metric=row.metric,
                    protocol=row.protocol,
                    scope=row.scope,
                    grid=row.grid,
                    key=work.key,
                    published_title=work.title,
                    source=work.source,
                    published=figure,
                    entry=row.entry,
                    title=row.title,
                    metric_title=row.metric_title,
                    value=row.value,
                    difference=row.value - figure,
                    low=row.low - figure,
                    high=row.high - figure,
                    n=row.n,
                    why=why_they_may_differ(row, facts, work),
                )


def why_they_may_differ(row: Row, entry: EntryFacts, work: PublishedRow) -> str:
    """What is known to differ between our row and the published one, in words."""
    encoder = registry.flat_params(registry.load("backbone", entry.encoder).SPEC.params()) if entry.encoder else {}
    encoder |= entry.encoder_params
    weights = str(encoder.get("model", "")) or ("none" if entry.method != "student" else "a student of this project")
    size = encoder.get("image_size")
    ours = (
        "×".join(map(str, size))
        if isinstance(size, tuple | list)
        else f"{encoder.get('image_side', '')} side {size}"
        if size
        else "at its own size"
    )
    differences = [
        f"{row.n:,} of {work.images:,} images" if work.images and row.n != work.images else "",
        f"weights {weights}" + (f" (seen {entry.weights_labels})" if entry.weights_labels else "") + f", published {work.weights}"
        if work.weights and work.weights != weights
        else "",
        f"method {entry.method}, published {work.method}" if work.method and work.method != entry.method else "",
        f"input {ours}, published {work.size}" if work.size and work.size != ours else "",
        f"scored on {row.grid}, published on {work.grid}" if work.grid and work.grid != row.grid else "",
    ]
    if entry.reimplementation:
        differences.append("reimplemented")
    return "; ".join(filter(None, differences))


def write(frame: pd.DataFrame, folder: Path) -> None:
    """Write ``published.parquet`` and ``.csv``, where there are rows; the same frame gives the same bytes."""
    if frame.empty:
        return
    import pyarrow as pa

    from uss_dagster.artifacts.tables import write_table

    write_table(folder / FILE, pa.Table.from_pandas(frame, schema=_schema(), preserve_index=False), _schema())
    (folder / "published.csv").write_text(to_csv(frame), encoding="utf-8", newline="\n")


def to_csv(frame: pd.DataFrame) -> str:
    """The rows as comma-separated values."""
    return frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def read(folder: Path) -> pd.DataFrame:
    """The table that ``write`` wrote; no rows where it wrote none."""
    from uss_dagster.artifacts.tables import read_table

    return read_table(folder / FILE, _schema()).to_pandas() if (folder / FILE).exists() else pd.DataFrame(columns=COLUMNS)


def repeated_rows(frame: pd.DataFrame) -> list[Repeated]:
    """The table's rows, in its order."""
    return [Repeated(*values) for values in frame[COLUMNS].itertuples(index=False, name=None)]


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    return pa.schema([(field.name, kinds[str(field.type)]) for field in dataclasses.fields(Repeated)])
