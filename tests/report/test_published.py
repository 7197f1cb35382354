"""Published figures: real metrics, real sources, and never among what was measured."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from small_benchmark import DATASETS, ENTRIES, METRICS, PUBLISHED, WITH_PUBLISHED

from uss_dagster import registry
from uss_dagster.report import leaderboard
from uss_dagster.report.board import board_script
from uss_dagster.report.evidence import Evidence
from uss_dagster.report.published import published_figures, published_rows
from uss_dagster.report.text_tables import to_markdown


def test_every_figure_is_of_a_metric_that_is_here_and_names_its_source() -> None:
    known = {name for family in registry.names("metric") for name in registry.load("metric", family).SPEC.metrics}
    for row in itertools.chain.from_iterable(published_figures().values()):
        assert row.source
        assert row.setting
        assert row.values
        assert set(row.values) <= known
        assert all(0 < v < 1 or (m.startswith("bsds_voi") and 1 < v < 3) for m, v in row.values.items())


def test_the_official_bsds_figures() -> None:
    (gpb,) = [r for r in published_rows("bsds500", ["bsds_covering_ods", "bsds_voi_ois"]) if r.title == "gPb-owt-ucm"]
    assert gpb.values == {"bsds_covering_ods": 0.588372, "bsds_voi_ois": 1.47504}
    assert gpb.supervised
    assert published_rows("scenes", ["nm_covering"]) == []


def test_figures_of_labels_over_a_dataset_stand_apart_from_those_matched_image_by_image() -> None:
    voc = {r.title: r.values for r in published_rows("voc2012", ["comus_miou", "stego_miou"])}
    assert voc["COMUS"] == {"comus_miou": 0.5}
    assert voc["TransFGU"] == {"stego_miou": 0.3715}
    stuff = list(published_rows("coco_stuff", ["stego_miou", "own_diffcut_miou"]))
    by_image = [r for r in stuff if "own_diffcut_miou" in r.values]
    assert [r.title for r in by_image] == ["DiffCut"]
    assert all("27 classes" in r.setting for r in stuff)
    assert "LightCluster" not in {
        r.title for r in itertools.chain.from_iterable(published_figures().values())
    }  # its own figures could not be read


@pytest.fixture
def text(cells: list[Path]) -> str:
    return to_markdown(leaderboard.rows_of(leaderboard.build(cells, ENTRIES, DATASETS, METRICS)), WITH_PUBLISHED)


def test_the_table_shows_them_apart_and_only_for_planned_metrics(text: str) -> None:
    cats, dogs = text.split("## dogs")
    assert "**not measured here**" in cats
    assert "not measured here" not in dogs
    shown = cats[cats.index("not measured here") :]
    assert "0.987" in shown
    assert "1.250" in shown
    assert "3.000" not in shown
    assert "*Paper \\<b\\>A\\</b\\> (uses labels)*" in shown
    assert "0.987" not in cats[: cats.index("not measured here")]


def test_the_page_knows_them_apart(cells: list[Path]) -> None:
    rows = leaderboard.rows_of(leaderboard.build(cells, ENTRIES, DATASETS, METRICS))
    text = board_script("cats", [row for row in rows if row.dataset == "cats"], Evidence(), [], PUBLISHED)
    board = json.loads(text[text.index("] = ") + 4 :].rstrip(";\n"))
    assert [row["title"] for row in board["published"]] == ["Paper <b>A</b>", "Paper B"]
    assert "<b>" not in text
    assert all(len(row) == 8 and row[0] in ENTRIES for group in board["groups"] for row in group["rows"]), "only measured rows are ranked"
