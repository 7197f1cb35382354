"""Data sets of scenes with one label map an image: real samples exactly, official layouts from synthetic files, clear refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from labelled_files import (
    check_perfect_scores,
    check_tree,
    checksums,
    is_as_released,
    labels_of,
    nodes_of,
    sample,
    write_labels,
    write_picture,
)
from PIL import Image

from uss_dagster import registry
from uss_dagster.artifacts.image_files import decode
from uss_dagster.datasets import ade20k, camvid, cityscapes, kitti_step, mapillary_vistas, potsdam
from uss_dagster.datasets.formats.class_trees import load_classes
from uss_dagster.errors import BadData, Unavailable, UsageError
from uss_dagster.regions.classes import BACKGROUND, FOREGROUND, IGNORE

SPEC_TABLE = {  # foreground, background, ignore, depth
    "camvid": (11, 0, 1, 1),
    "cityscapes_19": (19, 0, 16, 2),
    "cityscapes_27": (27, 0, 8, 2),
    "kitti_step": (19, 0, 1, 2),
    "mapillary_vistas": (65, 0, 1, 3),
    "potsdam_6": (6, 0, 1, 1),
    "potsdam_3": (3, 0, 1, 1),
    "ade20k": (150, 0, 1, 1),
}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("USS_MIRROR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", SPEC_TABLE)
def test_class_trees_are_those_of_the_specification(name):
    classes = load_classes(name)
    kinds = np.asarray(classes.tree.kind)
    assert (*((kinds == kind).sum() for kind in (FOREGROUND, BACKGROUND, IGNORE)), classes.tree.depth.max()) == SPEC_TABLE[name]
    unreached = {classes.tree.names[node] for node in np.flatnonzero(kinds >= 0)} - {
        classes.tree.names[node] for node in classes.node.values()
    }
    assert unreached == ({"license plate"} if name.startswith("cityscapes") else set())


def test_cityscapes_groups_and_ids_agree_with_its_scripts():
    nineteen, coarse = load_classes("cityscapes_19"), load_classes("cityscapes_27")
    kinds, parents = np.asarray(nineteen.tree.kind), np.asarray(nineteen.tree.parent)
    groups = {nineteen.tree.names[parents[node]] for node in np.flatnonzero(kinds == FOREGROUND)}
    assert groups == {"flat", "construction", "object", "nature", "sky", "human", "vehicle"}
    evaluated = sorted(label for label, node in nineteen.node.items() if kinds[node] == FOREGROUND)
    assert tuple(evaluated) == cityscapes.LABEL_OF_TRAIN_ID
    assert sorted(nineteen.node) == sorted(coarse.node) == list(range(34))
    assert sorted(label for label, node in coarse.node.items() if coarse.tree.kind[node] == FOREGROUND) == list(range(7, 34))
    step = load_classes("kitti_step")
    for train_id, label in enumerate(cityscapes.LABEL_OF_TRAIN_ID):  # the same classes in the same groups
        mine, its = step.node[train_id], nineteen.node[label]
        assert step.tree.names[mine] == nineteen.tree.names[its]
        assert step.tree.names[step.tree.parent[mine]] == nineteen.tree.names[nineteen.tree.parent[its]]


@pytest.mark.parametrize(("split", "images"), [("val", 51), ("test", 31)])
def test_camvid_sample_is_read_exactly(split, images):
    pack = sample("camvid")
    released, seen, count, last = checksums(pack), set(), 0, ""
    for count, e in enumerate(camvid.examples(camvid.Params(split)), start=1):
        assert e.image_id > last
        last = e.image_id
        assert is_as_released(e, released)
        official = np.asarray(Image.open(pack / "CamVid" / f"{split}annot" / f"{e.image_id}.png"))
        assert official.shape == e.truth.shape == (360, 480)
        assert np.array_equal(labels_of(e.truth, camvid.CLASSES), official)
        seen |= set(np.unique(official).tolist())
        if count == 1:
            check_tree(e, camvid.CLASSES.tree)
            check_perfect_scores(e.truth, camvid.CLASSES.tree)
    assert count == images
    assert seen == set(range(12))


def test_ade20k_sample_is_read_exactly():
    pack = sample("ade20k")
    found = list(ade20k.examples(ade20k.Params()))
    assert [e.image_id for e in found] == ["ADE_val_00000001", "ADE_val_00000002"]
    for e in found:
        assert is_as_released(e, checksums(pack))
        official = np.asarray(Image.open(pack / "annotations" / "validation" / f"{e.image_id}.png"))
        assert np.array_equal(labels_of(e.truth, ade20k.CLASSES), official)
        check_tree(e, ade20k.CLASSES.tree)
        check_perfect_scores(e.truth, ade20k.CLASSES.tree)
    for line in (pack / "objectInfo150.csv").read_text().splitlines()[1:]:
        number, names = line.split(",")[0], line.split(",")[5].split(";")
        words = ade20k.CLASSES.tree.names[ade20k.CLASSES.node[int(number)]].split()
        assert names[: len(words)] == words, "classes are called by the first of their official names"


def write_cityscapes(root: Path, stem: str, labels: np.ndarray, train_ids: np.ndarray | None = None) -> bytes:
    city = stem.split("_")[0]
    write_labels(root / "gtFine/val" / city / f"{stem}_gtFine_labelIds.png", labels)
    if train_ids is not None:
        write_labels(root / "gtFine/val" / city / f"{stem}_gtFine_labelTrainIds.png", train_ids)
    return write_picture(root / "leftImg8bit/val" / city / f"{stem}_leftImg8bit.png", *labels.shape)


def test_cityscapes_layout_round_trips_with_both_sets_of_classes_and_train_ids(mirror):
    labels = np.repeat(np.arange(34, dtype=np.uint8), 6).reshape(12, 17)
    train_ids = np.full(256, 255, np.uint8)
    train_ids[list(cityscapes.LABEL_OF_TRAIN_ID)] = range(19)
    pictures = {}
    for stem in ("munster_000001_000019", "frankfurt_000000_000294"):
        pictures[stem] = write_cityscapes(mirror / "cityscapes", stem, labels, train_ids[labels])
    for count in (19, 27):
        params = cityscapes.Params(classes=count)
        found = list(cityscapes.examples(params))
        assert [e.image_id for e in found] == ["frankfurt_000000_000294", "munster_000001_000019"]
        for e in found:
            assert e.image == pictures[e.image_id]
            assert np.array_equal(labels_of(e.truth, load_classes(f"cityscapes_{count}")), labels)
            check_tree(e, cityscapes.classes(params).tree)
            code, formula = check_perfect_scores(e.truth, cityscapes.classes(params).tree)
            # of the 7 groups, 'sky' has one class: its region and its class are one mask
            assert len(code.gt_nodes) == count + 7
            assert formula.nh == pytest.approx(1 - 0.5 / (count + 7))
    (first, *_) = cityscapes.examples(cityscapes.Params(files="labelTrainIds"))
    evaluated = np.isin(labels, cityscapes.LABEL_OF_TRAIN_ID)
    assert np.array_equal(labels_of(first.truth, load_classes("cityscapes_19")), np.where(evaluated, labels, 0))
    with pytest.raises(UsageError, match="train ids know 19 classes only"):
        registry.build_params(cityscapes.Params, {"classes": 27, "files": "labelTrainIds"}, "dataset 'cityscapes'")


def test_cityscapes_refuses_what_is_not_its_own(mirror):
    root = mirror / "cityscapes"
    labels = np.full((4, 6), 7, np.uint8)
    write_cityscapes(root, "aachen_000000_000019", labels, np.full((4, 6), 77, np.uint8))
    with pytest.raises(BadData, match="label of 77, but train ids are 0 to 18, and 255"):
        next(cityscapes.examples(cityscapes.Params(files="labelTrainIds")))
    path = root / "gtFine/val/aachen/aachen_000000_000019_gtFine_labelIds.png"
    write_labels(path, np.full((6, 4), 7, np.uint8))
    with pytest.raises(BadData, match=r"aachen_000000_000019_gtFine_labelIds\.png is 6×4, its image 4×6"):
        next(cityscapes.examples(cityscapes.Params()))
    write_labels(path, np.full((4, 6), 40, np.uint8))
    with pytest.raises(BadData, match="Cityscapes image aachen_000000_000019 has labels that its dataset does not know: 40"):
        next(cityscapes.examples(cityscapes.Params()))
    path.unlink()
    with pytest.raises(BadData, match=r"labelIds\.png is missing"):
        next(cityscapes.examples(cityscapes.Params()))


@pytest.mark.parametrize("layout", ["images/val", "training/image_02"])
def test_kitti_step_takes_the_class_from_red(mirror, layout):
    rng = np.random.default_rng(0)
    semantic = rng.choice(np.array([*range(19), 255], np.uint8), (2, 9, 14))
    panoptic = np.stack([semantic, *rng.integers(0, 256, (2, 2, 9, 14), np.uint8)], axis=-1)
    root = mirror / "kitti_step"
    for number, frame in enumerate(("0006/000001", "0002/000000")):
        write_picture(root / layout / f"{frame}.png", 9, 14)
        write_labels(root / "kitti-step/panoptic_maps/val" / f"{frame}.png", panoptic[number])
    found = list(kitti_step.examples(kitti_step.Params()))
    assert [e.image_id for e in found] == ["0002_000000", "0006_000001"]
    for e, number in zip(found, (1, 0), strict=True):
        assert np.array_equal(labels_of(e.truth, kitti_step.CLASSES), semantic[number])
        check_tree(e, kitti_step.CLASSES.tree)
        check_perfect_scores(e.truth, kitti_step.CLASSES.tree)
    write_labels(root / "kitti-step/panoptic_maps/val/0002/000000.png", semantic[0])
    with pytest.raises(BadData, match="not a PNG file of 8-bit RGB"):
        next(kitti_step.examples(kitti_step.Params()))
    (root / layout / "0002/000000.png").unlink()
    with pytest.raises(BadData, match=r"0002/000000\.png is missing, though the dataset lists it"):
        next(kitti_step.examples(kitti_step.Params()))


def vistas_config(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.2", "labels": [{"name": name, "readable": name, "color": [0, 0, 0]} for name in names]}))


@pytest.mark.parametrize(("config", "labels_at"), [("config.json", "labels"), ("config_v1.2.json", "v1.2/labels")])
def test_mapillary_vistas_numbers_classes_as_its_configuration_does(mirror, config, labels_at):
    tree, root = mapillary_vistas.CLASSES.tree, mirror / "mapillary_vistas"
    official = [tree.names[mapillary_vistas.CLASSES.node[number]] for number in range(66)]
    labels = np.arange(66, dtype=np.uint8).repeat(4).reshape(12, 22)
    write_picture(root / "validation/images/abc-DEF_9.jpg", 12, 22)
    write_labels(root / "validation" / labels_at / "abc-DEF_9.png", labels)
    for names in (official, official[::-1]):
        vistas_config(root / config, names)
        (e,) = mapillary_vistas.examples(mapillary_vistas.Params())
        assert [tree.names[node] for node in nodes_of(e.truth).ravel()[::4]] == names
        check_tree(e, tree)
        code, formula = check_perfect_scores(e.truth, tree)
        assert formula.nh == 1, "with every class present no class stands alone in its group"
        assert len(code.gt_nodes) == 65 + 7 + 7  # groups such as 'nature', and within them such as 'object--support'
    vistas_config(root / config, [*official[:-1], "marking--discrete--text"])
    with pytest.raises(BadData, match=r"different: marking--discrete--text, void--unlabeled\. Use the labels of version 1\.2"):
        next(mapillary_vistas.examples(mapillary_vistas.Params()))
    (root / config).write_text("[]")
    with pytest.raises(BadData, match="is no configuration of Mapillary Vistas"):
        next(mapillary_vistas.examples(mapillary_vistas.Params()))
    (root / config).unlink()
    with pytest.raises(BadData, match=r"neither config_v1\.2\.json nor config\.json"):
        next(mapillary_vistas.examples(mapillary_vistas.Params()))


def test_mapillary_group_names_are_the_beginnings_of_class_names():
    tree = mapillary_vistas.CLASSES.tree
    for node in range(1, len(tree)):
        expected = tree.names[node].rpartition("--")[0]
        assert tree.names[tree.parent[node]] == (expected or "scene")


def write_potsdam(root: Path, name: str, labels: np.ndarray, suffix: str = "") -> np.ndarray:
    write_picture(root / f"2_Ortho_RGB/top_potsdam_{name}_RGB.tif", *labels.shape)
    write_labels(root / f"5_Labels_all{suffix}/top_potsdam_{name}_label{suffix}.tif", np.array(potsdam.COLOURS, np.uint8)[labels])
    return decode((root / f"2_Ortho_RGB/top_potsdam_{name}_RGB.tif").read_bytes(), name)


def test_potsdam_tiles_cover_every_pixel_once(mirror):
    labels = {name: np.random.default_rng(seed).integers(0, 6, (50, 70)) for seed, name in enumerate(("2_13", "7_13", "2_10"))}
    pixels = {name: write_potsdam(mirror / "potsdam", name, one) for name, one in labels.items()}
    for count in (6, 3):
        params = potsdam.Params(classes=count, tile=32)
        covered = {name: np.zeros((50, 70), int) for name in ("2_13", "7_13")}
        ids = []
        for e in potsdam.examples(params):
            ids.append(e.image_id)
            name, top, left = e.image_id.rsplit("_", 2)
            cut = (slice(int(top), int(top) + 32), slice(int(left), int(left) + 32))
            covered[name][cut] += 1
            assert np.array_equal(decode(e.image, e.image_id), pixels[name][cut])
            known = load_classes(f"potsdam_{count}")
            assert np.array_equal(nodes_of(e.truth), np.vectorize(known.node.get)(labels[name][cut]))
            check_tree(e, potsdam.classes(params).tree)
            check_perfect_scores(e.truth, potsdam.classes(params).tree)
        assert ids == sorted(ids)
        assert len(ids) == 2 * 2 * 3
        assert all((one == 1).all() for one in covered.values())
    assert [e.image_id for e in potsdam.examples(potsdam.Params("train", tile=32, limit=2))] == ["2_10_00000_00000", "2_10_00000_00032"]
    assert len(potsdam.TRAINING) == 24
    assert potsdam.SPEC.counts == {"train": 5400, "test": 3150}, "15 × 15 tiles a photograph"
    (first,) = potsdam.examples(potsdam.Params("train", limit=1))
    (other,) = potsdam.examples(potsdam.Params("train", tile=500, limit=1))
    assert (first.split, other.split) == ("train", "train_500"), "only tiles of the usual size are counted as a split"


def test_potsdam_coarse_classes_are_those_of_invariant_information_clustering():
    six, three = load_classes("potsdam_6"), load_classes("potsdam_3")
    merged = {}
    for label, node in six.node.items():
        merged.setdefault(three.tree.names[three.node[label]], set()).add(six.tree.names[node])
    assert merged == {
        "road and car": {"impervious surfaces", "car"},
        "building and clutter": {"building", "clutter"},
        "vegetation and tree": {"low vegetation", "tree"},
        "border": {"border"},
    }
    official = {"impervious surfaces": (255, 255, 255), "building": (0, 0, 255), "low vegetation": (0, 255, 255)}
    official |= {"tree": (0, 255, 0), "car": (255, 255, 0), "clutter": (255, 0, 0), "border": (0, 0, 0)}
    assert {six.tree.names[node]: potsdam.COLOURS[label] for label, node in six.node.items()} == official


def test_potsdam_colours(mirror):
    root = mirror / "potsdam"
    labels = np.array([[0, 1, 2, 3], [4, 5, 6, 6]]).repeat(8, axis=0)
    write_potsdam(root, "6_14", labels, "_noBoundary")
    (e,) = potsdam.examples(potsdam.Params(labels="all_noBoundary"))
    assert np.array_equal(labels_of(e.truth, load_classes("potsdam_6")), labels)
    with pytest.raises(BadData, match=r"photograph 6_14 has no label image top_potsdam_6_14_label\.tif"):
        next(potsdam.examples(potsdam.Params()))
    path = root / "5_Labels_all/top_potsdam_6_14_label.tif"
    colours = np.array(potsdam.COLOURS, np.uint8)[labels]
    near = colours.copy()
    near[0, 0] = (250, 255, 236)  # a published label image has such colours
    write_labels(path, near)
    (e,) = potsdam.examples(potsdam.Params())
    assert np.array_equal(labels_of(e.truth, load_classes("potsdam_6")), labels)
    for colour in ((255, 0, 255), (255, 128, 0)):
        colours[3, 2] = colour
        write_labels(path, colours)
        with pytest.raises(BadData, match=rf"is coloured \({colour[0]}, {colour[1]}, {colour[2]}\) at row 3, column 2"):
            next(potsdam.examples(potsdam.Params()))


def test_label_files_of_16_bits_are_read_and_other_forms_refused(mirror):
    root = mirror / "ade20k/ADEChallengeData2016"
    write_picture(root / "images/validation/ADE_val_1.jpg", 5, 7)
    path = root / "annotations/validation/ADE_val_1.png"
    labels = np.arange(35).reshape(5, 7)
    write_labels(path, labels.astype(np.uint16))
    (e,) = ade20k.examples(ade20k.Params())
    assert np.array_equal(labels_of(e.truth, ade20k.CLASSES), labels)
    write_labels(path, np.zeros((5, 7, 3), np.uint8))
    with pytest.raises(BadData, match="8-bit RGB"):
        next(ade20k.examples(ade20k.Params()))


@pytest.mark.parametrize("module", [ade20k, camvid, cityscapes, kitti_step, mapillary_vistas, potsdam], ids=lambda m: m.SPEC.name)
def test_without_data_one_sentence_says_what_to_get(module, mirror):
    with pytest.raises(Unavailable, match=rf"has no folder '{module.SPEC.name}'"):
        next(iter(module.examples(module.Params())))
    (mirror / module.SPEC.name).mkdir()
    with pytest.raises(BadData, match="holds n"):
        next(iter(module.examples(module.Params())))
    with pytest.raises(UsageError, match="limit is 0"):
        registry.build_params(module.Params, {"limit": 0}, "x")
    assert module.SPEC.archives
    assert module.SPEC.instructions or all(archive.urls for archive in module.SPEC.archives)
