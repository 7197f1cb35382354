"""COCO-Stuff in the official layout, made here: label sets, the curated subset by rule and by list, and how its trees nest."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uss_dagster.artifacts.gate import valid_regions
from uss_dagster.artifacts.tables import regions_to_table
from uss_dagster.datasets import coco_stuff
from uss_dagster.errors import BadData, Unavailable
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.covering import tree_covering

Params = coco_stuff.Params
PERSON, BIRD, SKY, GRASS, UNLABELLED = 0, 15, 156, 123, 255


@pytest.fixture
def release(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    return tmp_path


def add(home: Path, number: int, labels: np.ndarray, maps: str = "coco_stuff/stuffthingmaps/val2017") -> None:
    for folder in (home / maps, home / "coco/val2017"):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels.astype(np.uint8)).save(home / maps / f"{number:012d}.png")
    Image.new("RGB", labels.shape[::-1]).save(home / "coco/val2017" / f"{number:012d}.jpg")


def scene(height: int = 8, width: int = 8, things: int = 2) -> np.ndarray:
    """Sky and grass, ``things`` columns of a person and a bird, one unlabelled pixel."""
    labels = np.full((height, width), SKY)
    labels[height // 2 :] = GRASS
    labels[: height // 2, :things], labels[height // 2 :, :things] = PERSON, BIRD
    labels[0, -1] = UNLABELLED
    return labels


def names(params: Params, example) -> list[str]:
    tree = coco_stuff.classes(params).tree
    return [tree.names[label] for label in example.truth.label]


@pytest.mark.parametrize("maps", ["coco_stuff/stuffthingmaps/val2017", "coco_stuff/annotations/val2017", "coco/stuffthingmaps/val2017"])
def test_every_usual_place_of_the_label_maps(release, maps):
    add(release, 12, scene(), maps)
    (release / maps / "000000000012_labelTrainIds.png").write_bytes(b"derived by other programs, not read")
    (example,) = coco_stuff.examples(Params())
    assert (example.image_id, example.split, example.suffix) == ("000000000012", "val2017", ".jpg")


def test_each_label_set_nests_as_far_as_it_knows(release):
    add(release, 1, scene())
    found = {labels: next(coco_stuff.examples(Params(labels=labels))) for labels in ("27", "171", "182", "things", "stuff")}
    coarse = ["scene", "things", "outdoor things", "person", "animal", "stuff", "outdoor stuff", "plant", "sky", "unlabelled"]
    fine = ["scene", "things", "outdoor things", "person", "person", "animal", "bird"]
    fine += ["stuff", "outdoor stuff", "plant", "grass", "sky", "sky-other", "unlabelled"]
    assert names(Params(labels="27"), found["27"]) == coarse
    for labels in ("171", "182", "things", "stuff"):
        assert names(Params(labels=labels), found[labels]) == fine
        assert not list(valid_regions([regions_to_table("x", found[labels].truth)], overlap=False))
    sky = found["182"].truth.mask(fine.index("sky-other"))
    assert np.array_equal(sky, scene() == SKY)


def test_a_perfect_tree_scores_one_and_background_is_one_region(release):
    add(release, 1, scene())
    for labels, background in (("27", False), ("182", False), ("things", True), ("stuff", True)):
        params = Params(labels=labels)
        (example,) = coco_stuff.examples(params)
        truth = Truth("classes", example.truth, coco_stuff.classes(params).tree)
        result = tree_covering(truth, example.truth)
        assert result.nm == result.nh == 1
        assert (-1 in result.gt_nodes.tolist()) == background
        # formula: in the chain things → outdoor things both are one mask, and so on
        assert tree_covering(truth, example.truth, mode="formula").nh < 1


@pytest.mark.parametrize(
    ("labels", "curated"),
    [
        (scene(360, 400, things=100), False),  # a quarter things and one pixel unlabelled: just too little stuff
        (scene(360, 400, things=99), True),
        (scene(359, 400, things=0), False),
        (scene(400, 359, things=0), False),
        (np.full((360, 360), UNLABELLED), False),
        (np.full((360, 360), 91), True),
        (np.full((360, 360), 90), False),
    ],
)
def test_the_rule_of_the_curated_subset(labels, curated):
    assert coco_stuff.is_curated(labels.astype(np.uint8)) == curated


def test_the_curated_subset_by_rule_and_by_list(release, tmp_path):
    for number, things in ((1, 300), (2, 10), (3, 200), (4, 0)):
        add(release, number, scene(360, 360, things))
    ids = [f"{n:012d}" for n in (2, 4)]
    assert [e.image_id for e in coco_stuff.examples(Params(subset="curated"))] == ids
    assert [e.image_id for e in coco_stuff.examples(Params(subset="curated", limit=1))] == ids[:1]
    (tmp_path / "list.txt").write_text("000000000003\n000000000001\n")
    listed = Params(subset="curated", list_file=str(tmp_path / "list.txt"))
    assert [e.image_id for e in coco_stuff.examples(listed)] == ["000000000001", "000000000003"]
    with pytest.raises(BadData, match="does not exist; give a file with one image id a line"):
        list(coco_stuff.examples(Params(subset="curated", list_file=str(tmp_path / "none.txt"))))
    with pytest.raises(ValueError, match="set subset to 'curated' to use the list"):
        Params(list_file="x")


def test_what_is_missing_or_wrong_is_said(release):
    with pytest.raises(Unavailable, match=r"stuffthingmaps_trainval2017\.zip"):
        list(coco_stuff.examples(Params()))
    (release / "coco_stuff").mkdir()
    with pytest.raises(BadData, match="holds none of stuffthingmaps/val2017, annotations/val2017"):
        list(coco_stuff.examples(Params()))
    labels = scene()
    labels[3, 3] = 200
    add(release, 5, labels)
    with pytest.raises(BadData, match="COCO-Stuff 2017 image 000000000005 has labels that its dataset does not know: 200"):
        list(coco_stuff.examples(Params()))
    labels[3, 3] = 11  # street sign, which COCO dropped
    add(release, 5, labels)
    with pytest.raises(BadData, match="does not know: 11"):
        list(coco_stuff.examples(Params(labels="171")))
    assert list(coco_stuff.examples(Params(labels="182")))
    (release / "coco/val2017/000000000005.jpg").unlink()
    with pytest.raises(BadData, match="is missing, though the dataset lists it"):
        list(coco_stuff.examples(Params()))
