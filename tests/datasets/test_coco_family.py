"""Annotation files in COCO's form: the real samples mask by mask; crowds, panoptic segments, LVIS, PACO, EntitySeg, UVO; broken files."""

import io
import json
import os
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as api

from uss_dagster.artifacts.gate import valid_regions
from uss_dagster.artifacts.tables import regions_from_table, regions_to_table
from uss_dagster.datasets import coco, coco_panoptic, entityseg, lvis, paco, uvo
from uss_dagster.datasets.formats.class_trees import classes_of
from uss_dagster.datasets.formats.coco_json import CocoFile, classes_of_categories, classes_of_parts
from uss_dagster.errors import BadData, Unavailable
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import tree_covering
from uss_dagster.regions.coco import code_of

MIRROR = Path(os.environ.get("USS_MIRROR", "/nowhere"))


def need(pack: str) -> Path:
    if not (MIRROR / pack).is_dir():
        pytest.skip(f"NOT TESTED on real data: set USS_MIRROR to a folder that holds {pack}/.")
    return MIRROR / pack


def mask_of(annotation, height, width) -> np.ndarray:
    """What pycocotools draws."""
    code = annotation["segmentation"]
    if isinstance(code, list):
        code = api.merge(api.frPyObjects(code, height, width))
    elif isinstance(code["counts"], list):
        code = api.frPyObjects(code, height, width)
    return api.decode(code).astype(bool)


def picture(path: Path, width: int = 8, height: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (9, 90, 200)).save(path)


def image(number: int, name: str = "", **more) -> dict:
    return {"id": number, "file_name": name or f"{number:012d}.jpg", "height": 6, "width": 8, **more}


def box(number: int, image_id: int, category: int, x: int, y: int, w: int, h: int, **more) -> dict:
    """A rectangle, as a polygon."""
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {"id": number, "image_id": image_id, "category_id": category, "segmentation": [polygon], "area": w * h, "iscrowd": 0, **more}


CATS = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 17, "name": "cat", "supercategory": "animal"}]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    return tmp_path


def write(path: Path, data: dict, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, **options), encoding="utf-8")


# -- the real samples -----------------------------------------------------------------------------


def test_the_real_sample_of_coco_is_what_pycocotools_draws():
    pack = need("coco_val2017")
    data = json.loads((pack / "annotations/instances_val2017.json").read_text())
    by_image: dict[int, list] = {}
    for annotation in data["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    images = regions = crowds = 0
    seen = Counter()
    names = coco.CLASSES.tree.names
    category = {c["id"]: c["name"] for c in data["categories"]}
    for number, example in enumerate(coco.examples(coco.Params())):
        annotations = by_image[int(example.image_id)]
        assert len(example.truth) == len(annotations)
        assert [names[label] for label in example.truth.label] == [category[a["category_id"]] for a in annotations]
        assert [s == "crowd" for s in example.truth.source] == [bool(a["iscrowd"]) for a in annotations]
        if number % 12 == 0 or "crowd" in example.truth.source:
            for region, annotation in enumerate(annotations):
                assert np.array_equal(example.truth.mask(region), mask_of(annotation, *example.truth.shape))
            table = regions_to_table(example.image_id, example.truth)
            assert not list(valid_regions([table], overlap=True))
            assert np.array_equal(regions_from_table(table).area, example.truth.area)
        assert example.image == (pack / "val2017" / f"{example.image_id}.jpg").read_bytes()
        images, regions, crowds = images + 1, regions + len(annotations), crowds + example.truth.source.count("crowd")
        seen.update(a["category_id"] for a in annotations)
    assert (images, regions, crowds, len(seen)) == (103, 825, 7, 76)


def test_classes_painted_from_the_real_sample_nest_and_score_one():
    need("coco_val2017")
    params = coco.Params(truth="classes", limit=4)
    tree = classes_of(coco, params)
    objects = {e.image_id: e.truth for e in coco.examples(coco.Params(limit=4))}
    for example in coco.examples(params):
        assert not list(valid_regions([regions_to_table("x", example.truth)], overlap=False))
        result = tree_covering(Truth("classes", example.truth, tree), example.truth)
        assert result.nm == result.nh == 1
        # each class covers what its objects cover, but for what smaller objects hide
        things = objects[example.image_id]
        union = np.zeros(example.truth.shape, bool)
        for region in range(len(things)):
            union |= things.mask(region)
        ground = example.truth.label.tolist().index(tree.names.index("background"))
        assert np.array_equal(example.truth.mask(ground), ~union)
        assert {tree.names[n] for n in example.truth.label[example.truth.deepest()].ravel()} <= set(coco.CLASSES.tree.names) | {
            "background"
        }


def test_the_real_panoptic_image_has_its_recorded_segments():
    pack = need("coco_panoptic")
    record = json.loads((pack / "annotations/panoptic_val2017.json").read_text())["annotations"][0]["segments_info"]
    (alone,) = coco_panoptic.examples(coco_panoptic.Params(truth="instances"))
    record.sort(key=lambda segment: segment["id"])
    names = coco_panoptic.CLASSES
    assert alone.truth.area.tolist() == [s["area"] for s in record]
    assert alone.truth.boxes.tolist() == [s["bbox"] for s in record]
    assert alone.truth.label.tolist() == [names.node[s["category_id"]] for s in record]
    assert alone.truth.source.count("crowd") == sum(s["iscrowd"] for s in record) == 1
    (nested,) = coco_panoptic.examples(coco_panoptic.Params())
    assert not list(valid_regions([regions_to_table("x", nested.truth)], overlap=False))
    result = tree_covering(Truth("classes", nested.truth, names.tree), nested.truth)
    assert result.nm == result.nh == 1
    number = nested.truth.label.tolist().index(names.tree.names.index("person", names.tree.names.index("person") + 1))
    people = [s for s in record if s["category_id"] == 1]
    assert nested.truth.area[number] == sum(s["area"] for s in people)
    assert np.count_nonzero(nested.truth.parent == number) == len(people)


def test_the_real_sample_of_lvis_has_its_objects_by_image_id():
    pack = need("lvis_v0.5")
    data = json.loads((pack / "annotations/lvis_v0.5_val_sample.json").read_text())
    params = lvis.Params(version="v0.5")
    tree = classes_of(lvis, params)
    assert (len(tree) - 1, int(tree.depth.max())) == (1230, 1)
    category = {c["id"]: c["name"] for c in data["categories"]}
    total = 0
    for example in lvis.examples(params):
        annotations = [a for a in data["annotations"] if a["image_id"] == int(example.image_id)]
        for region, annotation in enumerate(annotations):
            assert tree.names[example.truth.label[region]] == category[annotation["category_id"]]
            assert np.array_equal(example.truth.mask(region), mask_of(annotation, *example.truth.shape))
        total += len(annotations)
        assert example.image == (pack / "val2017" / f"{example.image_id}.jpg").read_bytes()
    assert total == 13


# -- synthetic releases in the official layouts --------------------------------------------------


def test_coco_with_every_form_of_mask_an_empty_image_and_a_sliver(home):
    mask = np.zeros((6, 8), np.uint8, order="F")
    mask[2:5, 3:6] = 1
    code = api.encode(mask)
    runs = [20, 3, 3, 3, 3, 3, 13]
    annotations = [
        box(1, 5, 17, 0, 0, 4, 3),
        {"id": 2, "image_id": 5, "category_id": 1, "iscrowd": 1, "segmentation": {"size": [6, 8], "counts": runs}},
        {"id": 3, "image_id": 5, "category_id": 1, "segmentation": {"size": [6, 8], "counts": code["counts"].decode()}},
        box(4, 5, 1, 2, 2, 0.001, 0.001),
    ]
    write(
        home / "coco/annotations/instances_train2017.json", {"annotations": annotations, "images": [image(7), image(5)], "categories": CATS}
    )
    for number in (5, 7):
        picture(home / f"coco/train2017/{number:012d}.jpg")
    first, second = coco.examples(coco.Params(split="train2017"))
    assert (first.image_id, second.image_id) == ("000000000005", "000000000007")
    assert len(first.truth) == 3, "an object without a pixel is none"
    assert first.truth.source == ("", "crowd", "")
    assert np.array_equal(first.truth.mask(1), mask.astype(bool))
    assert np.array_equal(first.truth.mask(2), mask.astype(bool))
    assert first.truth.mask(0)[:3, :4].all()
    assert first.truth.area[0] == 12
    assert len(second.truth) == 0
    assert second.truth.shape == (6, 8)
    assert [e.image_id for e in coco.examples(coco.Params(split="train2017", limit=1))] == ["000000000005"]
    painted, empty = coco.examples(coco.Params(split="train2017", truth="classes"))
    tree = classes_of(coco, coco.Params(truth="classes"))
    leaf = np.array(tree.names)[painted.truth.label[painted.truth.deepest()]]
    assert leaf[0, 0] == "cat"
    assert leaf[2, 3] == "person", "the smaller object is on top"
    assert leaf[5, 7] == "background"
    assert set(empty.truth.label.tolist()) == {0, tree.names.index("background")}


def panoptic_release(home: Path, segments: np.ndarray, records: list[dict], zipped: bool = False) -> None:
    colour = np.stack([segments % 256, segments // 256 % 256, segments // 65536], axis=-1).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(colour).save(data, "PNG")
    folder = home / "coco/annotations"
    annotation = {"image_id": 3, "file_name": "000000000003.png", "segments_info": records}
    write(folder / "panoptic_val2017.json", {"images": [image(3)], "annotations": [annotation], "categories": []})
    picture(home / "coco/val2017/000000000003.jpg")
    if zipped:
        with zipfile.ZipFile(folder / "panoptic_val2017.zip", "w") as archive:
            archive.writestr("panoptic_val2017/000000000003.png", data.getvalue())
    else:
        (folder / "panoptic_val2017").mkdir(exist_ok=True)
        (folder / "panoptic_val2017/000000000003.png").write_bytes(data.getvalue())


@pytest.mark.parametrize("zipped", [False, True])
def test_panoptic_segments_from_a_folder_or_the_inner_zip(home, zipped):
    segments = np.zeros((6, 8), np.int64)
    segments[:, 2:5], segments[:, 5:] = 70000, 300
    records = [{"id": 70000, "category_id": 1, "iscrowd": 0}, {"id": 300, "category_id": 187, "iscrowd": 0}]
    panoptic_release(home, segments, records, zipped)
    (example,) = coco_panoptic.examples(coco_panoptic.Params(truth="instances"))
    names = coco_panoptic.CLASSES.tree.names
    assert [names[label] for label in example.truth.label] == ["sky-other-merged", "person"]
    assert np.array_equal(example.truth.mask(1), segments == 70000)
    (nested,) = coco_panoptic.examples(coco_panoptic.Params())
    line = ["scene", "things", "outdoor things", "person", "person", "stuff", "outdoor stuff", "sky", "sky-other-merged", "void", "person"]
    assert [names[label] for label in nested.truth.label] == line


def test_panoptic_records_and_pixels_must_agree(home):
    segments = np.full((6, 8), 9, np.int64)
    for records, says in (
        ([], "its PNG holds 1 segments, its record lists 0"),
        ([{"id": 9, "category_id": 1}, {"id": 4, "category_id": 1}], "holds 1 segments, its record lists 2"),
        ([{"id": 9, "category_id": 12}], "category 12, which COCO does not know"),
    ):
        panoptic_release(home, segments, records)
        with pytest.raises(BadData, match=says):
            list(coco_panoptic.examples(coco_panoptic.Params()))
    panoptic_release(home, segments[:5], [{"id": 9, "category_id": 1}])
    with pytest.raises(BadData, match="image 3 is 6×8, its segments 5×8"):
        list(coco_panoptic.examples(coco_panoptic.Params()))
    (home / "coco/annotations/panoptic_val2017/000000000003.png").write_bytes(b"\x89PNG")
    with pytest.raises(BadData, match="truncated or damaged"):
        list(coco_panoptic.examples(coco_panoptic.Params()))
    (home / "coco/annotations/panoptic_val2017/000000000003.png").unlink()
    with pytest.raises(BadData, match="is missing, though the dataset lists it"):
        list(coco_panoptic.examples(coco_panoptic.Params()))


def test_lvis_v1_names_images_by_their_address_in_both_splits_of_coco(home):
    images = [
        {"id": 9, "height": 6, "width": 8, "coco_url": "http://images.cocodataset.org/train2017/000000000009.jpg"},
        {"id": 4, "height": 6, "width": 8, "coco_url": "http://images.cocodataset.org/val2017/000000000004.jpg"},
    ]
    categories = [{"id": 2, "name": "aerosol_can", "synset": "aerosol.n.02"}, {"id": 1, "name": "Bath — mat"}]
    annotations = [box(1, 9, 2, 0, 0, 3, 3), box(2, 4, 1, 1, 1, 5, 2), box(3, 9, 1, 0, 0, 8, 6)]
    data = {"info": {}, "annotations": annotations, "images": images, "categories": categories}
    write(home / "lvis/lvis_v1_val.json", data, ensure_ascii=False, indent=1)
    picture(home / "coco/train2017/000000000009.jpg")
    picture(home / "coco/val2017/000000000004.jpg")
    found = list(lvis.examples(lvis.Params()))
    assert [(e.image_id, len(e.truth)) for e in found] == [("000000000004", 1), ("000000000009", 2)]
    tree = classes_of(lvis, lvis.Params())
    assert tree.names == ("scene", "aerosol_can", "Bath — mat")
    assert [tree.names[label] for label in found[1].truth.label] == ["aerosol_can", "Bath — mat"]
    assert [e.image_id for e in lvis.examples(lvis.Params(subset="val2017"))] == ["000000000004"]


def test_paco_tells_objects_from_parts_and_nests_their_classes(home):
    categories = [
        {"id": 1, "name": "chair", "supercategory": "OBJECT"},
        {"id": 2, "name": "chair:leg", "supercategory": "PART"},
        {"id": 3, "name": "ball", "supercategory": "OBJECT"},
    ]
    images = [image(6, "train2017/000000000006.jpg", coco_url="http://images.cocodataset.org/train2017/000000000006.jpg")]
    annotations = [box(1, 6, 1, 0, 0, 4, 4, obj_ann_id=1), box(2, 6, 2, 0, 3, 2, 2, obj_ann_id=1), box(3, 6, 3, 5, 0, 3, 3, obj_ann_id=3)]
    write(home / "paco/paco_lvis_v1_val.json", {"images": images, "annotations": annotations, "categories": categories})
    picture(home / "coco/train2017/000000000006.jpg")
    tree = classes_of(paco, paco.Params())
    assert (tree.names, tree.parent) == (("scene", "chair", "chair:leg", "ball"), (-1, 0, 1, 0))
    for regions, expected in (("all", ["chair", "chair:leg", "ball"]), ("objects", ["chair", "ball"]), ("parts", ["chair:leg"])):
        (example,) = paco.examples(paco.Params(regions=regions))
        assert [tree.names[label] for label in example.truth.label] == expected
    with pytest.raises(BadData, match="two categories of one name"):
        classes_of_parts([*categories, {"id": 4, "name": "ball"}], "paco.json")


def test_entityseg_finds_images_in_the_folders_of_the_release(home):
    data = {"images": [image(2, "entity_01_11580/ä b.png"), image(1, "plain.png")], "annotations": [box(1, 2, 500, 0, 0, 8, 6)]}
    write(home / "entityseg/entityseg_val_lr.json", data)
    write(home / "entityseg/annotations/entityseg_train_01.json", data)
    picture(home / "entityseg/images_lr/entity_01_11580/ä b.png")
    picture(home / "entityseg/images_lr/deeper/plain.png")
    first, second = entityseg.examples(entityseg.Params())
    assert (first.image_id, second.image_id) == ("entity000000001", "entity000000002")
    assert (len(first.truth), second.truth.label.tolist(), second.suffix) == (0, [-1], ".png")
    (home / "entityseg/images_lr/deeper/plain.png").unlink()
    with pytest.raises(BadData, match=r"EntitySeg image 1, file 'plain\.png', is missing"):
        list(entityseg.examples(entityseg.Params()))
    with pytest.raises(ValueError, match="at low resolution there is one 'train'"):
        entityseg.Params(split="train_01")


def test_uvo_frames_are_named_by_video_and_frame(home):
    data = {"images": [image(1, "abc/10.png"), image(2, "abc/9.png")], "annotations": [box(1, 1, 1, 0, 0, 8, 6)]}
    write(home / "uvo/FrameSet/UVO_frame_val.json", data)
    picture(home / "uvo/uvo_videos_sparse_frames/abc/10.png")
    picture(home / "uvo/uvo_videos_sparse_frames/abc/9.png")
    assert [(e.image_id, len(e.truth)) for e in uvo.examples(uvo.Params())] == [("abc-10", 1), ("abc-9", 0)]


@pytest.mark.parametrize("module", [coco, coco_panoptic, lvis, paco, entityseg, uvo])
def test_without_data_one_sentence_says_what_to_fetch(module, home):
    with pytest.raises(Unavailable, match="Fetch ") as error:
        next(module.examples(module.Params()))
    assert "\n" not in str(error.value)


# -- files ---------------------------------------------------------------------------------------


def test_a_file_reads_as_json_does_whatever_its_order_and_spaces(tmp_path):
    data = {
        "info": {"a": [1, {"b": "]}"}]},
        "licenses": [],
        "annotations": [{"image_id": 2, "id": k, "s": '[{"\\'} for k in range(3)] + [{"image_id": 1, "id": 9}],
        "n": None,
        "images": [image(2), image(1)],
        "categories": CATS,
    }
    for options in ({}, {"indent": 2}, {"separators": (",", ":")}, {"indent": "\t"}):
        write(tmp_path / "a.json", data, **options)
        file = CocoFile(tmp_path / "a.json")
        assert [p.id for p in file.pictures] == [1, 2]
        assert file.annotations(2) == data["annotations"][:3]
        assert file.annotations(1) == data["annotations"][3:]
        assert file.annotations(5) == []
        assert file.categories == CATS


def test_a_file_cut_anywhere_is_refused(tmp_path):
    text = json.dumps({"images": [image(1)], "annotations": [box(1, 1, 1, 0, 0, 2, 2)], "categories": CATS})
    path = tmp_path / "a.json"
    for cut in range(len(text)):
        path.write_text(text[:cut])
        with pytest.raises(BadData, match=r"a\.json:1: not valid JSON, or truncated"):
            CocoFile(path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([1, 2], "not valid JSON, or truncated"),
        ({"annotations": []}, r"lists no images, so it is no annotation file in COCO's form \(it has nothing\)"),
        ({"images": [{"id": 1}]}, "an image must have id, file_name, height and width"),
        ({"images": [image(1, "../secret.jpg")]}, "leads out of the folder"),
        ({"images": [image(1, "/etc/passwd")]}, "leads out of the folder"),
        ({"images": [image(1), image(1, "other.jpg")]}, "lists image 1 twice"),
        ({"images": [image(1)], "annotations": [{"id": 5}]}, "annotation 0 names no image_id"),
        ({"images": [image(1)], "annotations": [{"image_id": 4}]}, "has annotations of image 4, which it does not list"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, data, says):
    write(tmp_path / "a.json", data)
    with pytest.raises(BadData, match=says):
        CocoFile(tmp_path / "a.json")


def test_foreign_bytes_and_missing_files_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\x1f\x8b\x08\x00\xff\xfe")
    with pytest.raises(BadData, match="is not a JSON file"):
        CocoFile(tmp_path / "a.json")
    with pytest.raises(BadData, match="is missing"):
        CocoFile(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("annotation", "says"),
    [
        ({"category_id": 1}, "annotation 8 has no segmentation"),
        ({"category_id": 12, "segmentation": []}, "annotation 8 is of category 12, which its dataset does not know"),
        ({"category_id": 1, "segmentation": []}, "neither polygons nor a run-length code"),
        ({"category_id": 1, "segmentation": [[1, 2]]}, "neither polygons nor a run-length code"),
        ({"category_id": 1, "segmentation": {"counts": [48]}}, "neither polygons nor a run-length code"),
        ({"category_id": 1, "segmentation": {"counts": [48], "size": [8, 6]}}, "its mask is 8×6, its image 6×8"),
        (
            {"category_id": 1, "segmentation": {"counts": [40, 2], "size": [6, 8]}},
            "COCO 2017 instances image 1: Region 0: its run-length code covers 42",
        ),
        (
            {"category_id": 1, "segmentation": {"counts": "~~~", "size": [6, 8]}},
            "COCO 2017 instances image 1: A run-length code holds bytes",
        ),
    ],
)
def test_a_broken_annotation_is_named(home, annotation, says):
    data = {"images": [image(1)], "annotations": [{"id": 8, "image_id": 1, **annotation}], "categories": CATS}
    write(home / "coco/annotations/instances_val2017.json", data)
    picture(home / "coco/val2017/000000000001.jpg")
    with pytest.raises(BadData, match=says):
        list(coco.examples(coco.Params()))


def test_an_image_that_is_listed_but_missing_is_named(home):
    write(home / "coco/annotations/instances_val2017.json", {"images": [image(1)], "annotations": []})
    (home / "coco/val2017").mkdir()
    with pytest.raises(BadData, match=r"000000000001\.jpg is missing, though the dataset lists it"):
        list(coco.examples(coco.Params()))


def test_categories_make_a_tree(tmp_path):
    classes = classes_of_categories([*CATS, {"id": 3, "name": "dog", "supercategory": "animal"}], "a.json")
    assert classes.tree.names == ("scene", "person", "person", "animal", "cat", "dog")
    assert classes.tree.parent == (-1, 0, 1, 0, 3, 3)
    assert dict(classes.node) == {1: 2, 17: 4, 3: 5}
    for wrong in ([], [{"name": "x"}], [{"id": 1}], [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]):
        with pytest.raises(BadData, match=r"a\.json must list categories"):
            classes_of_categories(wrong, "a.json")


def test_codes_of_polygons_and_runs_are_those_of_pycocotools():
    polygon = [[1.0, 1.0, 6.5, 1.0, 6.5, 4.5, 1.0, 4.5], [0.0, 0.0, 2.0, 0.0, 2.0, 2.0]]
    assert code_of(polygon, 6, 8, "x") == api.merge(api.frPyObjects(polygon, 6, 8))["counts"]
    runs = {"size": [6, 8], "counts": [3, 4, 41]}
    assert code_of(runs, 6, 8, "x") == api.frPyObjects(runs, 6, 8)["counts"]


def test_memory_holds_the_text_not_the_objects(tmp_path):
    annotations = [box(k, 1 + k % 50, 1, k % 5, k % 3, 2, 2) for k in range(6000)]
    write(tmp_path / "a.json", {"images": [image(k) for k in range(1, 51)], "annotations": annotations})
    size = (tmp_path / "a.json").stat().st_size
    tracemalloc.start()
    file = CocoFile(tmp_path / "a.json")
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(file.annotations(7)) == 120
    assert held < 1.5 * size
    assert peak < 4 * size
