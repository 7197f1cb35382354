"""`uss export --format` and `uss import`, `uss.export` and `uss.load_regions`: from what the project holds to other programs, and back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
from curation_of_examples import write_curated_set
from format_cases import NAMES, example_images, example_set, same_masks
from typer.testing import CliRunner

import uss_dagster as uss
from uss_dagster.artifacts.tables import regions_to_table, write_table
from uss_dagster.cli import app
from uss_dagster.errors import BadData, UsageError
from uss_dagster.formats import catalogue
from uss_dagster.formats.base import ASPECTS
from uss_dagster.formats.kinds import coco, yolo
from uss_dagster.formats.sources import open_source
from uss_dagster.formats.transfer import export_masks, import_masks
from uss_dagster.own_images.region_files import RegionFiles


def run(*words: object) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """What `uss segment` writes, and the pictures."""
    folder = tmp_path_factory.mktemp("segmented")
    with RegionFiles(folder, "regions") as files:
        for image in example_images():
            files.add(image.image_id, image.file_name, regions_to_table(image.image_id, image.regions))
            path = folder / "photos" / image.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.picture())
    return folder


def test_a_folder_of_segment_is_exported_and_imported(segmented, tmp_path):
    said = run("export", segmented, "--format", "datumaro", "--out", tmp_path / "set", "--images", segmented / "photos")
    assert f"{tmp_path / 'set'}: Datumaro; 6 images, 16 regions, 6 pictures." in said
    said = run("import", tmp_path / "set", "--format", "datumaro", "--out", tmp_path / "back")
    assert "6 images, 16 regions." in said
    back = {image.image_id: image for image in open_source(tmp_path / "back").images()}
    for image in example_images():
        assert same_masks(image, back[image.image_id])
        assert back[image.image_id].file_name == image.file_name
        assert back[image.image_id].regions.parent.tolist() == image.regions.parent.tolist()
        assert np.array_equal(back[image.image_id].regions.level, image.regions.level, equal_nan=True)
        assert back[image.image_id].regions.label.tolist() == image.regions.label.tolist()
    names = json.loads((tmp_path / "back" / "classes.json").read_text())["classes"]
    assert [one["name"] for one in names][1:8] == [f"class_{i}" for i in range(1, 8)]


def test_shards_of_an_artefact_are_exported(tmp_path):
    images = example_images()
    for number, part in enumerate((images[:2], images[2:])):
        tables = [regions_to_table(image.image_id, image.regions) for image in part]
        write_table(tmp_path / f"shard-{number:05d}.parquet", pa.concat_tables(tables), tables[0].schema)
    seen = list(open_source(tmp_path).images())
    assert [image.image_id for image in seen] == [image.image_id for image in images]
    assert all(same_masks(*pair) for pair in zip(images, seen, strict=True))


def test_a_curated_set_brings_quality_split_and_pictures(tmp_path):
    write_curated_set(tmp_path / "curated")
    done = export_masks(open_source(tmp_path / "curated"), "coco", tmp_path / "set")
    assert (done.images, done.regions, done.pictures, done.notes) == (6, 16, 6, [])
    back = {image.image_id: image for image in coco.read(tmp_path / "set").images()}
    for image in example_images():
        again = back[image.image_id]
        assert (again.split, again.file_name) == (image.split, image.file_name)
        assert np.array_equal(again.quality, image.quality, equal_nan=True)
        assert (tmp_path / "set" / "images" / image.split / image.file_name).read_bytes() == image.picture()


def test_what_is_lost_is_said_and_only_then(segmented, tmp_path):
    words = ("export", segmented, "--format", "yolo", "--images", segmented / "photos")
    said = run(*words, "--out", tmp_path / "a")
    assert "not kept: parent, level, score, source. A line has a class and a polygon." in said
    disjoint = uss.regions(np.array([[0, 1], [0, 1]]))
    done = export_masks(_set_of(disjoint), "coco_panoptic", tmp_path / "b")
    assert done.notes == []
    done = export_masks(_set_of(uss.regions([np.ones((2, 2), bool), np.eye(2, dtype=bool)])), "coco_panoptic", tmp_path / "c")
    assert [note[:22] for note in done.notes] == ["not kept: overlap. A p"]


def _set_of(regions):
    from uss_dagster.formats.base import MaskedImage, MaskSet

    return MaskSet(lambda: iter([MaskedImage("a", "a.png", regions, np.full(len(regions), np.nan, np.float32))]))


def test_a_failed_export_leaves_nothing(segmented, tmp_path):
    with pytest.raises(UsageError, match="YOLO needs the pictures"):
        export_masks(open_source(segmented), "yolo", tmp_path / "set")
    assert not (tmp_path / "set").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(UsageError, match="is not empty"):
        export_masks(open_source(segmented), "coco", tmp_path / "full")
    assert (tmp_path / "full" / "a").exists()


def test_an_import_without_regions_is_refused(tmp_path):
    file = tmp_path / "empty.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png", "height": 2, "width": 2}], "annotations": []}))
    with pytest.raises(BadData, match="no region to import"):
        import_masks(file, "coco", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_an_import_says_what_it_leaves_out(tmp_path):
    (tmp_path / "set").mkdir()
    coco.write(example_set(), tmp_path / "set")
    done = import_masks(tmp_path / "set", "coco", tmp_path / "back")
    assert done.notes == [
        "the quality of 2 regions is left out: regions.parquet has no column for it.",
        "splits are left out (test, train, val): regions.parquet has no column for them.",
    ]
    names = json.loads((tmp_path / "back" / "classes.json").read_text())["classes"]
    assert [names[label]["name"] for label in NAMES] == list(NAMES.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export"], "Name what is to be exported"),
        (["export", "."], "Say what to write"),
        (["export", ".", "--format", "coco"], "--out DIR"),
        (["export", ".", "--format", "coco", "--out", "b", "--onnx", "c"], "Pass one or the other"),
        (["export", ".", "--format", "cocoa", "--out", "b"], "Did you mean 'coco'"),
        (["export", "nowhere", "--format", "coco", "--out", "b"], "nowhere does not exist"),
        (["export", ".", "--format", "coco", "--out", "b"], "holds no regions"),
        (["import", ".", "--out", "b"], "with --format: coco"),
        (["import", "nowhere", "--format", "coco", "--out", "b"], "nowhere does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_refused(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said):
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert not (tmp_path / "b").exists()


def test_the_list_shows_every_format_and_aspect():
    said = run("export", "--list").splitlines()
    assert said[0].split() == ["format", *ASPECTS]
    assert [line.split()[0] for line in said[1 : 1 + len(catalogue.names())]] == catalogue.names()
    entries = json.loads(run("export", "--list", "--json"))
    assert [entry["name"] for entry in entries] == catalogue.names()
    assert all(list(entry["keeps"]) == list(ASPECTS) for entry in entries)


def test_regions_in_memory_go_out_and_come_back(tmp_path):
    image = next(image for image in example_images() if image.image_id == "tree")
    regions = uss.Regions.of(image.regions, np.zeros((*image.regions.shape, 3), np.uint8), "street.jpg")
    folder = uss.export(regions, tmp_path / "set", "cvat", classes={1: "road"})
    assert (folder / "images" / "street.png").is_file()
    back = uss.load_regions(folder / "annotations.xml", "cvat")
    assert list(back) == ["street"]
    assert np.array_equal(back["street"].masks(), regions.masks())
    assert back["street"].parent.tolist() == regions.parent.tolist()
    uss.export({"a": regions, "b": regions}, tmp_path / "yolo", "yolo")
    assert [image.image_id for image in yolo.read(tmp_path / "yolo").images()] == ["a", "b"]
    with pytest.raises(UsageError, match="the same name"):
        uss.export([regions, regions], tmp_path / "twice", "coco")
    shutil.rmtree(tmp_path / "yolo")
