"""PASCAL VOC 2012: the real sample mask by mask, void borders ignored; splits, objects and trainaug in the official layout."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uss_dagster import registry
from uss_dagster.datasets import voc2012
from uss_dagster.datasets.formats.class_trees import load_classes, truth_of
from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import tree_covering, valid_classes

Params = voc2012.Params
PACKS = Path(os.environ.get("USS_MIRROR", "/nowhere"))


@pytest.fixture
def sample() -> Path:
    root = os.environ.get("USS_MIRROR")
    if not root or not (Path(root) / "voc2012").is_dir():
        pytest.skip("NOT TESTED on real VOC 2012 data: set USS_MIRROR to a folder that holds voc2012/.")
    return Path(root) / "voc2012"


@pytest.fixture
def kit(tmp_path, monkeypatch) -> Path:
    """An empty development kit in the official layout."""
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    data = tmp_path / "voc2012" / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationObject", "SegmentationClassAug", "ImageSets/Segmentation"):
        (data / folder).mkdir(parents=True)
    return data


def add(data: Path, image_id: str, labels: np.ndarray, objects: np.ndarray | None = None, folder: str = "SegmentationClass") -> None:
    Image.fromarray(np.zeros((*labels.shape, 3), np.uint8)).save(data / "JPEGImages" / f"{image_id}.jpg")
    for name, values in ((folder, labels), ("SegmentationObject", objects)):
        if values is not None:
            picture = Image.fromarray(values.astype(np.uint8), "P")
            picture.putpalette(bytes(768))
            picture.save(data / name / f"{image_id}.png")


def test_the_real_sample_is_its_label_maps(sample):
    label_of = np.zeros(23, int)
    for label, node in load_classes("voc2012").node.items():
        label_of[node] = label
    seen, ids = set(), []
    for example in voc2012.examples(Params()):
        mask = sample / "VOCdevkit/VOC2012/SegmentationClass" / f"{example.image_id}.png"
        rebuilt = label_of[example.truth.label[example.truth.deepest()]]
        assert np.array_equal(rebuilt, np.asarray(Image.open(mask)))
        assert example.image == (sample / "VOCdevkit/VOC2012/JPEGImages" / f"{example.image_id}.jpg").read_bytes()
        seen |= set(np.unique(rebuilt).tolist())
        ids.append(example.image_id)
    assert len(ids) == 150
    assert ids == sorted(ids)
    assert seen == {*range(21), 255}


@pytest.mark.parametrize("tree", ["flat", "groups"])
def test_a_perfect_tree_of_the_real_sample_scores_one(sample, tree):
    params = Params(tree=tree, limit=12)
    for example in voc2012.examples(params):
        truth = Truth("classes", example.truth, voc2012.classes(params).tree)
        result = tree_covering(truth, example.truth)
        assert result.nm == result.nh == 1
        void = example.truth.label == len(truth.classes) - 1
        assert truth.classes.names[-1] == "void"
        assert void.any(), "every one of these has a void border"
        assert not valid_classes(truth.classes)[-1]


def test_splits_and_limits(kit):
    for image_id in ("2007_000003", "2007_000001", "2007_000002"):
        add(kit, image_id, np.array([[0, 15, 255]]))
    lists = kit / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("2007_000003\n2007_000001\n")
    (lists / "val.txt").write_text("2007_000002\r\n\r\n")
    assert [e.image_id for e in voc2012.examples(Params(split="train"))] == ["2007_000001", "2007_000003"]
    assert [e.image_id for e in voc2012.examples(Params(split="train", limit=1))] == ["2007_000001"]
    only = next(voc2012.examples(Params(split="val")))
    assert (only.split, only.suffix) == ("val", ".jpg")
    with pytest.raises(BadData, match=r"trainval\.txt is missing"):
        next(voc2012.examples(Params(split="trainval")))
    (lists / "train.txt").write_text("2007_000003\n2007_000003\n")
    with pytest.raises(BadData, match="lists image 2007_000003 twice"):
        next(voc2012.examples(Params(split="train")))


def test_trainaug_is_a_list_or_all_masks_without_val(kit):
    lists = kit / "ImageSets" / "Segmentation"
    for image_id in ("2008_000001", "2008_000002", "2008_000003"):
        add(kit, image_id, np.array([[0, 3]]), folder="SegmentationClassAug")
    (lists / "val.txt").write_text("2008_000002\n")
    assert [e.image_id for e in voc2012.examples(Params(split="trainaug"))] == ["2008_000001", "2008_000003"]
    (lists / "train_aug.txt").write_text("/JPEGImages/2008_000003.jpg /SegmentationClassAug/2008_000003.png\n")
    assert [e.image_id for e in voc2012.examples(Params(split="trainaug"))] == ["2008_000003"]


def test_objects_carry_the_class_of_most_of_their_pixels(kit):
    labels = np.array([[15, 15, 255, 8, 8, 8], [15, 15, 255, 8, 8, 0]])
    objects = np.array([[1, 2, 255, 7, 7, 7], [1, 2, 255, 7, 7, 0]])
    add(kit, "2009_000001", labels, objects)
    (kit / "ImageSets/Segmentation/val.txt").write_text("2009_000001\n")
    truth = next(voc2012.examples(Params(truth="instances"))).truth
    names = load_classes("voc2012").tree.names
    assert [names[label] for label in truth.label] == ["person", "person", "cat"]
    for number, value in enumerate((1, 2, 7)):
        assert np.array_equal(truth.mask(number), objects == value)
    assert truth_of(voc2012, Params(truth="instances")) == "instances"


def test_derived_objects_of_pascal_part_read_as_a_voc_kit(kit):
    pack = PACKS / "pascal_part"
    if not pack.is_dir():
        pytest.skip("NOT TESTED on real VOC objects: set USS_MIRROR to a folder that holds pascal_part/.")
    ids = (pack / "ids.txt").read_text().split()
    for name, source in {
        "JPEGImages": "JPEGImages",
        "SegmentationClass": "derived/SegmentationClass",
        "SegmentationObject": "derived/SegmentationObject",
    }.items():
        (kit / name).rmdir()
        (kit / name).symlink_to(pack / source)
    (kit / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids))
    found = list(voc2012.examples(Params(truth="instances")))
    assert len(found) == len(ids) == 9
    for example in found:
        numbers = np.unique(np.asarray(Image.open(kit / "SegmentationObject" / f"{example.image_id}.png")))
        assert len(example.truth) == np.count_nonzero(numbers)
        assert (example.truth.label > 1).all()


def test_what_is_missing_or_wrong_is_said(kit, monkeypatch, tmp_path):
    lists = kit / "ImageSets" / "Segmentation"
    (lists / "val.txt").write_text("2010_000001\n")
    with pytest.raises(BadData, match=r"2010_000001\.jpg is missing, though the dataset lists it"):
        next(voc2012.examples(Params()))
    add(kit, "2010_000001", np.array([[0, 21]]))
    with pytest.raises(BadData, match="PASCAL VOC 2012 segmentation image 2010_000001 has labels that its dataset does not know: 21"):
        next(voc2012.examples(Params()))
    monkeypatch.setenv("USS_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(Unavailable, match=r"Fetch VOCtrainval_11-May-2012\.tar"):
        next(voc2012.examples(Params()))
    with pytest.raises(UsageError, match="masks know no objects"):
        registry.build_params(Params, {"split": "trainaug", "truth": "instances"}, "dataset 'voc2012'")
    with pytest.raises(UsageError, match="limit is 0"):
        registry.build_params(Params, {"limit": 0}, "dataset 'voc2012'")
