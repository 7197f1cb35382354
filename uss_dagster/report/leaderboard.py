"""The leaderboard: one row per dataset, metric, protocol and entry, with intervals, ranks and ties.

Belongs here: reading the scores of cells, intervals from their bootstrap replicates, ranks, ties, and the table as Parquet, CSV
and Markdown. Does not belong here: computing scores (``metrics``), drawing the page (``site``), and what a run cost (timings
differ between machines, and this table is byte-equal on all of them).

Numbers of different protocols, scopes of matching or evaluation grids are never ranked together: see ``GROUP``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from uss_dagster.errors import BadData, did_you_mean

GROUP = ["dataset", "metric", "protocol", "scope", "grid"]
"""What is ranked together: numbers that differ in any of these are not comparable."""
COLUMNS = [
    *(*GROUP, "entry", "value", "low", "high", "n", "rank", "tied_with_best"),
    *(
        "title",
        "method",
        "backbone",
        "supervised",
        "reimplementation",
        "metric_title",
        "higher_is_better",
        "oracle",
        "detail",
        "segments_version",
        "data_version",
    ),
]
CONFIDENCE = 0.95

Facts = Mapping[str, Mapping[str, Any]]
Published = Mapping[str, list[dict[str, Any]]]


def build(scores_dirs: Iterable[Path | str], entries: Facts, datasets: Facts, metrics: Facts) -> pd.DataFrame:
    """The leaderboard from the scores folders of all cells.

    Rows follow the order of ``datasets`` and ``metrics``, then protocol, scope and grid, then the rank. ``low`` and ``high`` are the
    2.5 and 97.5 percentiles of the bootstrap replicates. ``tied_with_best``: the same interval of the replicates' *differences* to the
    best contains 0; the differences are paired, since all entries of a dataset share the resampled images.

    ``entries[name]["versions"]``, where given, maps a dataset to the content hash of the entry's segments on it, and
    ``datasets[name]["version"]`` is the content hash of the dataset: the columns ``segments_version`` and ``data_version``.
    """
    scores, replicates = read_cells(scores_dirs)
    _check_known(scores, entries, datasets, metrics)
    groups = [
        _rank_group(group, replicates.get(key), bool(metrics[key[1]]["higher_is_better"]))  # type: ignore[index]
        for key, group in scores.groupby(GROUP, sort=True)
    ]
    frame = pd.concat(groups, ignore_index=True) if groups else scores.assign(low=np.nan, high=np.nan, rank=0, tied_with_best=False)

    frame["title"] = [str(entries[e].get("title") or e) for e in frame["entry"]]
    frame["method"] = [str(entries[e].get("method", "")) for e in frame["entry"]]
    frame["backbone"] = [str(entries[e].get("backbone") or "") for e in frame["entry"]]
    for column in ("supervised", "reimplementation"):
        frame[column] = [bool(entries[e].get(column, False)) for e in frame["entry"]]
    frame["metric_title"] = [str(metrics[m]["title"]) for m in frame["metric"]]
    for column in ("higher_is_better", "oracle", "detail"):
        frame[column] = [bool(metrics[m].get(column, False)) for m in frame["metric"]]
    pairs = zip(frame["entry"], frame["dataset"], strict=True)
    frame["segments_version"] = [str((entries[e].get("versions") or {}).get(d, "")) for e, d in pairs]
    frame["data_version"] = [str(datasets[d].get("version", "")) for d in frame["dataset"]]

    place = {name: i for i, name in enumerate(datasets)}, {name: i for i, name in enumerate(metrics)}
    order = pd.DataFrame(
        {
            "dataset": frame["dataset"].map(place[0]),
            "metric": frame["metric"].map(place[1]),
            **{column: frame[column] for column in ("protocol", "scope", "grid")},
            "rank": frame["rank"].fillna(2**31),
            "entry": frame["entry"],
        }
    ).sort_values([*GROUP, "rank", "entry"], kind="stable")
    return frame.loc[order.index, COLUMNS].reset_index(drop=True).astype(_dtypes())


def write(frame: pd.DataFrame, target_dir: Path | str, published: Published | None = None) -> None:
    """Write ``leaderboard.parquet``, ``.csv`` and ``.md``; the same frame gives the same bytes. published: see ``to_markdown``."""
    import pyarrow as pa

    from uss_dagster.artifacts.tables import write_table

    target = Path(target_dir)
    target.mkdir(parents=True, exist_ok=True)
    schema = _schema()
    write_table(target / "leaderboard.parquet", pa.Table.from_pandas(frame[COLUMNS], schema=schema, preserve_index=False), schema)
    (target / "leaderboard.csv").write_text(to_csv(frame), encoding="utf-8", newline="\n")
    (target / "leaderboard.md").write_text(to_markdown(frame, published), encoding="utf-8", newline="\n")


def to_csv(frame: pd.DataFrame) -> str:
    """The rows as comma-separated values."""
    return frame[COLUMNS].to_csv(index=False, float_format="%.6f", lineterminator="\n")


def read(folder: Path | str) -> pd.DataFrame:
    """The table that ``write`` wrote, in its order."""
    from uss_dagster.artifacts.tables import read_table

    return read_table(Path(folder) / "leaderboard.parquet", _schema()).to_pandas()


def to_markdown(frame: pd.DataFrame, published: Published | None = None) -> str:
    """One table a dataset: entries as rows in the order of the first metric's ranks, metrics as columns.

    published: dataset → rows of ``report.published``, shown in a table of their own, which ranks nothing.
    """
    parts = ["# Leaderboard\n"]
    if frame.empty:
        return parts[0] + "\nNo scores yet.\n"
    parts.append(
        "Value ± half the width of its 95 % bootstrap interval over images. **Bold**: best. ≈: tied with the best, the interval of the "
        "paired difference contains 0. –: not run. n/a: run, but undefined on these images. ↑ higher is better, ↓ lower is better.\n"
    )
    for dataset in frame["dataset"].unique():
        here = frame[frame["dataset"] == dataset]
        shown = here[~here["detail"]] if not here["detail"].all() else here
        columns = list(shown[GROUP].drop_duplicates().itertuples(index=False, name=None))
        cells = {tuple(getattr(row, c) for c in (*GROUP, "entry")): row for row in here.itertuples()}
        heads, notes = [], []
        for number, column in enumerate(columns, 1):
            group = here[here[GROUP].eq(list(column)).all(axis=1)]
            first = group.iloc[0]
            heads.append(f"{_plain(first['metric_title'])} {'↑' if first['higher_is_better'] else '↓'} [{number}]")
            images = "–".join(str(n) for n in sorted({int(group["n"].min()), int(group["n"].max())}))
            oracle = " Oracle: the ground truth picks the regions, an upper bound." if first["oracle"] else ""
            notes.append(f"{number}. {_plain(first['metric_title'])}: {_plain(convention(first))}, {images} images.{oracle}")
        parts.append(f"## {_plain(dataset)}\n")
        parts.append("| Entry | Backbone | " + " | ".join(heads) + " |\n| --- | --- |" + " ---: |" * len(columns))
        for entry in entry_order(here):
            row = here[here["entry"] == entry].iloc[0]
            values = [_cell_text(cells.get((*column, entry))) for column in columns]
            name = _plain(row["title"]) + (" (uses labels)" if row["supervised"] else "")
            parts[-1] += f"\n| {name} | {_plain(row['backbone']) or '–'} | " + " | ".join(values) + " |"
        parts[-1] += "\n"
        parts.append("\n".join(notes) + "\n")
        if rows := (published or {}).get(dataset):
            parts.append(_published_table(here, rows))
    return "\n".join(parts)


def published_columns(frame: pd.DataFrame, rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Metric → title of what published rows have a value of, in the leaderboard's order."""
    known = {m for row in rows for m in row["values"]}
    titles = frame.drop_duplicates("metric").set_index("metric")["metric_title"]
    return {str(metric): str(title) for metric, title in titles.items() if metric in known}


def _published_table(frame: pd.DataFrame, rows: list[dict[str, Any]]) -> str:
    columns = published_columns(frame, rows)
    lines = [
        "Published figures, **not measured here**: other images, sizes or post-processing may lie behind them, so they rank nothing.\n",
        "| Published | " + " | ".join(map(_plain, columns.values())) + " | Source |",
        "| --- |" + " ---: |" * len(columns) + " --- |",
    ]
    for row in rows:
        values = [f"{row['values'][m]:.3f}" if m in row["values"] else "–" for m in columns]
        title = _plain(row["title"]) + (" (uses labels)" if row["supervised"] else "")
        lines.append(f"| *{title}* | " + " | ".join(values) + f" | {_plain(row['source'])}; {_plain(row['setting'])} |")
    return "\n".join(lines) + "\n"


def entry_order(frame: pd.DataFrame) -> list[str]:
    """Entries of one dataset by their rank in its first metric; those without one follow by name."""
    if frame.empty:
        return []
    first = frame.iloc[0]
    leading = frame[frame[GROUP].eq(first[GROUP].tolist()).all(axis=1)]["entry"].tolist()
    return leading + sorted(set(frame["entry"]) - set(leading))


def convention(row: Any) -> str:
    """How a number was made, in words: protocol, what was matched within, and the grid where it is not the image's own."""
    grid = "" if row["grid"] == "full" else f", on a grid of {row['grid']}"
    return f"protocol {row['protocol']}, matched within {'each image' if row['scope'] == 'image' else 'the whole dataset'}{grid}"


def half_width(low: float, high: float) -> float:
    """Half the width of an interval, for ``value ± half``."""
    return (high - low) / 2


# -- intervals, ranks, ties ---------------------------------------------------------------------------


def interval(samples: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of replicates, leaving out undefined ones; NaN where fewer than two are defined."""
    defined = samples[np.isfinite(samples)]
    if len(defined) < 2:
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of first − second over replicates that weigh the images alike; it contains 0 where they cannot be told apart."""
    return interval(np.asarray(first, float) - np.asarray(second, float))


def _rank_group(group: pd.DataFrame, replicates: pd.DataFrame | None, higher_is_better: bool) -> pd.DataFrame:
    """Intervals, ranks and ties of the entries of one ``GROUP``. replicates: replicate × entry."""
    group = group.sort_values("entry").reset_index(drop=True)
    resampled = replicates if replicates is not None else pd.DataFrame()
    bounds = [interval(resampled[e].to_numpy()) if e in resampled else (math.nan, math.nan) for e in group["entry"]]
    group["low"], group["high"] = [b[0] for b in bounds], [b[1] for b in bounds]
    group["rank"] = group["value"].rank(method="min", ascending=not higher_is_better).astype("Int64")  # NaN keeps no rank

    group["tied_with_best"] = (group["rank"] == 1).fillna(False).astype(bool)
    if group["tied_with_best"].any():
        best = group["entry"][group["tied_with_best"]].iloc[0]
        for row in group.index[~group["tied_with_best"] & group["value"].notna()]:
            entry = group.at[row, "entry"]
            if best in resampled and entry in resampled:
                low, high = paired_difference(resampled[entry].to_numpy(), resampled[best].to_numpy())
                group.at[row, "tied_with_best"] = bool(low <= 0 <= high)
    return group


# -- reading and checking -----------------------------------------------------------------------------


def read_cells(scores_dirs: Iterable[Path | str]) -> tuple[pd.DataFrame, dict[tuple[Any, ...], pd.DataFrame]]:
    """Whole-dataset scores of all cells, and per ``GROUP`` a table replicate × entry."""
    keys = [*GROUP, "entry"]
    scores = [pd.DataFrame({**{k: pd.Series(dtype="str") for k in keys}, "value": pd.Series(dtype=float), "n": pd.Series(dtype="int64")})]
    replicates = []
    for folder in sorted(Path(d) for d in scores_dirs):
        for name in ("scores.parquet", "replicates.parquet"):
            if not (folder / name).is_file():
                raise BadData(f"{folder} holds no {name}, so it is not the scores folder of a cell. Run its scores stage again.")
        table = pd.read_parquet(folder / "scores.parquet")
        scores.append(table.loc[table["image_id"].isna(), [*keys, "value", "n"]])
        replicates.append(pd.read_parquet(folder / "replicates.parquet", columns=[*keys, "replicate", "value"]))
    frame = pd.concat([s for s in scores if len(s)] or scores, ignore_index=True)
    double = frame[frame.duplicated(keys)]
    if len(double):
        raise BadData(
            f"Two whole-dataset scores for {' / '.join(double.iloc[0][keys])}; a cell has one value per metric, protocol, scope and grid."
        )
    if not replicates:
        return frame, {}
    grouped = pd.concat(replicates, ignore_index=True).groupby(GROUP, sort=True)
    return frame, {key: g.pivot(index="replicate", columns="entry", values="value") for key, g in grouped}  # type: ignore[misc]


def _check_known(scores: pd.DataFrame, entries: Facts, datasets: Facts, metrics: Facts) -> None:
    for column, known in (("entry", entries), ("dataset", datasets), ("metric", metrics)):
        for name in sorted(set(scores[column]) - set(known)):
            raise BadData(f"The scores speak of {column} '{name}', which the profile does not know.{did_you_mean(name, known)}")


# -- text and types -----------------------------------------------------------------------------------


def _cell_text(row: Any) -> str:
    if row is None:
        return "–"
    if math.isnan(row.value):
        return "n/a"
    text = f"{row.value:.3f}"
    if not math.isnan(row.low):
        text += f" ± {half_width(row.low, row.high):.3f}"
    if row.rank == 1:
        return f"**{text}**"
    return f"{text} ≈" if row.tied_with_best else text


def _plain(text: str) -> str:
    """Text that stands in a Markdown table cell as itself."""
    return re.sub(r"([\\|*_`<>\[\]#])", r"\\\1", " ".join(str(text).split()))


def _dtypes() -> dict[str, str]:
    text = ("title", "method", "backbone", "metric_title", "segments_version", "data_version", "entry", *GROUP)
    flags = ("supervised", "reimplementation", "higher_is_better", "oracle", "detail", "tied_with_best")
    return {**dict.fromkeys(text, "str"), **dict.fromkeys(flags, "bool"), "n": "int64", "rank": "Int64"}


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"str": pa.string(), "bool": pa.bool_(), "int64": pa.int64(), "Int64": pa.int64()}
    types = {**dict.fromkeys(("value", "low", "high"), pa.float64()), **{name: kinds[kind] for name, kind in _dtypes().items()}}
    return pa.schema([(name, types[name]) for name in COLUMNS])
