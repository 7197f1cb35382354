"""PartImageNet: both official layouts from synthetic files, polygons as the release has them, and the tree of 158 classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from labelled_files import check_perfect_scores, check_tree, labels_of, nodes_of, write_labels, write_picture

from uss_dagster.datasets import partimagenet, partimagenet_158
from uss_dagster.errors import BadData, Unavailable
from uss_dagster.regions import ClassTree
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, IGNORE

TREE = partimagenet.CLASSES.tree
PARTS = [TREE.names[partimagenet.CLASSES.node[part]] for part in range(40)]
OFFICIAL_KINDS = (  # number of ImageNet classes of each kind, as the authors' table has them
    {"Quadruped": 46, "Biped": 17, "Fish": 10, "Bird": 14, "Snake": 15, "Reptile": 20}
    | {"Car": 23, "Bicycle": 6, "Boat": 4, "Aeroplane": 2, "Bottle": 5}
)
Drawn = tuple[str, list[list[float]]]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    return tmp_path


def rectangle(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def write_json(path: Path, images: dict[str, list[Drawn]], size: tuple[int, int] = (10, 14), first: int = 0) -> None:
    """The annotation file of one split; ``first``: the id of the first category."""
    path.parent.mkdir(parents=True, exist_ok=True)
    annotations = [
        {"image_id": number, "category_id": first + PARTS.index(part), "segmentation": rings, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]}
        for number, parts in enumerate(images.values())
        for part, rings in parts
    ]
    path.write_text(
        json.dumps(
            {
                "images": [{"id": n, "file_name": name, "height": size[0], "width": size[1]} for n, name in enumerate(images)],
                "categories": [{"id": first + n, "name": name, "supercategory": name.split()[0]} for n, name in enumerate(PARTS)],
                "annotations": [{"id": n} | one for n, one in enumerate(annotations)],
            }
        )
    )


def kinds_of(tree: ClassTree) -> tuple[int, int, int, int]:
    kinds = np.asarray(tree.kind)
    return (*(int((kinds == kind).sum()) for kind in (FOREGROUND, BACKGROUND, IGNORE)), int(tree.depth.max()))


def test_the_class_tree_is_that_of_the_specification():
    assert kinds_of(TREE) == (40, 1, 0, 2)
    assert sorted(partimagenet.CLASSES.node) == list(range(41))
    groups = [TREE.names[node] for node in range(1, len(TREE)) if TREE.parent[node] == 0]
    assert groups == [*OFFICIAL_KINDS, "background"]
    assert all(TREE.names[TREE.parent[partimagenet.CLASSES.node[part]]] == PARTS[part].split()[0] for part in range(40))


@pytest.mark.parametrize(("place", "first", "nested"), [("", 0, True), ("PartImageNet_OOD/", 1, False)])
def test_polygons_become_nested_regions(mirror, place, first, nested):
    root = mirror / "partimagenet" / place
    images = {
        "n02129604_7.JPEG": [("Quadruped Head", [rectangle(2, 2, 6, 6)]), ("Quadruped Body", [rectangle(0, 0, 12, 9)])],
        # two rings; one of two points, which the release has too; and a part of which that is all
        "n01440764_10.JPEG": [
            ("Fish Fin", [rectangle(1, 1, 3, 3), rectangle(8, 4, 11, 6), [4.0, 4.0, 6.0, 6.0]]),
            ("Fish Tail", [[1.0, 1.0, 5.0, 5.0]]),
        ],
    }
    write_json(root / "val.json", {name if nested else f"val/{name}": parts for name, parts in images.items()}, first=first)
    for name in images:
        write_picture(root / "val" / (name.split("_")[0] if nested else "") / name.replace(".JPEG", ".jpeg"), 10, 14)
        folder = root / "val" / (name.split("_")[0] if nested else "")
        (folder / name.replace(".JPEG", ".jpeg")).rename(folder / name)
    fish, tiger = partimagenet.examples(partimagenet.Params())
    assert [fish.image_id, tiger.image_id, tiger.suffix] == ["n01440764_10", "n02129604_7", ".jpg"]
    expected = np.full((10, 14), 40)
    expected[0:9, 0:12] = PARTS.index("Quadruped Body")
    expected[2:6, 2:6] = PARTS.index("Quadruped Head")  # the smaller part shows, though earlier in the file
    assert np.array_equal(labels_of(tiger.truth, partimagenet.CLASSES), expected)
    expected[...] = 40
    expected[1:3, 1:3] = expected[4:6, 8:11] = PARTS.index("Fish Fin")
    assert np.array_equal(labels_of(fish.truth, partimagenet.CLASSES), expected)
    for e in (fish, tiger):
        check_tree(e, TREE)
    _, formula = check_perfect_scores(tiger.truth, TREE)
    assert formula.nh == 1
    _, formula = check_perfect_scores(fish.truth, TREE)
    assert formula.nh == pytest.approx((1 + 0.5 + 1) / 3)  # fish, its only part, background


def write_seg(root: Path, split: str, labels: dict[str, np.ndarray]) -> None:
    for image_id, one in labels.items():
        picture = root / f"images/{split}/{image_id}.jpg"
        write_picture(picture, *one.shape)
        picture.rename(picture.with_suffix(".JPEG"))
        write_labels(root / f"annotations/{split}/{image_id}.png", one)
    used = {
        f"{image_id}.JPEG": [(PARTS[part], [rectangle(0, 0, 3, 3)]) for part in np.unique(one) if part < 40]
        for image_id, one in labels.items()
    }
    write_json(root / f"annotations/{split}/{split}.json", used)


def test_label_maps_of_the_other_release_round_trip(mirror):
    labels = {
        "n02129604_7": np.array([[0, 1, 40], [2, 3, 1]], np.uint8).repeat(4, 0),
        "n01729977_2": np.array([[18, 40, 19]] * 9, np.uint8),
    }
    write_seg(mirror / "partimagenet/PartImageNet_Seg/PartImageNet", "test", labels)
    found = list(partimagenet.examples(partimagenet.Params("seg_test")))
    assert [e.image_id for e in found] == sorted(labels)
    for e in found:
        assert np.array_equal(labels_of(e.truth, partimagenet.CLASSES), labels[e.image_id])
        assert e.split == "seg_test"
        check_tree(e, TREE)
        check_perfect_scores(e.truth, TREE)


def test_classes_are_nested_between_kinds_and_parts(mirror):
    root = mirror / "partimagenet"
    labels = {
        "n02129604_7": np.array([[0, 1, 40], [2, 3, 1]], np.uint8).repeat(4, 0),
        "n02129604_8": np.array([[0, 13, 40], [2, 3, 1]], np.uint8).repeat(4, 0),  # a tiger with the head of a bird
        "n01729977_2": np.array([[18, 40, 19]] * 9, np.uint8),
    }
    write_seg(root, "train", labels)
    write_seg(root, "val", {"n02481823_1": np.array([[4, 5], [6, 7], [8, 40]], np.uint8).repeat(3, 0)})
    params = partimagenet_158.Params("seg_train")
    tree = partimagenet_158.classes(params).tree
    assert kinds_of(tree) == (4 + 2 + 5, 1, 1, 3), "classes of every split of the release, each with all parts of its kind"
    assert [tree.names[node] for node in range(len(tree)) if tree.depth[node] == 2] == ["n02129604", "n02481823", "n01729977"]
    names = np.array(tree.names)
    for e in partimagenet_158.examples(params):
        owner = e.image_id.split("_")[0]
        kind = {"n02129604": "Quadruped", "n01729977": "Snake"}[owner]
        for part in range(41):
            here = set(names[nodes_of(e.truth)[labels[e.image_id] == part]].tolist())
            if part == 40:
                assert here == {"background"}
            elif here:
                group, _, short = PARTS[part].partition(" ")
                assert here == ({f"{owner} {short}"} if group == kind else {"void"})
        check_tree(e, tree)
        check_perfect_scores(e.truth, tree)


def test_the_full_release_gives_the_tree_of_the_specification(mirror):
    # The authors' table sums to 162 classes, though they are 158. With 19 cars it sums to 158, and to the 598 parts of the specification.
    images, number = {}, 0
    for kind, classes in (OFFICIAL_KINDS | {"Car": 19}).items():
        for _ in range(classes):
            number += 1
            images[f"n{number:08d}_1.JPEG"] = [(next(part for part in PARTS if part.startswith(kind)), [rectangle(0, 0, 3, 3)])]
    names = list(images)
    for split, part in zip(("train", "val", "test"), (names[:109], names[109:128], names[128:]), strict=True):
        write_json(mirror / "partimagenet" / f"{split}.json", {name: images[name] for name in part})
    tree = partimagenet_158.classes(partimagenet_158.Params()).tree
    assert kinds_of(tree) == (598, 1, 1, 3)
    assert int((tree.depth == 2).sum()) == 158


def test_wrong_files_are_refused_by_name(mirror):
    root = mirror / "partimagenet"

    def refused(text: str, split: str = "val") -> None:
        for module in (partimagenet, partimagenet_158):
            with pytest.raises(BadData, match=text):
                next(module.examples(module.Params(split)))

    with pytest.raises(Unavailable, match="has no folder 'partimagenet'"):
        next(partimagenet_158.examples(partimagenet_158.Params()))
    root.mkdir()
    refused("holds none of")
    write_json(root / "val.json", {"n02129604_7.JPEG": [("Fish Fin", [rectangle(0, 0, 3, 3)])]})
    refused(r"n02129604_7\.JPEG is missing")
    picture = root / "val/n02129604/n02129604_7.jpg"
    write_picture(picture, 14, 10)
    picture.rename(picture.with_suffix(".JPEG"))
    refused(r"n02129604_7 is 14×10, .*val\.json says 10×14")
    data = json.loads((root / "val.json").read_text())
    data["categories"][3]["name"] = "Dragon Wing"
    (root / "val.json").write_text(json.dumps(data))
    refused("has a category 'Dragon Wing'")
    write_seg(root, "val", {"n02129604_7": np.full((6, 6), 1, np.uint8)})
    write_labels(root / "annotations/val/n02129604_7.png", np.full((6, 6), 41, np.uint8))
    refused("image n02129604_7 has labels that its dataset does not know: 41", "seg_val")
