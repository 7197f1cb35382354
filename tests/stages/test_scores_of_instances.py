"""Scores where the ground truth is objects: an image without one has no rows in the table, and still counts."""

import json

import numpy as np
import pytest

from uss_dagster.artifacts.tables import RowsWriter, iterate_regions, regions_to_table
from uss_dagster.errors import BadData
from uss_dagster.regions import Regions
from uss_dagster.scoring.scorer import Scorer
from uss_dagster.stages import scores


@pytest.fixture
def tables(tmp_path):
    """Two predicted images, of which only 'b' has an object."""
    halves = Regions.from_label_map(np.array([[1, 1, 2, 2]]))
    (tmp_path / "truth").mkdir()
    written = ((tmp_path / "truth" / "regions.parquet", ["b"]), (tmp_path / "shard-00000.parquet", ["a", "b"]))
    for path, ids in written:
        writer = RowsWriter(path)
        for image_id in ids:
            writer.add(regions_to_table(image_id, halves.select(np.array([0])) if path.parent.name == "truth" else halves))
        writer.close()
    return tmp_path


def test_an_image_without_objects_adds_wrong_proposals_only(tables):
    total, rows = scores._score_shard(tables / "shard-00000.parquet", Scorer(["proposals"]), tables / "truth", "instances", None)
    values = {row["metric"]: row["value"] for row in total.dataset_rows()}
    assert total.images == 2
    assert {row["image_id"] for row in rows} == {"b"}
    assert values["ar1000"] == 1
    assert values["ap"] == pytest.approx(1 / 3), "the two proposals of 'a' rank before the right one of 'b' and a wrong one"


def test_numbers_that_depend_on_the_order_of_regions_are_left_out(tables):
    scorer = Scorer(["proposals"], replicates=3)
    total, _ = scores._score_shard(tables / "shard-00000.parquet", scorer, tables / "truth", "instances", None)
    names = {row["metric"] for row in scores._meaningful(total.dataset_rows(), total)}
    assert "ar1000" in names
    assert {row["metric"] for row in total.dataset_rows()} - names >= {"ap", "ap50", "ar1"}, "all scores are equal"
    assert {row["metric"] for row in scores._meaningful(total.replicate_rows(), total)} == names
    assert any("are left out" in note for note in total.notes())


def test_with_classes_it_is_a_missing_ground_truth(tables):
    (tables / "truth" / "classes.json").write_text(
        json.dumps(
            {
                "classes": [
                    {"id": 0, "name": "scene", "parent": -1, "kind": "inner"},
                    {"id": 1, "name": "x", "parent": 0, "kind": "foreground"},
                ]
            }
        )
    )
    with pytest.raises(BadData, match="Image 'a' has no ground truth in"):
        scores._score_shard(tables / "shard-00000.parquet", Scorer(["covering"]), tables / "truth", "classes", None)


def test_no_image_asked_for_is_none_read(tables):
    assert list(iterate_regions([tables / "truth" / "regions.parquet"], set())) == []


@pytest.mark.slow
def test_numbers_of_the_whole_dataset_alone(tmp_path):
    """A profile whose metrics have no value for one image: samples are shown all the same."""
    from projects import make_project

    profile = """\
title: Only over the dataset
settings: {shard_images: 2, bootstrap: 5, samples: 2}
datasets: {scenes: {images: 4}}
metrics: [semantic]
entries: {felzenszwalb: {params: {scales: 2}}}
"""
    project = make_project(tmp_path / "project", profile=profile)
    assert project.repro()[-1] == "site"
