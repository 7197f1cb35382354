"""The leaderboard: one row per dataset, metric, protocol and entry, with intervals, ranks and ties.

Belongs here: reading the scores of cells, intervals from their bootstrap replicates, ranks, ties, and the table on disk. Does not
belong here: computing scores (``scoring``), the text of tables (``text_tables``), pages (``site``), and what a run cost (timings
differ between machines, and this table is byte-equal on all of them).

Numbers of different protocols, scopes of matching or evaluation grids are never ranked together: see ``Ranking``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from uss_dagster.errors import BadData, did_you_mean
from uss_dagster.report.facts import Datasets, Entries, Metrics
from uss_dagster.scoring.intervals import Pairs, half_widths, interval, rank_bounds

if TYPE_CHECKING:
    import pyarrow as pa


class Ranking(NamedTuple):
    """What is ranked together: numbers that differ in any of these are not comparable.

    Parameters
    ----------
    dataset, metric : str
        Their names.
    protocol : str
        The convention that the number follows.
    scope : str
        What regions are matched within: one 'image' or the whole 'dataset'.
    grid : str
        Size of the evaluation, 'full' for the image's own.
    """

    dataset: str
    metric: str
    protocol: str
    scope: str
    grid: str

    @property
    def convention(self) -> str:
        """How the number was made, in words."""
        within = "each image" if self.scope == "image" else "the whole dataset"
        return f"protocol {self.protocol}, matched within {within}" + ("" if self.grid == "full" else f", on a grid of {self.grid}")


GROUP = list(Ranking._fields)
"""Columns of the table that make up a ``Ranking``."""


@dataclass(frozen=True)
class Row:
    """One row of the leaderboard: a number of an entry, and what tables print beside it.

    Parameters
    ----------
    value, low, high : float
        The number and its 95 % interval; NaN where undefined, the interval also for one image.
    n : int
        Number of images.
    runs : int
        Number of runs with different seeds that the value is the mean of.
    run_std : float
        Standard deviation of the value over them (divisor runs − 1), NaN for one.
    rank : int or None
        1 for the best; None where the value is undefined.
    rank_low, rank_high : int or None
        The ranks that the differences from all other entries allow; all of a ranking hold together at 95 %. None without an interval.
    tied_with_best : bool
        Whether the interval of the paired difference to the best contains 0, where all pairs of the ranking are judged together.
    segments_version, data_version : str
        Content hashes of what the number was computed from.
    """

    dataset: str
    metric: str
    protocol: str
    scope: str
    grid: str
    entry: str
    value: float
    low: float
    high: float
    n: int
    runs: int
    run_std: float
    rank: int | None
    rank_low: int | None
    rank_high: int | None
    tied_with_best: bool
    title: str
    method: str
    backbone: str
    supervised: bool
    reimplementation: bool
    metric_title: str
    higher_is_better: bool
    oracle: bool
    detail: bool
    segments_version: str
    data_version: str

    @property
    def ranking(self) -> Ranking:
        """What the row is ranked within."""
        return Ranking(self.dataset, self.metric, self.protocol, self.scope, self.grid)

    @property
    def half_width(self) -> float:
        """Half the width of the interval, NaN where there is none."""
        return (self.high - self.low) / 2

    @property
    def rank_range(self) -> str:
        """'low–high' of the rank, one number where both are equal, '' without an interval."""
        if self.rank_low is None:
            return ""
        return str(self.rank_low) if self.rank_low == self.rank_high else f"{self.rank_low}–{self.rank_high}"

    @property
    def text(self) -> str:
        """'value ± half the interval', 'n/a' where undefined."""
        if math.isnan(self.value):
            return "n/a"
        return f"{self.value:.3f}" + ("" if math.isnan(self.low) else f" ± {self.half_width:.3f}") + self.spread

    @property
    def spread(self) -> str:
        """' (5 seeds, SD 0.012)'; '' for one run."""
        return "" if self.runs == 1 else f" ({self.runs} seeds, SD {self.run_std:.3f})"


RANKS = ("rank", "rank_low", "rank_high")
COLUMNS = [field.name for field in dataclasses.fields(Row)]
_DTYPES = {
    field.name: {"str": "str", "float": "float64", "int": "int64", "int | None": "Int64", "bool": "bool"}[str(field.type)]
    for field in dataclasses.fields(Row)
}


def build(scores_dirs: Iterable[Path | str], entries: Entries, datasets: Datasets, metrics: Metrics) -> pd.DataFrame:
    """The leaderboard from the scores folders of all cells.

    Parameters
    ----------
    scores_dirs : iterable of path
        Folders that the scores stage wrote, in any order.
    entries, datasets, metrics : mapping
        Facts by name, of at least those that the scores name.

    Returns
    -------
    pandas.DataFrame
        The columns of ``Row``. Rows follow the order of ``datasets`` and ``metrics``, then protocol, scope and grid, then the rank.
        Intervals, ranks and ties are those of ``scoring.intervals``. Differences are paired, since all entries of a dataset share the
        resampled images.

    Raises
    ------
    BadData
        If a folder is incomplete, or names an entry, a dataset or a metric without facts.
    """
    scores, replicates = read_cells(scores_dirs)
    for column, facts in (("entry", entries), ("dataset", datasets), ("metric", metrics)):
        for name in sorted(set(scores[column]) - set(facts)):
            raise BadData(f"The scores speak of {column} '{name}', which the profile does not know.{did_you_mean(name, facts)}")
    groups = []
    for key, group in scores.groupby(GROUP, sort=True):
        ranking = ranking_of(key)
        groups.append(_rank_group(group, replicates.get(ranking), metrics[ranking.metric].higher_is_better))
    frame = (
        pd.concat(groups, ignore_index=True)
        if groups
        else scores.assign(low=np.nan, high=np.nan, tied_with_best=False, **dict.fromkeys(RANKS, 0))
    )

    of_entry = [entries[name] for name in frame["entry"]]
    frame["title"] = [facts.title or name for facts, name in zip(of_entry, frame["entry"], strict=True)]
    for column in ("method", "backbone"):
        frame[column] = [getattr(facts, column) or "" for facts in of_entry]
    for column in ("supervised", "reimplementation"):
        frame[column] = [getattr(facts, column) for facts in of_entry]
    of_metric = [metrics[name] for name in frame["metric"]]
    frame["metric_title"] = [facts.title for facts in of_metric]
    for column in ("higher_is_better", "oracle", "detail"):
        frame[column] = [getattr(facts, column) for facts in of_metric]
    frame["segments_version"] = [facts.versions.get(d, "") for facts, d in zip(of_entry, frame["dataset"], strict=True)]
    frame["data_version"] = [datasets[name].version for name in frame["dataset"]]

    order = pd.DataFrame(
        {
            "dataset": frame["dataset"].map({name: i for i, name in enumerate(datasets)}),
            "metric": frame["metric"].map({name: i for i, name in enumerate(metrics)}),
            **{column: frame[column] for column in ("protocol", "scope", "grid", "entry")},
            "rank": frame["rank"].fillna(2**31),
        }
    ).sort_values([*GROUP, "rank", "entry"], kind="stable")
    return frame.loc[order.index, COLUMNS].reset_index(drop=True).astype(_DTYPES)


def rows_of(frame: pd.DataFrame) -> list[Row]:
    """The table's rows, in its order."""
    ranks = frame[list(RANKS)].astype(object)
    table = frame[COLUMNS].assign(**ranks.where(ranks.notna(), None))
    return [Row(*values) for values in table.itertuples(index=False, name=None)]


def by_ranking(rows: Iterable[Row]) -> dict[Ranking, list[Row]]:
    """Rows that are ranked together, rankings in the order of their first row."""
    groups: dict[Ranking, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.ranking, []).append(row)
    return groups


def without_details(rows: list[Row]) -> list[Row]:
    """The rows of main metrics; all rows where there are only details."""
    return [row for row in rows if not row.detail] or rows


def entry_order(rows: Iterable[Row]) -> list[str]:
    """Entries of one dataset by their rank in its first metric; those without one follow by name."""
    groups = by_ranking(rows)
    first = [row.entry for row in next(iter(groups.values()), [])]
    return first + sorted({row.entry for group in groups.values() for row in group} - set(first))


# -- files --------------------------------------------------------------------------------------------


def write(
    frame: pd.DataFrame,
    target_dir: Path | str,
    datasets: Datasets | None = None,
    ranks: pd.DataFrame | None = None,
    repeated: pd.DataFrame | None = None,
) -> None:
    """Write ``leaderboard.parquet``, ``.csv`` and ``.md``; the same frames give the same bytes.

    Parameters
    ----------
    frame : pandas.DataFrame
        The result of ``build``.
    target_dir : path
        The folder, made where missing.
    datasets : mapping, optional
        Facts of the datasets; their published figures stand in the Markdown, in a table of their own.
    ranks : pandas.DataFrame, optional
        The result of ``mean_ranks.build``, for the Markdown and for files of its own.
    repeated : pandas.DataFrame, optional
        The result of ``published_and_ours.build``, likewise.
    """
    import pyarrow as pa

    from uss_dagster.artifacts.tables import write_table
    from uss_dagster.report import mean_ranks, published_and_ours
    from uss_dagster.report.text_tables import to_markdown

    target = Path(target_dir)
    target.mkdir(parents=True, exist_ok=True)
    schema = _schema()
    write_table(target / "leaderboard.parquet", pa.Table.from_pandas(frame[COLUMNS], schema=schema, preserve_index=False), schema)
    (target / "leaderboard.csv").write_text(to_csv(frame), encoding="utf-8", newline="\n")
    (target / "leaderboard.md").write_text(to_markdown(rows_of(frame), datasets or {}, ranks, repeated), encoding="utf-8", newline="\n")
    if ranks is not None:
        mean_ranks.write(ranks, target)
    if repeated is not None:
        published_and_ours.write(repeated, target)


def to_csv(frame: pd.DataFrame) -> str:
    """The rows as comma-separated values."""
    return frame[COLUMNS].to_csv(index=False, float_format="%.6f", lineterminator="\n")


def read(folder: Path | str) -> pd.DataFrame:
    """The table that ``write`` wrote, in its order."""
    from uss_dagster.artifacts.tables import read_table

    return read_table(Path(folder) / "leaderboard.parquet", _schema()).to_pandas()


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {"str": pa.string(), "float64": pa.float64(), "bool": pa.bool_(), "int64": pa.int64(), "Int64": pa.int64()}
    return pa.schema([(name, kinds[dtype]) for name, dtype in _DTYPES.items()])


# -- intervals, ranks, ties ---------------------------------------------------------------------------


def pairs_among(group: pd.DataFrame, replicates: pd.DataFrame | None) -> Pairs:
    """Differences of all pairs of rows of one ``Ranking``. replicates: replicate × entry."""
    entries = group["entry"]
    samples = np.zeros((0, len(entries))) if replicates is None else replicates.reindex(columns=entries).to_numpy(float)
    return Pairs.of(group["value"].to_numpy(float), samples, group["n"].to_numpy())


def _rank_group(group: pd.DataFrame, replicates: pd.DataFrame | None, higher_is_better: bool) -> pd.DataFrame:
    """Intervals, ranks and ties of the entries of one ``Ranking``. replicates: replicate × entry."""
    group = group.sort_values("entry").reset_index(drop=True)
    resampled = replicates if replicates is not None else pd.DataFrame()
    samples = [resampled[entry].to_numpy() if entry in resampled else np.zeros(0) for entry in group["entry"]]
    bounds = [interval(*row) for row in zip(group["value"], samples, group["n"], strict=True)]
    group["low"], group["high"] = [b[0] for b in bounds], [b[1] for b in bounds]
    group["rank"] = group["value"].rank(method="min", ascending=not higher_is_better).astype("Int64")  # NaN keeps no rank

    ranked = group[group["rank"].notna()]
    pairs = pairs_among(ranked, replicates)
    (half,) = half_widths([pairs])
    for column, ranks in zip(RANKS[1:], rank_bounds(pairs, half, higher_is_better), strict=True):
        group[column] = pd.Series(ranks, ranked.index).where(ranked["low"].notna()).astype("Int64")
    best = (ranked["rank"] == 1).to_numpy()
    tied = pd.Series(best | (np.abs(pairs.difference) <= half)[:, best].any(axis=1), ranked.index)
    group["tied_with_best"] = tied.reindex(group.index, fill_value=False).astype(bool)
    return group


# -- reading scores -----------------------------------------------------------------------------------


def read_cells(scores_dirs: Iterable[Path | str]) -> tuple[pd.DataFrame, Mapping[Ranking, pd.DataFrame]]:
    """Whole-dataset scores of all cells, and for each ranking its replicates as a table replicate × entry."""
    keys = [*GROUP, "entry"]
    numbers = {"value": "float64", "n": "int64", "runs": "int64", "run_std": "float64"}
    scores = [pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in {**dict.fromkeys(keys, "str"), **numbers}.items()})]
    replicates = []
    for folder in sorted(Path(d) for d in scores_dirs):
        for name in ("scores.parquet", "replicates.parquet"):
            if not (folder / name).is_file():
                raise BadData(f"{folder} holds no {name}, so it is not the scores folder of a cell. Run its scores stage again.")
        scores.append(_with_runs(_dataset_scores(folder / "scores.parquet", [*keys, "value", "n"]), folder))
        replicates.append(pd.read_parquet(folder / "replicates.parquet", columns=[*keys, "replicate", "value"]))
    frame = pd.concat([s for s in scores if len(s)] or scores, ignore_index=True)
    double = frame[frame.duplicated(keys)]
    if len(double):
        raise BadData(
            f"Two whole-dataset scores for {' / '.join(double.iloc[0][keys])}; a cell has one value per metric, protocol, scope and grid."
        )
    return frame, pivoted(replicates, "replicate")


def _dataset_scores(path: Path, columns: list[str]) -> pd.DataFrame:
    """The few scores of the whole dataset among those of its images."""
    import pyarrow.compute as pc

    return pd.read_parquet(path, columns=columns, filters=pc.field("image_id").is_null())


def _with_runs(scores: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Dataset scores of a cell with the number of runs and their standard deviation."""
    if not (folder / "runs.parquet").is_file():
        return scores.assign(runs=1, run_std=np.nan)
    keys = [*GROUP, "entry"]
    values = pd.read_parquet(folder / "runs.parquet").groupby(keys)["value"]
    return scores.merge(values.agg(runs="size", run_std="std").reset_index(), on=keys, how="left")


def pivoted(tables: list[pd.DataFrame], index: str) -> dict[Ranking, pd.DataFrame]:
    """For each ranking the values of several cells as one table: a column of the cells × entry. index: that column."""
    if not tables:
        return {}
    groups = pd.concat(tables, ignore_index=True).groupby(GROUP, sort=True)
    return {ranking_of(key): group.pivot(index=index, columns="entry", values="value") for key, group in groups}


def ranking_of(key: object) -> Ranking:
    """The ranking that a group of ``groupby(GROUP)`` is named by."""
    return Ranking(*map(str, key))  # type: ignore[call-overload]
