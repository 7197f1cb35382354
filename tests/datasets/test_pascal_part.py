"""PASCAL-Part: real annotations against a plain redrawing of their masks, both sets of parts, and every way in which a file can be wrong."""

from pathlib import Path

import numpy as np
import pytest
from labelled_files import check_perfect_scores, check_tree, checksums, is_as_released, nodes_of, sample, write_picture
from PIL import Image
from scipy.io import loadmat, savemat

from uss_dagster.datasets import pascal_part
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.errors import BadData
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, IGNORE

_TREE = load_classes("pascal_part_full").tree
VOC = [name for node, name in enumerate(_TREE.names) if _TREE.parent[node] == 0 and name not in ("background", "void")]
PartMasks = list[tuple[str, np.ndarray]]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    return tmp_path


def write_annotation(path: Path, objects: list[tuple[str, np.ndarray, PartMasks]]) -> None:
    """A file as the authors write it: nested structs, an empty matrix where an object has no parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    things = np.empty((1, len(objects)), [("class", object), ("class_ind", object), ("mask", object), ("parts", object)])
    for place, (name, mask, parts) in enumerate(objects):
        drawn = np.empty((1, len(parts)), [("part_name", object), ("mask", object)])
        for number, part in enumerate(parts):
            drawn[0, number] = part
        things[0, place] = (name, VOC.index(name) + 1 if name in VOC else 21, mask, drawn if parts else np.zeros((0, 0)))
    savemat(path, {"anno": {"imname": path.stem, "objects": things}}, do_compression=True)


def write_image(root: Path, image_id: str, objects: list[tuple[str, np.ndarray, PartMasks]], size: tuple[int, int] | None = None) -> bytes:
    write_annotation(root / "Annotations_Part" / f"{image_id}.mat", objects)
    return write_picture(root / "JPEGImages" / f"{image_id}.jpg", *(size or objects[0][1].shape))


def box(top: int, bottom: int, left: int, right: int, kind: type = np.uint8) -> np.ndarray:
    mask = np.zeros((12, 16), kind)
    mask[top:bottom, left:right] = 1
    return mask


def names_of(truth, parts: str) -> np.ndarray:
    """The class name of each pixel."""
    return np.array(load_classes(f"pascal_part_{parts}").tree.names)[nodes_of(truth)]


@pytest.mark.parametrize(("parts", "leaves", "reached"), [("full", 388, 389), ("reduced", 99, 100)])
def test_class_trees_are_those_of_the_specification(parts, leaves, reached):
    classes = load_classes(f"pascal_part_{parts}")
    kinds = np.asarray(classes.tree.kind)
    assert [int((kinds == kind).sum()) for kind in (FOREGROUND, BACKGROUND, IGNORE)] == [leaves, 1, 1]
    assert classes.tree.depth.max() == 2
    assert len(set(classes.node.values())) == reached, "all but void, of which the files know nothing"
    objects = [classes.tree.names[node] for node in range(1, len(classes.tree)) if classes.tree.parent[node] == 0]
    assert objects == ["background", *VOC, "void"]
    assert objects[1:4] + objects[-3:-1] == ["aeroplane", "bicycle", "bird", "train", "tvmonitor"]
    assert sorted(name.replace("table", "diningtable") for name in VOC) == [name.replace("table", "diningtable") for name in VOC]
    assert all(classes.tree.names[node].split()[0] == objects[label // 100] for label, node in classes.node.items())


def test_reduced_parts_are_unions_of_official_ones():
    full, reduced = load_classes("pascal_part_full"), load_classes("pascal_part_reduced")
    assert set(reduced.node) < set(full.node) | {100 * (VOC.index(name) + 1) for name in ("train", "tvmonitor")}
    together = {}
    for label, node in reduced.node.items():
        if label in full.node:
            together.setdefault(reduced.tree.names[node], []).append(full.tree.names[full.node[label]])
    assert together["horse leg"] == [f"horse {side}{end}{half}leg" for end in "fb" for side in "lr" for half in "ul"]
    assert together["car license plate"] == ["car fliplate", "car bliplate"]
    assert together["person arm"] == ["person llarm", "person luarm", "person rlarm", "person ruarm"]
    assert len(together["bus window"]) == 20
    assert "person lebrow" not in {name for merged in together.values() for name in merged}


def redrawn(objects: list[tuple[int, np.ndarray, PartMasks]], parts: str) -> np.ndarray:
    """The class name of each pixel, drawn object by object, the greatest part first: the rule in its plainest form."""
    reduced = load_classes("pascal_part_reduced")
    full = load_classes("pascal_part_full")
    short = {full.tree.names[node]: reduced.tree.names[reduced.node[label]] for label, node in full.node.items() if label in reduced.node}
    names = np.full(objects[0][1].shape, "background", "<U40")
    for number, mask, drawn in objects:
        names[mask > 0] = VOC[number - 1]
        order = sorted(range(len(drawn)), key=lambda place: (-(drawn[place][1] > 0).sum(), place))
        for name, part in (drawn[place] for place in order):
            official = f"{VOC[number - 1]} {name}"
            if parts == "full" or official in short:
                names[(part > 0) & (mask > 0)] = official if parts == "full" else short[official]
    return names


@pytest.mark.parametrize("parts", ["full", "reduced"])
def test_the_real_sample_is_read_exactly(parts):
    pack = sample("pascal_part")
    released, found, params = checksums(pack), [], pascal_part.Params(parts=parts)
    seen = set()
    for e in pascal_part.examples(params):
        found.append(e.image_id)
        assert is_as_released(e, released)
        raw = loadmat(pack / "Annotations_Part" / f"{e.image_id}.mat")["anno"][0, 0]["objects"][0]
        objects = [(o["class_ind"].item(), o["mask"], [(str(p["part_name"][0]), p["mask"]) for p in o["parts"].ravel()]) for o in raw]
        assert np.array_equal(names_of(e.truth, parts), redrawn(objects, parts))
        # whole objects, as the pack derived them: its class map, and objects numbered from 1 in file order
        drawn = np.asarray(Image.open(pack / "derived" / "SegmentationObject" / f"{e.image_id}.png"))
        wholes = [region for region in range(1, len(e.truth)) if e.truth.parent[region] == 0]
        assert [e.truth.area[region] for region in wholes] == [n for n in np.bincount(drawn.ravel()) if n]
        for number, region in enumerate(wholes):  # every object of the sample is seen, and some background
            assert np.array_equal(e.truth.mask(region), drawn == number)
        numbers = np.array([0, *(o[0] for o in objects)])
        assert np.array_equal(numbers[drawn], np.asarray(Image.open(pack / "derived" / "SegmentationClass" / f"{e.image_id}.png")))
        check_tree(e, pascal_part.classes(params).tree)
        check_perfect_scores(e.truth, pascal_part.classes(params).tree)
        seen |= {number for number, _, _ in objects}
    assert found == sorted((pack / "ids.txt").read_text().split())
    assert seen == {1, 3, 4, 6, 7, 8, 12, 15}


def test_overlaps_follow_the_stated_rule(mirror):
    torso, head, eye = box(0, 8, 0, 8), box(0, 4, 0, 6), box(1, 2, 1, 3)
    beyond = box(7, 12, 6, 8)  # a tail that leaves its cat below
    cat = ("cat", box(0, 8, 0, 8), [("leye", eye), ("head", head), ("torso", torso), ("tail", beyond), ("nose", eye)])
    boat = ("boat", box(6, 10, 4, 14), [])
    picture = write_image(mirror / "pascal_part", "2010_1", [cat, boat])
    (e,) = pascal_part.examples(pascal_part.Params())
    assert e.image == picture
    names = names_of(e.truth, "full")
    expected = np.full((12, 16), "background", "<U20")
    expected[torso > 0] = "cat torso"
    expected[head > 0] = "cat head"
    expected[7, 6:8] = "cat tail"
    expected[eye > 0] = "cat nose"  # as small as the eye, and later in the file
    expected[boat[1] > 0] = "boat"  # the later object, though larger than what it hides
    assert np.array_equal(names, expected)
    check_tree(e, pascal_part.SPEC.classes)
    labels = [pascal_part.SPEC.classes.names[node] for node in e.truth.label]
    assert "cat leye" not in labels, "a part of which nothing is seen is no region"
    assert "cat tail" not in labels, "neither is one that a later object hides"
    assert labels == ["scene", "background", "cat", "cat torso", "cat head", "cat nose", "boat"]


def test_parts_that_the_reduced_set_lacks_belong_to_what_is_behind(mirror):
    person = (
        "person",
        box(0, 9, 0, 9),
        [("head", box(0, 4, 0, 4)), ("lebrow", box(1, 2, 1, 2)), ("luarm", box(5, 6, 0, 3)), ("rlarm", box(5, 6, 5, 8))],
    )
    train = ("train", box(2, 6, 10, 15), [("coach_1", box(2, 6, 10, 12))])
    write_image(mirror / "pascal_part", "2010_1", [person, train])
    (e,) = pascal_part.examples(pascal_part.Params(parts="reduced"))
    names = names_of(e.truth, "reduced")
    assert names[1, 1] == "person head"
    assert set(names[person[2][2][1] + person[2][3][1] > 0]) == {"person arm"}
    assert [pascal_part.classes(pascal_part.Params(parts="reduced")).tree.names[n] for n in e.truth.label].count("person arm") == 1
    assert set(names[train[1] > 0]) == {"train"}


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint8, np.float64])
def test_masks_of_any_type_are_read_and_negative_ones_hold_pixels(mirror, kind):
    mask = box(2, 7, 3, 9, kind)
    if kind is np.int8:
        mask = -mask  # 255 read as a signed byte
    write_image(mirror / "pascal_part", "2010_1", [("bottle", mask, [("cap", mask)])])
    (e,) = pascal_part.examples(pascal_part.Params())
    assert np.array_equal(names_of(e.truth, "full") == "bottle cap", mask != 0)
    assert e.truth.area.tolist() == [192, 192 - 30, 30, 30]


def test_an_object_that_fills_the_image_leaves_no_background(mirror):
    write_image(mirror / "pascal_part", "2010_1", [("sofa", box(0, 12, 0, 16), [])])
    (e,) = pascal_part.examples(pascal_part.Params())
    assert [pascal_part.SPEC.classes.names[node] for node in e.truth.label] == ["scene", "sofa"]
    check_tree(e, pascal_part.SPEC.classes)


def test_splits_come_from_the_lists_of_voc_2010(mirror):
    root = mirror / "pascal_part"
    for image_id in ("2010_2", "2008_1", "2009_3"):
        write_image(root, image_id, [("boat", box(0, 3, 0, 3), [])])
    voc = root / "VOCdevkit/VOC2010"
    voc.mkdir(parents=True)
    (root / "JPEGImages").rename(voc / "JPEGImages")
    (root / "trainval").mkdir()
    (root / "Annotations_Part").rename(root / "trainval/Annotations_Part")
    assert [e.image_id for e in pascal_part.examples(pascal_part.Params())] == ["2008_1", "2009_3", "2010_2"]
    assert [e.image_id for e in pascal_part.examples(pascal_part.Params(limit=2))] == ["2008_1", "2009_3"]
    with pytest.raises(BadData, match="split 'val' has no list of images"):
        next(pascal_part.examples(pascal_part.Params("val")))
    lists = voc / "ImageSets/Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2010_2\n2009_3\n2010_999\n")
    found = list(pascal_part.examples(pascal_part.Params("val")))
    assert [(e.image_id, e.split) for e in found] == [("2009_3", "val"), ("2010_2", "val")]


def test_wrong_files_are_refused_by_name(mirror):
    root = mirror / "pascal_part"
    path = root / "Annotations_Part/2010_1.mat"

    def refused(text: str) -> None:
        with pytest.raises(BadData, match=text):
            next(pascal_part.examples(pascal_part.Params()))

    whole = box(0, 3, 0, 3)
    write_image(root, "2010_1", [("boat", whole, [])], size=(16, 12))
    refused(r"2010_1\.mat, object 0: the mask of it is 12×16, its image 16×12")
    write_image(root, "2010_1", [("cat", whole, [("head", whole[:5])])])
    refused(r"object 0: the mask of head is 5×16")
    write_image(root, "2010_1", [("boat", whole, []), ("cat", whole, [("wing", whole)])])
    refused("object 1 has parts that its class does not know: wing")
    write_image(root, "2010_1", [("dragon", whole, [])])
    refused("is of class 21; VOC has classes 1 to 20")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(r"2010_1\.mat is not a PASCAL-Part annotation")
    savemat(path, {"anno": {"imname": "2010_1", "objects": np.zeros((0, 0))}})
    refused("is not a PASCAL-Part annotation|holds no object")
    (root / "JPEGImages/2010_1.jpg").unlink()
    refused(r"2010_1\.jpg is missing")
