"""Label Studio: its converter reads every mask of our tasks, and we read the masks that it encodes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from format_cases import example_images, folders_of, masks_seen, run_program, same_masks
from hypothesis import given
from hypothesis import strategies as st

from uss_dagster.errors import BadData
from uss_dagster.formats.brush import decode_brush, encode_brush
from uss_dagster.formats.kinds import label_studio


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_brush_codes_come_back(height, width, seed, share):
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert np.array_equal(decode_brush(encode_brush(mask), height, width, "it"), mask)


def test_long_runs_are_split():
    mask = np.zeros((300, 400), bool)
    mask[100:250] = True
    code = encode_brush(mask)
    assert len(code) < 60
    assert np.array_equal(decode_brush(code, 300, 400, "it"), mask)


@pytest.mark.slow
def test_its_converter_reads_every_mask(tmp_path):
    folder, out = folders_of("label_studio", tmp_path)
    answer = run_program("with_label_studio", ["label_studio_sdk", "label_studio_converter"], folder, out)
    images = example_images()
    for program in ("sdk", "converter"):
        assert answer[program] == {f"task-{i}-annotation-{i}": len(image.regions) for i, image in enumerate(images, 1)}
    seen = masks_seen(out)
    for image in images:
        assert np.array_equal(seen[image.image_id], image.regions.masks())
    again = {image.image_id: image for image in label_studio.read(out / "theirs.json").images()}
    assert all(same_masks(image, again[image.image_id]) for image in images)


def task(**changes) -> dict:
    value = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": ["cat"]}
    result = {"id": "a", "type": "polygonlabels", "original_width": 10, "original_height": 4, "value": value}
    return {"id": 1, "data": {"image": "https://example.org/x/page%201.jpg?d=1"}, "annotations": [{"result": [result | changes]}]}


def test_polygons_and_addresses_of_others_are_read(tmp_path):
    file = tmp_path / "export.json"
    file.write_text(json.dumps([task()]))
    masks = label_studio.read(file)
    (image,) = masks.images()
    assert (image.image_id, image.file_name, masks.categories) == ("page 1", "page 1.jpg", {1: "cat"})
    assert image.regions.area.tolist() == [20]
    assert image.regions.mask(0)[:, :5].all()


def test_boxes_are_left_out_with_a_sentence(tmp_path):
    file = tmp_path / "export.json"
    file.write_text(json.dumps([task(type="rectanglelabels")]))
    masks = label_studio.read(file)
    (image,) = masks.images()
    assert len(image.regions) == 0
    assert "rectanglelabels" in masks.complaints[0]


def test_a_parent_that_was_deleted_is_named(tmp_path):
    file = tmp_path / "export.json"
    file.write_text(json.dumps([task(parentID="b")]))
    masks = label_studio.read(file)
    (image,) = masks.images()
    assert image.regions.parent.tolist() == [-1]
    assert "the parent 'b' of region 'a' is not there" in masks.complaints[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "brushlabels", "value": {"rle": [0, 0, 0, 1]}}, "cannot be read"),
        ({"type": "brushlabels", "value": {"rle": "abc"}}, "a list is expected"),
        ({"type": "brushlabels", "value": {"rle": encode_brush(np.ones((4, 10), bool))[:8]}}, "cannot be read"),
        ({"value": {"points": [[0, 0]]}}, "at least 3 points"),
        ({"original_width": -1}, "has the size"),
        ({"parentID": "a"}, "lies below itself"),
        ({"score": "high"}, "a number is expected"),
    ],
)
def test_damaged_regions_are_refused(tmp_path, changes, said):
    file = tmp_path / "export.json"
    file.write_text(json.dumps([task(**changes)]))
    with pytest.raises(BadData, match=said):
        list(label_studio.read(file).images())
