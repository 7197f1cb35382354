"""The file of `uss annotate`: what pycocotools and every reader of this package read in it, and that it is never lost."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from annotation_cases import HEIGHT, WIDTH, code_of, fields, make_photos
from pycocotools.coco import COCO

from uss_dagster.annotation.document import Conflict, Document, Draft, Picture, check_name
from uss_dagster.errors import BadData, UsageError

SHAPE = (HEIGHT, WIDTH)
HOUSE, TREE = np.isin(fields(), (2, 3)), fields() == 4


def picture(folder, image_id: str, shape=SHAPE) -> Picture:
    return Picture(image_id, f"{image_id}.png", folder / f"{image_id}.png", shape)


@pytest.fixture
def document(tmp_path):
    return Document(tmp_path / "a.json", [picture(tmp_path, name) for name in "abc"], ["tree"])


def test_what_was_made_is_read_by_pycocotools_and_by_the_next_call(tmp_path, document):
    document.change("b", 0, [(None, "house", code_of(HOUSE)), (None, "tree", code_of(TREE))], done=True)
    document.change("a", 0, [(None, "tree", code_of(TREE))], Draft(code_of(HOUSE)))
    document.change("c", 0, [], Draft(code_of(TREE)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(document.path))
    assert [(image["image_id"], image["file_name"], image["height"]) for image in coco.dataset["images"]] == [
        ("b", "b.png", HEIGHT),
        ("a", "a.png", HEIGHT),
    ], "c has no instance and is not done"
    assert {category["id"]: category["name"] for category in coco.dataset["categories"]} == {1: "tree", 2: "house"}
    for number, mask in ((1, HOUSE), (2, TREE), (3, TREE)):
        annotation = coco.anns[number]
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        rows, columns = np.nonzero(mask)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
    again = Document(document.path, list(document.pictures.values()))
    assert again.done == ["b"]
    assert again.names == ["tree", "house"]
    for name in "abc":
        assert again.sheets[name].instances == document.sheets[name].instances
        assert again.sheets[name].draft == document.sheets[name].draft


def test_changes_renames_and_deletions_keep_ids(document):
    first = document.change("a", 0, [(None, "tree", code_of(TREE)), (None, "house", code_of(HOUSE))])
    assert [instance.id for instance in first.instances] == [1, 2]
    second = document.change("a", 1, [(2, "hut", code_of(HOUSE))])
    assert [(instance.id, instance.name) for instance in second.instances] == [(2, "hut")]
    third = document.change("b", 0, [(None, "tree", code_of(TREE)), (2, "tree", code_of(TREE))])
    assert [instance.id for instance in third.instances] == [3, 4], "2 is of another image"
    assert [instance.id for instance in document.change("a", 2, [(1, "tree", code_of(TREE)), (2, "hut", code_of(HOUSE))]).instances] == [
        1,
        2,
    ]


def test_images_that_are_not_named_stay_in_the_file(tmp_path, document):
    document.change("a", 0, [(None, "tree", code_of(TREE))], Draft(code_of(HOUSE)), done=True)
    before = json.loads(document.path.read_text())
    other = Document(document.path, [picture(tmp_path, "c")])
    other.change("c", 0, [(None, "shed", code_of(HOUSE))])
    after = json.loads(document.path.read_text())
    assert after["images"][:1] == before["images"]
    assert after["annotations"][:1] == before["annotations"]
    assert after["uss_annotate"]["done"] == ["a"]
    assert after["uss_annotate"]["drafts"] == before["uss_annotate"]["drafts"]
    assert [image["id"] for image in after["images"]] == [1, 2]


@pytest.mark.parametrize("text", ['{"images": [], "annotations": [], "categories": []}', "[]"])
def test_a_file_of_other_origin_is_not_touched(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="did not write it"):
        Document(path, [picture(tmp_path, "a")])
    assert path.read_text() == text


def test_damage_and_other_sizes_are_said(tmp_path, document):
    document.change("a", 0, [(None, "tree", code_of(TREE))])
    with pytest.raises(BadData, match="120×160 there, and 100×160 now"):
        Document(document.path, [picture(tmp_path, "a", (100, 160))])
    content = json.loads(document.path.read_text())
    content["annotations"][0]["segmentation"]["counts"] = "11"
    document.path.write_text(json.dumps(content))
    with pytest.raises(BadData, match="covers 2 pixels"):
        Document(document.path, [picture(tmp_path, "a")])
    del content["categories"]
    document.path.write_text(json.dumps(content))
    with pytest.raises(BadData, match="is damaged"):
        Document(document.path, [picture(tmp_path, "a")])


def test_nothing_is_overwritten_that_changed_meanwhile(tmp_path, document):
    document.change("a", 0, [(None, "tree", code_of(TREE))])
    with pytest.raises(Conflict, match="another window"):
        document.change("a", 0, [])
    Document(document.path, [picture(tmp_path, "a")]).change("a", 0, [])
    text = document.path.read_text()
    with pytest.raises(Conflict, match="by something else"):
        document.change("a", 1, [(None, "tree", code_of(TREE))])
    assert document.path.read_text() == text
    assert len(document.sheets["a"].instances) == 1


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 101])
def test_names_print(name):
    with pytest.raises(UsageError, match="1 to 100 characters"):
        check_name(name)
    assert check_name(" über <b> ") == "über <b>"


WRITER = """
import sys
from pathlib import Path
import numpy as np
from uss_dagster.annotation.document import Document, Picture
from uss_dagster.regions import rle
path = Path(sys.argv[1])
document = Document(path, [Picture("a", "a.png", Path("a.png"), (300, 300))])
mask = np.zeros((1, 300, 300), bool)
mask[0, ::2, ::2] = True
code = rle.encode(mask)[0]
rows = []
while True:
    rows.append((len(rows) + 1, "thing", code))
    document.change("a", len(rows) - 1, rows)
    print(len(rows), flush=True)
"""


def test_kill_nine_loses_nothing_that_was_saved(tmp_path):
    path = tmp_path / "a.json"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    said = [process.stdout.readline() for _ in range(12)]
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    said += process.stdout.readlines()
    process.wait()
    document = Document(path, [Picture("a", "a.png", tmp_path / "a.png", (300, 300))])
    saved = int([line for line in said if line.endswith("\n")][-1])
    assert saved <= len(document.sheets["a"].instances) <= saved + 1


# -- readers of this package --------------------------------------------------------------------------------------


@pytest.fixture
def annotated(tmp_path):
    """Three photos, and annotations of two."""
    ids = ["m", "n", "o"]
    photos = make_photos(tmp_path / "photos", ids)
    document = Document(tmp_path / "annotations.json", [picture(photos, name) for name in ids])
    for number, name in enumerate(ids[:2]):
        masks = [np.roll(mask, 3 * number, axis=1) for mask in (HOUSE, TREE)]
        document.change(name, 0, [(None, kind, code_of(mask)) for kind, mask in zip(("house", "tree"), masks, strict=True)], done=True)
    return tmp_path


def test_uss_score_reads_it(annotated):
    from uss_dagster.scoring.ground_truth import read_truth

    truth = read_truth(annotated / "annotations.json")
    assert (truth.kind, truth.masks.ids) == ("instances", ["m", "n"])
    np.testing.assert_array_equal(truth.read("m").regions.masks(), [HOUSE, TREE])
    assert truth.classes.names[1:] == ("house", "tree")
    assert not list(truth.complaints())


def test_uss_curate_reads_it(annotated):
    from uss_dagster.curation.human import CocoLabels

    labels = CocoLabels(annotated / "annotations.json")
    assert labels.ids == {"m", "n"}
    human = labels("m", SHAPE)
    assert human.codes == (code_of(HOUSE), code_of(TREE))
    assert human.labels == (1, 2)
    assert labels("o", SHAPE).codes == ()


def test_a_folder_dataset_reads_it(annotated):
    from uss_dagster.datasets import folder

    params = folder.Params(path=str(annotated / "photos"), masks=str(annotated / "annotations.json"))
    examples = list(folder.examples(params))
    assert [example.image_id for example in examples] == ["m", "n"]
    np.testing.assert_array_equal(examples[0].truth.masks(), [HOUSE, TREE])
    assert folder.classes(params).tree.names[1:] == ("house", "tree")
