"""Published figures: real metrics, real sources, and never among what was measured."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import typing
from pathlib import Path

import pytest
from small_benchmark import DATASETS, ENTRIES, METRICS, PUBLISHED, WITH_PUBLISHED

from uss_dagster import registry
from uss_dagster.datasets.formats.class_trees import class_set_of
from uss_dagster.report import leaderboard, published_and_ours
from uss_dagster.report.board import board_script
from uss_dagster.report.evidence import Evidence
from uss_dagster.report.paper_table import HEAD, table_lines
from uss_dagster.report.published import PublishedRow, published_figures, published_rows
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
    stuff = list(published_rows("coco_stuff_27", ["stego_miou", "own_diffcut_miou"]))
    by_image = [r for r in stuff if "own_diffcut_miou" in r.values]
    assert [r.title for r in by_image] == ["DiffCut"]
    assert all("27 classes" in r.setting for r in stuff)
    assert "LightCluster" not in {
        r.title for r in itertools.chain.from_iterable(published_figures().values())
    }  # its own figures could not be read


def test_figures_are_of_class_sets_that_adapters_have() -> None:
    known = set()
    for name in registry.names("dataset"):
        module = registry.load("dataset", name)
        known.add(class_set_of(module, module.SPEC.params()))
        for field in dataclasses.fields(module.SPEC.params):
            for value in typing.get_args(typing.get_type_hints(module.SPEC.params)[field.name]):
                with contextlib.suppress(ValueError, TypeError):
                    known.add(class_set_of(module, module.SPEC.params(**{field.name: value})))
    assert published_figures().keys() <= known


@pytest.mark.parametrize(
    ("name", "params", "class_set", "miou"),
    [
        ("coco_stuff", {"labels": "27"}, "coco_stuff_27", None),
        ("coco_stuff", {"labels": "stuff"}, "coco_stuff_stuff", 0.587),
        ("coco_stuff", {"labels": "things"}, "coco_stuff_things", 0.557),
        ("coco", {"truth": "classes"}, "coco_semantic", None),
        ("cityscapes", {"classes": 27}, "cityscapes_27", None),
        ("cityscapes", {"classes": 19}, "cityscapes_19", 0.488),
        ("voc2012", {}, "voc2012", 0.781),
        ("voc2012", {"tree": "groups"}, "voc2012_groups", None),
        ("kitti_step", {}, "kitti_step", 0.512),
    ],
)
def test_a_figure_is_shown_on_its_own_class_set_only(name: str, params: dict, class_set: str, miou: float | None) -> None:
    module = registry.load("dataset", name)
    assert class_set_of(module, module.SPEC.params(**params)) == class_set
    rows = [row for row in published_rows(class_set, ["miou"]) if row.table == "has-table1"]
    assert [row.values["miou"] for row in rows] == ([] if miou is None else [miou])


def test_published_and_ours(cells: list[Path], tmp_path: Path) -> None:
    frame = leaderboard.build(cells, ENTRIES, DATASETS, METRICS)
    assert published_and_ours.build(frame, ENTRIES, DATASETS).empty, "nothing is published on these"
    works = [
        PublishedRow("Paper A", "s", "A, 2020", False, {"overlap": 0.45}, "t1/a", "alpha", "dino_vits8", "480×480", "60x60", images=1449),
        PublishedRow("Paper B", "s", "B, 2020", False, {"overlap": 0.9}, "t1/b"),
    ]
    model = {"model": "dino_vitb8", "image_size": [480, 480]}
    entries = ENTRIES | {"alpha": dataclasses.replace(ENTRIES["alpha"], published="t1/a", encoder="vit", encoder_params=model)}
    datasets = DATASETS | {"cats": dataclasses.replace(DATASETS["cats"], published=works)}
    table = published_and_ours.build(frame, entries, datasets)
    (one,) = published_and_ours.repeated_rows(table)
    (row,) = [r for r in leaderboard.rows_of(frame) if (r.dataset, r.entry, r.metric) == ("cats", "alpha", "overlap")]
    assert (one.dataset, one.entry, one.key, one.published, one.value, one.n) == ("cats", "alpha", "t1/a", 0.45, row.value, 40)
    assert (one.difference, one.low, one.high) == (row.value - 0.45, row.low - 0.45, row.high - 0.45)
    assert one.why == "40 of 1,449 images; weights dino_vitb8, published dino_vits8; scored on full, published on 60x60; reimplemented"
    leaderboard.write(frame, tmp_path, datasets, None, table)
    assert published_and_ours.read(tmp_path).equals(table)
    shown = (tmp_path / "leaderboard.md").read_text().split("## Published and ours")[1]
    assert f"| cats | Alpha | Overlap | 0.450 | {row.value:.3f} | +" in shown
    assert "Published: A, 2020." in shown
    leaderboard.write(frame, tmp_path / "none", DATASETS, None, published_and_ours.build(frame, ENTRIES, DATASETS))
    assert not (tmp_path / "none/published.csv").exists()
    assert "Published and ours" not in (tmp_path / "none/leaderboard.md").read_text()

    lines = table_lines(frame, table, {"t1"}, {"cats": "voc2012"})
    assert lines[0].split() == list(HEAD)
    assert not any(line.startswith("dogs") for line in lines), "datasets without a class set are not shown"
    mine = next(line for line in lines if "Alpha" in line)
    assert ["cats", "Overlap", "full", "Alpha", "0.450", f"{row.value:.3f}"] == mine.split()[:6]
    assert lines[-1] == f"[1] {one.why}"


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
    text = board_script("cats", [row for row in rows if row.dataset == "cats"], Evidence(), [], METRICS, PUBLISHED)
    board = json.loads(text[text.index("] = ") + 4 :].rstrip(";\n"))
    assert [row["title"] for row in board["published"]] == ["Paper <b>A</b>", "Paper B"]
    assert "<b>" not in text
    assert all(len(row) == 9 and row[0] in ENTRIES for group in board["groups"] for row in group["rows"]), "only measured rows are ranked"
