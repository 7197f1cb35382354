"""The mean rank of each entry over several datasets, with an interval.

Belongs here: ranks of one metric and protocol over datasets, and the table on disk. Does not belong here: ranks on one dataset
(``leaderboard``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from uss_dagster.report.leaderboard import GROUP, Ranking, pairs_among, ranking_of, read_cells
from uss_dagster.scoring.intervals import half_widths, rank_bounds

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "mean_ranks.parquet"


@dataclass(frozen=True)
class MeanRank:
    """The mean rank of an entry in one metric, among the entries that all datasets have.

    Parameters
    ----------
    datasets : int
        Over how many datasets.
    mean_rank : float
        1 where it is the best on each; equal entries share the mean of their ranks.
    low, high : float
        The mean ranks that the differences from all other entries allow. Those of all entries hold together at 95 %: all pairs on all
        datasets are judged together. NaN without replicates.
    """

    metric: str
    protocol: str
    scope: str
    grid: str
    entry: str
    title: str
    metric_title: str
    datasets: int
    mean_rank: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """'mean rank (low to high)'."""
        return f"{self.mean_rank:.1f}" + ("" if np.isnan(self.low) else f" ({self.low:.1f} to {self.high:.1f})")

    @property
    def convention(self) -> str:
        """How the numbers were made, in words."""
        return Ranking("", self.metric, self.protocol, self.scope, self.grid).convention


COLUMNS = [field.name for field in dataclasses.fields(MeanRank)]


def build(frame: pd.DataFrame, scores_dirs: Iterable[Path | str]) -> pd.DataFrame:
    """Mean ranks in each metric that two datasets or more have two entries or more in common for; details and oracles are left out.

    Parameters
    ----------
    frame : pandas.DataFrame
        The result of ``leaderboard.build``.
    scores_dirs : iterable of path
        The scores folders that it was built from.

    Returns
    -------
    pandas.DataFrame
        The columns of ``MeanRank``, metrics in the order of the leaderboard, the best entry first.
    """
    main = frame[frame["value"].notna() & ~frame["detail"] & ~frame["oracle"]]
    conventions = [rows for _, rows in main.groupby(GROUP[1:], sort=False) if rows["dataset"].nunique() > 1]
    replicates = read_cells(scores_dirs)[1] if conventions else {}
    ranks = [rank for rows in conventions for rank in _of_convention(rows, replicates)]
    return pd.DataFrame([dataclasses.astuple(rank) for rank in ranks], columns=COLUMNS)


def _of_convention(rows: pd.DataFrame, replicates: Mapping[Ranking, pd.DataFrame]) -> list[MeanRank]:
    """Mean ranks of the entries that all datasets have. rows: those of one metric, protocol, scope and grid."""
    datasets = rows["dataset"].nunique()
    common = rows[rows.groupby("entry")["dataset"].transform("nunique") == datasets].sort_values("entry")
    if common["entry"].nunique() < 2:
        return []
    higher = bool(rows["higher_is_better"].iloc[0])
    tables = [(ranking_of(key), table) for key, table in common.groupby(GROUP, sort=False)]
    families = [pairs_among(table, replicates.get(ranking)) for ranking, table in tables]
    halves = half_widths(families)
    rank = np.mean([table["value"].rank(ascending=not higher) for _, table in tables], axis=0)
    low, high = np.mean([rank_bounds(pairs, half, higher) for pairs, half in zip(families, halves, strict=True)], axis=0)
    if any(table["low"].isna().all() for _, table in tables):
        low, high = np.full((2, len(rank)), np.nan)
    facts = tables[0][1]
    texts = [facts[column] for column in COLUMNS[: COLUMNS.index("datasets")]]
    means = [MeanRank(*values) for values in zip(*texts, [datasets] * len(rank), rank, low, high, strict=True)]
    return sorted(means, key=lambda mean: (mean.mean_rank, mean.entry))


@dataclass(frozen=True)
class MeanRankTable:
    """Entries as rows, in the order of the first metric, and metrics as columns.

    Parameters
    ----------
    columns : sequence
        The first entry of each metric.
    rows : sequence
        Title of each entry, and its mean rank in each metric, None where it has none.
    """

    columns: Sequence[MeanRank]
    rows: Sequence[tuple[str, Sequence[MeanRank | None]]]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> MeanRankTable:
        """The table of the result of ``build``."""
        ranks = [MeanRank(*values) for values in frame[COLUMNS].itertuples(index=False, name=None)]
        columns: dict[str, list[MeanRank]] = {}
        for rank in ranks:
            columns.setdefault(f"{rank.metric}, {rank.convention}", []).append(rank)
        of_metric = [{rank.entry: rank for rank in column} for column in columns.values()]
        titles = {rank.entry: rank.title for rank in ranks}
        return cls([column[0] for column in columns.values()], [(titles[e], [ranks_of.get(e) for ranks_of in of_metric]) for e in titles])


def write(frame: pd.DataFrame, folder: Path) -> None:
    """Write ``mean_ranks.parquet`` and ``.csv``; the same frame gives the same bytes."""
    import pyarrow as pa

    from uss_dagster.artifacts.tables import write_table

    write_table(folder / FILE, pa.Table.from_pandas(frame, schema=_schema(), preserve_index=False), _schema())
    (folder / "mean_ranks.csv").write_text(to_csv(frame), encoding="utf-8", newline="\n")


def to_csv(frame: pd.DataFrame) -> str:
    """The rows as comma-separated values."""
    return frame.to_csv(index=False, float_format="%.6f", lineterminator="\n")


def read(folder: Path) -> pd.DataFrame:
    """The table that ``write`` wrote."""
    from uss_dagster.artifacts.tables import read_table

    return read_table(folder / FILE, _schema()).to_pandas()


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
    return pa.schema([(field.name, kinds[str(field.type)]) for field in dataclasses.fields(MeanRank)])
