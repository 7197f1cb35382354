"""`uss score` says what it scores: COCO's protocol as COCOeval has it, whole images, void and background, equal scores, missing images."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from projects import Project
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from score_cases import CAT, DOG, FOUND, HEIGHT, IDS, SKY, TREE, TRUTH, WIDTH, Run, blocks, code, objects, pictures, save_png, table

from uss_dagster.artifacts.mask_readers import open_masks
from uss_dagster.artifacts.tables import RowsWriter, regions_to_table
from uss_dagster.metrics import covering
from uss_dagster.metrics.base import Truth
from uss_dagster.metrics.coco.matches import MAX_DETS, SIZES
from uss_dagster.metrics.covering import tree_covering
from uss_dagster.regions import Regions

# -- an image without predictions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["png", "coco", "parquet"])
def test_an_image_without_regions_counts_in_every_family(score: Run, tmp_path: Path, form: str):
    """Every family that needs no annotators, with labels that mean the same in all images."""
    pictures(tmp_path / "gt", TRUTH)
    (tmp_path / "gt/classes.json").write_text(TREE.to_json())
    regions = {i: Regions.from_label_map(FOUND[i], use_labels=True) for i in IDS[:2]}
    if form == "png":
        pictures(tmp_path / "pred", {i: FOUND[i] for i in IDS[:2]})
    elif form == "parquet":
        table(tmp_path / "pred" / "regions.parquet", regions)
    else:
        images = [{"id": n, "file_name": f"{i}.jpg", "height": HEIGHT, "width": WIDTH} for n, i in enumerate(IDS)]
        annotations: list[Any] = []
        for number, i in enumerate(IDS[:2]):
            annotations += regions[i].to_coco(number, len(annotations) + 1)
        (tmp_path / "pred").with_suffix(".json").write_text(json.dumps({"images": images, "annotations": annotations}))
    words = ["--metrics", "boundary,covering,matching,oracle,proposals,semantic", "--bootstrap", "20"]
    rows, said = score("--pred", "pred.json" if form == "coco" else "pred", "--gt", "gt", *words)
    assert ("counts as predicting nothing" in said) == (form != "coco")
    assert {row["images"] for row in rows.values()} == {3}
    only, _ = score(
        "--pred", "pred.json" if form == "coco" else "pred", "--gt", "gt", *words, *([] if form == "coco" else ["--only-predicted"])
    )
    if form != "coco":
        assert only["nm_covering"]["value"] == pytest.approx(1.5 * rows["nm_covering"]["value"])


def test_only_predicted_says_so(score: Run, here: Project):
    pictures(here.root / "gt", TRUTH)
    pictures(here.root / "pred", {i: FOUND[i] for i in IDS[:2]})
    (here.root / "gt/classes.json").write_text(TREE.to_json())
    rows, said = score("--pred", "pred", "--gt", "gt", "--metrics", "covering,proposals", "--bootstrap", "0", "--only-predicted")
    assert said == ""
    assert all(row["protocol"].endswith(", images with a prediction only") and row["images"] == 2 for row in rows.values())
    notes = json.loads((here.root / "out.json").read_text())["notes"]
    assert notes[0] == "scored: the 2 of 3 images that have a prediction."


# -- COCO ------------------------------------------------------------------------------------------------------------------


def coco_case(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and results with crowds, stated areas, repeated and whole-image results, close and equal scores, and boxes or none."""
    rng = np.random.default_rng(seed)
    whole = np.ones((HEIGHT, WIDTH), bool)
    images = [{"id": int(i), "file_name": f"x{rng.integers(1000)}-{i}.jpg", "height": HEIGHT, "width": WIDTH} for i in (3, 20, 100, 7)]
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in images:
        masks = objects(int(rng.integers(10**6)), int(rng.integers(0, 5))) + [whole] * int(rng.random() < 0.3)
        for mask in masks:
            area = float(rng.choice([mask.sum(), 900, 1024, 5000, 20_000]))
            crowd = int(rng.random() < 0.2)
            facts = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": int(rng.integers(1, 4)), "iscrowd": crowd}
            annotations.append({**facts, "area": area, "segmentation": code(mask), "bbox": [0, 0, 1, 1]})
        others = [*masks, *objects(int(rng.integers(10**6)), 4), whole]
        for place in rng.integers(0, len(others), int(rng.integers(0, 12))).tolist():
            near = others[place].copy()
            near[: int(rng.integers(0, 6))] = False
            near = near if near.any() else whole
            value = float(rng.choice([0.5, 0.5 + 1e-9, 0.5 - 1e-12, rng.random()]))
            repeated = {"image_id": image["id"], "category_id": int(rng.integers(1, 4)), "segmentation": code(near), "score": value}
            results += [repeated] * int(rng.integers(1, 3))
    if seed % 2:
        results = [{**result, "bbox": [0.0, 0.0, float(rng.integers(1, 120)), float(rng.integers(1, 120))]} for result in results]
    categories = [{"id": i, "name": f"c{i}", "supercategory": "z" if i == 1 else "a"} for i in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}, results


def coco_eval(gt: Path, results: Path) -> dict[str, float]:
    """Our names for COCOeval's numbers on two files, with useCats = 0."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(gt))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(MAX_DETS)
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"][:, :, 0], evaluation.eval["recall"][:, 0]
    values = {f"ar{k}": recall[:, 0, m].mean() for m, k in enumerate(MAX_DETS)}
    values |= {"ap": precision[:, :, 0, -1].mean(), "ap50": precision[0, :, 0, -1].mean(), "ap75": precision[5, :, 0, -1].mean()}
    for s, size in enumerate(SIZES[1:], 1):
        values |= {f"ar_{size}": recall[:, s, -1].mean(), f"ap_{size}": precision[:, :, s, -1].mean()}
    return {name: value for name, value in values.items() if value > -1}


@pytest.mark.parametrize("seed", range(24))
def test_any_files_give_what_cocoeval_gives(score: Run, tmp_path: Path, seed: int):
    truth, results = coco_case(seed)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "pred.json").write_text(json.dumps(results))
    rows, _ = score("--pred", "pred.json", "--gt", "gt.json", "--bootstrap", "0")
    expected = coco_eval(tmp_path / "gt.json", tmp_path / "pred.json")
    assert {name: rows[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert rows["ap"]["protocol"] == "COCO, class-agnostic masks"
    distinct, _ = score("--pred", "pred.json", "--gt", "gt.json", "--bootstrap", "0", "--distinct-masks")
    assert distinct["ap"]["protocol"] == "COCO matching, distinct masks"


def test_repeated_and_whole_image_results_cost_precision(score: Run, tmp_path: Path):
    mask, whole = objects(3, 1)[0], np.ones((HEIGHT, WIDTH), bool)
    images = [{"id": 1, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(mask.sum()), "segmentation": code(mask)}
    categories = [{"id": 1, "name": "thing"}]
    (tmp_path / "gt.json").write_text(json.dumps({"images": images, "annotations": [annotation], "categories": categories}))
    results = [
        {"image_id": 1, "category_id": 1, "segmentation": code(m), "score": s}
        for m, s in ((whole, 0.9), (whole, 0.8), (mask, 0.7), (mask, 0.6))
    ]
    (tmp_path / "pred.json").write_text(json.dumps(results))
    words = ["--pred", "pred.json", "--gt", "gt.json", "--bootstrap", "0"]
    assert score(*words)[0]["ap"]["value"] == pytest.approx(1 / 3)
    assert score(*words, "--distinct-masks")[0]["ap"]["value"] == pytest.approx(0.5), "a whole image of a COCO file is no root"


def test_a_missing_score_is_refused(score: Run, tmp_path: Path):
    truth, results = coco_case(2)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    del results[3]["score"]
    (tmp_path / "pred.json").write_text(json.dumps(results))
    said = score("--pred", "pred.json", "--gt", "gt.json", exit_code=65)[1]
    assert "result 3 has no score, by which 'proposals' ranks masks." in said
    words = ["--pred", "pred.json", "--gt", "gt.json", "--truth", "classes", "--metrics", "covering", "--bootstrap", "0"]
    assert score(*words)[0]["nm_covering"]["value"] > 0, "coverings need no scores"


# -- equal scores ------------------------------------------------------------------------------------------------------------


def test_equal_scores_rank_nothing(score: Run, tmp_path: Path):
    pictures(tmp_path / "gt", {i: np.where(TRUTH[i] == CAT, 1, 0) for i in IDS})
    pictures(tmp_path / "pred", FOUND)
    for number, order in enumerate((1, -1)):
        masks = {i: [FOUND[i] == v for v in np.unique(FOUND[i])][::order] for i in IDS}
        table(tmp_path / f"pred{number}.parquet", {i: Regions.from_masks(m) for i, m in masks.items()})
    words = ["--gt", "gt", "--truth", "instances", "--metrics", "proposals", "--bootstrap", "20"]
    first = score("--pred", "pred", *words)[0]
    notes = json.loads((tmp_path / "out.json").read_text())["notes"]
    assert notes[-1] == (
        "proposals: all scores are equal, so ap, ap50, ap75, ap_small, ap_medium, ap_large, ar1, click_max depend on the order of the "
        "masks and are left out."
    )
    assert {"ar1000", "ar100", "ar10", "ar_small", "click_oracle"} <= set(first)
    assert not {"ap", "ap50", "ar1", "click_max"} & set(first)
    assert [score("--pred", f"pred{n}.parquet", *words)[0] for n in (0, 1)] == [first, first]


# -- whole images ------------------------------------------------------------------------------------------------------------


def test_one_class_over_the_whole_image(score: Run, tmp_path: Path):
    """As good as the same with one pixel changed, with and without a class tree, and as an instance."""
    one = {i: np.full((HEIGHT, WIDTH), CAT) for i in IDS}
    nearly = {i: values.copy() for i, values in one.items()}
    for values in nearly.values():
        values[0, 0] = DOG
    pictures(tmp_path / "one", one)
    pictures(tmp_path / "nearly", nearly)
    (tmp_path / "tree.json").write_text(TREE.to_json())
    names = ["nm_covering", "nh_covering", "nm_covering_flat", "miou", "pacc", "boundary_miou", "many_to_one_miou", "ar1000"]
    words = ["--gt", "one", "--metrics", "covering,matching,boundary,semantic,proposals", "--bootstrap", "0"]
    for more in ([], ["--classes", "tree.json"], ["--grid", "12x12"]):
        rows, _ = score("--pred", "one", *words, *more)
        rows = {name.partition("@")[0]: row for name, row in rows.items()}
        assert {name: rows[name]["value"] for name in names} == dict.fromkeys(names, 1.0), more
    rows, _ = score("--pred", "nearly", *words)
    assert rows["nm_covering"]["value"] == pytest.approx(1 - 1 / (HEIGHT * WIDTH))
    for form in ("one", "one.json"):
        masks = [{"image_id": i, "category_id": 1, "segmentation": code(np.ones((HEIGHT, WIDTH), bool)), "score": 0.5} for i in IDS]
        (tmp_path / "one.json").write_text(json.dumps(masks))
        rows, _ = score("--pred", form, "--gt", "one", "--truth", "instances", "--metrics", "proposals", "--bootstrap", "0")
        assert (rows["ar1000"]["value"], rows["click_oracle"]["value"]) == (1, 1)


def test_what_is_a_root():
    shape = (HEIGHT, WIDTH)
    whole, part = np.ones(shape, bool), np.zeros(shape, bool)
    part[:5] = True
    tree = Regions.from_masks([whole, part], [-1, 0])
    assert tree.is_root.tolist() == [True, False]
    assert Regions.from_masks([whole, part], [-1, 0], label=[0, 1]).is_root.tolist() == [True, False]
    assert Regions.from_masks([whole]).is_root.tolist() == [True], "a tree in which nothing was found"
    assert Regions.from_masks([whole], label=[0]).is_root.tolist() == [False]
    assert Regions.from_masks([whole, part], label=[0, 1]).is_root.tolist() == [True, False], "a pool of masks in which one is the image"
    assert Regions.from_masks([whole, whole], [-1, 0]).is_root.tolist() == [True, False]


@pytest.mark.parametrize("seed", range(8))
def test_the_first_node_of_a_tree_that_leaves_pixels_out(seed: int):
    """It is no whole image: one rule for ``measure``, ``tree_covering`` and the definition by masks."""
    rng = np.random.default_rng(seed)
    gt, leaves = blocks(seed, [CAT, DOG, SKY]), rng.integers(-1, 5, (HEIGHT, WIDTH))
    truth = Truth("classes", Regions.from_label_map(gt, use_labels=True), TREE)
    prediction = Regions.from_tree(leaves, [-1, 0, 0, 1, 1])
    nodes = {1: gt <= DOG, CAT: gt == CAT, DOG: gt == DOG, -1: gt == SKY}
    best = [max((t & m).sum() / (t | m).sum() for m in prediction.masks()) for t in nodes.values() if t.any()]
    values = covering.reduce(covering.measure(truth, prediction) or {})
    assert values["nm_covering"] == tree_covering(truth, prediction).nm == pytest.approx(float(np.mean(best)))
    filled = Regions.from_tree(np.where(leaves < 0, 0, leaves), [-1, 0, 0, 1, 1])
    without = [max((t & m).sum() / (t | m).sum() for m in filled.masks()[1:]) for t in nodes.values() if t.any()]
    values = covering.reduce(covering.measure(truth, filled) or {})
    assert values["nm_covering"] == tree_covering(truth, filled).nm == pytest.approx(float(np.mean(without)))


# -- void, background, damaged labels ------------------------------------------------------------------------------------------


def notes_of(folder: Path) -> list[str]:
    return json.loads((folder / "out.json").read_text())["notes"]


@pytest.mark.parametrize(("mode", "void"), [("L", 255), ("P", 255), ("I;16", 65535)])
def test_void_is_no_instance_and_no_class(score: Run, tmp_path: Path, mode: str, void: int):
    edge = {i: np.where(TRUTH[i] == SKY, void, TRUTH[i]) for i in IDS}
    pictures(tmp_path / "gt", edge, mode)
    pictures(tmp_path / "pred", {i: np.where(v == void, 0, v) for i, v in edge.items()})
    for kind, metrics, name in (("instances", "proposals", "ar1000"), ("classes", "covering", "nm_covering_flat")):
        rows, said = score("--pred", "pred", "--gt", "gt", "--truth", kind, "--metrics", metrics, "--bootstrap", "0")
        assert (rows[name]["value"], said) == (1, ""), kind
        assert "void and not counted" in notes_of(tmp_path)[0]
        assert str(void) in notes_of(tmp_path)[0]
    counted, _ = score(
        "--pred", "pred", "--gt", "gt", "--truth", "instances", "--metrics", "proposals", "--bootstrap", "0", "--void", "none"
    )
    assert counted["ar1000"]["value"] == 1, "the void is predicted as 0, which is a region"
    assert notes_of(tmp_path)[0].startswith("labels of gt: no value is void; 0 is background; every other value is an instance.")


def test_unlabelled_pixels_of_predictions(score: Run, tmp_path: Path):
    """255 in a prediction is no region: it changes no proposal, and no cluster."""
    truth = {i: np.where(TRUTH[i] == SKY, 0, TRUTH[i]) for i in IDS}
    pictures(tmp_path / "gt", truth)
    pictures(tmp_path / "pred", {i: np.where(v == 0, 255, v) for i, v in truth.items()})
    words = ["--pred", "pred", "--gt", "gt", "--truth", "instances", "--metrics", "proposals", "--bootstrap", "0"]
    rows, _ = score(*words)
    assert "labels of pred: 255 is no region; every other value is one." in notes_of(tmp_path)
    counted, _ = score(*words, "--pred-void", "none")
    assert counted["ar1000"] == rows["ar1000"]
    assert "labels of pred: every value is a region." in notes_of(tmp_path)
    words = ["--pred", "pred", "--gt", "gt", "--metrics", "semantic", "--background", "0", "--bootstrap", "0"]
    rows, said = score(*words)
    assert said == ""
    assert "0 is background" in notes_of(tmp_path)[0]
    assert rows["background_iou"]["value"] == rows["foreground_iou"]["value"] == 1
    assert rows["comus_majority_miou"]["value"] == 1


def test_labels_that_contradict_the_rule(score: Run, tmp_path: Path):
    zero = {i: np.where(TRUTH[i] == SKY, 0, TRUTH[i]) for i in IDS}
    binary = {i: np.where(TRUTH[i] == CAT, 255, 0) for i in IDS}
    many = {i: np.where(TRUTH[i] == CAT, 255, 254) for i in IDS}
    mostly = {i: np.where(TRUTH[i] == CAT, 7, 255) for i in IDS}
    wide = {i: np.where(TRUTH[i] == CAT, 255, 300) for i in IDS}
    for name, maps in (("zero", zero), ("binary", binary), ("many", many), ("mostly", mostly)):
        pictures(tmp_path / name, maps)
    pictures(tmp_path / "wide", wide, "I;16")
    words = ["--bootstrap", "0", "--metrics"]
    said = score("--pred", "zero", "--gt", "zero", *words, "covering")[1]
    assert said == "warning: 0 counts as a class in zero. If it is the background, pass --background 0; if it means unlabelled, --void 0.\n"
    for words_of_zero in (["--background", "0"], ["--void", "0,255"]):
        assert score("--pred", "zero", "--gt", "zero", *words, "covering", *words_of_zero)[1] == ""
    said = score("--pred", "binary", "--gt", "many", *words, "covering")[1]
    assert "3 pictures of many hold 254 as well as 255, which is void. If 255 is a label, pass --void none." in said
    assert "3 label pictures of binary hold no value but 0 and 255, of which 255 was taken as no region." in said
    assert score("--pred", "binary", "--gt", "many", *words, "covering", "--void", "none", "--pred-void", "none")[1] == ""
    assert " % of the pixels of mostly are void." in score("--pred", "zero", "--gt", "mostly", *words, "covering")[1]
    said = score("--pred", "zero", "--gt", "wide", *words, "proposals", "--truth", "instances")[1]
    assert "3 16-bit pictures of wide have an instance 255 and none 254. If 255 is void, pass --void 255." in said
    score("--pred", "zero", "--gt", "wide", *words, "covering")
    assert notes_of(tmp_path)[0] == "labels of wide: 65535 is void and not counted; every other value is a class."


def test_a_class_tree_that_names_255(score: Run, tmp_path: Path):
    rows = [
        {"id": 0, "name": "scene", "parent": -1, "kind": "inner"},
        {"id": 1, "name": "a", "parent": 0, "kind": "foreground", "value": 255},
    ]
    rows.append({"id": 2, "name": "b", "parent": 0, "kind": "background", "value": 0})
    (tmp_path / "tree.json").write_text(json.dumps({"classes": rows}))
    maps = {i: np.where(TRUTH[i] == CAT, 255, 0) for i in IDS}
    pictures(tmp_path / "gt", maps)
    pictures(tmp_path / "pred", {i: v // 255 for i, v in maps.items()})
    found, said = score("--pred", "pred", "--gt", "gt", "--classes", "tree.json", "--metrics", "covering", "--bootstrap", "0")
    assert (found["nm_covering"]["value"], said) == (1, "")
    assert notes_of(tmp_path)[0] == "labels of gt: no value is void; the class tree names the classes."
    words = ["--pred", "pred", "--gt", "gt", "--classes", "tree.json", "--background", "0"]
    assert "the class tree tree.json says what is background. Leave it out." in score(*words, exit_code=64)[1]
    assert (
        "--void x: whole numbers separated by commas are expected, or 'none'."
        in score("--pred", "p", "--gt", "g", "--void", "x", exit_code=64)[1]
    )


def test_labels_that_went_through_a_jpeg_or_a_resizing(score: Run, tmp_path: Path):
    sharp = {i: np.kron(TRUTH[i], np.ones((5, 5), np.int64)) * 30 for i in IDS}
    pictures(tmp_path / "sharp", sharp)
    for image_id, values in sharp.items():
        picture = Image.fromarray(values.astype(np.uint8))
        picture.save(tmp_path / "x.jpg", quality=80)
        save_png(tmp_path / "jpeg" / f"{image_id}.png", np.asarray(Image.open(tmp_path / "x.jpg")))
        resized = picture.resize((3 * WIDTH, 3 * HEIGHT), Image.Resampling.BILINEAR)
        save_png(tmp_path / "bilinear" / f"{image_id}.png", np.asarray(resized))
    for name in ("jpeg", "bilinear"):
        for words in (["--gt", name, "--pred", name], ["--gt", name, "--pred", name, "--truth", "instances"]):
            said = score(*words, "--bootstrap", "0", "--metrics", "proposals")[1]
            assert f"3 label pictures of {name} hold mostly values that fill no square of 3 × 3 pixels" in said
    assert "fill no square" not in score("--gt", "sharp", "--pred", "sharp", "--bootstrap", "0", "--metrics", "proposals")[1]


def test_polygons_in_relative_units(score: Run, tmp_path: Path):
    truth, _ = coco_case(4)
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    ring = [0.1, 0.1, 0.6, 0.1, 0.6, 0.9]
    results = [{"image_id": 3, "category_id": 1, "segmentation": [ring], "score": 0.5}]
    (tmp_path / "pred.json").write_text(json.dumps(results))
    said = score("--pred", "pred.json", "--gt", "gt.json", "--bootstrap", "0")[1]
    assert "pred.json: 1 of 1 polygons lie between 0 and 1 in both directions, so in one pixel." in said


# -- cost ------------------------------------------------------------------------------------------------------------------------


def test_a_table_in_any_order_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [f"image{n}" for n in np.random.default_rng(0).permutation(60)]
    writer = RowsWriter(tmp_path / "pred.parquet", group_rows=16)
    for name in names:
        writer.add(regions_to_table(name, Regions.from_label_map(FOUND["a"])))
    writer.close()
    masks = open_masks(tmp_path / "pred.parquet")
    read: list[int] = []
    read_row_group = pq.ParquetFile.read_row_group

    def counted(file: pq.ParquetFile, group: int, *words: Any, **options: Any) -> Any:
        read.append(group)
        return read_row_group(file, group, *words, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    for image_id in masks.ids:
        assert len(masks.regions(image_id)) == len(np.unique(FOUND["a"]))
    assert sorted(read) == list(range(15)), "each row group once"


# -- which image is which ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["png", "text ids"])
def test_predictions_named_by_the_numbers_of_the_ground_truth(score: Run, tmp_path: Path, form: str):
    """The numbers are those in 'images', though the file names hold other numbers."""
    masks = {i: objects(n, 2) for n, i in enumerate((11, 22, 33))}
    images = [
        {"id": i, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH} for i, n in zip(masks, ("0044", "0055", "0066"), strict=True)
    ]
    annotations = [
        {"id": 10 * i + n, "image_id": i, "category_id": 1, "iscrowd": 0, "area": int(m.sum()), "segmentation": code(m)}
        for i, own in masks.items()
        for n, m in enumerate(own[-1:])
    ]
    (tmp_path / "gt.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}))
    if form == "png":
        pictures(tmp_path / "pred", {str(i): own[-1].astype(int) for i, own in masks.items()})
    else:
        results = [{"image_id": str(i), "category_id": 1, "segmentation": code(own[-1]), "score": 0.5} for i, own in masks.items()]
        (tmp_path / "pred.json").write_text(json.dumps(results))
    rows, said = score("--pred", "pred" if form == "png" else "pred.json", "--gt", "gt.json", "--bootstrap", "0", "--metrics", "proposals")
    assert (rows["ar1000"]["value"], rows["ar1000"]["images"], said) == (1, 3, "")
