"""Mean ranks over datasets: what they are of, their bounds, their bytes, and where they are shown."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from devtools import Page
from small_benchmark import DATASETS, ENTRIES, METRICS, WITH_PUBLISHED, image_values, write_cell

from uss_dagster.report import leaderboard, mean_ranks, site
from uss_dagster.report.text_tables import to_markdown


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Alpha, gamma and beta on cats and dogs, labelled on cats only; alpha and gamma change places."""
    other = {"alpha": "gamma", "gamma": "alpha", "beta": "beta"}
    cells = [(entry, "cats", entry) for entry in ENTRIES] + [(entry, "dogs", of) for entry, of in other.items()]
    return [
        write_cell(tmp_path, entry, dataset, {(name, METRICS[name].protocol): image_values(of, name) for name in ("overlap", "error")})
        for entry, dataset, of in cells
    ]


def test_entries_that_all_datasets_have_with_the_ranks_that_their_differences_allow(folders: list[Path]) -> None:
    frame = leaderboard.build(folders, ENTRIES, DATASETS, METRICS)
    ranks = mean_ranks.build(frame, folders)
    assert ranks["metric"].tolist() == ["overlap"] * 3 + ["error"] * 3
    overlap = ranks[ranks["metric"] == "overlap"].set_index("entry")
    assert overlap.index.tolist() == ["alpha", "gamma", "beta"], "labelled has no score on dogs"
    assert (overlap["datasets"] == 2).all()
    assert overlap.loc["alpha", ["mean_rank", "low", "high"]].tolist() == [1.5, 1, 2]
    assert overlap.loc["beta", ["mean_rank", "low", "high"]].tolist() == [3, 3, 3]
    assert "labelled" not in ranks["entry"].tolist()


def test_entries_of_one_title_stand_apart(folders: list[Path]) -> None:
    entries = {name: dataclasses.replace(facts, title="Same") for name, facts in ENTRIES.items()}
    frame = leaderboard.build(folders, entries, DATASETS, METRICS)
    table = mean_ranks.MeanRankTable.of(mean_ranks.build(frame, folders))
    assert [(title, [cell and cell.entry for cell in cells]) for title, cells in table.rows] == [
        ("Same", [entry] * 2) for entry in ("alpha", "gamma", "beta")
    ]


def test_one_dataset_has_no_mean_ranks(folders: list[Path], tmp_path: Path) -> None:
    cats = [folder for folder in folders if folder.name == "cats"]
    ranks = mean_ranks.build(leaderboard.build(cats, ENTRIES, DATASETS, METRICS), cats)
    assert ranks.columns.tolist() == mean_ranks.COLUMNS
    mean_ranks.write(ranks, tmp_path)
    assert len(mean_ranks.read(tmp_path)) == 0


def test_without_replicates_there_are_no_bounds(tmp_path: Path) -> None:
    values = {("overlap", "strict"): image_values("alpha", "overlap")}
    folders = [write_cell(tmp_path, entry, name, values, replicates=0) for entry in ("alpha", "gamma") for name in ("cats", "dogs")]
    ranks = mean_ranks.build(leaderboard.build(folders, ENTRIES, DATASETS, METRICS), folders)
    assert ranks["mean_rank"].tolist() == [1.5, 1.5]
    assert np.isnan(ranks[["low", "high"]].to_numpy(float)).all()


def test_same_bytes_in_any_order_and_the_table_is_read_back(folders: list[Path], tmp_path: Path) -> None:
    written = []
    for name, cells in (("one", folders), ("two", folders[::-1])):
        frame = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
        ranks = mean_ranks.build(frame, cells)
        leaderboard.write(frame, tmp_path / name, DATASETS, ranks)
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert {"mean_ranks.parquet", "mean_ranks.csv"} <= written[0].keys()
    assert mean_ranks.read(tmp_path / "one").equals(ranks)
    text = written[0]["leaderboard.md"].decode()
    assert "| Alpha | 1.5 (1.0 to 2.0) | 1.5 (1.0 to 2.0) |" in text[text.index("## Mean rank over datasets") :]
    assert "over datasets" not in to_markdown(leaderboard.rows_of(frame), DATASETS)


def test_the_page_shows_them(folders: list[Path], tmp_path: Path, tab: Page) -> None:
    frame = leaderboard.build(folders, ENTRIES, DATASETS, METRICS)
    page = site.build(tmp_path / "site", frame, ENTRIES, WITH_PUBLISHED, METRICS, ranks=mean_ranks.build(frame, folders))
    assert (tmp_path / "site/exports/mean_ranks.csv").is_file()
    tab.open(page.as_uri(), width=1280)
    tab.ask("document.getElementById('ranks').open = true")
    rows = tab.ask("[...document.querySelectorAll('#ranks tbody tr')].map(row => [...row.cells].map(cell => cell.textContent))")
    assert rows[0] == ["Alpha", "1.5 (1.0 to 2.0)", "1.5 (1.0 to 2.0)"]
    assert rows[2][1:] == ["3.0 (3.0 to 3.0)"] * 2
    assert tab.ask("document.documentElement.scrollWidth") == 1280
