"""The gate finds what breaks a contract, and says where."""

import numpy as np
import pyarrow as pa
import pytest

from uss_dagster.artifacts.gate import Report, check_contract, check_expectations, expect, no_nan, sorted_unique, valid_regions
from uss_dagster.artifacts.schemas import REGIONS
from uss_dagster.artifacts.tables import RowsWriter, iterate_regions, region_tables, regions_from_table, regions_to_table
from uss_dagster.regions import Regions, rle

LEAVES = np.repeat(np.repeat(np.array([[2, 2, 3], [4, 4, 4]]), 4, axis=0), 4, axis=1)
TREE = Regions.from_tree(LEAVES, [0, 0, 1, 1, 0], level=[1, 0.5, 0, 0, 0.1], label=[0, 1, 2, 3, 4], source=["", "a", "b", "c", "d"])


def table(**changes) -> pa.Table:
    rows = regions_to_table("img", TREE).to_pylist()
    for change, (row, value) in changes.items():
        rows[row][change] = value
    return pa.Table.from_pylist(rows, schema=REGIONS)


def problems(rows: pa.Table, overlap: bool = False) -> str:
    return " ".join(valid_regions([rows], overlap))


def test_good_regions_pass_and_come_back():
    assert problems(table()) == ""
    back = regions_from_table(table())
    assert (back.masks() == TREE.masks()).all()
    assert back.parent.tolist() == TREE.parent.tolist()
    assert back.label.tolist() == [0, 1, 2, 3, 4]
    assert back.source == TREE.source


def test_a_tree_of_many_regions_passes():
    leaves = np.arange(900).reshape(30, 30) + 1
    assert problems(regions_to_table("many", Regions.from_tree(leaves, [0] * 901))) == ""


MASK = np.zeros((1, 8, 12), bool)
MASK[0, 3:7, 2:5] = True
OUTSIDE = rle.encode(MASK)[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"rle": (2, OUTSIDE), "area": (2, 12), "bbox": (2, [2, 3, 3, 4])},
            "Image img, region 2: 9 of its 12 pixels lie outside its parent 1.",
        ),
        ({"parent": (3, 4), "depth": (3, 2)}, "Image img, region 3: parent is 4, expected -1 or a smaller number than its own."),
        ({"area": (4, 47)}, "region 4: area is 47, its code holds 48 pixels"),
        ({"bbox": (4, [0, 0, 1, 1])}, "region 4: bbox is [0, 0, 1, 1], its code spans [0, 4, 12, 4]."),
        ({"depth": (3, 1)}, "region 3: depth is 1, its parent 1 says otherwise."),
        ({"rle": (1, rle.encode(np.ones((1, 4, 4), bool))[0])}, "its code covers 16 pixels, the image has 8×12 = 96."),
        ({"rle": (1, b"\x01")}, "no COCO writer produces"),
        ({"region": (1, 7)}, "region numbers are not 0..4 in order."),
    ],
)
def test_broken_regions_are_named(changes, said):
    assert said in problems(table(**changes))


def test_siblings_may_share_pixels_only_when_declared():
    rows = table(rle=(3, regions_to_table("img", TREE)["rle"][2].as_py()), area=(3, 32), bbox=(3, [0, 0, 8, 4]))
    assert "under region 1 share 32 pixels; siblings must be disjoint." in problems(rows)
    assert problems(rows, overlap=True) == ""


def test_nan_is_found_with_its_row():
    rows = table(score=(3, float("nan")))
    assert list(no_nan(rows, ["score"])) == [
        "score is nan at {'image_id': 'img', 'region': 3, 'parent': 1, 'depth': 2, 'area': 16, 'bbox': [8, 0, 4, 4]}."
    ]


def test_order_is_checked():
    rows = pa.table({"image_id": ["a", "c", "b"], "n": [1, 2, 3]})
    assert list(sorted_unique(rows, ["image_id"])) == ["Row {'image_id': 'b'} follows {'image_id': 'c'}."]


def test_great_expectations_verdicts_are_kept_in_order():
    frame = table().select(["area", "region"]).to_pandas()
    report = Report("test")
    check_contract(report, "first", [])
    check_expectations(
        report,
        frame,
        [
            expect("expect_column_values_to_be_between", column="area", min_value=40),
            expect("expect_column_values_to_be_between", column="area", min_value=1),
            expect("expect_column_values_to_not_be_null", column="region"),
        ],
    )
    assert [r["success"] for r in report.checks] == [True, False, True, True]
    assert not report.success
    assert "values break it, such as" in report.reasons()[0]


def test_a_missing_column_is_a_verdict_not_a_crash():
    report = Report("test")
    check_expectations(report, table().select(["area"]).to_pandas(), [expect("expect_column_values_to_not_be_null", column="nothing")])
    assert not report.success


def test_overlapping_and_nested_rows_both_come_back_as_they_were():
    rng = np.random.default_rng(3)
    masks = rng.random((6, 9, 7)) < 0.5
    overlapping = Regions.from_masks(masks)
    assert (regions_from_table(regions_to_table("x", overlapping)).masks() == masks).all()
    holes = Regions.from_tree(np.where(LEAVES == 3, 1, LEAVES), [0, 0, 1, 1, 0]).pruned()  # a parent with pixels of its own
    assert (regions_from_table(regions_to_table("x", holes)).masks() == holes.masks()).all()
    forest = Regions.from_tree(np.where(LEAVES == 4, -1, LEAVES), [-1, -1, 1, 1]).pruned()
    assert (regions_from_table(regions_to_table("x", forest)).masks() == forest.masks()).all()


def test_a_file_of_regions_is_read_image_by_image_and_by_name(tmp_path):
    path = tmp_path / "regions.parquet"
    writer = RowsWriter(path, group_rows=8)  # two images a row group
    for name in "abcde":
        writer.add(regions_to_table(name, TREE))
    writer.close()
    assert [name for name, _ in iterate_regions([path])] == list("abcde")
    assert [t.num_rows for t in region_tables([path])] == [10, 10, 5]
    assert [(name, len(r)) for name, r in iterate_regions([path], {"b", "d", "z"})] == [("b", 5), ("d", 5)]
    assert list(iterate_regions([path], {"z"})) == []
