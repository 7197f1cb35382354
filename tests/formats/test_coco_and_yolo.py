"""COCO, panoptic, YOLO and SA-1B: pycocotools and supervision read our files, we read what supervision and others write."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from format_cases import HEIGHT, NAMES, WIDTH, class_names, example_images, masks_seen, picture, run_program, written
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from uss_dagster.errors import BadData, UsageError
from uss_dagster.formats import catalogue
from uss_dagster.formats.base import MaskSet
from uss_dagster.formats.kinds import coco, coco_panoptic, sa1b, yolo


def iou_of_nearest(mask: np.ndarray, others: np.ndarray) -> float:
    return max((mask & other).sum() / (mask | other).sum() for other in others)


def test_pycocotools_reads_every_mask(tmp_path):
    folder = written("coco", tmp_path / "set")
    seen = {}
    for file in sorted((folder / "annotations").glob("*.json")):
        with contextlib.redirect_stdout(io.StringIO()):
            api = COCO(str(file))
        for number, image in api.imgs.items():
            annotations = [api.anns[i] for i in api.getAnnIds(imgIds=number)]
            seen[image["image_id"]] = [api.annToMask(a).astype(bool) for a in annotations]
            assert [api.cats[a["category_id"]]["name"] for a in annotations]
    for image in example_images():
        assert np.array_equal(np.stack(seen[image.image_id]), image.regions.masks())


def test_pycocotools_decodes_sa1b(tmp_path):
    folder = written("sa1b", tmp_path / "set")
    for image in example_images():
        content = json.loads((folder / f"{image.image_id}.json").read_text(encoding="utf-8"))
        masks = [coco_mask.decode(annotation["segmentation"]) for annotation in content["annotations"]]
        assert np.array_equal(np.stack(masks).astype(bool), image.regions.masks())
        assert [a["area"] for a in content["annotations"]] == image.regions.area.tolist()
        assert (folder / content["image"]["file_name"]).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolo", "coco"])
def test_supervision_reads_masks_and_classes(tmp_path, name):
    folder = written(name, tmp_path / "set")
    images = {image.image_id: image for image in example_images()}
    for split in ("train", "val", "test"):
        out = tmp_path / split
        out.mkdir()
        answer = run_program("with_supervision", ["supervision"], name, folder, split, out)
        mine = [i for i, image in images.items() if image.split == split and (name == "yolo" or "/" not in image.file_name)]
        assert [image_id for image_id in sorted(answer) if image_id in mine] == mine
        seen = masks_seen(out)
        expected = {image.image_id: image for image in catalogue.load(name).read(folder).images()}
        for image_id in mine:
            assert np.array_equal(seen[image_id], expected[image_id].regions.masks()), image_id
            assert answer[image_id] == class_names(images[image_id], NAMES)
        if name == "yolo":
            again = {image.image_id: image for image in yolo.read(out / "again").images()}
            assert again.keys() == {*mine} - {"noisy"}
            for image_id in again:
                before, after = expected[image_id].regions, again[image_id].regions
                worst = min(iou_of_nearest(before.mask(i), after.masks()) for i in range(len(before)))
                assert worst > 0.9, f"{image_id}: {worst}"


def test_the_parts_of_a_region_are_joined_in_yolo(tmp_path):
    folder = written("yolo", tmp_path / "set")
    again = {image.image_id: image for image in yolo.read(folder).images()}
    (before,) = [image for image in example_images() if image.image_id == "parts"]
    mask, back = before.regions.mask(0), again["parts"].regions.mask(0)
    assert back[mask].all()
    assert 0 < (back & ~mask).sum() <= HEIGHT + WIDTH


def test_yolo_without_pictures_is_refused(tmp_path):
    images = [type(image)(image.image_id, image.file_name, image.regions, image.quality) for image in example_images()]
    with pytest.raises(UsageError, match="--images"):
        yolo.write(MaskSet(lambda: iter(images), NAMES), tmp_path)


def yolo_folder(tmp_path, line: str, names: str = "names: [cat, dog]"):
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "images" / "a.png").write_bytes(picture(0))
    (tmp_path / "train" / "labels" / "a.txt").write_text(line)
    (tmp_path / "data.yaml").write_text(f"train: ../train/images\n{names}\n")
    return tmp_path


def test_yolo_files_of_others_are_read(tmp_path):
    half = "1 0 0 0.5 0 0.5 1 0 1 0.625"
    masks = yolo.read(yolo_folder(tmp_path, f"{half}\n0 0.5 0.5 0.1 0.1\n"))
    (image,) = masks.images()
    assert (image.image_id, image.split, masks.categories) == ("a", "train", {1: "cat", 2: "dog"})
    assert (image.regions.label.tolist(), image.regions.score.tolist()) == ([2], [0.625])
    assert np.argwhere(image.regions.mask(0))[:, 1].max() == pytest.approx(WIDTH / 2, abs=1)
    assert "a box is left out" in masks.complaints[0]


@pytest.mark.parametrize(
    ("line", "names", "said"),
    [
        ("2 0 0 1 0 1 1", "names: [cat, dog]", "class 2 is none of the 2"),
        ("0 0 0 a 0 1 1", "names: [cat, dog]", "all of them numbers"),
        ("0 0 0 nan 0 1 1", "names: [cat, dog]", "at least 3 points"),
        ("0 0 0 500 0 1 1", "names: [cat, dog]", "shares of the picture"),
        ("", "names: [cat, cat]", "different names"),
        ("", "names: {1: cat}", "different names"),
        ("", "names: [", "is not YAML"),
    ],
)
def test_damaged_yolo_files_are_refused(tmp_path, line, names, said):
    with pytest.raises(BadData, match=said):
        list(yolo.read(yolo_folder(tmp_path, line, names)).images())


def test_a_list_of_results_and_polygons_are_read(tmp_path):
    file = tmp_path / "results.json"
    code = coco_mask.encode(np.asfortranarray(np.eye(4, 5, dtype=np.uint8)))
    results = [{"image_id": 7, "category_id": 3, "segmentation": code | {"counts": code["counts"].decode()}, "score": 0.5}]
    file.write_text(json.dumps(results))
    (image,) = coco.read(file).images()
    assert (image.image_id, image.regions.label.tolist(), image.regions.score.tolist()) == ("7", [3], [0.5])
    polygon = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 2, 0, 2]], "unsam": {"quality": 0.5}}
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 5}], "annotations": [polygon]}))
    (image,) = coco.read(file).images()
    assert (image.regions.area.tolist(), image.quality.tolist()) == ([6], [0.5])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"annotations": 3}, "a list is expected"),
        ({"annotations": [{"id": 1, "image_id": 2, "segmentation": []}], "images": [{"id": 1}]}, "not among its 'images'"),
        ({"annotations": [], "images": [{"id": 1, "file_name": "a.png"}]}, "has the size"),
        ({"annotations": [], "images": [{"id": i, "file_name": f"{i}/a.png", "height": 1, "width": 1} for i in (1, 2)]}, "both image 'a'"),
        ("text", "an object is expected"),
    ],
)
def test_damaged_coco_files_are_refused(tmp_path, content, said):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    with pytest.raises(BadData, match=said):
        list(coco.read(file).images())


def test_a_pixel_of_several_regions_is_of_the_last_one(tmp_path):
    folder = written("coco_panoptic", tmp_path / "set")
    again = {image.image_id: image for image in coco_panoptic.read(folder).images()}
    for image in example_images():
        deepest = image.regions.deepest()
        shown = [deepest == region for region in np.unique(deepest[deepest >= 0])]
        assert np.array_equal(again[image.image_id].regions.masks(), np.stack(shown))


def test_a_segment_that_is_not_listed_is_refused(tmp_path):
    folder = written("coco_panoptic", tmp_path / "set")
    file = folder / "annotations" / "panoptic_val.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    removed = content["annotations"][0]["segments_info"].pop()
    file.write_text(json.dumps(content))
    with pytest.raises(BadData, match=f"has segment {removed['id']}, which 'segments_info' does not list"):
        list(coco_panoptic.read(file).images())
    content["annotations"][0]["file_name"] = "../../labels.png"
    file.write_text(json.dumps(content))
    with pytest.raises(BadData, match="leads out of its folder"):
        list(coco_panoptic.read(file).images())


@pytest.mark.parametrize("content", [{}, {"image": {}, "annotations": [3]}, {"image": {"height": 1}, "annotations": []}, []])
def test_damaged_sa1b_files_are_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(BadData):
        list(sa1b.read(tmp_path).images())
