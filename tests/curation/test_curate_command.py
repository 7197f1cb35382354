"""`uss curate` from pictures to files that other programs read."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from curation_cases import picture, published, run, write_pictures
from PIL import Image
from projects import BIN
from pycocotools.coco import COCO

from uss_dagster.artifacts.mask_readers import open_masks
from uss_dagster.commands.curate import parse_settings
from uss_dagster.errors import BadData, UsageError
from uss_dagster.methods import felzenszwalb
from uss_dagster.regions import Regions, rle

ALL = ["coco", "splits", "images", "metadata"]


def stored_masks(out):
    """Stored files of masks, with the times at which they were written."""
    return {path: path.stat().st_mtime_ns for path in (out / ".curate/shards").glob("*/*.masks.parquet")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of good, broken, plain and repeated pictures with human masks on one, and what came of it."""
    home = tmp_path_factory.mktemp("curate")
    folder = home / "in"
    write_pictures(folder, 9)
    first = Image.open(folder / "p00000.png")
    first.resize((128, 96), Image.Resampling.BICUBIC).save(folder / "again.jpg", quality=90)
    first.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.png")
    Image.new("RGB", (40, 40), (9, 99, 9)).save(folder / "plain.png")
    (folder / "broken.png").write_bytes((folder / "p00001.png").read_bytes()[:200])
    person = np.zeros((48, 64), bool)
    person[5:40, 8:50] = True
    mark = {
        "id": 1,
        "image_id": 1,
        "category_id": 3,
        "iscrowd": 0,
        "segmentation": {"size": [48, 64], "counts": rle.encode(person[None])[0].decode()},
    }
    labels = home / "human.json"
    labels.write_text(json.dumps({"images": [{"id": 1, "file_name": "p00002.png", "height": 48, "width": 64}], "annotations": [mark]}))
    settings = ["splits=[2, 1, 1]"]
    with pytest.raises(BadData, match="1 of 13 pictures could not be used"):
        run(folder, home / "out", settings, formats=ALL, labels=labels, copy=True)
    return home


def test_every_picture_is_listed_and_none_is_lost(made):
    images = pd.read_parquet(made / "out" / "images.parquet").set_index("image_id")
    assert images["status"].value_counts().to_dict() == {"kept": 9, "duplicate": 2, "plain": 1, "broken": 1}
    assert images.loc["again", "status"] == "kept", "the largest stands for its group"
    assert set(images.index[images["group"] == "again"]) == {"again", "mirrored", "p00000"}
    aside = pd.read_csv(made / "out" / "set_aside.csv").set_index("image_id")
    assert set(aside.index) == {"broken", "mirrored", "p00000", "plain"}
    assert "truncated or damaged" in aside.loc["broken", "reason"]
    assert len(list((made / "in").iterdir())) == 13, "set aside, never deleted"


def test_pycocotools_reads_it(made):
    coco = COCO(made / "out" / "labels.json")
    masks = pq.read_table(made / "out" / "masks.parquet")
    assert len(coco.imgs) == 9
    assert len(coco.anns) == masks.num_rows
    for mark in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(mark)
        assert mask.sum() == mark["area"] == COCO.annToMask(coco, mark).sum()
        ys, xs = np.nonzero(mask)
        assert mark["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        if mark["parent"] is not None:
            above = coco.anns[mark["parent"]]
            assert above["image_id"] == mark["image_id"]
            assert not (mask & ~coco.annToMask(above)).any()


def test_no_found_mask_overlaps_the_human_one(made):
    coco = COCO(made / "out" / "labels.json")
    (image,) = [i for i in coco.imgs.values() if i["file_name"] == "p00002.png"]
    marks = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
    (human,) = [m for m in marks if m["unsam"]["source"] == "gt"]
    assert human["unsam"]["label"] == 3
    person = coco.annToMask(human).astype(bool)
    others = [coco.annToMask(m).astype(bool) for m in marks if m is not human]
    assert others
    assert all((m & person).sum() / (m | person).sum() <= 0.02 for m in others)


def test_fiftyone_and_image_folders(made):
    """What FiftyOne's COCOImporter and `datasets`' image folders look up: names, types, and the pictures where they say."""
    whole = json.loads((made / "out" / "labels.json").read_text())
    assert set(whole) == {"info", "licenses", "categories", "images", "annotations"}
    for image in whole["images"]:
        assert isinstance(image["id"], int)
        assert Image.open(made / "out" / "data" / image["file_name"]).size == (image["width"], image["height"])
    names = {category["id"]: category["name"] for category in whole["categories"]}
    for mark in whole["annotations"]:
        assert mark["category_id"] in names
        assert mark["iscrowd"] in (0, 1)
        assert len(mark["bbox"]) == 4
        assert isinstance(mark["segmentation"]["counts"], str)
        assert set(mark["unsam"]) == {"source", "entry", "level", "quality", "label"}
    assert [m["id"] for m in whole["annotations"]] == list(range(1, len(whole["annotations"]) + 1))
    lines = [json.loads(line) for line in (made / "out" / "data" / "metadata.jsonl").read_text().splitlines()]
    assert len(lines) == 9
    assert all(set(line) == set(lines[0]) for line in lines), "every line has the same columns"
    for line in lines:
        assert (made / "out" / "data" / line["file_name"]).is_file()
        assert len({len(values) for values in line["objects"].values()}) == 1


def test_the_file_of_one_image_is_like_that_of_sa1b(made):
    for path in (made / "out" / "json").glob("*.json"):
        one = json.loads(path.read_text())
        assert set(one) == {"info", "licenses", "categories", "image", "annotations"}
        assert one["image"]["image_id"] == path.stem
        assert [m["id"] for m in one["annotations"]] == list(range(1, len(one["annotations"]) + 1))
        assert all(
            m["image_id"] == one["image"]["id"] and (m["height"], m["width"]) == tuple(m["segmentation"]["size"])
            for m in one["annotations"]
        )
    assert len(list((made / "out" / "json").iterdir())) == 9


def test_splits_hold_every_kept_image_once(made):
    images = pd.read_parquet(made / "out" / "images.parquet")
    found = {p.stem: [i["image_id"] for i in json.loads(p.read_text())["images"]] for p in (made / "out" / "annotations").iterdir()}
    assert len(found) > 1
    kept = images[images["status"] == "kept"]
    assert found == {split: kept["image_id"][kept["split"] == split].tolist() for split in found}
    assert sum(map(len, found.values())) == len(kept)


def test_our_own_reader_takes_it(made):
    masks = open_masks(made / "out" / "labels.json")
    regions = masks.regions("p00003")
    assert isinstance(regions, Regions)
    assert (regions.parent < np.arange(len(regions))).all()


def test_report_and_datasheet(made):
    report = json.loads((made / "out" / "validation.json").read_text())
    assert report["success"]
    page = (made / "out" / "report.html").read_text()
    assert f"{len(report['checks'])} of {len(report['checks'])} checks passed" in page
    sheet = (made / "out" / "DATASHEET.md").read_text()
    assert "| duplicate: shows the same as another one | 2 |" in sheet
    assert "masks of human | 1" in sheet
    assert (made / "out" / "datasheet.html").read_text().count("<table>") > 5


def test_again_nothing_is_computed_and_no_byte_changes(made, tmp_path):
    subprocess.run(["cp", "-r", str(made), str(tmp_path / "copy")], check=True)
    here = tmp_path / "copy"
    before = published(here / "out")
    stored = stored_masks(here / "out")
    assert len(stored) == 12, "all but the broken one"
    with pytest.raises(BadData, match="1 of 13"):
        run(here / "in", here / "out", ["splits=[2, 1, 1]"], formats=ALL, labels=here / "human.json", copy=True)
    assert published(here / "out") == before
    assert stored_masks(here / "out") == stored
    assert not list((here / "out/.curate/work").rglob("*.parquet")), "nothing unfinished stays"

    # A replaced picture is computed, a renamed one is not, and of the old one nothing is stored any more.
    Image.fromarray(picture(77)).save(here / "in" / "p00004.png")
    os.rename(here / "in" / "p00005.png", here / "in" / "other.png")
    (here / "in" / "broken.png").unlink()
    said = run(here / "in", here / "out", ["splits=[2, 1, 1]"], labels=here / "human.json")
    assert "computed 1, reused 11; against the previous version: " in said[-2]
    assert "other" in pd.read_parquet(here / "out" / "images.parquet")["image_id"].tolist()
    assert len(stored_masks(here / "out")) == len(stored)
    assert len(set(stored) - set(stored_masks(here / "out"))) == 1
    assert not (here / "out" / "json").exists(), "forms that were not asked for this time go"


@pytest.fixture
def _no_suite(monkeypatch):
    """Great Expectations has had its say in the tests above."""
    monkeypatch.setattr("uss_dagster.curation.checks.check_expectations", lambda *_: None)


@pytest.mark.usefixtures("_no_suite")
def test_a_run_that_stops_goes_on_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 4)
    real, calls = felzenszwalb.segment, []

    def stopping(sample, params, state=None):
        calls.append(sample.image_id)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(sample, params, state)

    monkeypatch.setattr(felzenszwalb, "segment", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".curate"], "nothing half-made is in place"
    said = run(tmp_path / "in", tmp_path / "out")
    assert "computed 2, reused 2" in said[-2]
    assert calls == ["p00000", "p00001", "p00002", "p00002", "p00003"], "only the one in flight was lost"


@pytest.mark.usefixtures("_no_suite")
def test_what_goes_wrong_with_one_picture_is_said_and_the_others_are_made(tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 3)
    real = felzenszwalb.segment

    def failing(sample, params, state=None):
        if sample.image_id == "p00001":
            raise ZeroDivisionError("by zero")
        if sample.image_id == "p00002":
            return Regions.from_masks([], shape=sample.image.shape[:2])
        return real(sample, params, state)

    monkeypatch.setattr(felzenszwalb, "segment", failing)
    with pytest.raises(BadData, match=r"1 of 3 pictures could not be used \(see .*set_aside.csv\); the others are in"):
        run(tmp_path / "in", tmp_path / "out")
    aside = pd.read_csv(tmp_path / "out" / "set_aside.csv").set_index("image_id")
    assert aside.loc["p00001", "reason"] == "method 'felzenszwalb' failed on it (ZeroDivisionError: by zero)"
    assert aside.loc["p00002", "status"] == "empty", "no mask, so nothing is emitted"
    assert "ZeroDivisionError" in next((tmp_path / "out/.curate/errors").iterdir()).read_text()
    assert len(json.loads((tmp_path / "out" / "labels.json").read_text())["images"]) == 1


@pytest.mark.usefixtures("_no_suite")
def test_a_result_that_fails_its_checks_replaces_nothing(tmp_path):
    write_pictures(tmp_path / "in", 3)
    run(tmp_path / "in", tmp_path / "out")
    before = published(tmp_path / "out")
    with pytest.raises(BadData, match=r"The result was refused: there are images: No image is left \(3 empty\)"):
        run(tmp_path / "in", tmp_path / "out", ["min_area=100000"])
    assert published(tmp_path / "out") == before
    refused = tmp_path / "out/.curate/quarantine/set"
    assert not json.loads((refused / "validation.json").read_text())["success"]
    with pytest.raises(BadData, match="close to the previous version"):
        run(tmp_path / "in", tmp_path / "out", ["min_area=200", "refuse_drift=true"])
    assert published(tmp_path / "out") == before


def test_wrong_words(tmp_path):
    write_pictures(tmp_path / "in", 1)
    for words, said in (
        (["min_aera=3"], "there is no parameter 'min_aera'. Did you mean 'min_area'"),
        (["splits=[1, 2]"], "expected the shares of train, val and test"),
        (["iou=0"], "expected above 0 to 1"),
    ):
        with pytest.raises(UsageError, match=said.replace("[", r"\[")):
            parse_settings(words, "train", [])
    with pytest.raises(UsageError, match="'tiff'"):
        parse_settings([], "train", ["tiff"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="holds files, and `uss curate` did not make them"):
        run(tmp_path / "in", tmp_path / "mine")


@pytest.mark.slow
def test_killed_it_loses_the_pictures_in_flight_only_and_workers_change_no_byte(tmp_path):
    write_pictures(tmp_path / "in", 40)
    words = [str(BIN / "uss"), "curate", str(tmp_path / "in"), "-m", "felzenszwalb", "--param", "scales=4", "--out"]
    for workers in ("1", "4"):
        subprocess.run(
            [*words, str(tmp_path / f"out{workers}")], check=True, env={**os.environ, "USS_WORKERS": workers}, stdout=subprocess.DEVNULL
        )
    whole = published(tmp_path / "out1")
    assert published(tmp_path / "out4") == whole
    killed = subprocess.Popen([*words, str(tmp_path / "cut")], env={**os.environ, "USS_WORKERS": "1"}, stdout=subprocess.DEVNULL)
    work = tmp_path / "cut/.curate/work"
    deadline = time.monotonic() + 120
    while len(list(work.rglob("[!.]*.looks.parquet"))) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    finished = {p.name.partition(".")[0] for p in work.rglob("[!.]*.looks.parquet")}
    stored = stored_masks(tmp_path / "cut")
    assert 10 <= len(finished) < 40
    done = subprocess.run(
        [*words, str(tmp_path / "cut")], check=True, capture_output=True, text=True, env={**os.environ, "USS_WORKERS": "1"}
    )
    assert f"computed {40 - len(finished)}, reused {len(finished)}" in done.stdout
    assert stored.items() <= stored_masks(tmp_path / "cut").items(), "what was stored is not written again"
    assert published(tmp_path / "cut") == whole
