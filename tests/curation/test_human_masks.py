"""The UnSAM+ merge: the bound, crowds, the hierarchy of both kinds; on real COCO images where they are there."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from curation_cases import boxes, picture
from PIL import Image

from uss_dagster.artifacts.tables import RowsWriter, regions_to_table
from uss_dagster.curation.filters import filter_masks, mask_value
from uss_dagster.curation.human import CocoLabels, HumanMasks, TruthLabels, stays_beside_human, with_human
from uss_dagster.curation.mask_pool import MaskFamily, MaskPoolParams, merge_families, nest, pool_masks
from uss_dagster.curation.measures import boundary_connectivity
from uss_dagster.curation.overlaps import best_iou, parents_by_containment
from uss_dagster.curation.params import CurateParams
from uss_dagster.curation.tables import MASKS, MEASURES
from uss_dagster.errors import UsageError
from uss_dagster.regions import ClassTree, Regions, rle

SHAPE = (100, 100)


def codes(*masks):
    return tuple(rle.encode(np.stack(masks)))


def test_the_bound_belongs_to_what_stays():
    human = np.zeros(SHAPE, bool)
    human[:50] = True  # 5000 pixels
    part, more, apart = (np.zeros(SHAPE, bool) for _ in range(3))
    part[:10, :10] = True  # IoU 100 / 5000 = 0.02
    more[:10, :10], more[10, 0] = True, True  # 101 / 5000
    apart[60:] = True
    found = codes(part, more, apart)
    assert best_iou(found, codes(human), SHAPE).tolist() == [0.02, 0.0202, 0.0]
    assert stays_beside_human(found, codes(human), SHAPE).tolist() == [True, False, True]
    assert stays_beside_human(found, (), SHAPE).all(), "without human masks all stay"


def test_the_oracle_of_the_golden_file():
    golden = np.load(Path(__file__).parents[1] / "golden" / "unsam_golden.npz", allow_pickle=False)
    pseudo, human = rle.encode(golden["plus_pseudo"]), rle.encode(golden["plus_gt"])
    assert best_iou(pseudo, human, (60, 80)) == pytest.approx(golden["plus_iou"].max(axis=1))
    assert np.flatnonzero(stays_beside_human(pseudo, human, (60, 80), 0.02)).tolist() == golden["plus_keep_tau002"].tolist()


def test_both_kinds_stand_in_one_hierarchy():
    shape = (48, 64)
    found = pool_masks("a", picture(0), [MaskFamily("m", boxes(shape, (0, 0, 48, 40), (2, 2, 5, 5)))], MaskPoolParams(refine=False))
    human = HumanMasks(tuple(boxes(shape, (0, 0, 20, 20), (30, 50, 10, 10)).rles()), (7, 3), (False, True))
    rows = with_human("a", found, human, shape)
    assert rows["area"].to_pylist() == [1920, 400, 100, 25]
    assert rows["entry"].to_pylist() == ["m", "human", "human", "m"]
    assert rows["parent"].to_pylist() == [-1, 0, -1, 1]
    assert rows["source"].to_pylist()[1:3] == ["gt", "crowd"]
    assert rows["label"].to_pylist()[1:3] == [7, 3]
    assert parents_by_containment(rows["rle"].to_pylist(), shape).tolist() == [-1, 0, -1, 1]


def test_children_of_what_is_dropped_move_up():
    shape = (48, 64)
    regions = boxes(shape, (0, 0, 48, 40), (0, 0, 20, 20), (2, 2, 9, 9))
    rows = pool_masks("a", picture(0), [MaskFamily("m", regions)], MaskPoolParams(refine=False))
    human = HumanMasks(tuple(boxes(shape, (0, 0, 20, 21)).rles()), (-1,), (False,))
    params = CurateParams(tau=0.3, max_area=0.99)
    kept, dropped = filter_masks(rows, human, shape, params)
    assert dropped == {"overlaps a human mask": 1}
    assert kept["parent"].to_pylist() == [-1, 0]
    assert kept["region"].to_pylist() == [0, 1]
    assert kept["depth"].to_pylist() == [0, 1]


def test_of_too_many_masks_things_of_both_quality_and_score_stay():
    shape = (48, 64)
    places = [(5, 5, 40, 9), (5, 15, 40, 8), (0, 24, 40, 7), (5, 33, 40, 6), (5, 43, 40, 5)]
    rows = pool_masks("a", picture(0), [MaskFamily("m", boxes(shape, *places))], MaskPoolParams(refine=False))
    nothing = float("nan")
    values = {"quality": [0.9, 0.5, 0.6, nothing, 0.5], "score": [0.1, 0.4, 0.3, 0.4, nothing]}
    for name, told in values.items():
        rows = rows.set_column(rows.column_names.index(name), MASKS.field(name), pa.array(told, pa.float32(), from_pandas=False))
    rows = rows.set_column(rows.column_names.index("entry"), MASKS.field("entry"), pa.array(["m", "m", "m", "m", "unscored"]))
    connected = boundary_connectivity(rows["rle"].to_pylist(), shape)
    held = np.array([rle.decode(code, *shape) for code in rows["rle"].to_pylist()])
    inner = held.copy()
    inner[:, [0, -1]] = inner[:, :, [0, -1]] = False
    pixels = held.sum(axis=(1, 2))
    assert connected == pytest.approx((pixels - inner.sum(axis=(1, 2))) / np.sqrt(pixels))
    assert (connected > 0).tolist() == [False, False, True, False, False]
    assert mask_value(rows, shape) == pytest.approx([0.225, 0.5, 0.45 * np.exp(-(connected[2] ** 2) / 2), 0, 0.5])
    kept, dropped = filter_masks(rows, HumanMasks(), shape, CurateParams(most=3))
    assert dropped == {"beyond the number wanted": 2}
    assert kept["area"].to_pylist() == [rows["area"][i].as_py() for i in (1, 2, 4)]
    assert not len(boundary_connectivity([], shape))


def test_ground_truth_gives_objects_and_parts_but_no_background(tmp_path):
    classes = ClassTree.from_nested({"cat": {"head": "foreground", "body": "foreground"}, "wall": "background"})
    (tmp_path / "classes.json").write_text(classes.to_json())
    leaf = np.full((10, 12), 3)
    leaf[2:6, 2:5], leaf[2:6, 5:9] = 1, 2
    tree = Regions.from_tree(leaf, [-1, 0, 0, 0], label=[0, 2, 3, 4])
    writer = RowsWriter(tmp_path / "regions.parquet")
    for image_id in ("b", "d"):
        writer.add(regions_to_table(image_id, tree))
    writer.close()
    labels = TruthLabels(tmp_path, "classes")
    assert [len(labels(i, (10, 12)).codes) for i in ("a", "b", "c", "d", "e")] == [0, 2, 0, 2, 0]
    assert set(TruthLabels(tmp_path, "classes")("d", (10, 12)).labels) == {2, 3}
    with pytest.raises(UsageError, match="'annotators' holds no masks"):
        TruthLabels(tmp_path, "annotators")


def test_masks_of_a_coco_file(tmp_path):
    path = tmp_path / "coco.json"
    images = [{"id": 4, "file_name": "x/a.jpg", "height": 10, "width": 10}, {"id": 9, "file_name": "b.jpg", "height": 10, "width": 10}]
    square = [1, 1, 5, 1, 5, 5, 1, 5]
    marks = [
        {"id": 1, "image_id": 4, "category_id": 2, "segmentation": [square], "iscrowd": 0},
        {"id": 2, "image_id": 4, "category_id": 2, "segmentation": {"size": [10, 10], "counts": [0, 30, 70]}, "iscrowd": 1},
    ]
    path.write_text(json.dumps({"images": images, "annotations": marks}))
    labels = CocoLabels(path)
    assert labels("a", (10, 10)).crowd == (False, True)
    assert labels("b", (10, 10)).codes == labels("stranger", (5, 5)).codes == ()


def coco_folder() -> Path:
    mirror = os.environ.get("USS_MIRROR")
    folder = Path(mirror or "/nowhere") / "coco_val2017"
    if not folder.is_dir():
        pytest.skip("USS_MIRROR names no folder with coco_val2017: the merge is not tried on real annotations")
    return folder


def found_masks(name: str, image: np.ndarray) -> pa.Table:
    """Segments of a reduced picture, and boxes of a pyramid: masks of all sizes, on objects and off them."""
    from uss_dagster.datasets.base import Sample
    from uss_dagster.methods import felzenszwalb

    height, width = image.shape[:2]
    segments = felzenszwalb.segment(Sample(name, image), felzenszwalb.Params(scales=2, long_side=160))
    places = [
        (height * i // n, width * j // n, height // n, width // n)
        for n in (1, 2, 4, 8, 16)
        for i in range(n)
        for j in range(n)
        if (i + j) % 2 == 0
    ]
    regions = nested_by_area(merge_families([segments, boxes((height, width), *places)]))
    rows = regions_to_table(name, regions)
    nothing = pa.array(np.full(rows.num_rows, np.nan, np.float32), from_pandas=False)
    return pa.table([*rows.columns, pa.array(["f"] * rows.num_rows), *[nothing] * len(MEASURES)], schema=MASKS)


def nested_by_area(regions: Regions) -> Regions:
    order = np.argsort(-regions.area, kind="stable")
    return nest(Regions(regions.atoms, regions.members[order]))


@pytest.mark.slow
def test_no_found_mask_of_the_coco_images_overlaps_a_human_one():
    folder = coco_folder()
    labels = CocoLabels(next(folder.glob("annotations/instances_*.json")))
    images = found = kept = drawn = 0
    worst = 0.0
    for path in sorted((folder / "val2017").glob("*.jpg")):
        image = np.asarray(Image.open(path).convert("RGB"))
        shape = image.shape[:2]
        rows, human = found_masks(path.stem, image), labels(path.stem, shape)
        chosen, _ = filter_masks(rows, human, shape, CurateParams())
        merged = with_human(path.stem, chosen, human, shape)
        people = [rle.decode(c, *shape) for c in human.codes]
        for mask in (rle.decode(c, *shape) for c in chosen["rle"].to_pylist()):
            for other in people:
                shared = np.count_nonzero(mask & other)
                worst = max(worst, shared / (np.count_nonzero(mask) + np.count_nonzero(other) - shared))
        assert merged.num_rows == chosen.num_rows + len(people)
        images, found, kept, drawn = images + 1, found + rows.num_rows, kept + chosen.num_rows, drawn + len(people)
    print(f"{images} images, {found} found masks, {kept} kept beside {drawn} human ones, greatest IoU {worst}")
    assert images == 103
    assert 0 < kept < found
    assert 0 < worst <= 0.02
