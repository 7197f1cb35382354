"""Ranks, intervals, ties and the bytes of the leaderboard."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pandas as pd
import pytest
from small_benchmark import DATASETS, ENTRIES, METRICS, image_values, write_cell

from uss_dagster.errors import BadData
from uss_dagster.report import leaderboard
from uss_dagster.report.text_tables import to_markdown
from uss_dagster.scoring.intervals import interval


@pytest.fixture
def frame(cells: list[Path]) -> pd.DataFrame:
    return leaderboard.build(cells, ENTRIES, DATASETS, METRICS)


def group(frame: pd.DataFrame, *key: str, scope: str = "image", grid: str = "full") -> pd.DataFrame:
    return frame[frame[leaderboard.GROUP].eq([*key, scope, grid]).all(axis=1)].set_index("entry")


def test_values_and_intervals_are_those_of_the_replicates(frame: pd.DataFrame, cells: list[Path]) -> None:
    row = group(frame, "cats", "overlap", "strict").loc["alpha"]
    replicates = pd.read_parquet(cells[0] / "replicates.parquet").query("metric == 'overlap'")["value"]
    assert row["value"] == pytest.approx(image_values("alpha", "overlap").mean())
    assert (row["low"], row["high"]) == interval(row["value"], replicates.to_numpy(), 40)
    assert (row["n"], row["segments_version"], row["data_version"]) == (40, "code-alpha", "data-cats")


def test_a_tie_is_judged_by_paired_differences_not_by_overlapping_intervals(cells: list[Path]) -> None:
    unlabelled = [c for c in cells if "labelled" not in c.parts]
    ranks = group(leaderboard.build(unlabelled, ENTRIES, DATASETS, METRICS), "cats", "overlap", "strict")
    best = ranks.loc[ranks["rank"] == 1].iloc[0]
    assert best["low"] < ranks.loc["beta", "high"], "beta's interval overlaps that of the best, yet it is behind on every image"
    assert ranks["tied_with_best"].to_dict() == {"alpha": True, "gamma": True, "beta": False}
    rows = {row.entry: row.rank_range for row in leaderboard.rows_of(ranks.reset_index())}
    assert rows == {"alpha": "1–2", "gamma": "1–2", "beta": "3"}


def test_direction_decides_who_is_first(frame: pd.DataFrame) -> None:
    for metric, protocol in (("overlap", "strict"), ("error", "bits")):
        ranks = group(frame, "cats", metric, protocol)["rank"]
        assert ranks["labelled"] == 1
        assert ranks["beta"] == 4


def test_other_protocols_are_ranked_apart_and_undefined_scores_have_no_rank(frame: pd.DataFrame) -> None:
    assert group(frame, "dogs", "overlap", "strict")["rank"].to_dict() == {"alpha": 1}
    assert group(frame, "dogs", "overlap", "loose")["rank"].to_dict() == {"beta": 1}
    undefined = group(frame, "dogs", "error", "bits").loc["beta"]
    assert undefined["rank"] is pd.NA
    assert not undefined["tied_with_best"]


def test_scopes_and_grids_are_ranked_apart_too(cells: list[Path]) -> None:
    for cell, column, value in ((cells[0], "grid", "60x60"), (cells[1], "scope", "dataset")):
        for name in ("scores.parquet", "replicates.parquet"):
            table = pd.read_parquet(cell / name)
            table[column] = value
            table.to_parquet(cell / name)
    frame = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
    for (_, *key), ranked in frame.groupby(leaderboard.GROUP):
        assert ranked["rank"].dropna().min() == 1, key
    coarse = frame[frame["grid"] == "60x60"]
    assert len(coarse)
    assert (coarse["rank"] == 1).all(), "alone on its grid"
    assert "on a grid of 60x60" in to_markdown(leaderboard.rows_of(frame), DATASETS)
    assert "matched within the whole dataset" in to_markdown(leaderboard.rows_of(frame), DATASETS)


def test_what_is_detail_stays_in_the_files(cells: list[Path]) -> None:
    frame = leaderboard.build(cells, ENTRIES, DATASETS, {**METRICS, "ceiling": dataclasses.replace(METRICS["ceiling"], detail=True)})
    assert "Ceiling" not in to_markdown(leaderboard.rows_of(frame), DATASETS)
    assert (frame["metric"] == "ceiling").any()


def test_equal_values_share_a_rank() -> None:
    scores = pd.DataFrame({"entry": ["a", "b", "c"], "value": [0.5, 0.5, 0.4], "n": 9})
    ranked = leaderboard._rank_group(scores, None, higher_is_better=True)
    assert ranked["rank"].tolist() == [1, 1, 3]
    assert ranked["tied_with_best"].tolist() == [True, True, False], "without replicates nothing but equality is a tie"
    assert ranked[["rank_low", "rank_high"]].isna().all(axis=None)


def test_rows_follow_the_given_orders(frame: pd.DataFrame) -> None:
    assert frame["dataset"].drop_duplicates().tolist() == list(DATASETS)
    assert frame.loc[frame["dataset"] == "cats", "metric"].drop_duplicates().tolist() == list(METRICS)
    assert group(frame, "cats", "overlap", "strict")["rank"].is_monotonic_increasing


def test_same_scores_same_bytes_in_any_order(cells: list[Path], tmp_path: Path) -> None:
    digests = []
    for name, folders in (("one", cells), ("two", cells[::-1])):
        leaderboard.write(leaderboard.build(folders, ENTRIES, DATASETS, METRICS), tmp_path / name)
        digests.append([hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((tmp_path / name).iterdir())])
    assert digests[0] == digests[1]
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["leaderboard.csv", "leaderboard.md", "leaderboard.parquet"]
    read = pd.read_parquet(tmp_path / "one" / "leaderboard.parquet")
    assert read.columns.tolist() == leaderboard.COLUMNS
    assert read["backbone"].tolist().count("") == (read["entry"] == "beta").sum()


def test_markdown_has_a_table_a_dataset(frame: pd.DataFrame) -> None:
    text = to_markdown(leaderboard.rows_of(frame), DATASETS)
    cats, dogs = text.split("## dogs")
    row = next(line for line in cats.splitlines() if line.startswith("| Gamma"))
    assert row.split(" | ")[-1] == "– |", "gamma has no ceiling"
    assert "≈" not in row, "gamma is far behind the labelled one"
    assert "| **0." in next(line for line in cats.splitlines() if line.startswith("| Labelled (uses labels)"))
    assert "n/a" in dogs
    assert "protocol loose" in dogs
    assert "Oracle" in cats
    assert r"Beta \<script\>alert('x')\</script\> \| \*b\*" in text


def test_no_scores_at_all(tmp_path: Path) -> None:
    frame = leaderboard.build([], ENTRIES, DATASETS, METRICS)
    leaderboard.write(frame, tmp_path)
    assert frame.empty
    assert "No scores yet" in (tmp_path / "leaderboard.md").read_text()


def test_scores_without_replicates_have_no_intervals(tmp_path: Path) -> None:
    values = {("overlap", "strict"): image_values("alpha", "overlap")}
    frame = leaderboard.build([write_cell(tmp_path, "alpha", "cats", values, replicates=0)], ENTRIES, DATASETS, METRICS)
    assert frame[["low", "high", "rank_low", "rank_high"]].isna().all(axis=None)
    assert "±" not in to_markdown(leaderboard.rows_of(frame), DATASETS).split("## cats")[1]


def test_what_is_wrong_with_scores_is_said(cells: list[Path], tmp_path: Path) -> None:
    with pytest.raises(BadData, match="does not know"):
        leaderboard.build(cells, {k: v for k, v in ENTRIES.items() if k != "beta"}, DATASETS, METRICS)
    with pytest.raises(BadData, match="one value per metric, protocol"):
        leaderboard.build([cells[0], cells[0]], ENTRIES, DATASETS, METRICS)
    broken = write_cell(tmp_path / "broken", "alpha", "cats", {("overlap", "strict"): image_values("alpha", "overlap")})
    (broken / "replicates.parquet").unlink()
    with pytest.raises(BadData, match=r"holds no replicates\.parquet"):
        leaderboard.build([broken], ENTRIES, DATASETS, METRICS)
