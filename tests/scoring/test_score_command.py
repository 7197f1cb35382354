"""`uss score`: masks made elsewhere in, the numbers of the metrics out; whatever is wrong with them is one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from projects import Project
from references import bsds_of_maps, cluster_table, hierarchical_covering, proposal_ar_ap
from score_cases import (
    CAT,
    FOUND,
    HEIGHT,
    IDS,
    TREE,
    TRUTH,
    VOID,
    WIDTH,
    Run,
    annotators,
    blocks,
    coco_results,
    coco_truth,
    code,
    objects,
    pictures,
    save_png,
    table,
)

from uss_dagster.artifacts.mask_readers import open_masks
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import write_table
from uss_dagster.metrics import covering
from uss_dagster.metrics.base import Truth, accumulator
from uss_dagster.metrics.covering import tree_covering
from uss_dagster.metrics.semantic import hungarian
from uss_dagster.regions import ClassTree, Regions
from uss_dagster.scoring.ground_truth import read_truth
from uss_dagster.scoring.intervals import interval
from uss_dagster.scoring.masks import SUFFIXES, score_masks, write_result


def expected_covering() -> tuple[float, float]:
    """Mean NMCovering and NHCovering of ``FOUND`` over the images, from label maps."""
    results = []
    for image_id in IDS:
        values, leaf = np.unique(FOUND[image_id], return_inverse=True)
        results.append(hierarchical_covering(TRUTH[image_id], TREE, leaf.reshape(HEIGHT, WIDTH) + 1, [0] * (len(values) + 1)))
    return float(np.mean([r.nm for r in results])), float(np.mean([r.nh for r in results]))


# -- every form of masks, by the program itself ---------------------------------------------------------------------------


def test_label_pictures_against_label_pictures(here: Project):
    pictures(here.root / "pred", FOUND)
    pictures(here.root / "gt", TRUTH, "P")
    (here.root / "gt" / "classes.json").write_text(TREE.to_json())
    words = ["--pred", "pred", "--gt", "gt", "--metrics", "covering,semantic", "--bootstrap", "40", "--grid", "full", "--grid", "12x12"]
    done = here.uss("score", *words, "--out", "out/scores.parquet")
    assert done.stderr == ""
    frame = pd.read_parquet(here.root / "out/scores.parquet")
    full = frame[frame["grid"] == "full"].set_index("metric")
    nm, nh = expected_covering()
    assert full.loc["nm_covering", "value"] == pytest.approx(nm, abs=1e-12)
    assert full.loc["nh_covering", "value"] == pytest.approx(nh, abs=1e-12)
    clusters, labels = np.stack([FOUND[i] - 1 for i in IDS]), np.stack([np.where(TRUTH[i] == VOID, 255, TRUTH[i] - CAT) for i in IDS])
    expected = hungarian(*cluster_table(clusters, labels, (5, 3)))
    assert full.loc["hungarian_miou", "value"] == pytest.approx(expected.miou, abs=1e-12)
    assert full.loc["hungarian_miou", "scope"] == "dataset"
    # The interval is that of the metric's own replicates.
    direct = accumulator(covering, 40)
    for image_id in IDS:
        truth = np.where(TRUTH[image_id] == VOID, -1, TRUTH[image_id])
        direct.update(
            image_id,
            Truth("classes", Regions.from_label_map(truth, ignore=-1, use_labels=True), TREE),
            Regions.from_label_map(FOUND[image_id]),
        )
    low, high = interval(nm, np.array([r["nm_covering"] for r in direct.replicate_results()]), 3)
    assert (full.loc["nm_covering", "low"], full.loc["nm_covering", "high"]) == pytest.approx((low, high), abs=1e-12)
    assert (frame["images"] == 3).all()
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["metric", "protocol", "scope", "grid", "value", "95", "%", "interval", "images"]
    assert lines[-2:] == [
        "labels of gt: 255 is void and not counted; the class tree names the classes.",
        "labels of pred: 255 is no region; every other value is one.",
    ]
    assert len({line.rindex("  3") for line in lines[1:-2]}) == 1, "columns are aligned"
    row = next(line for line in lines if line.startswith("nm_covering ") and " full " in line)
    assert f"{nm:.4f}  {low:.4f} … {high:.4f}" in row
    assert any(" 12x12 " in line for line in lines)


def test_coco_results_against_coco_instances(here: Project):
    truth, results = coco_truth(here.root / "gt.json"), coco_results(here.root / "pred.json")
    done = here.uss("score", "--pred", "pred.json", "--gt", "gt.json", "--metrics", "proposals", "--bootstrap", "0", "-o", "s.csv")
    assert done.stderr == ""
    rows = pd.read_csv(here.root / "s.csv").set_index("metric")
    for name, value in proposal_ar_ap(truth, results).items():
        if value >= 0:
            assert rows.loc[name, "value"] == pytest.approx(value, abs=1e-8), name
    assert rows["low"].isna().all()
    assert {"ap", "ar1000", "click_max"} <= set(rows.index)


def test_bsds_annotators(here: Project):
    drawn = {image_id: [blocks(50 + i, [1, 2, 3]), blocks(60 + i, [1, 2], 12)] for i, image_id in enumerate(IDS)}
    annotators(here.root / "gt", drawn)
    pictures(here.root / "pred", FOUND)
    here.uss("score", "--pred", "pred", "--gt", "gt", "--bootstrap", "0", "-o", "s.json")
    rows = {r["metric"]: r for r in json.loads((here.root / "s.json").read_text())["scores"]}
    scores = [bsds_of_maps([FOUND[i]], drawn[i]) for i in IDS]
    assert rows["bsds_covering_ods"]["value"] == pytest.approx(sum(s.cnt[0] for s in scores) / sum(s.sum[0] for s in scores), abs=1e-12)
    assert rows["bsds_voi_ods"]["value"] == pytest.approx(np.mean([s.voi[0] for s in scores]), abs=1e-12)
    assert "nm_covering_annotators" in rows
    assert rows["bsds_voi_ods"]["low"] is None


@pytest.mark.slow
def test_what_the_project_scored(finished: Project, here: Project):
    """Our own segments against our own dataset: the numbers of the scores stage, to the last bit but the order of sums."""
    data = finished.root / "data"
    here.uss(
        "score",
        "--pred",
        str(data / "segments/kmeans/scenes"),
        "--gt",
        str(data / "datasets/scenes"),
        "--bootstrap",
        "20",
        "-o",
        "s.parquet",
    )
    ours = pd.read_parquet(here.root / "s.parquet").set_index("metric")
    stage = pd.read_parquet(data / "scores/kmeans/scenes/scores.parquet")
    stage = stage[stage["image_id"].isna()].set_index("metric")
    assert set(stage.index) <= set(ours.index)
    for name, row in stage.iterrows():
        assert ours.loc[name, "value"] == pytest.approx(row["value"], abs=1e-12)
        assert ours.loc[name, "images"] == row["n"]
    for gt in ("truth", "truth/regions.parquet"):
        here.uss(
            "score",
            "--pred",
            str(data / "segments/kmeans/scenes"),
            "--gt",
            str(data / "datasets/scenes" / gt),
            "--bootstrap",
            "20",
            "-o",
            "t.parquet",
        )
        assert (here.root / "t.parquet").read_bytes() == (here.root / "s.parquet").read_bytes()


# -- the forms of one thing say the same ------------------------------------------------------------------------------------


def test_a_table_a_coco_file_and_pictures_of_the_same_masks(score: Run, tmp_path: Path):
    pictures(tmp_path / "gt", TRUTH)
    (tmp_path / "tree.json").write_text(TREE.to_json())
    regions = {image_id: Regions.from_label_map(values, use_labels=True) for image_id, values in FOUND.items()}
    table(tmp_path / "regions.parquet", regions)
    for number, image_id in enumerate(IDS):
        table(tmp_path / "shards" / f"shard-{number:05d}.parquet", {image_id: regions[image_id]})
    pictures(tmp_path / "png", FOUND)
    pictures(tmp_path / "deep" / "city", FOUND, "I;16")
    data = {"images": [], "annotations": []}
    for number, image_id in enumerate(IDS):
        data["images"].append({"id": 100 + number, "file_name": f"x/{image_id}.jpg"})
        data["annotations"] += regions[image_id].to_coco(100 + number, len(data["annotations"]) + 1)
    (tmp_path / "coco.json").write_text(json.dumps(data))
    common = ["--gt", "gt", "--classes", "tree.json", "--metrics", "covering,semantic,proposals", "--bootstrap", "30"]
    first, said = score("--pred", "regions.parquet", *common)
    assert said == ""
    assert first["nm_covering"]["value"] == pytest.approx(expected_covering()[0], abs=1e-12)
    for pred in ("shards", "png", "deep", "coco.json"):
        assert score("--pred", pred, *common) == (first, ""), pred


def test_a_hierarchy_survives_coco(score: Run, tmp_path: Path):
    pictures(tmp_path / "gt", TRUTH)
    (tmp_path / "gt/classes.json").write_text(TREE.to_json())
    leaf, parent = {}, [-1, 0, 0, 1, 1, 2, 2]
    data = {"images": [], "annotations": []}
    for number, image_id in enumerate(IDS):
        leaf[image_id] = blocks(30 + number, [3, 4, 5, 6])
        tree = Regions.from_tree(leaf[image_id], parent)
        data["images"].append({"id": number, "file_name": f"{image_id}.jpg"})
        data["annotations"] += tree.to_coco(number, len(data["annotations"]) + 1)
    data["annotations"].reverse()  # children come first now
    (tmp_path / "pred.json").write_text(json.dumps(data))
    rows, _ = score("--pred", "pred.json", "--gt", "gt", "--metrics", "covering", "--bootstrap", "0")
    direct = [hierarchical_covering(TRUTH[i], TREE, leaf[i], [0, *parent[1:]]) for i in IDS]
    assert rows["nm_covering"]["value"] == pytest.approx(np.mean([r.nm for r in direct]), abs=1e-12)
    assert rows["nh_covering_formula"]["value"] < rows["nh_covering"]["value"] < rows["nm_covering"]["value"]


def test_polygons(score: Run, tmp_path: Path):
    data = coco_truth(tmp_path / "gt.json")
    box = [2, 3, 20, 3, 20, 15, 2, 15]
    square = np.zeros((HEIGHT, WIDTH), bool)
    square[3:15, 2:20] = True
    for annotation in data["annotations"]:
        annotation["segmentation"] = code(square)
    (tmp_path / "gt.json").write_text(json.dumps(data))
    results = [{"image_id": i, "category_id": 1, "segmentation": [box], "score": 1.0} for i in (7, 8, 9)]
    (tmp_path / "pred.json").write_text(json.dumps(results))
    rows, _ = score("--pred", "pred.json", "--gt", "gt.json", "--bootstrap", "0")
    assert rows["ar1"]["value"] == pytest.approx(1 / 4), "one of four equal objects in each image; the fifth is a crowd"


def test_names_and_numbers(score: Run, tmp_path: Path):
    """COCO knows 000000000139.jpg as 139; a list of results knows only the number."""
    masks = objects(1, 3)
    images = [
        {"id": 139, "file_name": "000000000139.jpg", "height": HEIGHT, "width": WIDTH},
        {"id": 7, "file_name": "000000000285.jpg", "height": HEIGHT, "width": WIDTH},
    ]
    annotations = [{"id": i + 1, "image_id": 139, "category_id": 1, "segmentation": code(m)} for i, m in enumerate(masks)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images[:1], "annotations": annotations}))
    results = [{"image_id": 139, "segmentation": code(m), "score": 0.5} for m in masks]
    (tmp_path / "results.json").write_text(json.dumps(results))
    label = sum((i + 1) * (m & ~sum(masks[i + 1 :], np.zeros_like(m))) for i, m in enumerate(masks))
    save_png(tmp_path / "png" / "000000000139.png", label)
    everything, said = score("--pred", "results.json", "--gt", "coco.json", "--bootstrap", "0")
    assert said == ""
    assert everything["ar1000"]["value"] == 1
    for pred, gt, kind in (("png", "results.json", "instances"), ("results.json", "png", "instances"), ("png", "coco.json", "instances")):
        rows, said = score("--pred", pred, "--gt", gt, "--truth", kind, "--bootstrap", "0", "--metrics", "proposals")
        assert rows["ar1000"]["images"] == 1
        assert said == ""
    # Where both have names, numbers do not count: 285.jpg is number 7 there, and 139 here.
    other = {"images": [{**images[1], "id": 139}], "annotations": annotations}
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert "None of the 1 images of other.json ('000000000285')" in score("--pred", "other.json", "--gt", "coco.json", exit_code=65)[1]


# -- ground truth -----------------------------------------------------------------------------------------------------------


def test_without_a_class_tree_every_value_is_a_class(score: Run, tmp_path: Path):
    values = {i: np.where(v == VOID, 255, v * 40) for i, v in TRUTH.items()}
    pictures(tmp_path / "gt", values)
    pictures(tmp_path / "pred", FOUND)
    rows, said = score("--pred", "pred", "--gt", "gt", "--metrics", "covering", "--bootstrap", "0")
    assert said == ""
    flat = ClassTree.from_nested({"x": "foreground", "y": "foreground", "z": "foreground"})
    direct = []
    for i in IDS:
        truth = np.where(TRUTH[i] == VOID, -1, TRUTH[i] - 1)
        found = Truth("classes", Regions.from_label_map(truth, ignore=-1, use_labels=True), flat)
        direct.append(tree_covering(found, Regions.from_label_map(FOUND[i])).nm)
    assert rows["nm_covering"]["value"] == pytest.approx(np.mean(direct), abs=1e-12)
    everything, _ = score("--pred", "pred", "--gt", "gt", "--metrics", "covering", "--bootstrap", "0", "--ignore", "80")
    assert everything["nm_covering"]["value"] != rows["nm_covering"]["value"]


def test_a_class_tree_may_name_other_values(score: Run, tmp_path: Path):
    """Files know a class by its 'value', COCO by its name; what no class has is counted and ignored."""
    rows = json.loads(TREE.to_json())["classes"]
    for row in rows:
        if row["kind"] != "inner":
            row["value"] = 7 * row["id"]
    (tmp_path / "tree.json").write_text(json.dumps({"classes": rows}))
    strange = {i: np.where(v == VOID, 200, v * 7) for i, v in TRUTH.items()}
    pictures(tmp_path / "gt", strange)
    pictures(tmp_path / "pred", FOUND)
    found, said = score("--pred", "pred", "--gt", "gt", "--classes", "tree.json", "--metrics", "covering", "--bootstrap", "0")
    pixels = sum(int((v == VOID).sum()) for v in TRUTH.values())
    assert said == f"warning: {pixels} pixels in 3 images have a label that is no class (200) and are ignored.\n"
    assert found["nm_covering"]["value"] == pytest.approx(expected_covering()[0], abs=1e-12), "ignored as the class of kind ignore is"
    coco_truth(tmp_path / "gt.json")
    coco_results(tmp_path / "pred.json")
    (tmp_path / "cats.json").write_text(ClassTree.from_nested({"cat": "foreground"}).to_json())
    words = ["--pred", "pred.json", "--gt", "gt.json", "--truth", "classes", "--metrics", "covering", "--bootstrap", "0"]
    found, said = score(*words, "--classes", "cats.json")
    assert said == "warning: 6 regions in 3 images have a label that is no class (2) and are ignored.\n"
    assert found["nm_covering"]["images"] == 3
    assert score(*words)[1] == "", "without --classes the categories are the classes"


def test_a_table_as_ground_truth(score: Run, tmp_path: Path):
    truths = {i: Regions.from_label_map(np.where(v == VOID, -1, v), ignore=-1, use_labels=True) for i, v in TRUTH.items()}
    table(tmp_path / "gt/regions.parquet", truths)
    pictures(tmp_path / "pred", FOUND)
    words = ["--pred", "pred", "--gt", "gt/regions.parquet", "--metrics", "covering", "--bootstrap", "0"]
    assert "What gt/regions.parquet is cannot be told: say --truth annotators" in score(*words, exit_code=64)[1]
    (tmp_path / "gt/classes.json").write_text(TREE.to_json())
    assert score(*words)[0]["nm_covering"]["value"] == pytest.approx(expected_covering()[0], abs=1e-12)
    assert "nm_covering_annotators" in score(*words, "--truth", "annotators")[0]


def test_images_on_one_side_only(score: Run, tmp_path: Path):
    pictures(tmp_path / "gt", TRUTH)
    (tmp_path / "gt/classes.json").write_text(TREE.to_json())
    pictures(tmp_path / "pred", {"b": FOUND["b"], "y": FOUND["a"], "z": FOUND["a"]})
    rows, said = score("--pred", "pred", "--gt", "gt", "--bootstrap", "0")
    assert said.splitlines() == [
        "warning: 2 of 3 images have no prediction, which counts as predicting nothing: a, c",
        "warning: left out, for want of ground truth: 2 of 3 predicted images: y, z",
    ]
    values, leaf = np.unique(FOUND["b"], return_inverse=True)
    alone = hierarchical_covering(TRUTH["b"], TREE, leaf.reshape(HEIGHT, WIDTH) + 1, [0] * (len(values) + 1))
    assert rows["nm_covering"]["value"] == pytest.approx(alone.nm / 3, abs=1e-12)
    assert not any(row["scope"] == "dataset" for row in rows.values()), "values of pictures are cluster ids only where that is said"


def test_images_without_a_score_are_named(here: Project, score: Run):
    maps = {**TRUTH, **{f"void{i}": np.full((HEIGHT, WIDTH), VOID) for i in range(7)}}
    pictures(here.root / "gt", maps)
    pictures(here.root / "pred", dict.fromkeys(maps, FOUND["a"]))
    (here.root / "tree.json").write_text(TREE.to_json())
    done = here.uss("score", "--pred", "pred", "--gt", "gt", "--classes", "tree.json", "--metrics", "covering", "-o", "s.md")
    assert done.stdout.splitlines()[-1] == "covering: 7 of 10 images have no score: void0, void1, void2, void3, void4, …"
    text = (here.root / "s.md").read_text()
    assert text.startswith("| Metric | Protocol |")
    assert "| nm_covering | hierarchical | image | full | 0." in text
    pictures(here.root / "only", {"void0": maps["void0"]})
    words = ["--pred", "pred", "--gt", "only", "--classes", "tree.json", "--metrics", "covering"]
    assert "None of the 1 images has a score with covering" in score(*words, exit_code=65)[1]


def test_the_same_bytes_again(tmp_path: Path):
    pictures(tmp_path / "gt", TRUTH)
    truth, families = read_truth(tmp_path / "gt"), ["covering", "proposals"]
    pictures(tmp_path / "pred", FOUND)
    for name in ("one", "two"):
        result = score_masks(open_masks(tmp_path / "pred"), truth, families, ["full"], 5, print)
        for suffix in SUFFIXES:
            write_result(result, tmp_path / f"{name}{suffix}")
    for suffix in SUFFIXES:
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
    read = [pd.read_csv(tmp_path / "one.csv"), pd.read_parquet(tmp_path / "one.parquet")]
    pd.testing.assert_frame_equal(*read, rtol=1e-8, check_dtype=False)


# -- whatever is wrong is one sentence ------------------------------------------------------------------------------------


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """pred.parquet, pred.json, gt.json and gt/ (label pictures with their tree), which fit each other."""
    pictures(tmp_path / "gt", TRUTH)
    (tmp_path / "gt/classes.json").write_text(TREE.to_json())
    table(tmp_path / "pred.parquet", {i: Regions.from_label_map(v) for i, v in FOUND.items()})
    coco_truth(tmp_path / "gt.json")
    coco_results(tmp_path / "pred.json")
    return tmp_path


def change_rows(folder: Path, **columns: Any) -> None:
    """Set cells of region 1 of image b."""
    rows = pq.read_table(folder / "pred.parquet").to_pylist()
    chosen = next(r for r in rows if (r["image_id"], r["region"]) == ("b", 1))
    chosen.update(columns)
    write_table(folder / "pred.parquet", pa.Table.from_pylist(rows, schema=REGIONS), REGIONS)


def change_result(folder: Path, **keys: Any) -> None:
    """Set keys of the third result, which is of image b's number where nothing else is said."""
    results = json.loads((folder / "pred.json").read_text())
    results[12].update(keys)
    (folder / "pred.json").write_text(json.dumps(results))


def whole_file(folder: Path, **keys: Any) -> None:
    """pred.json as a dataset with ids and images; ``keys`` change the annotation with id 13."""
    annotations = [{**r, "id": i + 1} for i, r in enumerate(json.loads((folder / "pred.json").read_text()))]
    annotations[12].update(keys)
    images = json.loads((folder / "gt.json").read_text())["images"]
    (folder / "pred.json").write_text(json.dumps({"images": images, "annotations": annotations}))


def change_image(folder: Path, **keys: Any) -> None:
    """Set keys of the first image of the ground truth."""
    data = json.loads((folder / "gt.json").read_text())
    data["images"][0].update(keys)
    (folder / "gt.json").write_text(json.dumps(data))


def _first_box(folder: Path) -> None:
    results = json.loads((folder / "pred.json").read_text())
    results[0]["bbox"] = [1, 2]
    (folder / "pred.json").write_text(json.dumps(results))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def twice(folder: Path) -> None:
    shutil.copytree(folder / "gt", folder / "gt" / "again")


TABLE_WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "NaN score": (lambda f: change_rows(f, score=float("nan")), "Image 'b', region 1: its score is nan; a number is expected."),
    "parent cycle": (lambda f: change_rows(f, parent=2), "Image b, region 1: parent is 2, expected -1 or a smaller number than its own."),
    "twice": (lambda f: change_rows(f, region=0), "image 'b', region 0 stands twice."),
    "outside": (
        lambda f: change_rows(f, rle=code(np.ones((30, 40), bool))["counts"].encode()),
        "Image b, region 1: its code covers 1200 pixels",
    ),
    "not a code": (lambda f: change_rows(f, rle=b"\xff"), "Image b, region 1: A run-length code holds bytes"),
    "outside its parent": (lambda f: change_rows(f, parent=0, depth=1), "lie outside its parent 0."),
    "cut": (lambda f: cut(f / "pred.parquet"), "pred.parquet cannot be read as Parquet"),
    "no rows": (
        lambda f: write_table(f / "pred.parquet", REGIONS.empty_table(), REGIONS),
        "None of the 0 images of pred.parquet (it has none)",
    ),
    "other columns": (lambda f: pq.write_table(pa.table({"a": [1]}), f / "pred.parquet"), "pred.parquet has columns ['a'], expected"),
    "other size": (
        lambda f: table(f / "pred.parquet", {i: Regions.from_label_map(v[:, :30]) for i, v in FOUND.items()}),
        "Image 'a': ground truth is (24, 36), its regions are (24, 30) (height, width).",
    ),
    "other images": (
        lambda f: table(f / "pred.parquet", {"x": Regions.from_label_map(FOUND["a"])}),
        "None of the 1 images of pred.parquet ('x') is in gt ('a', 'b', 'c'). Images are matched by file name",
    ),
}

COCO_WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "NaN score": (lambda f: change_result(f, score=float("nan")), "image '8', result 12: its score is nan; a number is expected."),
    "no score": (lambda f: change_result(f, score=None), "image '8', result 12: its score is None"),
    "no mask": (lambda f: change_result(f, segmentation=None), "image '8', result 12: a polygon is a list"),
    "strange image": (lambda f: whole_file(f, image_id=99), "annotation 13 is of image 99, which is not among its 'images'."),
    "other size": (
        lambda f: change_result(f, segmentation=code(np.ones((30, 40), bool))),
        "image '8', result 12: its mask is 30×40, the image is 24×36 (height×width).",
    ),
    "short code": (
        lambda f: change_result(f, segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
        "image '8', result 12: A run-length code covers 10 pixels, its image has 24×36 = 864.",
    ),
    "huge size": (
        lambda f: change_result(f, segmentation={"size": [10**9, 10**9], "counts": [0, 10**18]}),
        "image '8', result 12: its run-length code is 1000000000×1000000000 (height×width), more than 178,956,970 pixels. Scale it down",
    ),
    "negative size": (
        lambda f: change_result(f, segmentation={"size": [-HEIGHT, -WIDTH], "counts": [864]}),
        f"result 12: its run-length code has the size [-{HEIGHT}, -{WIDTH}]; height and width are whole numbers above 0.",
    ),
    "NaN size": (lambda f: change_result(f, segmentation={"size": [float("nan"), WIDTH], "counts": [864]}), "has the size [nan, 36];"),
    "runs beyond 64 bits": (
        lambda f: change_result(f, segmentation={"size": [HEIGHT, WIDTH], "counts": [2**63, 2**64]}),
        f"result 12: A run-length code covers {2**63 + 2**64} pixels",
    ),
    "runs that overflow in C": (
        lambda f: change_result(f, segmentation={"size": [HEIGHT, WIDTH], "counts": "o" * 20 + "0"}),
        "result 12: A run-length code holds a run of more than 536,870,912 pixels.",
    ),
    "id of an annotation": (lambda f: change_result(f, category_id=[1]), "result 12: its category_id is [1]; a number is expected."),
    "great score": (lambda f: change_result(f, score=10**400), "result 12: its score is 1000"),
    "bbox": (_first_box, "result 0: its bbox is [1, 2]; x, y, width and height are expected."),
    "deep": (lambda f: (f / "pred.json").write_text("[" * 100_000), "pred.json is nested too deeply to be read."),
    "no text": (lambda f: change_result(f, image_id="\ud800"), r"the name of image '\ud800' is not text in UTF-8. Rename it."),
    "image size": (
        lambda f: change_image(f, height=10**9, width=10**9),
        "gt.json: image 'a' is 1000000000×1000000000 (height×width), more",
    ),
    "image height": (lambda f: change_image(f, height=float("nan")), "gt.json: image 'a' has the size (nan, 36);"),
    "id of an image": (lambda f: change_image(f, id=[7]), "an entry of 'images' has the id [7]; a whole number or a name is expected."),
    "negative run": (
        lambda f: change_result(f, segmentation={"size": [HEIGHT, WIDTH], "counts": [870, -6]}),
        "image '8', result 12: its run-length code needs 'size' [height, width] and 'counts'",
    ),
    "outside": (
        lambda f: change_result(f, segmentation=[[0, 0, 10, 0, 50, 10]]),
        "image '8', result 12: its polygon reaches x=50, y=10, outside the image of 36×24 pixels (width×height).",
    ),
    "two points": (
        lambda f: change_result(f, segmentation=[[0, 0, 10, 0]]),
        "result 12: a polygon is a list x1, y1, x2, y2, … of at least 3 points",
    ),
    "parent cycle": (
        lambda f: whole_file(f, parent=13),
        "image 'b', annotation 13 lies below itself: following 'parent' leads in a circle.",
    ),
    "no parent": (lambda f: whole_file(f, parent=1), "image 'b', annotation 13 has parent 1, which is no annotation of this image."),
    "twice": (lambda f: whole_file(f, id=12), "image '8', annotation 12 stands twice; ids of annotations are unique."),
    "image id": (lambda f: change_result(f, image_id=[1]), "result 12 has image_id [1]; a whole number or a name is expected."),
    "class": (lambda f: change_result(f, category_id="cat"), "image '8', result 12: its category_id is 'cat'; a number is expected."),
    "cut": (lambda f: cut(f / "pred.json"), "pred.json is not JSON"),
    "no COCO": (lambda f: (f / "pred.json").write_text('{"x": 1}'), "pred.json is not COCO json"),
    "not text": (lambda f: (f / "pred.json").write_bytes(b"\xff\xfe\x00"), "pred.json is not JSON"),
}

PICTURES_WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "colours": (
        lambda f: Image.new("RGB", (36, 24)).save(f / "gt/b.png"),
        "gt/b.png is a colour picture (RGB); a label picture has one number a pixel",
    ),
    "cut": (lambda f: cut(f / "gt/b.png"), "gt/b.png is truncated or damaged"),
    "empty": (lambda f: (f / "gt/b.png").write_bytes(b""), "gt/b.png is not a PNG picture."),
    "photograph": (
        lambda f: save_png(f / "gt/b.png", np.random.default_rng(0).integers(0, 2**16, (200, 300)), "I;16"),
        "gt/b.png holds 39,",
    ),
    "other size": (lambda f: save_png(f / "gt/b.png", TRUTH["b"][:12]), "Image 'b': ground truth is (12, 36), its regions are (24, 36)"),
    "twice": (twice, "gt/a.png and gt/again/a.png are both image 'a'"),
    "tree": (lambda f: (f / "gt/classes.json").write_text('{"classes": [{"id": 0}]}'), "gt/classes.json is not a class tree"),
    "tree parents": (
        lambda f: (f / "gt/classes.json").write_text(TREE.to_json().replace('"parent": 1', '"parent": 9')),
        "gt/classes.json: Class 'cat' (node 2) has parent 9; parents come before their children.",
    ),
}


def check_refused(score: Run, good: Path, change: Callable[[Path], object], sentence: str, *words: str) -> None:
    """After a change of good files the command ends with 65 and one line on standard error, which holds the sentence."""
    change(good)
    errors = score(*words, "--bootstrap", "0", exit_code=65)[1]
    assert sentence in errors
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("what", TABLE_WRONG)
def test_a_table_with_something_wrong(score: Run, good: Path, what: str):
    check_refused(score, good, *TABLE_WRONG[what], "--pred", "pred.parquet", "--gt", "gt", "--metrics", "covering")


@pytest.mark.parametrize("what", COCO_WRONG)
def test_a_coco_file_with_something_wrong(score: Run, good: Path, what: str):
    check_refused(score, good, *COCO_WRONG[what], "--pred", "pred.json", "--gt", "gt.json", "--metrics", "proposals")


@pytest.mark.parametrize("what", PICTURES_WRONG)
def test_pictures_with_something_wrong(score: Run, good: Path, what: str):
    check_refused(score, good, *PICTURES_WRONG[what], "--pred", "pred.parquet", "--gt", "gt", "--metrics", "covering")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("[]", "is no manifest of an artefact."),
        ('{"schema": 2, "files": 3}', "is no manifest of an artefact."),
        ('{"schema": 2, "files": {"a": 1}}', "is no manifest of an artefact."),
        ('{"schema": 2}', "is of schema 2, this version reads"),
        ("[" * 100_000, "is nested too deeply to be a manifest."),
        (
            '{"schema": 2, "files": {}, "truth": [1]}',
            "is not that of a dataset: its 'truth' is [1], expected classes or annotators or instances.",
        ),
    ],
)
def test_a_manifest_that_is_none(score: Run, good: Path, manifest: str, said: str):
    table(good / "data/truth/regions.parquet", {"a": Regions.from_label_map(TRUTH["a"], use_labels=True)})
    (good / "data/manifest.json").write_text(manifest)
    assert said in score("--pred", "pred.parquet", "--gt", "data", exit_code=65)[1]


def test_segments_are_not_classes(score: Run, good: Path):
    (good / "gt/classes.json").unlink()
    save_png(good / "gt/b.png", np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) + 300, "I;16")
    save_png(good / "gt/a.png", np.arange(60 * 60).reshape(60, 60), "I;16")
    said = score("--pred", "pred.parquet", "--gt", "gt", exit_code=65)[1]
    assert "holds more than 2000 different values, so they are segments of single images rather than classes." in said


WORDS: dict[str, tuple[list[str], str]] = {
    "no pred": (["--pred", "nope", "--gt", "gt"], "nope does not exist. Pass a regions.parquet"),
    "no gt": (["--pred", "pred.json", "--gt", "nope"], "nope does not exist."),
    "ending": (["--pred", "gt/a.png", "--gt", "gt"], "gt/a.png is not a file of masks by its ending."),
    "empty folder": (["--pred", "none", "--gt", "gt"], "Folder none holds no masks."),
    "family": (["--pred", "pred.parquet", "--gt", "gt", "--metrics", "coverin"], "Unknown metric 'coverin'. Did you mean 'covering'?"),
    "number": (["--pred", "pred.parquet", "--gt", "gt", "--metrics", "miou"], "'miou' is a number of the metric family 'matching'."),
    "unfit": (
        ["--pred", "pred.parquet", "--gt", "gt", "--metrics", "bsds"],
        "Metric family 'bsds' is computed on ground truth of kind annotators; gt is of kind classes.",
    ),
    "no labels": (
        ["--pred", "pred.parquet", "--gt", "gt", "--metrics", "semantic"],
        "Metric family 'semantic' compares classes over the whole dataset, and the regions of pred.parquet carry no labels.",
    ),
    "kind": (["--pred", "pred.parquet", "--gt", "gt", "--truth", "class"], "Unknown kind of ground truth 'class'. Did you mean 'classes'?"),
    "grid": (["--pred", "pred.parquet", "--gt", "gt", "--grid", "60"], "An evaluation grid is 'full' or height x width in cells"),
    "ignore": (["--pred", "pred.json", "--gt", "gt.json", "--ignore", "3"], "--void 3: only label pictures have such a value"),
    "out": (
        ["--pred", "pred.json", "--gt", "gt.json", "--out", "x.xlsx"],
        "--out x.xlsx: the ending says the format; .csv, .json, .md, .parquet",
    ),
    "one replicate": (["--pred", "pred.json", "--gt", "gt.json", "--bootstrap", "1"], "an interval needs at least 2 replicates"),
    "missing": (["--pred", "pred.json"], "Missing option '--gt'"),
}


@pytest.mark.parametrize("what", WORDS)
def test_wrong_words(score: Run, good: Path, what: str):
    (good / "none").mkdir()
    words, said = WORDS[what]
    assert said in score(*words, exit_code=64)[1]


def test_bsds_files_that_are_broken(score: Run, tmp_path: Path):
    annotators(tmp_path / "gt", {"a": [blocks(1, [1, 2])], "b": [blocks(1, [1, 2]), blocks(2, [1, 2])[:12]]})
    pictures(tmp_path / "pred", {"a": FOUND["a"], "b": FOUND["b"]})
    words = ["--pred", "pred", "--gt", "gt", "--bootstrap", "0"]
    assert "b.mat: annotators drew on pictures of several sizes" in score(*words, exit_code=65)[1]
    (tmp_path / "gt/b.mat").write_bytes(b"x" * 300)
    assert "b.mat is not a BSDS500 ground truth file" in score(*words, exit_code=65)[1]
    assert "which have no classes." in score(*words, "--truth", "classes", exit_code=64)[1]
