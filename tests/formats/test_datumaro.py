"""CVAT and Datumaro: datumaro reads masks and attributes of our files, and we read what it writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from format_cases import NAMES, class_names, example_images, folders_of, masks_seen, run_program, same_masks

from uss_dagster.errors import BadData
from uss_dagster.formats import catalogue
from uss_dagster.formats.kinds import cvat, datumaro


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cvat", "datumaro"])
def test_datumaro_reads_masks_and_attributes_and_writes_them_again(tmp_path, name):
    folder, out = folders_of(name, tmp_path)
    answer = run_program("with_datumaro", ["datumaro"], name, folder, out, "datumaro")
    seen, images = masks_seen(out), {image.image_id: image for image in example_images()}
    assert answer.keys() == images.keys()
    for image_id, image in images.items():
        assert np.array_equal(seen[image_id], image.regions.masks())
        assert answer[image_id]["subset"] == image.split
        assert answer[image_id]["labels"] == class_names(image, NAMES)
    attributes = answer["tree"]["attributes"]
    assert [str(one.get("parent", "")) for one in attributes] == ["", "1", "1", "3", "4"]
    assert [float(one["level"]) for one in attributes] == [4, 3, 2, 1, 0]
    plain = answer["plain"]["attributes"]
    assert [float(one["score"]) for one in plain] == pytest.approx([0.1, 0.75, 1 / 3], abs=1e-7)
    assert [float(one.get("quality", "nan")) for one in plain] == pytest.approx([0.7, np.nan, 0.25], nan_ok=True)
    assert plain[2]["source"] == "a & <b>"
    # Reading CVAT, datumaro makes an underscore of the slash in a file's name.
    again = {image.image_id.removeprefix("sub folder_"): image for image in datumaro.read(out / "again").images()}
    assert again.keys() == images.keys()
    for image_id, image in images.items():
        assert same_masks(image, again[image_id])
        assert again[image_id].split == image.split
    assert again["tree"].regions.parent.tolist() == images["tree"].regions.parent.tolist() == [-1, 0, 0, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("coco", "coco_instances"), ("coco_panoptic", "coco_panoptic"), ("sa1b", "segment_anything")])
def test_datumaro_reads_other_formats(tmp_path, name, kind):
    folder, out = folders_of(name, tmp_path)
    answer = run_program("with_datumaro", ["datumaro"], kind, folder, out)
    seen, images = masks_seen(out), {image.image_id: image for image in catalogue.load(name).read(folder).images()}
    assert answer.keys() == images.keys() == {image.image_id for image in example_images()}
    for image_id, image in images.items():
        assert np.array_equal(seen[image_id], image.regions.masks())
        if name != "sa1b":
            assert answer[image_id]["subset"] == image.split
            assert answer[image_id]["labels"] == class_names(image, NAMES)
    if name == "coco_panoptic":  # it passes over what COCO does not define there
        return
    assert [one.get("predicted_iou" if name == "sa1b" else "score") for one in answer["plain"]["attributes"]] == pytest.approx(
        [0.1, 0.75, 1 / 3], abs=1e-7
    )


def cvat_file(tmp_path, inner: str, head: str = ""):
    file = tmp_path / "annotations.xml"
    file.write_text(
        f'<?xml version="1.0"?>{head}<annotations><image id="0" name="a/b.jpg" width="10" height="4">{inner}</image></annotations>'
    )
    return file


def test_cvat_masks_lie_row_by_row_in_their_window(tmp_path):
    file = cvat_file(tmp_path, '<mask label="cat" rle="1, 3, 1, 1" left="2" top="1" width="3" height="2"/>')
    masks = cvat.read(file)
    (image,) = masks.images()
    assert np.argwhere(image.regions.mask(0)).tolist() == [[1, 3], [1, 4], [2, 2], [2, 4]]
    assert (image.image_id, image.file_name, masks.categories) == ("b", "a/b.jpg", {1: "cat"})


def test_cvat_polygons_are_read_and_boxes_left_out(tmp_path):
    file = cvat_file(tmp_path, '<polygon label="cat" points="0,0;5,0;5,4;0,4"/><box label="cat" xtl="0" ytl="0" xbr="1" ybr="1"/>')
    masks = cvat.read(file)
    (image,) = masks.images()
    assert image.regions.area.tolist() == [20]
    assert "kind 'box' is left out" in masks.complaints[0]


@pytest.mark.parametrize(
    ("inner", "head", "said"),
    [
        ("", '<!DOCTYPE a [<!ENTITY b "c">]>', "declares a document type"),
        ("<mask", "", "is not XML"),
        ('<mask rle="1,2" left="8" top="0" width="3" height="1"/>', "", "outside the image"),
        ('<mask rle="1,3" left="0" top="0" width="3" height="1"/>', "", "covers 4 pixels"),
        ('<mask rle="1,x" left="0" top="0" width="3" height="1"/>', "", "no list of whole numbers"),
        ('<mask rle="99999999999999999999" left="0" top="0" width="3" height="1"/>', "", "no list of whole numbers"),
        ('<polygon points="0,0;1,1"/>', "", "at least 3 points"),
    ],
)
def test_damaged_cvat_files_are_refused(tmp_path, inner, head, said):
    with pytest.raises(BadData, match=said):
        list(cvat.read(cvat_file(tmp_path, inner, head)).images())


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        ({"type": "mask", "rle": {"counts": "04", "size": [2, 3]}}, "its mask is 2×3, its image 2×2"),
        ({"type": "mask", "rle": {"counts": "05", "size": [2, 2]}}, "covers 5 pixels"),
        ({"type": "mask", "rle": {"counts": "", "size": [2, 2]}}, "is empty"),
        ({"type": "mask"}, "polygons or a run-length code are expected"),
        ({"type": "mask", "label_id": 4, "rle": {"counts": "04", "size": [2, 2]}}, "none of the 0 labels"),
        ({"type": "mask", "attributes": {"score": []}, "rle": {"counts": "04", "size": [2, 2]}}, "a number is expected"),
        ("mask", "an object is expected"),
    ],
)
def test_damaged_datumaro_files_are_refused(tmp_path, annotation, said):
    file = tmp_path / "train.json"
    item = {"id": "a", "image": {"path": "a.png", "size": [2, 2]}, "annotations": [annotation]}
    file.write_text(json.dumps({"categories": {}, "items": [item]}))
    with pytest.raises(BadData, match=said):
        list(datumaro.read(file).images())
